"""Where a person who is signed in to the platform's own Airflow sees a run, a report or a page."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from jobs.services.processes import LOOPBACK
from pipelines.environment import PAGES_ADDRESS, REPORTS_ADDRESS, Environment
from pipelines.places import below


def of_airflow(environment: Environment) -> str:
    """The address of its UI, for people."""
    return environment.airflow_url or of_api(environment)


def of_api(environment: Environment) -> str:
    """The address of its API, for the programs of this machine."""
    elsewhere = None if environment.runs("airflow-api") else environment.airflow_api
    return elsewhere or f"http://{LOOPBACK}:{environment.airflow_port}"


def of_run(airflow: str, dag: str, run_id: str) -> str:
    """The page of a run of a DAG in the Airflow at that address."""
    return f"{airflow}/dags/{quote(dag)}/runs/{quote(run_id)}"


def of_page(environment: Environment, page: str, pipeline: str | None = None) -> str:
    """One of `PAGES`, of a pipeline or of the first that the person may see."""
    below = f"/{quote(pipeline)}" if pipeline else ""
    return f"{of_airflow(environment)}{PAGES_ADDRESS}{below}/{page}"


def of_model(environment: Environment, pipeline: str, version: str) -> str | None:
    """A version of a model in MLflow; None: where a person sees it there is not known.

    Our own MLflow listens on loopback: who sees Airflow from another machine has no way there.
    """
    server = urlsplit(environment.mlflow_uri)
    if server.scheme in ("http", "https"):
        # Without a login that may stand in it.
        host = server.netloc.rpartition("@")[2]
        mlflow = f"{server.scheme}://{host}{server.path.rstrip('/')}"
    elif environment.keeps_models and _is_seen_here(environment):
        mlflow = f"http://{LOOPBACK}:{environment.mlflow_port}"
    else:
        return None
    return f"{mlflow}/#/models/{quote(pipeline)}/versions/{quote(version)}"


def _is_seen_here(environment: Environment) -> bool:
    """Whether Airflow is for the people of this machine alone, and MLflow is up here too."""
    is_local = environment.airflow_url is None and environment.airflow_host == LOOPBACK
    return is_local and environment.runs("mlflow")


def of_report(environment: Environment, report: str) -> str | None:
    """A data-quality report, given the path of its index; None: it is not in the home."""
    path = below(report, environment.reports)
    if path is None:
        return None
    return f"{of_airflow(environment)}{REPORTS_ADDRESS}/{quote(path)}"
