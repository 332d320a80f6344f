"""Views over the platform's own tables, for SQL alone.

What nights, stages and models cost, and which files rows were made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.spec import OPS


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A named query; it is there when all tables are that it reads."""

    reads: tuple[str, ...]
    """SQL names of tables."""
    query: str
    doc: str
    columns: Mapping[str, str]
    """What each column of it means, by name."""


_PIPELINE = {"pipeline": "Name of the pipeline."}
_COSTS = f"{OPS}.costs"
_PUBLICATIONS = f"{OPS}.publications"

OPS_VIEWS: Mapping[str, View] = {
    f"{OPS}.cost_per_stage": View(
        reads=(_COSTS,),
        doc="What each stage of a pipeline has cost so far.",
        query=f"""
            SELECT
                pipeline,
                stage,
                currency,
                count(*) AS runs,
                sum(cost) AS cost,
                avg(cost) AS cost_per_run,
                sum(cost) / nullif(sum(sum(cost)) OVER (PARTITION BY pipeline, currency), 0)
                    AS share,
                sum(seconds) AS seconds,
                sum(cpu_seconds + coalesce(spark_cpu_seconds, 0)) AS cpu_seconds,
                max(peak_bytes) AS peak_bytes,
                sum(rows_read)::BIGINT AS rows_read,
                sum(rows_written)::BIGINT AS rows_written
            FROM {_COSTS}
            GROUP BY pipeline, stage, currency
        """,
        columns={
            **_PIPELINE,
            "stage": "Name of the stage.",
            "currency": "Of the costs.",
            "runs": "How often it ran, failed runs too.",
            "cost": "Of all of its runs.",
            "cost_per_run": "Their mean.",
            "share": "Of what the pipeline cost, 0 to 1; null: it cost nothing.",
            "seconds": "That it took, in all.",
            "cpu_seconds": "Processor time, in all, with that of Spark's server; what that did "
            "while stages ran at the same time counts for each of them.",
            "peak_bytes": "The most memory that a run of it needed.",
            "rows_read": "In all.",
            "rows_written": "In all.",
        },
    ),
    f"{OPS}.cost_per_1000_predictions": View(
        reads=(_COSTS,),
        doc="What each run cost, and what that is for 1,000 of its predictions.",
        query=f"""
            SELECT
                pipeline,
                run_id,
                min(first_day) AS first_day,
                max(last_day) AS last_day,
                currency,
                sum(cost) AS cost,
                coalesce(
                    sum(rows_written) FILTER (stage = 'predict' AND status = 'done'), 0
                )::BIGINT AS predictions,
                1000 * sum(cost) / nullif(predictions, 0) AS cost_per_1000
            FROM {_COSTS}
            GROUP BY pipeline, run_id, currency
        """,
        columns={
            **_PIPELINE,
            "run_id": "The run.",
            "first_day": "First night that it was about.",
            "last_day": "Last night that it was about.",
            "currency": "Of the costs.",
            "cost": "Of all stages that it performed; see cpu_seconds of ops.cost_per_stage.",
            "predictions": "That it scored.",
            "cost_per_1000": "Of 1,000 predictions; null: it scored none.",
        },
    ),
    f"{OPS}.cost_per_model": View(
        reads=(_COSTS, f"{OPS}.model_events"),
        doc="What each model cost that came to serve, with the trainings that led to it.",
        query=f"""
            WITH trained AS (
                SELECT
                    pipeline,
                    model_version,
                    -- One that failed made no model, and is told apart by when it began.
                    coalesce(model_version, started_at::VARCHAR) AS work,
                    currency,
                    sum(cost) AS cost,
                    min(started_at) AS at
                FROM {_COSTS}
                WHERE stage IN ('train', 'evaluate')
                GROUP BY pipeline, model_version, work, currency
            ),
            promoted AS (
                SELECT
                    pipeline,
                    model_version,
                    min(as_of) AS as_of,
                    min(created_at) AS promoted_at,
                    lag(min(created_at)) OVER (PARTITION BY pipeline ORDER BY min(created_at))
                        AS one_before_at
                FROM {OPS}.model_events
                WHERE event IN ('promoted', 'approved')
                GROUP BY pipeline, model_version
            )
            SELECT
                promoted.pipeline,
                promoted.model_version,
                promoted.as_of,
                promoted.promoted_at,
                own.currency,
                any_value(own.cost) AS cost,
                count(others.model_version) AS trainings,
                sum(others.cost) AS cost_with_others
            FROM promoted
            JOIN trained AS own USING (pipeline, model_version)
            JOIN trained AS others
                ON others.pipeline = promoted.pipeline
                AND others.currency = own.currency
                AND others.at <= promoted.promoted_at
                AND (
                    others.model_version = own.model_version
                    OR promoted.one_before_at IS NULL
                    OR others.at > promoted.one_before_at
                )
            GROUP BY ALL
        """,
        columns={
            **_PIPELINE,
            "model_version": "The model.",
            "as_of": "The night from which it served.",
            "promoted_at": "When the gate or a person let it serve.",
            "currency": "Of the costs.",
            "cost": "Of training and judging it.",
            "trainings": "Models that were trained since the one before it came to serve.",
            "cost_with_others": "Of training and judging all of these, and of trainings meanwhile "
            "that came to nothing.",
        },
    ),
    # As jobs/lake/lineage.py follows it; a test compares them.
    f"{OPS}.files_behind": View(
        reads=(_PUBLICATIONS,),
        doc="For each publication the landed files that its rows were made from, through every "
        "table between; of a day that was corrected later the files of then.",
        query=f"""
            WITH RECURSIVE published AS MATERIALIZED (
                SELECT
                    row_number() OVER () AS id,
                    1 < row_number() OVER (
                        PARTITION BY pipeline, table_name, day ORDER BY version, published_at
                    ) AS is_later,
                    list_contains([one.known_by for one in inputs], day) AS is_of_own_night,
                    *
                FROM {_PUBLICATIONS}
            ),
            -- The nights before those that may see other rows of a day than they.
            turned AS MATERIALIZED (
                SELECT DISTINCT
                    pipeline,
                    table_name,
                    unnest(
                        if(is_of_own_night, [known_day, day, day + 1], [known_day])
                    ) - 1 AS night
                FROM published
                WHERE is_later OR (is_of_own_night AND known_day > day)
            ),
            given AS MATERIALIZED (
                SELECT id, pipeline, published_at, unnest(inputs) AS source FROM published
            ),
            -- Of the nights that saw the rows those which have seen, together, whatever any saw.
            asked AS MATERIALIZED (
                SELECT *, source.known_by AS night FROM given
                UNION ALL
                SELECT given.*, turned.night
                FROM given
                JOIN turned
                    ON turned.pipeline = given.pipeline
                    AND turned.table_name = given.source.name
                    AND turned.night >= given.source.known_from
                    AND turned.night < given.source.known_by
            ),
            seen AS MATERIALIZED (
                SELECT DISTINCT asked.id, behind.id AS made_of
                FROM asked
                JOIN published AS behind
                    ON behind.pipeline = asked.pipeline
                    AND behind.table_name = asked.source.name
                    AND behind.day BETWEEN asked.source.first_day AND asked.source.last_day
                    AND behind.version <= coalesce(asked.source.version, behind.version)
                    -- What changed nothing bears the version of rows that were there before.
                    AND (behind.changed OR behind.published_at <= asked.published_at)
                    AND (
                        asked.night IS NULL
                        OR behind.known_day IS NULL
                        OR behind.known_day <= asked.night
                        -- A night sees what was made from what it knew itself.
                        OR (behind.day = asked.night AND behind.is_of_own_night)
                    )
                QUALIFY 1 = row_number() OVER (
                    PARTITION BY asked.id, asked.source, asked.night, behind.day
                    ORDER BY behind.version DESC, behind.published_at DESC
                )
            ),
            reached AS (
                SELECT id, id AS made_of FROM published
                UNION
                SELECT reached.id, seen.made_of
                FROM reached
                JOIN seen ON seen.id = reached.made_of
            )
            SELECT DISTINCT
                published.pipeline,
                published.table_name,
                published.day,
                published.version,
                published.run_id,
                given.source.name AS file,
                given.source.digest AS digest
            FROM published
            JOIN reached USING (id)
            JOIN given ON given.id = reached.made_of
            -- Models have names with a slash too.
            WHERE starts_with(given.source.name, given.pipeline || '/')
        """,
        columns={
            **_PIPELINE,
            "table_name": "SQL name of the table.",
            "day": "Partition date of the table.",
            "version": "Delta version of the table in which the rows became visible.",
            "run_id": "The run that published them.",
            "file": "Below the landing folder.",
            "digest": "SHA-256 of the file as it was read.",
        },
    ),
}
"""By SQL name."""
