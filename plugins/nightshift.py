"""What Nightshift adds to Airflow."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from pipelines.environment import REPORTS_ADDRESS


class NightshiftPlugin(AirflowPlugin):
    """The data-quality reports, for people who are signed in."""

    name = "nightshift"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """What the API server shows; every task imports this module and needs none of it."""
        from plugins.report_pages import make_app

        return [{"name": "Data quality reports", "app": make_app(), "url_prefix": REPORTS_ADDRESS}]
