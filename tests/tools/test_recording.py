"""A recording of a terminal is a film in SVG that any browser can read."""

from __future__ import annotations

from xml.etree import ElementTree

from tools.recording import Frame, drawn

_SVG = "{http://www.w3.org/2000/svg}"


def test_a_recording_shows_each_screen_for_its_time_and_says_each_line_once() -> None:
    prompt = (("a < b & c  ", "#ffffff", "", False),)
    answer = (("42", "#00ff00", "#111111", True),)
    frames = [
        Frame(lines=(prompt,), seconds=1.0),
        Frame(lines=(prompt, answer), seconds=3.0),
    ]
    film = ElementTree.fromstring(drawn(frames))
    lines = [text.text for text in film.iter(f"{_SVG}text")]
    assert lines == ["a < b & c  ", "42"]
    assert len(list(film.iter(f"{_SVG}use"))) == 3
    style = film.findtext(f"{_SVG}style") or ""
    assert "film 4.00s infinite step-end" in style
    assert "0.000% {" in style
    assert "25.000% {" in style
