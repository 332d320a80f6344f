"""The functions that make a pipeline's tables, and what each table is by declaration and code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jobs.lake.definition import digest
from pipelines.catalog import part
from pipelines.errors import UsageError, refuse_unless
from pipelines.features import names
from pipelines.spec import PREDICTIONS, SCORING, TRAINING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

    from pipelines.spec import Pipeline, Table

Transform = Callable[..., "DataFrame"]
"""Makes the rows of the table that it is named after, from the tables that it names."""


def transform_of(pipeline: Pipeline, table: Table) -> Transform:
    """The function that makes a derived table.

    Raises:
        UsageError: there is none, or one that takes other tables than the declaration says.
    """
    lacking = f"Table '{pipeline.name}.{table.name}' has no transform"
    wanted = [*table.reads, "days"]
    function = _written_for(pipeline, table.name, ", ".join(wanted), lacking)
    taken = parameters(function)
    if set(taken) != set(wanted):
        raise UsageError(
            f"Table '{pipeline.name}.{table.name}' reads {', '.join(table.reads) or 'no table'}, "
            f"but `{table.name}` of jobs/transforms/{pipeline.name}.py takes ({', '.join(taken)}): "
            f"write `def {table.name}({', '.join(wanted)})`, or change `reads`."
        )
    return function


def labels_of(pipeline: Pipeline) -> Transform:
    """The function that makes the labels.

    Raises:
        UsageError: there is none, or one that takes what is no table of the pipeline's data, or a
            table that corrections do not reach.
    """
    lacking = f"'{pipeline.name}' has no labels"
    function = _written_for(pipeline, "labels", "<outcomes>", lacking)
    known = [feed.name for feed in pipeline.feeds]
    known += [table.name for table in pipeline.derived]
    strange = [name for name in parameters(function) if name not in known]
    if strange:
        raise UsageError(
            f"`labels` of jobs/transforms/{pipeline.name}.py takes {', '.join(strange)}, which no "
            "feed or transform makes: it is given the rows that became known, of the tables that "
            f"its parameters name. Known: {', '.join(known)}."
        )
    for table in pipeline.derived:
        is_read = table.name in parameters(function)
        refuse_unless(
            not (is_read and table.is_of_the_moment),
            f"`labels` of jobs/transforms/{pipeline.name}.py takes {table.name}, whose days say "
            f"for ever what was known in their night: over its window of {table.window_days} days "
            "no correction would reach the labels. Declare it with follows_corrections=True.",
        )
    return function


def require_dates(given: StructType, names: Iterable[str], function: str) -> None:
    """Refuse rows whose days are no dates.

    Args:
        given: Columns and types of the rows.
        names: Those that hold a day.
        function: That gave them, for the message.

    Raises:
        UsageError: one is of another type; the message says how to cast it.
    """
    for name in names:
        kind = given[name].dataType.simpleString()
        refuse_unless(
            kind == "date",
            f"{function} gave {name} as {kind}, which must be a date: `CAST({name} AS DATE)`.",
        )


def parameters(function: Transform) -> list[str]:
    """Names of the tables that it reads."""
    return list(inspect.signature(function).parameters)


def tables_joined(pipeline: Pipeline) -> list[str]:
    """The tables that training and scoring rows are made from, each once."""
    views = [view.table for view in pipeline.views]
    outcomes = parameters(labels_of(pipeline))
    return list(dict.fromkeys([pipeline.entity_table, *views, *outcomes]))


def definitions(pipeline: Pipeline) -> dict[str, str]:
    """What each table is: a digest that changes when its declaration or code does, or an input's.

    Raises:
        UsageError: a declared table, or the labels, have no function.
    """
    found = definitions_of_data(pipeline)
    inputs = [found[name] for name in tables_joined(pipeline)]
    declared: tuple[Any, ...] = (pipeline.views, pipeline.entity, pipeline.entity_table)
    shown = (pipeline.carried, _features_shown(pipeline))
    joined = digest(*declared, *shown, labels_of(pipeline), *inputs)
    found[TRAINING] = found[SCORING] = joined
    found[PREDICTIONS] = digest(pipeline.entity, pipeline.carried, pipeline.prediction, joined)
    return found


def _features_shown(pipeline: Pipeline) -> tuple[str, ...]:
    """The features that training and scoring rows have, whether the model reads them or not.

    In the order in which they are declared as read, so that one which is read no more changes
    nothing: those of the views, what the entity table gives itself, then the categorical ones.
    """
    training = pipeline.training
    if not training.unread:
        return training.features
    given = names(pipeline.views)
    own = [name for name in (*training.numeric, *training.unread) if name not in given]
    return (*given, *own, *training.categorical)


def definitions_of_data(pipeline: Pipeline) -> dict[str, str]:
    """What each raw and derived table is; see `definitions`."""
    found: dict[str, str] = {feed.name: digest(feed) for feed in pipeline.feeds}
    for table in pipeline.derived:
        inputs = [found[name] for name in table.reads]
        found[table.name] = digest(table, transform_of(pipeline, table), *inputs)
    return found


def _written_for(
    pipeline: Pipeline,
    name: str,
    arguments: str,
    lacking: str,
) -> Transform:
    """The function of that name in `jobs/transforms/<pipeline>.py`.

    Raises:
        UsageError: there is none; the message begins with what is `lacking` and says which function
            to write where.
    """
    module = part("jobs.transforms", pipeline, "its transforms")
    function: Transform | None = getattr(module, name, None)
    if function is None:
        file = f"jobs/transforms/{pipeline.name}.py"
        raise UsageError(f"{lacking}: write `def {name}({arguments})` in {file}.")
    return function
