"""What the platform's own tables and their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_RUN = {
    "run_id": "The run that wrote the row.",
    "pipeline": "Name of the pipeline.",
}
_DAYS = {
    "first_day": "First night that the run was about.",
    "last_day": "Last night that the run was about.",
}
_MEASURES = {
    "rows": "Rows that were measured.",
    "auc": "Area under the ROC curve; null where all labels are alike, and of regressions.",
    "log_loss": "Mean negative log likelihood of the label; null of regressions.",
    "brier": "Mean squared difference of probability and label; null of regressions.",
    "r2": "Share of the variance that is explained; null of classifications.",
    "rmse": "Root mean squared error, in the label's unit; null of classifications.",
    "mae": "Mean absolute error, in the label's unit; null of classifications.",
    "bias": "Mean of prediction less label, in the label's unit; null of classifications.",
    "mean_prediction": "Mean of what was foretold.",
    "label_mean": "Mean of what came true.",
    "measured_at": "When it was measured.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Documented:
    """What a table holds, and what its columns mean."""

    doc: str
    columns: Mapping[str, str]


OPS_TABLES: Mapping[str, Documented] = {
    "stage_runs": Documented(
        doc="Every stage that ran: when, how it ended, and what it did.",
        columns={
            **_RUN,
            **_DAYS,
            "stage": "Name of the stage.",
            "status": "done, current (nothing was to do), refused, failed, not landed, or awaits "
            "approval: no model serves, and one that would awaits a person.",
            "started_at": "When it began.",
            "seconds": "How long it took.",
            "metrics": "JSON: what the stage counted.",
            "error": "Why it was not done; null: it was.",
            "code_version": "Commit of the code that ran.",
        },
    ),
    "publications": Documented(
        doc="Every publication of a day of a table, and what it was made from.",
        columns={
            **_RUN,
            "table_name": "SQL name of the table.",
            "day": "Partition date of the table.",
            "version": (
                "Delta version of the table in which the rows are visible. Below 0: refused "
                "rows or predictions that the table has lost."
            ),
            "attempt": "1, 2, …: a lower one can never replace the rows of a higher one.",
            "stage": "The stage that made the rows.",
            "rows": "Rows of the day.",
            "checksum": "What the rows say, without the columns that tell how they were made.",
            "definition": "Digest of the declaration and the code that made the rows.",
            "inputs": "Files, or days of tables, that the rows were made from.",
            "changed": "Whether the rows differ from those before.",
            "code_version": "Commit of the code that ran.",
            "published_at": "When the rows became visible.",
            "known_day": "The night from which the rows are known; null: always.",
        },
    ),
    "check_results": Documented(
        doc="Every expectation that was judged.",
        columns={
            **_RUN,
            **_DAYS,
            "table_name": "SQL name of the table.",
            "stage": "The stage that judged it.",
            "expectation": "Name of the expectation.",
            "column_name": "The column or measure that it is about; null: the table.",
            "severity": "critical refuses the days, warning does not.",
            "success": "Whether it holds.",
            "observed": "What was found.",
            "detail": "JSON: what was expected, rows, bounds and examples.",
            "report": "The page with all of it.",
            "checked_at": "When it was judged.",
        },
    ),
    "waivers": Documented(
        doc="Who let a refused day through, why, and until when.",
        columns={
            "waiver_id": "By it a waiver is revoked.",
            "event": "granted, or revoked.",
            "pipeline": "Name of the pipeline.",
            "table_name": "SQL name of the table that was refused.",
            "first_day": "First night that is let through.",
            "last_day": "Last night that is let through.",
            "expectation": "The expectation that is waived.",
            "column_name": "The column or measure that it is about; null: the table.",
            "why": "The reason, by the person.",
            "until": "Last day (UTC) on which it is in force.",
            "created_by": "Who says so.",
            "created_at": "When.",
        },
    ),
    "model_events": Documented(
        doc="What became of each candidate, and which model serves: the record that counts.",
        columns={
            **_RUN,
            "as_of": "The night as of which the model was trained, and from which a turn begins.",
            "event": "promoted, awaiting, kept, refused or expired; or what a person did; or "
            "alias_moved: MLflow's alias, by hand, to this version, or deleted from it, and put "
            "back.",
            "model_version": "The model.",
            "rival_version": "The champion of then; null: none served.",
            "metrics": "JSON: the evidence.",
            "reason": "Why, in words.",
            "created_at": "When it was said.",
            "who": "The gate, a person, or nightshift: nobody approved in time; of a moved alias "
            "somebody.",
        },
    ),
    "alerts": Documented(
        doc="What people were told that was wrong, and that it was right again.",
        columns={
            **_RUN,
            "event": "stage_refused, stage_failed, feed_missing or predictions_late; recovered, a "
            "row for each cause that is right again; approval_expired; alias_moved.",
            "stage": "The stage that it happened to, or plan, which comes before them in Airflow; "
            "null: the whole night.",
            "days": "The nights that it is about, as they were told; empty: none, where what a run "
            "was asked for was refused.",
            "last_day": "The last of them, or the night that was due.",
            "cause": "What is told once: event, nights, stage and the first thing that is wrong. "
            "Another night that the same data stops has it too, and was not told of.",
            "message": "Why, and the way out.",
            "told_at": "When people were told, or known to know already.",
        },
    ),
    "costs": Documented(
        doc="What each stage took of the machine, and what that costs by pipelines/prices.py.",
        columns={
            **_RUN,
            **_DAYS,
            "stage": "Name of the stage.",
            "status": "As in ops.stage_runs.",
            "started_at": "When it began.",
            "seconds": "How long it took.",
            "cpu_seconds": "Processor time of its process, of its children, and of what the stage "
            "server forked for it, such as ranks.",
            "spark_cpu_seconds": "Processor time that the embedded Spark server used meanwhile, "
            "also for others that ran at the same time; null: a cluster computes.",
            "peak_bytes": "Resident memory of its process and of the most that were forked for it "
            "at one time, at their peaks, without Spark's server.",
            "rows_read": "Rows of landed files and of the days of tables that it read.",
            "bytes_read": "Sizes of the files that hold them.",
            "rows_written": "Rows that it wrote into the lake; of predict the predictions.",
            "bytes_written": "Sizes of their files.",
            "model_version": "The model that it trained or judged; null: another stage.",
            "cost": "Processor, memory at its peak all the time, and storage of what it wrote.",
            "currency": "Of the cost.",
        },
    ),
    "shadow_losses": Documented(
        doc="What each day of the event says of the night's candidate beside the champion.",
        columns={
            **_RUN,
            "recipe": "Digest of what makes a model besides the rows: another one begins anew.",
            "champion_version": "The model that served.",
            "event_date": "The day that was foretold.",
            "as_of": "The night that measured it.",
            "how": "shadow, or held_out where no candidate could have scored the day.",
            "candidate_version": "The model that scored it in the champion's shadow.",
            "rows": "Rows whose labels were known.",
            "candidate_loss": "Its mean loss of a row.",
            "champion_loss": "The champion's.",
            "measured_at": "When it was measured.",
        },
    ),
    "backtests": Documented(
        doc="How good a model would have been, by day of the event.",
        columns={
            **_RUN,
            **_MEASURES,
            "settings_digest": "By it backtests are told apart.",
            "settings": "JSON: what is learned from what, and how.",
            "as_of": "The night as of which the model was trained.",
            "event_date": "The day that was foretold.",
            "model": "'model', or the name of a baseline.",
        },
    ),
    "live_quality": Documented(
        doc="How good the predictions in force were, once their labels arrived.",
        columns={
            **_RUN,
            **_MEASURES,
            "landed_date": "The day on which the labels became known.",
            "event_date": "The day that was foretold.",
            "model_version": "The model that had foretold it.",
        },
    ),
    "drift": Documented(
        doc="What each night is watched for: drift, skew, coverage and quality.",
        columns={
            **_RUN,
            "night": "The night that was measured.",
            "kind": "feature, prediction, skew, coverage or quality.",
            "feature": "The feature, or what else is measured.",
            "statistic": "wasserstein (in standard deviations), jensen_shannon (0 to 1), "
            "null_share, share_differing, share_unpredicted, share_unlabelled, or shortfall of the "
            "share of a constant's loss that was promised to be saved.",
            "value": "What was measured; 0 is no change.",
            "low": "Lower end of its 95 % interval; null: it has none.",
            "high": "Upper end of it.",
            "threshold": "What is allowed.",
            "is_over": "Whether the value lies over it, or the lower end where there is one.",
            "measured_at": "When it was measured.",
        },
    ),
}
"""By name, without `ops`."""
