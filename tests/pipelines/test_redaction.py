"""No text that people read holds a secret of the settings, however a library quotes it."""

from __future__ import annotations

import pytest

from pipelines.redaction import redacted, without_secrets

SETTINGS = {
    "SPARK_REMOTE": "sc://cluster:15002/;use_ssl=true;token=SEC%3DRET",
    "MLFLOW_TRACKING_URI": "postgresql://ann:s3cret@db/mlflow",
    "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/hook/abc",
    "NIGHTSHIFT_WAREHOUSE_URL": "postgresql://bea:w%40rehouse@db:5432/shop",
    "NIGHTSHIFT_AIRFLOW_DATABASE": "postgresql://cid:correct horse@db/airflow",
    "NIGHTSHIFT_LINEAGE": "https://dee@example.org:l1neage@lineage.example.org:5000/",
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
        ("no postgresql://cid:correct horse@db/airflow", "no postgresql://cid:***@db/airflow"),
        ("user dee@example.org, password l1neage", "user dee@example.org, password ***"),
        # Of no setting: an address shows by itself where its secrets are.
        ("GET (http://bob:pw@host/x) failed", "GET (http://bob:***@host/x) failed"),
        ("sc://localhost:1/;token=other said no", "sc://localhost:1/;token=*** said no"),
        ("GET https://t0ken@host/x failed", "GET https://***@host/x failed"),
    ],
)
def test_a_secret_is_hidden_wherever_it_is_quoted(said: str, read: str) -> None:
    expected = read or "Cannot reach 'sc://cluster:15002/;use_ssl=true;token=***'."
    assert redacted(said, SETTINGS) == expected


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://cid:correct horse@db/airflow", "postgresql://cid:***@db/airflow"),
        ("postgresql://c d:correct horse@db/airflow", "postgresql://c d:***@db/airflow"),
        ("sc://ann@example.org:s3/cr@t@host:1/x", "sc://ann@example.org:***@host:1/x"),
        ("https://ann@example.org:s3cret@host/x", "https://***@example.org:***@host/x"),
        ("https://t0ken@mlflow.example.org/x", "https://***@mlflow.example.org/x"),
        # No password is in these.
        ("postgresql://cid@db/airflow", "postgresql://cid@db/airflow"),
        ("https://host.example.org/@cid", "https://host.example.org/@cid"),
    ],
)
def test_an_address_is_shown_without_its_password_or_token(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


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


@pytest.mark.timeout(60)  # hours, where a pattern begins anew at each sign
@pytest.mark.parametrize(
    "text",
    [
        "A" * 1_000_000,
        "a." * 500_000,
        "a://" * 250_000,
        "x://@" + "a:b://" * 160_000,
        "x://h/?" + "token" * 200_000,
        "sc://h/" + ";token" * 150_000,
        "x://" + "@" * 1_000_000,
        "x://" + "a@" * 500_000 + ":",
    ],
    ids=lambda text: text[:12],
)
def test_a_text_of_a_megabyte_stays_as_it_is_and_is_looked_through_at_once(text: str) -> None:
    assert redacted(text, SETTINGS) == text


def test_an_address_behind_a_long_word_is_found() -> None:
    assert redacted("x" * 50 + "://a:b@host", {}) == "x" * 50 + "://a:***@host"
