"""What all pages that people read have in common: one style sheet, and what a browser may do.

A page is one file that asks nothing of the network. Its texts may be a stranger's: whoever makes
one escapes them.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

STYLE = (Path(__file__).parent / "report.css").read_text()
POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">"""
"""What a browser may do for a page: no script, nothing from elsewhere. The second wall, should a
text ever be shown unescaped."""


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
<style>{STYLE}</style></head>
<body class="index"><main>
{body}
</main></body></html>
"""
