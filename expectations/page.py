"""What all pages that people read have in common: one style sheet, and what a browser may do.

A page is one file that asks nothing of the network. Its texts may be a stranger's: whoever makes
one escapes them.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

_STYLE = Path(__file__).parent / "report.css"
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">"""
"""What a browser may do for a page: no script, nothing from elsewhere. The second wall, should a
text ever be shown unescaped."""


def style() -> str:
    """The style sheet as an element of HTML, as it is on disk now."""
    return f"<style>{_STYLE.read_text()}</style>"


def page(title: str, body: str, head: str = "") -> str:
    """The HTML of a page.

    Args:
        title: Text, not yet escaped.
        body: HTML.
        head: HTML of its head besides the usual.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{POLICY}
<meta name="viewport" content="width=device-width, initial-scale=1">{head}
<title>{escape(title)}</title>
{style()}</head>
<body class="index"><main>
{body}
</main></body></html>
"""
