"""What each table and each of its columns means, as the declarations say it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import chain

from jobs.lake.ops_docs import OPS_TABLES
from jobs.lake.ops_views import OPS_VIEWS
from pipelines import catalog
from pipelines.errors import UsageError
from pipelines.features import Feature
from pipelines.feeds import Feed
from pipelines.spec import (
    HISTORY_SUFFIX,
    OPS,
    PREDICTIONS,
    QUARANTINE_SUFFIX,
    SCORING,
    TRAINING,
    Pipeline,
    Table,
)

_PROVENANCE = {
    "landed_date": "The day of the drop that the row came with.",
    "source_file": "The file, below the landing folder.",
    "source_line": "Its line in the file; of Parquet its place, from 1.",
}
_QUARANTINE = {
    **_PROVENANCE,
    "reason": "Why the row was refused: the column, its value, and what was expected.",
    "record": "The row as it stands in the file.",
}
_MADE = {
    "landed_date": "The night: the day whose files it is made from.",
    "event_timestamp": "The scoring moment: local midnight at the end of landed_date.",
}
_ROLLED = {
    "grain": "Whose past it is; one of the pipeline's grains.",
    "key": "Of the grain's columns, joined by '|'.",
}
_PREDICTED = {
    "model_name": "The registered model that scored the row.",
    "model_version": "Its version: ops.model_events has when and why it came to serve.",
    "model_run_id": "The run in MLflow that trained it.",
    "run_id": "The run that published the row: ops.stage_runs has its stages.",
    "predicted_at": "When it was scored.",
    "scoring_version": "Delta version of the scoring table that was read.",
    "code_version": "Commit of the code that scored it.",
}
_HISTORY = {
    "known_date": "The night from which this version of the day is known; null: always.",
    "revision": "1, 2, … of its day.",
    "is_in_force": "Whether it is the version that the table itself shows.",
}


def table_doc(name: str) -> str:
    """What the table holds; empty: nothing is declared.

    Args:
        name: SQL name.
    """
    schema, _, table = name.partition(".")
    if name in OPS_VIEWS:
        return OPS_VIEWS[name].doc
    if schema == OPS:
        return OPS_TABLES[table].doc if table in OPS_TABLES else ""
    pipeline = _pipeline(schema)
    if pipeline is None:
        return ""
    if table.endswith(HISTORY_SUFFIX):
        told = table_doc(name.removesuffix(HISTORY_SUFFIX))
        return f"Every version of each day. {told}" if told else ""
    if table.endswith(QUARANTINE_SUFFIX):
        return f"Rows of {name.removesuffix(QUARANTINE_SUFFIX)} that were refused, and why."
    docs = {one.name: one.doc for one in pipeline.tables}
    return docs.get(table, "")


def column_docs(name: str) -> Mapping[str, str]:
    """Meaning and unit of the table's columns, by name; those of which nothing is declared lack.

    Args:
        name: SQL name of the table.
    """
    schema, _, table = name.partition(".")
    if name in OPS_VIEWS:
        return OPS_VIEWS[name].columns
    if schema == OPS:
        return OPS_TABLES[table].columns if table in OPS_TABLES else {}
    pipeline = _pipeline(schema)
    if pipeline is None:
        return {}
    if table.endswith(HISTORY_SUFFIX):
        return {**column_docs(name.removesuffix(HISTORY_SUFFIX)), **_HISTORY}
    if table.endswith(QUARANTINE_SUFFIX):
        return _QUARANTINE
    feeds = {feed.name: feed for feed in pipeline.feeds}
    if table in feeds:
        return _of_feed(feeds[table])
    if table == PREDICTIONS:
        foretold = {pipeline.prediction: f"What the model foretells. {pipeline.title}"}
        return {**_joined(pipeline), **foretold, **_PREDICTED}
    if table == TRAINING:
        label = pipeline.training.label
        landed = {"landed_date": "The day on which the label became known."}
        return {**_joined(pipeline), label: "The label, as it became known.", **landed}
    if table == SCORING:
        return _joined(pipeline)
    own = {one.name: one.docs for one in pipeline.derived}
    named = {**_derived(pipeline), **_looked_up(pipeline, table)}
    return {**named, **_MADE, **_ROLLED, **own.get(table, {})}


def declared_columns(pipeline: Pipeline, table: Table) -> list[str]:
    """Columns that the table has, whatever its transform adds: what is told before its first night.

    Args:
        pipeline: Whose table it is.
        table: One of its tables.
    """
    feeds = {feed.name: feed for feed in pipeline.feeds}
    if table.name in feeds:
        return [*feeds[table.name].column_names, *_PROVENANCE]
    shown = (table.partition, *pipeline.entity, *pipeline.carried)
    training = pipeline.training
    asked = ("event_timestamp", *training.categorical, *training.numeric)
    model_tables = {
        TRAINING: (*shown, *asked, training.label),
        SCORING: (*shown, *asked),
        PREDICTIONS: (*shown, pipeline.prediction, *_PREDICTED),
    }
    sure = (table.partition, *table.key, *table.docs)
    names = model_tables.get(table.name, sure)
    return list(dict.fromkeys(names))


def feed_docs(pipeline: Pipeline) -> dict[str, str]:
    """Meaning and unit of the columns of all feeds, by name; of two feeds the first one tells."""
    found: dict[str, str] = {}
    for feed in pipeline.feeds:
        for column in feed.columns:
            if column.doc:
                found.setdefault(column.name, column.doc)
    return found


def _pipeline(name: str) -> Pipeline | None:
    """None: there is none of that name, or somebody is writing it, and its tables are there."""
    with suppress(UsageError):
        return catalog.pipeline(name)
    return None


def _of_feed(feed: Feed) -> dict[str, str]:
    declared = {column.name: column.doc for column in feed.columns if column.doc}
    return {**declared, **_PROVENANCE}


def _derived(pipeline: Pipeline) -> dict[str, str]:
    """Of every column that transforms and the join carry over or make, by name."""
    raw = feed_docs(pipeline)
    made = dict(chain.from_iterable(one.docs.items() for one in pipeline.derived))
    features: dict[str, str] = {}
    for view in pipeline.views:
        features |= {one.name: _of_feature(one, raw) for one in view.features}
    return {**raw, **made, **features}


def _joined(pipeline: Pipeline) -> dict[str, str]:
    """Of the columns of training and scoring, by name; the label aside."""
    told = {feed.name: _of_feed(feed) for feed in pipeline.feeds}
    told |= {one.name: dict(one.docs) for one in pipeline.derived}
    scored = told[pipeline.entity_table]
    # Of its own moment another table may say something else.
    moment = scored.get("event_timestamp") or _MADE["event_timestamp"]
    return {**_derived(pipeline), **_MADE, "event_timestamp": moment}


def _looked_up(pipeline: Pipeline, table: str) -> dict[str, str]:
    """Of the columns that views look up in a table under other names than the model's."""
    views = [view for view in pipeline.views if view.table == table]
    features = chain.from_iterable(view.features for view in views)
    renamed = [one for one in features if one.looked_up != one.name]
    return {one.looked_up: one.doc for one in renamed if one.doc}


def _of_feature(feature: Feature, raw: Mapping[str, str]) -> str:
    """Its own doc, else that of the raw column that it is, else the SQL that makes it."""
    if feature.doc:
        return feature.doc
    source = (feature.made_by or feature.looked_up).strip()
    if raw.get(source) and not feature.finish:
        return f"{source}: {raw[source]}"
    return f"SQL: {feature.finish.replace('value', source) if feature.finish else source}"
