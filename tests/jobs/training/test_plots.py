"""Pictures of values as long as rows may have them."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jobs.training import plots
from jobs.training.paired import Difference
from jobs.training.plots import SliceDifference

_LONG = "long word " * 200


def _requires_room(figure: Figure) -> None:
    """All names are on the picture, and there is room for what they name."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    lefts = [name.get_window_extent().x0 for name in axes.get_yticklabels()]
    assert min(lefts) >= 0
    assert axes.get_window_extent().width > 150


@pytest.mark.parametrize("title", ["2024-01-01 P1", f"2024-01-01 {_LONG}"])
@pytest.mark.parametrize("value", ["red", _LONG, "$" * 100])
def test_long_values_leave_room_for_the_bars(title: str, value: str) -> None:
    named = {f"colour {value}": 1.0, "heat 12": -0.5}
    _requires_room(plots.attributions(title, "log-odds", named))
    _requires_room(plots.weights(title, "log-odds", named))


def test_long_values_leave_room_for_slices() -> None:
    difference = Difference(
        mean=0.0,
        low=-1.0,
        high=1.0,
        days=7,
    )
    one = SliceDifference(name=f"site {_LONG}", rows=7, difference=difference)
    figure = plots.difference_by_slice("Slices", [one], "log loss")
    _requires_room(figure)
    (name,) = figure.axes[0].get_yticklabels()
    assert name.get_text().endswith("… (7)")


def test_long_names_of_measures_leave_room_for_nights() -> None:
    _requires_room(plots.nights_and_measures("Nights", ["2024-01-01"], {_LONG: [0.5]}))


def test_what_reads_alike_in_its_beginning_has_bars_of_its_own() -> None:
    named = {f"{_LONG}1": 1.0, f"{_LONG}2": -0.5}
    figure = plots.attributions("P1", "log-odds", named)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    places = {bar.get_y() for bar in figure.axes[0].patches}
    assert (widths, len(places)) == ([1.0, -0.5], 2)
