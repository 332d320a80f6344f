"""The channel `email`: the message as plain text, by the SMTP server of `NIGHTSHIFT_SMTP_URL`.

`smtps://` speaks TLS from the start. `smtp://` turns it on by STARTTLS before it signs in; without
a user, and to a server on this machine, it may do without.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit

from jobs.notifications.lines import say
from jobs.notifications.message import Message, without_places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

SERVER, SENDER, RECIPIENTS = (
    "NIGHTSHIFT_SMTP_URL",
    "NIGHTSHIFT_EMAIL_FROM",
    "NIGHTSHIFT_EMAIL_TO",
)
_SECONDS = 10.0
"""For each answer of the server; all channels together have no longer than that."""
_GOODBYE_SECONDS = 1.0
"""For the answer to the last word, by which nothing is sent or kept."""
_PORTS = {"smtp": 587, "smtps": 465}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FIELDS = ("pipeline", "days", "event", "stage", "page", "report", "run_id", "at")


def deliver(environment: Environment, message: Message) -> None:
    """Send the message; without a server or recipients say once that none are set.

    It is delivered where the server takes it for one of the recipients; that it refuses others is
    warned about on stderr.

    Raises:
        UsageError: a setting makes no sense.
        NightshiftError: the server did not take the message.
    """
    lacking = _lacking(environment)
    if lacking:
        _say_that_it_is_not_set(lacking)
        return
    letter = _letter(message, str(environment.email_from), _addresses(environment))
    with _in_words(_SECONDS), _server(_address(str(environment.smtp_url)), _SECONDS) as server:
        refused = server.send_message(letter)
    if refused:
        # No failure: whoever has got the letter would get it again by each attempt.
        say(f"Warning: the SMTP server took no mail for {len(refused)} of the recipients.")


def require_whole(environment: Environment) -> None:
    """Refuse settings by which no letter is sent, though a server is set.

    Raises:
        UsageError: one is not set, or makes no sense.
    """
    lacking = _lacking(environment)
    if lacking:
        raise UsageError(f"No e-mail is sent: set {lacking}, or unset {SERVER}.")
    _addresses(environment)


def sign_in(url: str, seconds: float) -> None:
    """Ask the server whether it would take a letter, and send none.

    Args:
        url: As `NIGHTSHIFT_SMTP_URL`.
        seconds: For each of its answers.

    Raises:
        UsageError: the address makes no sense.
        NightshiftError: the server does not answer, or does not let us in.
    """
    with _in_words(seconds), _server(_address(url), seconds):
        pass


@contextmanager
def _in_words(seconds: float) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPResponseException as error:
        # Below 0: no code at all.
        spoke_smtp = error.smtp_code > 0
        told = f"answered {error.smtp_code}" if spoke_smtp else "does not answer as SMTP has it"
        raise NightshiftError(f"the SMTP server {told}.") from None
    except smtplib.SMTPRecipientsRefused:
        raise NightshiftError(f"the SMTP server takes no mail for {RECIPIENTS}.") from None
    except (OSError, smtplib.SMTPException, UnicodeError) as error:
        # The last of a name that no host can have. Its text may quote what was sent to sign in.
        is_late = isinstance(error, TimeoutError)
        kind = f"no answer within {seconds:.0f} s" if is_late else type(error).__name__
        raise NightshiftError(f"the SMTP server could not be used: {kind}.") from None


def _lacking(environment: Environment) -> str:
    """The variables that are not set; '': all are."""
    given = {
        SERVER: environment.smtp_url,
        SENDER: environment.email_from,
        RECIPIENTS: environment.email_to,
    }
    return ", ".join(variable for variable, value in given.items() if not value)


@cache  # once in a process is enough
def _say_that_it_is_not_set(lacking: str) -> None:
    say(f"No e-mail is sent: {lacking} is not set.")


def _addresses(environment: Environment) -> list[str]:
    parts = str(environment.email_to).split(",")
    found = [one.strip() for one in parts if one.strip()]
    odd = [one for one in (*found, str(environment.email_from)) if not _is_address(one)]
    if odd or not found:
        raise UsageError(f"{SENDER} and {RECIPIENTS} hold addresses such as ops@example.org.")
    return found


def _is_address(text: str) -> bool:
    name, at, host = text.rpartition("@")
    is_plain = text.isprintable() and not set(text) & set(" <>,;\"'")
    return bool(name and at and host) and is_plain


def _letter(message: Message, sender: str, recipients: list[str]) -> EmailMessage:
    letter = EmailMessage()
    # A line of printable characters: a value of the data can make no header of its own. The
    # addresses are in the letter itself.
    letter["Subject"] = without_places(message)
    letter["From"] = sender
    letter["To"] = ", ".join(recipients)
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain="nightshift")
    # What machines send, other machines do not answer.
    letter["Auto-Submitted"] = "auto-generated"
    told = [f"{name}: {message[name]}" for name in _FIELDS if message.get(name)]
    lines = [str(message["message"]), "", *told]
    letter.set_content("\n".join(lines) + "\n")
    return letter


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it is what finds a wrong one
    except ValueError:
        parts, port = urlsplit(""), 0
    is_whole = bool(parts.hostname) and url == url.strip()
    if parts.scheme not in _PORTS or not is_whole or port == 0:
        raise UsageError(
            f"{SERVER} is not an address such as smtp://user:password@mail.example.org:587 or "
            "smtps://…"
        )
    return parts


@contextmanager
def _server(address: SplitResult, seconds: float) -> Iterator[smtplib.SMTP]:
    host = str(address.hostname)
    port = address.port or _PORTS[address.scheme]
    trusted = ssl.create_default_context()
    if address.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=seconds, context=trusted)
    else:
        server = smtplib.SMTP(host, port, timeout=seconds)
    with closing(server):
        try:
            if address.scheme == "smtp":
                _turn_on_tls(server, host, trusted, has_user=bool(address.username))
            if address.username:
                _sign_in(server, unquote(address.username), unquote(address.password or ""))
            yield server
        finally:
            _leave(server)


def _leave(server: smtplib.SMTP) -> None:
    """Say goodbye; whatever the server answers, or does not, it keeps what it has taken."""
    # Errors of SMTP are such, too; and a handshake that failed has left no socket.
    with suppress(OSError):
        if server.sock is not None:
            server.sock.settimeout(_GOODBYE_SECONDS)
        server.quit()


def _sign_in(server: smtplib.SMTP, user: str, password: str) -> None:
    if not (user + password).isascii():
        # The standard library sends no other, and its error quotes the letter.
        raise UsageError(
            f"the user or the password of {SERVER} has a letter beyond ASCII, by which nobody can "
            "sign in here: choose another."
        )
    server.login(user, password)


def _turn_on_tls(
    server: smtplib.SMTP, host: str, trusted: ssl.SSLContext, *, has_user: bool
) -> None:
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=trusted)
        server.ehlo()
    elif has_user or host not in _LOOPBACK:
        raise NightshiftError("the SMTP server offers no TLS, and nothing is sent in the clear.")
