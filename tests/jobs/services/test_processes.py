"""Who listens where."""

from __future__ import annotations

import socket

import pytest

from jobs.services import processes


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, processes.LOOPBACK),
        pytest.param(
            socket.AF_INET6,
            "::1",
            marks=pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here"),
        ),
    ],
)
def test_who_listens_by_either_protocol_answers_until_it_ends(
    family: socket.AddressFamily, host: str
) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert processes.answers(port, host)
    assert not processes.answers(port, host)


def test_a_name_that_leads_nowhere_does_not_answer() -> None:
    assert not processes.answers(80, "no-such-host.invalid")


def test_who_accepts_nobody_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_ANSWER_SECONDS", 0.05)
    with socket.create_server((processes.LOOPBACK, 0), backlog=0) as server:
        place = server.getsockname()
        # The queue of those who wait to be accepted is full.
        with socket.create_connection(place):
            assert not processes.answers(place[1])
