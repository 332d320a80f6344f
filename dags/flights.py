"""Which of tomorrow's flights will be late?

Every night at 04:30 in New York this lands the day that has ended, proves its data good, brings the
features up to date, trains a candidate, lets it serve only if it beats the model that serves, and
scores the flights of tomorrow into `flights.predictions`.

* **Run a night**: *Trigger*, and choose its day as *Night*. Without a day it runs the one that
  yesterday stands for: the recorded days are replayed, one each day, from the day on which this
  home was first started. Its files are dropped by `flights_source` at 04:00.
* **Load many days** in one pass: *Trigger* with *From* and *To*. The tables are the same as after
  as many nights.
* **Run many nights**: *Backfill*. Its dates are the days processed. *Max Active Runs* may be any
  number: a night builds on those before it, so they take turns, and one that is current is over at
  once.
* **Run again**: *Clear*, or trigger the same day. A rerun changes no published row.

A stage that fails is retried; a stage whose data or model was refused is not, because it would be
refused again: its log says why and where the report is. After `train` or `evaluate` has failed the
night goes on with the model that serves, and `outcome` makes the run fail. A file that has not
landed yet is waited for: `ingest` is *deferred* and goes on by itself. The first task, `plan`,
tells what will be done and why; where all is current the night ends there. The recorded days end on
2013-12-31.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.tasks import dag_arguments, night
from pipelines.flights import PIPELINE

with DAG(doc_md=__doc__, **dag_arguments(PIPELINE)):
    night(PIPELINE)
