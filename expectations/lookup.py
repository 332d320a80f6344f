"""Finds the suite of a table by its name, in `expectations/<pipeline>.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.catalog import part
from pipelines.errors import UsageError, refuse_unless
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from expectations.suite import Suite
    from pipelines.days import Days
    from pipelines.spec import Pipeline


def suite_of(pipeline: Pipeline, name: str) -> Callable[[Days], Suite]:
    """The suite of a table, as a function of nights, which tells where a mistake in it is.

    Raises:
        UsageError: it has none; the message says where to write it.
    """
    suites = part("expectations", pipeline, "its suites")
    suite = getattr(suites, name, None)
    if not callable(suite):
        raise UsageError(
            f"{pipeline.name}.{name} has no suite. "
            f"Write `def {name}(days: Days) -> Suite` in expectations/{pipeline.name}.py."
        )

    def declared(days: Days) -> Suite:
        from expectations.suite import Suite

        where = f"`{name}` of expectations/{pipeline.name}.py"
        try:
            found = suite(days)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        refuse_unless(isinstance(found, Suite), f"{where} gave {found!r}: it must return a Suite.")
        return found  # type: ignore[no-any-return]

    return declared


def refuse_odd_rules(pipeline: Pipeline, suites: Mapping[str, Suite]) -> None:
    """Refuse row rules of tables that are used whole before the rules have moved rows out.

    Args:
        pipeline: Whose tables they are.
        suites: By table, those of one stage.

    Raises:
        UsageError: a table must not have a row rule; the message says why.
    """
    references = [feed.name for feed in pipeline.feeds if feed.is_reference]
    for name, suite in suites.items():
        if not suite.rules:
            continue
        table = f"{pipeline.name}.{name}"
        refuse_unless(
            name not in references,
            f"{table} must not have a row rule: a reference file is one whole snapshot.",
        )
        refuse_unless(
            name != PREDICTIONS,
            f"{table} must not have a row rule: whatever was scored is served, or nothing is.",
        )
        readers = [
            other
            for other, own in suites.items()
            if name in pipeline.table(other).reads or own.same_rows_as == name
        ]
        refuse_unless(
            not readers,
            f"{table} must not have a row rule: its stage makes {', '.join(readers)} from all of "
            "its rows, before they are judged. Give the rule to a table that it is made from.",
        )
