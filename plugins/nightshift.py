"""What Nightshift adds to Airflow."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from pipelines.environment import PAGES_ADDRESS, REPORTS_ADDRESS


def view(page: str, title: str, **more: Any) -> dict[str, Any]:
    """A page inside Airflow's own."""
    # Airflow puts the DAG of the page in.
    dag = "{DAG_ID}/" if more.get("destination") == "dag" else ""
    place = more.pop("destination", "nav")
    return {
        "name": title,
        "href": f"{PAGES_ADDRESS}/{dag}{page}",
        "destination": place,
        "url_route": f"nightshift-{page}" if place == "nav" else f"nightshift-{place}-{page}",
        **more,
    }


class NightshiftPlugin(AirflowPlugin):
    """The data-quality reports and our pages, for people who are signed in."""

    name = "nightshift"
    external_views: ClassVar = [
        view("nights", "Nights", nav_top_level=True),
        view("nights", "Nights", destination="dag"),
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
