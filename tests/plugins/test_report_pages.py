"""Reports over HTTP: for who is signed in, and no file but a report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jwt
import pytest
from airflow.api_fastapi.core_api import security
from airflow.plugins_manager import _load_plugins_from_plugin_directory
from fastapi import FastAPI
from fastapi.testclient import TestClient
from upath.implementations.cloud import S3Path

from pipelines.environment import PAGES_ADDRESS, REPORTS_ADDRESS, ROOT
from plugins.report_pages import file_of, make_app

RUN = "flights/2013-03-01..2013-03-01/manual__2013-03-02T08:30:00+00:00"
SECRET = "what nobody may read"


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    folder = tmp_path / "reports"
    for name in (f"{RUN}/index.html", f"{RUN}/weather/index.html"):
        put(folder / name, f"<p>{name}</p>")
    put(tmp_path / "secrets" / "admin.html", SECRET)
    put(folder / "admin.html", SECRET)
    put(folder / RUN / "verdict.json", SECRET)
    put(folder / RUN / ".index.html", SECRET)
    put(folder / "weather" / "index.html", SECRET)
    (folder / RUN / "link.html").symlink_to(tmp_path / "secrets" / "admin.html")
    return folder


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("path", [f"{RUN}/index.html", f"{RUN}/", f"{RUN}/weather/index.html"])
def test_a_page_of_a_report_is_found(reports: Path, path: str) -> None:
    pipeline, _, below = path.partition("/")
    found = file_of(reports, pipeline, below)
    assert found is not None
    assert found.read_text().startswith(f"<p>{RUN}")


@pytest.mark.parametrize(
    ("pipeline", "path"),
    [
        ("flights", "../../secrets/admin.html"),
        ("flights", "/etc/passwd"),
        ("flights", "../weather/index.html"),
        ("flights", "../admin.html"),
        ("..", "secrets/admin.html"),
        (".", "admin.html"),
        ("", "admin.html"),
        ("flights/../../secrets", "admin.html"),
        ("flights", f"{RUN.partition('/')[2]}/link.html"),
        ("flights", f"{RUN.partition('/')[2]}/verdict.json"),
        ("flights", f"{RUN.partition('/')[2]}/.index.html"),
        ("flights", f"{RUN.partition('/')[2]}"),
        ("flights", f"{RUN.partition('/')[2]}/index.html\0"),
        ("flights", "x" * 5000 + ".html"),
        ("nobody", "index.html"),
    ],
)
def test_nothing_else_is_found(reports: Path, pipeline: str, path: str) -> None:
    assert file_of(reports, pipeline, path) is None


class Manager:
    """Knows one token; who has it may see one DAG."""

    async def get_user_from_token(self, token: str) -> str:
        if token != "right":
            raise jwt.InvalidTokenError
        return "ann"

    def is_authorized_dag(self, *, details: Any, user: str, **_: Any) -> bool:
        return (details.id, user) == ("flights", "ann")


@pytest.fixture
def client(reports: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(security, "get_auth_manager", Manager)
    monkeypatch.setattr(security.DagModel, "get_team_name", lambda dag_id: None)
    whole = FastAPI()
    whole.mount(REPORTS_ADDRESS, make_app())
    with TestClient(whole, follow_redirects=False) as client:
        yield client


PAGE = f"{REPORTS_ADDRESS}/{RUN}/index.html"


def test_who_is_signed_in_sees_a_report_that_may_run_nothing(client: TestClient) -> None:
    for how in ({"headers": {"Authorization": "Bearer right"}}, {"cookies": {"_token": "right"}}):
        answer = client.request("GET", PAGE, **how)
        assert (answer.status_code, answer.text) == (200, f"<p>{RUN}/index.html</p>")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert not any(part.startswith("script-src") for part in policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private")


def test_a_browser_that_is_not_signed_in_is_led_to_the_login_and_back(client: TestClient) -> None:
    answer = client.get(PAGE)
    assert answer.status_code == 303
    login, _, address = answer.headers["location"].partition("?next=")
    assert login == "/api/v2/auth/login"
    assert unquote(address).endswith(PAGE)
    assert RUN not in answer.text


def test_a_browser_is_led_back_to_the_host_that_it_asked(client: TestClient) -> None:
    # As behind a proxy, which asks by the name of the machine and without TLS.
    answer = client.get(f"{PAGE}?a=1&b=2", headers={"Host": "inner:8080"})
    _, _, address = answer.headers["location"].partition("?next=")
    assert unquote(address) == f"{PAGE}?a=1&b=2"


def test_a_wrong_token_is_refused(client: TestClient) -> None:
    wrong = client.get(PAGE, headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, RUN in wrong.text) == (403, False)


def test_a_browser_whose_cookie_is_of_nobody_is_led_to_the_login_and_back(
    client: TestClient,
) -> None:
    # Such as that of another home.
    answer = client.get(PAGE, cookies={"_token": "wrong"})
    assert answer.status_code == 303
    login, _, address = answer.headers["location"].partition("?next=")
    assert (login, unquote(address)) == ("/api/v2/auth/login", PAGE)
    # Whom the cookie names may not see this one.
    other = f"{REPORTS_ADDRESS}/weather/index.html"
    assert client.get(other, cookies={"_token": "right"}).status_code == 403


def test_an_expired_token_is_refused_and_not_led_anywhere(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expired(self: Manager, token: str) -> str:
        raise jwt.ExpiredSignatureError

    monkeypatch.setattr(Manager, "get_user_from_token", expired)
    assert client.get(PAGE, headers={"Authorization": "Bearer right"}).status_code == 401
    assert client.get(PAGE, cookies={"_token": "right"}).status_code == 303


def test_who_may_not_see_the_dag_sees_no_report_of_it(client: TestClient) -> None:
    page = f"{REPORTS_ADDRESS}/weather/index.html"
    answer = client.get(page, headers={"Authorization": "Bearer right"})
    assert (answer.status_code, SECRET in answer.text) == (403, False)


@pytest.mark.parametrize("path", ["", "/", "/flights/", "/flights/no.html", "/openapi.json"])
def test_what_is_no_report_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(f"{REPORTS_ADDRESS}{path}", headers={"Authorization": "Bearer right"})
    assert answer.status_code in (307, 403, 404)
    assert SECRET not in answer.text


def test_a_report_that_is_gone_is_told_in_words(client: TestClient) -> None:
    gone = f"{REPORTS_ADDRESS}/flights/gone/index.html"
    answer = client.get(gone, headers={"Authorization": "Bearer right"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"].startswith("private")
    assert answer.text.startswith("This report is gone")
    assert "older than 30 days (NIGHTSHIFT_RETENTION_DAYS)" in answer.text
    assert "ops.check_results" in answer.text


def test_a_store_that_is_away_is_told_as_that_and_not_as_a_report_that_is_gone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import EndpointConnectionError

    store = "http://127.0.0.1:9"
    monkeypatch.setenv("NIGHTSHIFT_REPORTS", "s3://nobody/reports")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setattr(S3Path, "is_file", lambda self: False)

    def away(self: S3Path) -> bytes:
        raise EndpointConnectionError(endpoint_url=store)

    monkeypatch.setattr(S3Path, "read_bytes", away)
    answer = client.get(PAGE, headers={"Authorization": "Bearer right"})
    assert answer.status_code == 503
    assert answer.text.startswith(f"The object store at {store} could not be read")


def test_airflow_finds_the_plugin_and_no_error() -> None:
    plugins, errors = _load_plugins_from_plugin_directory(str(ROOT / "plugins"))
    assert errors == {}
    (plugin,) = plugins
    served = [app["url_prefix"] for app in plugin.fastapi_apps]
    assert served == [REPORTS_ADDRESS, PAGES_ADDRESS]


@pytest.mark.parametrize(
    ("address", "root"),
    [("http://127.0.0.1:8080", ""), ("https://example.org/airflow/", "/airflow")],
)
def test_the_bar_leads_to_our_pages_also_where_airflow_shares_its_host(
    address: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
    (plugin,), _ = _load_plugins_from_plugin_directory(str(ROOT / "plugins"))
    # Airflow's UI asks for it as it stands.
    led = [one["href"] for one in plugin.external_views]
    assert led
    assert all(one.startswith(f"{root}{PAGES_ADDRESS}/") for one in led)


def test_a_task_that_loads_the_plugin_imports_no_web_framework() -> None:
    script = (
        "import runpy, sys, airflow.plugins_manager; before = set(sys.modules); "
        "runpy.run_path('plugins/airflow_plugin.py'); "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = ended.stdout.split()
    assert "pipelines.environment" in imported
    assert not [name for name in imported if name.startswith(("fastapi", "airflow"))]
