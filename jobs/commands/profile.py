"""The page of `nightshift run --profile`: where each second of a night went."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.page import page
from jobs.services import sampler
from jobs.training.page_parts import table
from pipelines.days import Days

if TYPE_CHECKING:
    from pipelines.run import Run

_BETWEEN = "between the stages"
_KILLED = "killed: what it did was not kept"
_COLORS = {
    sampler.PLANS: "#66ccee",
    sampler.COMPUTES: "#4477aa",
    sampler.FILES: "#228833",
    sampler.CHECKS: "#ccbb44",
    sampler.MODELS: "#aa3377",
    sampler.RANKS: "#ee6677",
    sampler.IMPORTS: "#777777",
    sampler.PYTHON: "#bb7733",
    _KILLED: "#9977cc",
    _BETWEEN: "#bbbbbb",
}
"""Told apart in light and in dark, and by most people who see few colours."""
_PLACES_SHOWN = 25
_LEAST_SHARE = 0.003
"""Of the longest bar: what is narrower is not drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was seen of one stage."""

    stage: str
    days: str
    began: float
    seconds: float
    places: list[tuple[str, str, float]]
    """Kind, function, seconds."""

    @property
    def about(self) -> tuple[str, str]:
        """Stage and days."""
        return self.stage, self.days

    def by_kind(self) -> dict[str, float]:
        """Seconds, in the order of the kinds."""
        found: defaultdict[str, float] = defaultdict(float)
        for kind, _, seconds in self.places:
            found[kind] += seconds
        return {kind: found[kind] for kind in (*sampler.KINDS, _KILLED) if kind in found}


def write_page(run: Run, since: float, seconds: float) -> Path | None:
    """Write the page from what the stages of the run have left, and the record of those killed.

    Args:
        run: Whose stages were looked at.
        since: When it began, in seconds since 1970: its id may be that of an earlier run.
        seconds: Of the whole run, by the clock.

    Returns:
        The page; None: no stage had anything to do.

    Raises:
        OSError: it cannot be written.
    """
    left = [_read(file) for file in run.profiles.glob("*.json")]
    seen = [one for one in left if one.began >= since]
    # The last of each: a stage may be done twice for the same days, and killed the second time.
    last: dict[tuple[str, str], float] = {}
    for one in seen:
        last[one.about] = max(one.began, last.get(one.about, 0.0))
    killed = _killed(run, since)
    seen += [one for one in killed if last.get(one.about, 0.0) < one.began]
    if not seen:
        return None
    seen.sort(key=lambda one: one.began)
    run.profiles.mkdir(parents=True, exist_ok=True)
    file = run.profiles / "index.html"
    told = page(f"Where the time of {run.pipeline.name} went", _body(run, seen, seconds))
    file.write_text(told, encoding="utf-8")
    return file


def _read(file: Path) -> _Seen:
    told = json.loads(file.read_text())
    places = [(kind, place, seconds) for kind, place, seconds in told.pop("places")]
    return _Seen(places=places, **told)


def _killed(run: Run, since: float) -> list[_Seen]:
    """Stages whose process was killed, which have left nothing; none where no record is read."""
    from jobs import outcome
    from jobs.lake import ops

    of_run = [
        ("run_id", "=", run.run_id),
        ("pipeline", "=", run.pipeline.name),
        ("started_at", ">=", datetime.fromtimestamp(since, UTC)),
        ("error", "=", outcome.NO_REASON),
    ]
    try:
        rows = ops.read(run.environment, "stage_runs", of_run).to_pylist()
    except Exception:  # a lake that is away may be why the run failed
        return []
    return [_as_seen(row) for row in rows]


def _as_seen(row: Mapping[str, Any]) -> _Seen:
    """A row of `ops.stage_runs`, of which its seconds alone are known."""
    return _Seen(
        stage=row["stage"],
        days=str(Days(row["first_day"], row["last_day"])),
        began=row["started_at"].timestamp(),
        seconds=row["seconds"],
        places=[(_KILLED, "its log may say more", row["seconds"])],
    )


def _body(run: Run, seen: Iterable[_Seen], seconds: float) -> str:
    stages = list(seen)
    between = max(0.0, seconds - sum(one.seconds for one in stages))
    whole: defaultdict[str, float] = defaultdict(float)
    for one in stages:
        for kind, spent in one.by_kind().items():
            whole[kind] += spent
    whole[_BETWEEN] = between
    longest = max(one.seconds for one in stages)
    rows = [_line_of(one, longest) for one in stages]
    return f"""<p class="eyebrow">{escape(run.pipeline.title)}</p>
<h1>Where {seconds:.1f} seconds went</h1>
<p class="muted">{escape(str(run.days))}, run <code>{escape(run.run_id)}</code></p>
{_line("the whole run", "", seconds, whole, seconds)}
<p class="legend">{_legend(whole)}</p>
<h2>Stage by stage</h2>
{"".join(rows)}
<h2>The functions that it was spent for</h2>
<p class="muted">The innermost of ours; what libraries do for it counts as its own.</p>
{table(("seconds", "what", "function", "stage"), _places(stages))}
<p class="muted">Seen by looking a hundred times a second. Where threads work at once, each gets its
part of the second. {escape(_BETWEEN.capitalize())}: the plan is made anew, processes start, what
was done is recorded. Spark's own time is seen from its client: what the server plans while a query
computes counts as computing.</p>"""


def _line_of(one: _Seen, longest: float) -> str:
    return _line(one.stage, one.days, one.seconds, one.by_kind(), longest)


def _line(
    name: str,
    days: str,
    seconds: float,
    kinds: Mapping[str, float],
    longest: float,
) -> str:
    parts = []
    for kind, spent in kinds.items():
        if spent < _LEAST_SHARE * longest:
            continue
        width = 100 * spent / longest
        told = escape(f"{kind}: {spent:.2f} s")
        style = f"width:{width:.2f}%;background:{_COLORS[kind]}"
        parts.append(f'<span title="{told}" style="{style}"></span>')
    return (
        f'<div class="spent"><b>{escape(name)}</b> <span class="muted">{escape(days)}</span>'
        f'<span class="seconds">{seconds:.2f} s</span>'
        f'<div class="parts">{"".join(parts)}</div></div>'
    )


def _legend(kinds: Mapping[str, float]) -> str:
    told = []
    for kind, spent in sorted(kinds.items(), key=lambda one: -one[1]):
        mark = f'<i style="background:{_COLORS[kind]}"></i>'
        told.append(f"<span>{mark}{escape(kind)} {spent:.1f} s</span>")
    return " ".join(told)


def _places(stages: Iterable[_Seen]) -> list[tuple[str, ...]]:
    found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for one in stages:
        for kind, place, seconds in one.places:
            # A stage may be done for some days, and then for others.
            found[kind, place, one.stage] += seconds
    longest = sorted(found.items(), key=lambda one: -one[1])[:_PLACES_SHOWN]
    return [(f"{seconds:.2f}", *others) for others, seconds in longest]
