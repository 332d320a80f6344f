"""The channel `email` sends one letter, over TLS where it leaves the machine, and keeps secrets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message as Letter
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from jobs import outcome
from jobs.notifications import channels, email
from jobs.notifications.channels import send
from jobs.notifications.message import compose
from jobs.telling import tell
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.events import Event
from tests import certificates
from tests.conftest import free_port
from tests.jobs.notifications.conftest import promoted
from tests.jobs.toy import TOY, run_of

pytestmark = pytest.mark.usefixtures("patient_tellers")
MESSAGE = compose(promoted(), datetime(2013, 1, 6, tzinfo=UTC))
USER, PASSWORD = "night", "s3cret/of@mail"
QUOTED = "s3cret%2Fof%40mail"


@dataclass
class Mailbox:
    """What a server has taken, and how."""

    letters: list[Letter] = field(default_factory=list)
    was_encrypted: list[bool] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    answer: str = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.letters.append(message_from_bytes(envelope.content))
        self.was_encrypted.append(server.transport.get_extra_info("cipher") is not None)
        return self.answer

    def authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _how: str, given: Any
    ) -> Any:
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        right = (USER.encode(), PASSWORD.encode())
        # Not handled: the server itself tells who is wrong so.
        return AuthResult(success=(given.login, given.password) == right, handled=False)


@contextmanager
def serving(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    port = free_port()
    # On a busy machine its thread may be slow to begin.
    patient = {"ready_timeout": 60, **options}
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **patient)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server whose certificate this machine trusts."""
    file = certificates.write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def mailing(environment: Environment, url: str, to: str = "ops@example.org") -> Environment:
    return replace(environment, smtp_url=url, email_from="night@example.org", email_to=to)


def test_a_letter_says_what_happened(home: Environment) -> None:
    mailbox = Mailbox()
    with serving(mailbox) as port:
        to = "ops@example.org, data@example.org"
        email.deliver(mailing(home, f"smtp://127.0.0.1:{port}", to), MESSAGE)
    (letter,) = mailbox.letters
    assert letter["Subject"] == MESSAGE["text"]
    assert (letter["From"], letter["To"]) == (
        "night@example.org",
        "ops@example.org, data@example.org",
    )
    assert letter["Auto-Submitted"] == "auto-generated"
    body = str(letter.get_payload())
    assert str(MESSAGE["message"]) in body
    assert f"event: {Event.MODEL_PROMOTED}" in body
    assert f"run_id: {MESSAGE['run_id']}" in body


def test_who_signs_in_does_so_over_tls(home: Environment, tls: ssl.SSLContext) -> None:
    mailbox = Mailbox()
    options = {"tls_context": tls, "authenticator": mailbox.authenticate, "auth_required": True}
    with serving(mailbox, **options) as port:
        email.deliver(mailing(home, f"smtp://{USER}:{QUOTED}@127.0.0.1:{port}"), MESSAGE)
    assert mailbox.logins == [(USER.encode(), PASSWORD.encode())]
    assert mailbox.was_encrypted == [True]


def test_a_server_that_speaks_tls_from_the_start(home: Environment, tls: ssl.SSLContext) -> None:
    mailbox = Mailbox()
    with serving(mailbox, ssl_context=tls) as port:
        email.deliver(mailing(home, f"smtps://127.0.0.1:{port}"), MESSAGE)
    assert mailbox.was_encrypted == [True]


def test_a_password_is_not_sent_in_the_clear(home: Environment) -> None:
    mailbox = Mailbox()
    options = {"authenticator": mailbox.authenticate, "auth_require_tls": False}
    with serving(mailbox, **options) as port:
        url = f"smtp://{USER}:{QUOTED}@127.0.0.1:{port}"
        with pytest.raises(NightshiftError, match="offers no TLS, and nothing is sent"):
            email.deliver(mailing(home, url), MESSAGE)
    assert mailbox.logins == []
    assert mailbox.letters == []


def test_a_server_that_nobody_vouches_for_gets_nothing(
    home: Environment, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    mailbox = Mailbox()
    unknown = pytest.raises(NightshiftError, match="SSLCertVerificationError")
    with serving(mailbox, tls_context=tls) as port, unknown:
        email.deliver(mailing(home, f"smtp://127.0.0.1:{port}"), MESSAGE)
    assert mailbox.letters == []


def test_a_wrong_password_is_told_without_it(
    home: Environment, tls: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox = Mailbox()
    told_by_mail = replace(TOY, notify=("email", "log"))
    options = {"tls_context": tls, "authenticator": mailbox.authenticate}
    with serving(mailbox, **options) as port:
        environment = mailing(home, f"smtp://{USER}:wr0ng@127.0.0.1:{port}")
        assert send(environment, told_by_mail, promoted()) == ("email",)
    told = capsys.readouterr().err
    assert "was not sent to email: the SMTP server answered 535." in told
    assert "wr0ng" not in told
    assert "Notification: " in told


def test_a_password_beyond_ascii_is_told_without_it(home: Environment, tls: ssl.SSLContext) -> None:
    with serving(Mailbox(), tls_context=tls) as port:
        url = f"smtp://{USER}:schl%C3%BCssel@127.0.0.1:{port}"
        with pytest.raises(UsageError, match="has a letter beyond ASCII") as caught:
            email.deliver(mailing(home, url), MESSAGE)
    assert "ü" not in str(caught.value)


def test_a_name_that_no_host_can_have_is_told(home: Environment) -> None:
    with pytest.raises(NightshiftError, match="could not be used: UnicodeError"):
        email.deliver(mailing(home, f"smtp://{'long' * 16}.example.org"), MESSAGE)


def test_a_server_that_refuses_or_is_away_is_told(home: Environment) -> None:
    mailbox = Mailbox(answer="554 no")
    with serving(mailbox) as port, pytest.raises(NightshiftError, match=r"answered 554\."):
        email.deliver(mailing(home, f"smtp://127.0.0.1:{port}"), MESSAGE)
    with pytest.raises(NightshiftError, match="could not be used: ConnectionRefusedError"):
        email.deliver(mailing(home, f"smtp://127.0.0.1:{free_port()}"), MESSAGE)


class HalfGone(Mailbox):
    """Of one of the recipients."""

    async def handle_RCPT(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        if address == "gone@example.org":
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def test_a_recipient_who_is_gone_keeps_nobody_from_being_told_once(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox = HalfGone()
    with serving(mailbox) as port:
        to = "gone@example.org, ops@example.org"
        mailed = mailing(home, f"smtp://127.0.0.1:{port}", to)
        run = run_of(mailed, "2013-01-05")
        run = replace(run, pipeline=replace(run.pipeline, notify=("log", "email")))
        wrong = outcome.notification(run, Event.STAGE_REFUSED, "toy was refused.", "check_raw")
        assert [tell(run, wrong), tell(run, wrong)] == [(), ()]
        done = outcome.notification(run, Event.NIGHT_DONE, "10 stages in 20 s.")
        assert tell(run, done) == ()
    assert list(map(event_of, mailbox.letters)) == ["stage_refused", "night_done", "recovered"]
    told = capsys.readouterr().err
    assert told.count("Warning: the SMTP server took no mail for 1 of the recipients.\n") == 3
    assert "gone@example.org" not in told


def event_of(letter: Letter) -> str:
    """What it tells of."""
    lines = str(letter.get_payload()).splitlines()
    (event,) = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    return event


class OddAtTheEnd(Mailbox):
    """With an answer to the last word that is none of the protocol's."""

    async def handle_QUIT(self, *_: Any) -> str:  # noqa: N802
        return "451 later"


class SilentAtTheEnd(Mailbox):
    """Longer than anybody waits."""

    async def handle_QUIT(self, *_: Any) -> str:  # noqa: N802
        await asyncio.sleep(30)
        return "221 bye"


@pytest.mark.parametrize("server", [OddAtTheEnd, SilentAtTheEnd])
def test_what_a_server_says_at_the_end_unsends_no_letter(
    server: type[Mailbox], home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = server()
    # The goodbye has a second of its own, and a busy machine the others.
    monkeypatch.setattr(channels, "MOST_SECONDS", 20.0)
    # Else a goodbye that waits as long as any answer would be over in time too.
    monkeypatch.setattr(email, "_SECONDS", 60.0)
    told_by_mail = replace(TOY, notify=("email",))
    with serving(mailbox) as port:
        environment = mailing(home, f"smtp://127.0.0.1:{port}")
        assert send(environment, told_by_mail, promoted()) == ()
    assert len(mailbox.letters) == 1


def test_what_is_no_smtp_server_is_told(home: Environment) -> None:
    class Page(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n")

    with TCPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.handle_request).start()
        port = server.server_address[1]
        with pytest.raises(NightshiftError, match=r"server does not answer as SMTP has it\."):
            email.deliver(mailing(home, f"smtp://127.0.0.1:{port}"), MESSAGE)


def test_a_value_of_the_data_makes_no_header(home: Environment) -> None:
    hostile = replace(promoted(), message="x\r\nBcc: thief@example.org\r\n\r\nbody")
    mailbox = Mailbox()
    with serving(mailbox) as port:
        message = compose(hostile, datetime(2013, 1, 6, tzinfo=UTC))
        email.deliver(mailing(home, f"smtp://127.0.0.1:{port}"), message)
    (letter,) = mailbox.letters
    assert letter["Bcc"] is None
    assert "\n" not in str(letter["Subject"])


@pytest.mark.parametrize(
    "url",
    [
        "http://mail:25",
        "smtp://",
        "mail.example.org",
        "smtp://mail:0",
        "smtp://mail:x",
        "smtp://mail ",
    ],
)
def test_an_address_that_is_none_is_refused(home: Environment, url: str) -> None:
    with pytest.raises(UsageError, match="NIGHTSHIFT_SMTP_URL is not an address such as"):
        email.deliver(mailing(home, url), MESSAGE)


@pytest.mark.parametrize("to", ["ops", "ops@", "@host", "a b@host", "<ops@host>"])
def test_a_recipient_that_is_none_is_refused(home: Environment, to: str) -> None:
    with pytest.raises(UsageError, match="hold addresses such as"):
        email.deliver(mailing(home, "smtp://127.0.0.1", to), MESSAGE)


def test_what_is_not_set_is_said_once(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    email._say_that_it_is_not_set.cache_clear()
    lacking = replace(home, smtp_url="smtp://127.0.0.1")
    for _ in range(2):
        email.deliver(lacking, MESSAGE)
    told = "No e-mail is sent: NIGHTSHIFT_EMAIL_FROM, NIGHTSHIFT_EMAIL_TO is not set.\n"
    assert capsys.readouterr().err == told
