"""What our documents show can be typed, and where they lead there is something."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest

from jobs.__main__ import parser
from pipelines.environment import ROOT
from pipelines.forwarding import FORWARDED
from tests.documents import Command, commands, documents

pytestmark = pytest.mark.policy
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PIP = re.compile(r"pip install ([^`\n]+)")
_WRITTEN = re.compile(r"\bcat >>? ([\w-]+\.env)\b")
"""Variables of a platform, such as its keys, in the working folder."""
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COMMANDS = chain.from_iterable(map(commands, documents()))
SHOWN = [one for one in _COMMANDS if one.words[:1] == ["nightshift"]]


@pytest.mark.parametrize("shown", SHOWN, ids=lambda one: f"{one.document}: {one.text[:50]}")
def test_a_command_is_understood(shown: Command) -> None:
    words = [word for word in shown.words[1:] if not word.startswith("…")]
    parser().parse_args(words)


def test_the_documents_show_commands() -> None:
    assert {one.document for one in SHOWN} >= {"README.md", "docs/how-to/sql.md"}
    assert len(SHOWN) > 60


@pytest.mark.parametrize(
    "document",
    documents(),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text()):
        place, _, heading = link.partition("#")
        if "://" in place:
            continue
        target = (document.parent / place).resolve() if place else document
        assert target.exists(), link
        if heading:
            assert heading in anchors(target), link


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = _HEADING.findall(document.read_text())
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    todo = list(reached)
    while todo:
        page = todo.pop()
        for link in _LINK.findall(page.read_text()):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                todo.append(target)
    assert [str(one) for one in documents() if one.resolve() not in reached] == []


@pytest.mark.parametrize(
    "document",
    documents(),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pip_is_given_a_lock_with_hashes_alone(document: Path) -> None:
    for words in _PIP.findall(document.read_text()):
        # Beside it pip refuses whatever has no hash.
        named = [word for word in words.split() if not word.startswith("-")]
        assert len(named) == 1 or not any(word.endswith(".lock") for word in named), words


def test_the_page_on_security_names_all_that_the_stage_server_does() -> None:
    told = (ROOT / "SECURITY.md").read_text()
    (listed,) = re.findall(r"The stage server's socket .* of commands \((.*)\)\.", told)
    assert listed == ", ".join(f"`{name}`" for name in FORWARDED)


def test_the_first_tutorial_leaves_the_night_that_the_second_spoils() -> None:
    first, second = sorted((ROOT / "docs/tutorial").glob("[12]-*.md"))
    spoilt = "2013-04-04"
    assert f"nightshift run flights --date {spoilt}" in second.read_text()
    typed = [one.text for one in commands(first)]
    assert not [text for text in typed if spoilt in text and "sql" not in text]
    assert spoilt not in re.sub(r"(?s)```.*?```", "", first.read_text())


def test_what_installs_the_chart_with_databases_elsewhere_lets_it_reach_them() -> None:
    shown = [one for document in documents() for one in commands(document)]
    installing = [one.words for one in shown if one.words[:2] == ["helm", "install"]]
    with_secret = [words for words in installing if "environmentSecret=nightshift" in words]
    assert len(with_secret) == 2
    for words in with_secret:
        assert any(word.startswith("networkPolicy.egress=") for word in words)


def test_what_an_upgrade_asks_for_is_told_once_and_first() -> None:
    _, *versions = (ROOT / "CHANGELOG.md").read_text().split("\n## ")
    for version in versions:
        entries = re.findall(r"^- .*", version, re.MULTILINE)
        told = [place for place, one in enumerate(entries) if one.startswith("- Upgrading a home:")]
        assert told in ([], [0]), version.partition("\n")[0]


def test_git_ignores_what_is_written_with_secrets_in_a_checkout() -> None:
    texts = [document.read_text() for document in documents()]
    written = {name for text in texts for name in _WRITTEN.findall(text)}
    assert written >= {"nightshift.env", "shared.env"}
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    known = [name for name in written if any(fnmatch(name, one) for one in ignored)]
    assert sorted(known) == sorted(written)


@pytest.mark.parametrize(
    ("unwanted", "instead"),
    [
        ("--from-literal", "a Secret is made from a file: every user can read a command line"),
        ("python3.11/site-packages", "python3*: each Python of ours has a folder of its own"),
    ],
)
def test_no_command_is_shown_that_is_for_some_machines_alone(unwanted: str, instead: str) -> None:
    shown = [one for document in documents() for one in commands(document)]
    assert [one.document for one in shown if unwanted in one.text] == [], instead
