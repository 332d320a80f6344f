"""Tells people when tomorrow's predictions are not there by the time that was promised.

A pipeline declares by when its predictions are needed (`predictions_by`, a time of its local day).
At that time this looks whether those of the last night are published; if not, the pipeline's people
are told (`predictions_late`): how far the night has come, why, and where to see it.

* **Also of a night that never began**: this DAG waits for no other. After a pause of the scheduler
  it looks at once. Of a declaration that cannot be read, which takes this DAG along, `declarations`
  tells.
* **Told once** for each night. When the night is done after all, people are told that too
  (`recovered`).
* **No alarm for a while**: pause this DAG along with the pipeline's.

The same by hand, or by a scheduler that watches this one:
`nightshift notify flights --date D --run-id watch --event predictions_late`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.deadlines import DeadlineOperator, deadline_arguments
from pipelines import catalog

for _pipeline in catalog.readable():
    if _pipeline.predictions_by:
        with DAG(doc_md=__doc__, **deadline_arguments(_pipeline, _pipeline.predictions_by)):
            DeadlineOperator(pipeline=_pipeline)
