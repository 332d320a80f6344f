from __future__ import annotations

import webbrowser

import pytest

from jobs.__main__ import main


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser was asked to open."""
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: not asked.append(address))
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_PORT", "8099")
    return asked


MODELS = "http://127.0.0.1:8099/nightshift/pages/models"


def test_the_address_is_printed_and_opened(
    opened: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["open", "models"]) == 0
    assert (capsys.readouterr().out, opened) == (f"{MODELS}\n", [MODELS])


@pytest.mark.parametrize("screen", ["", ":0"])
def test_it_is_only_printed_where_there_is_no_screen_or_a_person_says_so(
    opened: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    screen: str,
) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["open", "models", *(["--print"] if screen else [])]) == 0
    assert (capsys.readouterr().out, opened) == (f"{MODELS}\n", [])


def test_an_unknown_page_is_wrong_usage(
    opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["open", "nothing"]) == 2
    assert "No page named 'nothing'. Known: nights, quality" in capsys.readouterr().err
    assert opened == []
