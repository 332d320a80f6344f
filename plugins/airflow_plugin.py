"""What Nightshift adds to Airflow."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from pipelines.environment import PAGES, PAGES_ADDRESS, REPORTS_ADDRESS

_ROOT = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
"""Path below which this Airflow is, as its own pages know it; empty: it has its host for itself."""


def _in_navigation(page: str) -> dict[str, Any]:
    """A page inside Airflow's own: the first in the bar itself, the others in its menu."""
    return {
        "name": PAGES[page],
        "href": f"{_ROOT}{PAGES_ADDRESS}/{page}",
        "destination": "nav",
        "url_route": f"nightshift-{page}",
        "nav_top_level": page == "nights",
    }


class NightshiftPlugin(AirflowPlugin):
    """The data-quality reports and our pages, for people who are signed in."""

    name = "nightshift"
    external_views: ClassVar = [
        *map(_in_navigation, PAGES),
        {
            "name": "Nights",
            # Airflow puts in the DAG that is looked at.
            "href": f"{_ROOT}{PAGES_ADDRESS}/{{DAG_ID}}/nights",
            "destination": "dag",
            "url_route": "nightshift-dag-nights",
        },
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """What the API server shows; every task imports this module and needs none of it."""
        from plugins import report_pages
        from plugins.pages import app

        return [
            {
                "name": "Data quality reports",
                "app": report_pages.make_app(),
                "url_prefix": REPORTS_ADDRESS,
            },
            {"name": "Nightshift pages", "app": app.make_app(), "url_prefix": PAGES_ADDRESS},
        ]
