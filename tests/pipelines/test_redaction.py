"""No text that people read holds a secret of the settings, however a library quotes it."""

from __future__ import annotations

import pytest

from pipelines.redaction import redacted

SETTINGS = {
    "SPARK_REMOTE": "sc://cluster:15002/;use_ssl=true;token=SEC%3DRET",
    "MLFLOW_TRACKING_URI": "postgresql://ann:s3cret@db/mlflow",
    "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/hook/abc",
    "NIGHTSHIFT_WAREHOUSE_URL": "postgresql://bea:w%40rehouse@db:5432/shop",
}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Cannot reach 'sc://cluster:15002/;use_ssl=true;token=SEC%3DRET'.", ""),
        ("Parameter 'token=SEC=RET' should be a pair.", "Parameter 'token=***' should be a pair."),
        ("Bearer SEC%3DRET was not taken", "Bearer *** was not taken"),
        ("connection of ann, s3cret, to db", "connection of ann, ***, to db"),
        ("nobody at https://chat.example/hook/abc", "nobody at ***"),
        ("no postgresql://bea:w%40rehouse@db:5432/shop there", "no *** there"),
        ("FATAL: not the password w@rehouse of bea", "FATAL: not the password *** of bea"),
        # Of no setting: an address shows by itself where its secrets are.
        ("GET (http://bob:pw@host/x) failed", "GET (http://bob:***@host/x) failed"),
        ("sc://localhost:1/;token=other said no", "sc://localhost:1/;token=*** said no"),
    ],
)
def test_a_secret_is_hidden_wherever_it_is_quoted(said: str, read: str) -> None:
    expected = read or "Cannot reach 'sc://cluster:15002/;use_ssl=true;token=***'."
    assert redacted(said, SETTINGS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "landed_date=2013-01-02, key=JFK|5, token=x: amount is from 0 to 10.",
        "See http://127.0.0.1:8080/dags/flights/runs/manual__2013-01-01T00:00:00+00:00",
        "Report: /home/a:b@c/var/reports/index.html",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redacted(text, SETTINGS) == text
    assert redacted(text, {}) == text
