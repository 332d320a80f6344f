"""Tells people of a pipeline whose declaration cannot be read.

Of such a pipeline no night begins, and nothing else can tell that: Airflow creates no run of a DAG
whose file cannot be imported, a run that is under way loses its tasks and their callbacks, and the
pipeline's deadline goes with its declaration. So this looks each day at 10:00 (UTC) at all files in
`pipelines/`, and depends on none of them.

* **Told is** where the error is and what it says (`declaration_unreadable`), each day anew until it
  is mended: by every channel that is set, as nobody knows which the pipeline declares.
* **After a pause** of the scheduler it looks at once.

The same by hand, or by a scheduler of your own: `nightshift announce --event
declaration_unreadable`. `nightshift doctor` tells it too.
"""

from __future__ import annotations

from airflow.sdk import DAG

from dags.tasks import DeclarationsOperator, declarations_arguments

with DAG(doc_md=__doc__, **declarations_arguments()):
    DeclarationsOperator()
