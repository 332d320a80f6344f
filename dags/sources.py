"""Drops the files of an example as its source would: the airline, the weather service.

The recorded days of an example are replayed, one for each day of today's calendar: at 04:00 in New
York this drops the files of the day that has ended, half an hour before the night that reads them.

* **At first** it drops the whole history too, so that the first night has something to learn from.
* **After a pause** it drops what is missing. A file that is there stays as it is, also one that you
  have changed.
* **See a late file**: *Trigger* with the next recorded day as *Up to*, a feed as *Late*, and after
  how many minutes it comes. Then *Trigger* the example with that day as *Night*: it waits, `ingest`
  is *deferred*, and goes on when the file is there.
* **After the last recorded day** there is nothing new to drop.

The same by hand: `nightshift land flights`, or for one day `nightshift land flights --date D`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.drops import SourceOperator, source_arguments
from pipelines import catalog

for _pipeline in catalog.readable():
    if _pipeline.replay:
        with DAG(doc_md=__doc__, **source_arguments(_pipeline, _pipeline.replay)):
            SourceOperator(pipeline=_pipeline)
