"""Results as people read them: bench/results.json, a table in docs/performance.md, a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.harness import OURS, Measured, machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results.json"
DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "bench.svg"
_BEGIN, _END = "<!-- bench -->", "<!-- end of bench -->"
Result = Mapping[str, Any]
"""As `Measured.to_json` gives it."""
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "met": {"color": "#1f6feb"},
    "missed": {"facecolor": "white", "edgecolor": "#1f6feb", "linewidth": 1.5},
    "no goal": {"color": "#8a8f98"},
    "goal": {"marker": "|", "s": 160, "color": "#bc4c00"},
}
"""Of the dots: a goal that is missed is a hollow one."""


def keep(measured: Iterable[Measured]) -> None:
    """Put the results in place of former ones of the same machine, case, size and way, everywhere.

    What another machine has measured stays.
    """
    told = {_key(result): result for result in read(RESULTS)}
    own = machine()
    for one in measured:
        result = one.to_json() | {"machine": own}
        told[_key(result)] = result
    results = sorted(told.values(), key=_key)
    _write(RESULTS, json.dumps(results, indent=1) + "\n")
    _write_table(results)
    _draw(results)


def read(file: Path) -> list[Result]:
    """The results of a file; none where it is not there.

    Raises:
        SystemExit: it is no file of results, or something in it was not measured.
    """
    if not file.exists():
        return []
    try:
        found: list[Result] = json.loads(file.read_text())
        if not isinstance(found, list):
            raise TypeError("it is no list")
        for one in found:
            _require_measured(one)
    except (ValueError, TypeError, KeyError) as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise SystemExit(f"{file} is no file of results: {told}") from None
    return found


def _require_measured(one: Result) -> None:
    name = f"{one['case']} {one['size']:,}, {one['way']}"
    if not one["seconds"] or not all(0 < seconds < inf for seconds in one["seconds"]):
        raise ValueError(f"the seconds of {name} are {one['seconds']}")


_HEADER = "case | size | way | seconds (median) | from, to | peak memory | ours / it | goal"


def table(measured: Iterable[Measured]) -> str:
    """In Markdown."""
    return markdown([one.to_json() for one in measured])


def markdown(results: Iterable[Result]) -> str:
    """A row for each way of a machine, ours first."""
    told = list(results)
    ours = {_work(one): one["seconds"] for one in told if one["way"] == OURS}
    lines = [
        f"| {_HEADER} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in told:
        spread = f"{min(one['seconds']):.2f}, {max(one['seconds']):.2f}"
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.3f}"
        cells = (
            one["case"],
            f"{one['size']:,}",
            f"**{one['what']}**" if one["way"] == OURS else one["what"],
            f"{one['median']:.2f}",
            spread,
            f"{one['peak_megabytes']:,.0f} MB" if one["peak_megabytes"] else "",
            ratio,
            _goal(one, ours.get(_work(one), ())),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our seconds divided by those of the same round."""
    return [own / other for own, other in zip(ours, theirs, strict=False)]


def _work(one: Result) -> tuple[str, int]:
    return one["case"], one["size"]


def _goal(one: Result, ours: Sequence[float]) -> str:
    # Results of before have no goal of seconds.
    seconds = one.get("goal_seconds")
    goal = seconds or one["goal"]
    if goal is None:
        return ""
    rounds = one["seconds"] if seconds else ratios(ours, one["seconds"])
    how = _how_surely([told <= goal for told in rounds])
    unit = " s" if seconds else ""
    return f"at most {goal:g}{unit}: {_verdict(one)}{how}"


def _how_surely(are_met: Sequence[bool]) -> str:
    """What a verdict is worth, by whether each of the rounds meets the goal."""
    if len(are_met) == 1:
        return ", one round"
    return " by the median, not in every round" if len({*are_met}) > 1 else ""


def _key(result: Result) -> tuple[str, str, int, bool, str]:
    of_us_first = result["way"] != OURS
    return _machine_of(result), result["case"], result["size"], of_us_first, result["way"]


def by_machine(results: Iterable[Result]) -> Mapping[str, list[Result]]:
    """Apart by what they were measured on, in the order in which each comes first."""
    told: dict[str, list[Result]] = {}
    for one in results:
        told.setdefault(_machine_of(one), []).append(one)
    return told


def _machine_of(one: Result) -> str:
    """Its cores and its processor: memory and versions differ by little, and are told elsewhere."""
    machine = one.get("machine", {})
    return f"{machine.get('cores', '?')} cores of {machine.get('processor', 'a machine')}"


def _write_table(results: list[Result]) -> None:
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _write(DOCUMENT, f"{before}{_BEGIN}\n{tables(results)}\n{_END}{after}")


def tables(results: Iterable[Result]) -> str:
    """In Markdown, one for each machine, below its name."""
    told = []
    for name, of_machine in by_machine(results).items():
        measured = f"Measured on {circumstances(of_machine)}."
        told.append(f"### {name}\n\n{markdown(of_machine)}\n\n{measured}")
    return "\n\n".join(told)


def _write(file: Path, text: str) -> None:
    """At once: an end in the midst of it would lose what was measured in days."""
    half = file.with_name(f"{file.name}.part")
    half.write_text(text)
    half.replace(file)


def circumstances(results: Iterable[Result]) -> str:
    """On which machine, when and by how many rounds each case was measured."""
    rounds: dict[str, dict[str, set[int]]] = {}
    for one in results:
        of_machine = rounds.setdefault(_in_words(one["machine"]), {})
        day = one["machine"]["measured_at"].partition(" ")[0]
        what = f"{one['case']} {one['size']:,} ({day}"
        of_machine.setdefault(what, set()).add(len(one["seconds"]))
    told = []
    for where, of_machine in rounds.items():
        cases = [f"{what}, {_counted(counts)})" for what, counts in of_machine.items()]
        told.append(f"{where}: {', '.join(cases)}")
    return "; ".join(told)


def _counted(rounds: Iterable[int]) -> str:
    *others, most = sorted(rounds)
    listed = " or ".join(map(str, [*others, most]))
    return f"{listed} {'round' if most == 1 else 'rounds'}"


def _in_words(one: Mapping[str, Any]) -> str:
    return (
        f"{one['cores']} cores of {one['processor']}, {one['memory_gib']} GiB, "
        f"Python {one['python']}"
    )


def _draw(results: list[Result]) -> None:
    """Our time as a share of each peer's, on a logarithmic axis, a dot a size, beside the goals.

    One beside the other for each machine.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    compared = [one for one in results if one["ratio"] is not None]
    if not compared:
        return
    names = list(dict.fromkeys(_row_name(one) for one in sorted(compared, key=_row_order)))
    machines = by_machine(compared)
    size = (3.5 + 4.5 * len(machines), 1.4 + 0.42 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    shared: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False}
    panels = figure.subplots(1, len(machines), **shared)[0]
    for axes, measured_on in zip(panels, machines, strict=True):
        axes.set_title(measured_on, fontsize=9)
        axes.axvline(1, color="#8a8f98", linewidth=1)
        for place, name in enumerate(names):
            of_row = [one for one in machines[measured_on] if _row_name(one) == name]
            _draw_row(axes, place, of_row)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xscale("log")
    axes.invert_yaxis()
    for name, looks in _LOOKS.items():
        axes.scatter([], [], label=name, **looks)
    figure.supxlabel("our time / its time; beside each dot its size, as in the table", fontsize=9)
    figure.legend(fontsize=8, ncols=len(_LOOKS), loc="outside upper center")
    # Without a date, and with names that follow from it: the same results give the same file.
    with rc_context({"svg.hashsalt": PICTURE.name}):
        figure.savefig(PICTURE, metadata={"Date": None})


def _row_order(one: Result) -> tuple[str, str]:
    return one["case"], one["way"]


def _row_name(one: Result) -> str:
    return f"{one['case']}, beside {one['way'].replace('_', ' ')}"


def _draw_row(axes: Axes, place: int, of_row: list[Result]) -> None:
    in_order = sorted(of_row, key=lambda one: one["ratio"])
    for number, one in enumerate(in_order):
        at = (one["ratio"], place)
        looks = "no goal" if one["goal"] is None else _verdict(one)
        axes.scatter(*at, **_LOOKS[looks])
        # Above and below in turns: neighbours would cover each other's.
        offset = (0, 7 if number % 2 else -13)
        axes.annotate(
            _short(one["size"]),
            at,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    if of_row and (goal := of_row[0]["goal"]):
        axes.scatter(goal, place, **_LOOKS["goal"])


def _verdict(one: Result) -> str:
    return "met" if one["is_met"] else "missed"


def _short(size: int) -> str:
    for unit, word in ((1_000_000, "M"), (1_000, "k")):
        if size >= unit:
            return f"{size / unit:g}{word}"
    return str(size)
