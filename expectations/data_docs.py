"""A table's page of Great Expectations' Data Docs, made fit for a report.

Rows hold what a stranger wrote: every text is escaped. And nothing is fetched from elsewhere.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Any

from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from expectations.gate import Verdict
from expectations.page import POLICY, style

_LEFT_OUT = (
    # They need libraries that would be fetched.
    "<script.*?</script>",
    "<link[^>]*>",
    r'<img[^>]+src="https?://[^>]*>',
    # The footer invites to Great Expectations' own pages.
    "<footer.*?</footer>",
)
_ELSEWHERE = re.compile("|".join(_LEFT_OUT), re.DOTALL | re.IGNORECASE)
"""What a page of the Data Docs would run, or fetch from elsewhere, or lead to there."""
_LINK_OUT = re.compile(r'<a [^>]*href="\.\./[^>]*>(.*?)</a>', re.DOTALL)
"""To another page of a site of Data Docs, which is not there."""
_MOST_CHARACTERS = 2_000
"""Of a text: a value of a row may be of any length. Ten times those of `row_rules.VALUE_SHOWN`, as
the text may be what is expected, such as a list of the codes that are known."""
_ICON = "html_success_icon"
"""The one part of a page's content that is HTML of Great Expectations' own."""


def data_docs(verdict: Verdict) -> str:
    """The table's page of Great Expectations' Data Docs, which fetches nothing from elsewhere."""
    content = ValidationResultsPageRenderer().render(verdict.result)
    page = _page().render(_escaped(content.to_json_dict()))
    offline = _LINK_OUT.sub(r"\1", _ELSEWHERE.sub("", page))
    # First in the head, as the policy holds for what comes after it.
    guarded = offline.replace("<head>", f"<head>{POLICY}", 1)
    return guarded.replace("</head>", f"{style()}</head>", 1)


class _Page(DefaultJinjaPageView):
    """A page of content that is escaped already.

    Great Expectations 1.24 itself escapes only what fills the gaps of a sentence, and not the cells
    of a table: Jinja's rule for HTML does not know its templates, whose names end with `.j2`.
    """

    def _validate_document(self, document: object) -> None:
        """Take the content as JSON too."""

    @staticmethod
    def _escape_template_param_value(value: object) -> object:
        return value


@cache
def _page() -> _Page:
    """One for all tables: to compile its templates takes longer than to fill them."""
    return _Page()


def _escaped(content: Any) -> Any:
    """The content of a page, as JSON, with every text in it escaped."""
    if isinstance(content, dict):
        return {name: part if name == _ICON else _escaped(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_escaped(part) for part in content]
    if content is None or isinstance(content, int | float):
        return content
    text = str(content)
    return escape(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…")
