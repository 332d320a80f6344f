"""A page that shows a backtest: one HTML file, its pictures inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from jobs.training import metrics, paired, plots
from jobs.training.backtest import MODEL
from jobs.training.plots import SliceDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.training.backtest import Results
    from jobs.training.tasks import LearningTask

_FEWEST_ROWS = 500
"""Of a slice that is drawn: of fewer the interval is too wide to tell anything."""
_POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">"""
"""What a browser may do for the page: no script, nothing from elsewhere."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 64rem; margin: 2rem auto; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #d8dee4; padding: .3rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
pre { background: #f6f8fa; padding: 1rem; white-space: pre-wrap; }
"""


def pictures(task: LearningTask, results: Results) -> dict[str, Figure]:
    """The figures of a backtest, by title."""
    label, day = results.label, results.day
    rivals = [name for name in results.predictions if name != MODEL]
    losses: dict[str, metrics.Vector] = {}
    for name, prediction in results.predictions.items():
        losses[name] = task.losses(label, prediction)
    own = losses[MODEL]
    made = {"By month": plots.by_month(label, day, results.predictions, task)}
    for rival in rivals:
        days, means = paired.by_day(own, losses[rival], day)
        whole = paired.difference(own, losses[rival], day)
        title = f"Model against {rival}, by day"
        made[title] = plots.difference_by_day(title, days, means, whole, task.loss_title)
    for rival in rivals:
        compared = list(_slices(results, own, losses[rival]))
        if compared:
            title = f"Model against {rival}, by slice"
            made[title] = plots.difference_by_slice(title, compared, task.loss_title)
    for name, figure in task.plots(label, day, results.predictions).items():
        made[name.replace("_", " ").capitalize()] = figure
    return made


def page(
    title: str,
    facts: Mapping[str, object],
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    figures: Mapping[str, Figure],
) -> str:
    """The page's HTML.

    Args:
        title: What was backtested.
        facts: What a reader must know of it, by name.
        header: Of the table of figures.
        rows: The table.
        figures: By title, in order.
    """
    told = "\n".join(f"{name}: {value}" for name, value in facts.items())
    parts = [f"<h1>{escape(title)}</h1>", f"<pre>{escape(told)}</pre>", _table(header, rows)]
    for name, figure in figures.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts.append(f'<img alt="{escape(name)}" src="{_embedded(figure)}">')
    body = "\n".join(parts)
    head = f'<meta charset="utf-8">{_POLICY}<title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _slices(
    results: Results, own: metrics.Vector, other: metrics.Vector
) -> Iterable[SliceDifference]:
    for column, values in results.slices.items():
        for value, where in metrics.groups(values):
            rows = int(where.sum())
            if rows >= _FEWEST_ROWS:
                compared = paired.difference(own[where], other[where], results.day[where])
                yield SliceDifference(name=f"{column} {value}", rows=rows, difference=compared)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = "".join(f"<td>{escape(_shown(value))}</td>" for value in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _embedded(figure: Figure) -> str:
    png = BytesIO()
    figure.savefig(png, format="png")
    return f"data:image/png;base64,{b64encode(png.getvalue()).decode()}"
