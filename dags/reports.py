"""Where the data-quality report of a stage is found by a person who is signed in to Airflow."""

from __future__ import annotations

from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.types import TaskInstanceKey

from pipelines.environment import REPORTS_ADDRESS, Environment
from pipelines.places import below


class ReportLink(BaseOperatorLink):
    """Leads from a task to the report that its stage has written."""

    name = "Data quality report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address; '' where the stage has written none.

        Airflow asks in the task's own process, once it has ended, and keeps the answer.
        """
        return str(getattr(operator, "report_url", ""))


def url_of(report: str) -> str:
    """The address at which Airflow's API server shows a report.

    Args:
        report: Its index, in the folder of reports.
    """
    path = below(report, Environment.read().reports)
    assert path is not None, "a stage writes its report there"
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}{REPORTS_ADDRESS}/{quote(path)}"
