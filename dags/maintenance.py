"""Deletes what is old and what nobody needs any more.

Every Sunday at noon (UTC) this runs `nightshift maintain`, over all pipelines:

* files of tables that no version in use names: refused and abandoned stagings, rows replaced long
  ago. Whatever a registered model was trained on, or a prediction was made from, stays readable,
  and so does every prediction that was ever published;
* reports, logs, and what failed trainings have left;
* old rows of Airflow's own database.

Old is what was last needed `NIGHTSHIFT_RETENTION_DAYS` ago (30). Of a pipeline of which a stage
runs it waits for that, *deferred*, once the others are clean, and a stage waits for it: nothing is
disturbed. To see what would go: `nightshift maintain
--dry-run`. *Trigger* runs it now; the log of its task has a line for each kind of things.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.tasks import MaintenanceOperator, maintenance_arguments

with DAG(doc_md=__doc__, **maintenance_arguments()):
    MaintenanceOperator()
