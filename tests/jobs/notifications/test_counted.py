"""How many messages people get: one for what is wrong, and one when it is right again."""

from __future__ import annotations

from dataclasses import replace
from email.message import Message as Letter

import pytest

from jobs import outcome
from jobs.telling import tell
from pipelines.environment import Environment
from pipelines.events import Event
from pipelines.run import Run
from tests.jobs import toy
from tests.jobs.notifications.conftest import Receiver
from tests.jobs.notifications.test_email import Mailbox, mailing, serving

pytestmark = pytest.mark.usefixtures("patient_tellers")
REFUSED = "toy.readings was refused: 1 expectation(s) failed.\n  - toy.readings amount: 9 of 72."
REPORT = "http://127.0.0.1:8080/nightshift/reports/toy/r1/index.html"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def lived_through(environment: Environment) -> None:
    """A night that is refused three times and then mended, and the night after it."""
    both = replace(toy.TOY, notify=("webhook", "email"))
    first, second = (_run(environment, day, both) for day in ("2013-01-05", "2013-01-06"))
    for _ in range(3):
        refused = outcome.notification(first, Event.STAGE_REFUSED, REFUSED, "check_raw")
        tell(first, replace(refused, report=REPORT))
    for run in (first, second):
        tell(run, outcome.notification(run, Event.NIGHT_DONE, "10 stages in 20 s."))


def _run(environment: Environment, day: str, pipeline: object) -> Run:
    return replace(toy.run_of(environment, day), pipeline=pipeline, run_id=f"manual__{day}")


def test_three_refusals_and_a_recovery_are_two_messages_by_each_channel(
    home: Environment, receiver: Receiver
) -> None:
    mailbox = Mailbox()
    with serving(mailbox) as port:
        told = mailing(replace(home, webhook_url=receiver.url), f"smtp://127.0.0.1:{port}")
        lived_through(told)
    expected = ["stage_refused", "night_done", "recovered", "night_done"]
    assert [message["event"] for message in receiver.messages] == expected
    assert [event_of(letter) for letter in mailbox.letters] == expected
    run = "http://127.0.0.1:8080/dags/toy/runs/manual__2013-01-05"
    first, _, recovered, _ = receiver.messages
    assert (first["stage"], first["page"], first["report"]) == ("check_raw", run, REPORT)
    # The one field that chat tools show.
    assert first["text"] == (
        "toy 2013-01-05: check_raw was refused. toy.readings was refused: 1 expectation(s) failed. "
        f"toy.readings amount: 9 of 72. {run} {REPORT}"
    )
    assert "  - stage_refused 2013-01-05 check_raw: " in recovered["message"]
    subject = str(mailbox.letters[0]["Subject"]).replace("\n", "")
    assert subject.endswith("amount: 9 of 72."), "its addresses are in the letter"
    body = str(mailbox.letters[0].get_payload())
    assert f"page: {run}\nreport: {REPORT}\n" in body.replace("\r", "")


def event_of(letter: Letter) -> str:
    (line,) = [
        line for line in str(letter.get_payload()).splitlines() if line.startswith("event: ")
    ]
    return line.removeprefix("event: ")
