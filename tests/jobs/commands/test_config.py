"""Every setting is shown with where it comes from, and no secret is."""

from __future__ import annotations

import pytest

from jobs.commands.config import config
from pipelines.environment import Environment
from pipelines.redaction import without_secrets


def rows(variables: dict[str, str]) -> dict[str, tuple[object, object]]:
    _, found = config(Environment.read(variables), variables)
    return {str(variable): (value, origin) for variable, value, origin, _ in found}


def test_every_setting_is_shown_with_where_it_comes_from() -> None:
    shown = rows({"NIGHTSHIFT_HOME": "/a", "NIGHTSHIFT_RANKS": "3", "NIGHTSHIFT_LAKE": ""})
    assert list(shown) == [one.variable for one in Environment.settings().values()]
    assert shown["NIGHTSHIFT_HOME"] == ("/a", "variable")
    assert shown["NIGHTSHIFT_LAKE"] == ("/a/lake", "default")
    assert shown["NIGHTSHIFT_RANKS"] == ("3", "variable")
    assert shown["SPARK_REMOTE"] == (None, "default")


def test_a_secret_is_only_said_to_be_set() -> None:
    hook = "https://chat.example/hook/abc"
    assert rows({})["NIGHTSHIFT_WEBHOOK_URL"] == ("not set", "default")
    assert rows({"NIGHTSHIFT_WEBHOOK_URL": hook})["NIGHTSHIFT_WEBHOOK_URL"] == ("set", "variable")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/mlflow", "postgresql://ann:***@db:5432/mlflow"),
        ("http://ann:p@ss@db/x", "http://ann:***@db/x"),
        ("http://:only@db/x", "http://:***@db/x"),
        ("http://ann:a/b@db/x", "http://ann:***@db/x"),
        ("s3a://ann:s3cret@bucket/lake", "s3a://ann:***@bucket/lake"),
        ("sc://host:15002/;use_ssl=true;token=abc", "sc://host:15002/;use_ssl=true;token=***"),
        ("sc://host/;token=a?b#c", "sc://host/;token=***"),
        ("https://a/b?api_key=k&x=1", "https://a/b?api_key=***&x=1"),
        ("https://a/b?sv=2&sig=k", "https://a/b?sv=2&sig=***"),
        ("s3a://bucket/lake", "s3a://bucket/lake"),
        ("sqlite:////home/a:b@c/mlflow.db", "sqlite:////home/a:b@c/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_passwords(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    # A setting that takes any text.
    assert rows({"NIGHTSHIFT_EMAIL_TO": address})["NIGHTSHIFT_EMAIL_TO"] == (shown, "variable")


def test_every_address_is_shown_without_its_secrets() -> None:
    given = {
        "NIGHTSHIFT_LAKE": "s3://bucket/lake",
        "SPARK_REMOTE": "sc://host:15002/;token=s3cr3t;use_ssl=true",
        "MLFLOW_TRACKING_URI": "https://ann:s3cr3t@mlflow.example",
        "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/s3cr3t",
    }
    shown = rows(given)
    assert "s3cr3t" not in str(shown)
    assert shown["SPARK_REMOTE"][0] == "sc://host:15002/;token=***;use_ssl=true"
    assert shown["NIGHTSHIFT_LAKE"][0] == "s3://bucket/lake"
