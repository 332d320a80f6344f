"""What OpenLineage is told of a stage: the tables that it read, and those that it changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dags import lineage
from dags.tasks import StageOperator
from pipelines.catalog import pipeline
from pipelines.environment import Environment
from pipelines.stages import stage

CHANGED = {
    "flights.weather": {"rows": 7, "version": 3, "days": "2013-04-01"},
    "flights.predictions": {"rows": 2, "version": 9, "days": "2013-04-02"},
}


def check_of(name: str) -> StageOperator:
    return StageOperator(pipeline=pipeline("flights"), stage=stage(name))


def test_a_stage_tells_what_it_read_and_what_it_changed_and_nothing_of_other_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.delenv("NIGHTSHIFT_LAKE", raising=False)
    operator = check_of("check_predictions")
    operator.changed = CHANGED
    told = operator.get_openlineage_facets_on_complete(None)
    assert [(one.namespace, one.name) for one in told.inputs] == [
        ("file", f"{tmp_path}/lake/flights/scoring")
    ]
    (predictions,) = told.outputs
    assert (predictions.namespace, predictions.name) == (
        "file",
        f"{tmp_path}/lake/flights/predictions",
    )
    assert predictions.facets["version"].datasetVersion == "9"
    assert predictions.outputFacets["outputStatistics"].rowCount == 2
    (sql,) = predictions.facets["symlinks"].identifiers
    assert (sql.namespace, sql.name, sql.type) == ("nightshift", "flights.predictions", "TABLE")


def test_a_stage_that_changed_nothing_tells_only_what_it_read() -> None:
    operator = check_of("check_clean")
    told = operator.get_openlineage_facets_on_failure(None)
    assert told.outputs == []
    assert len(told.inputs) >= 3


@pytest.mark.parametrize(
    ("lake", "meant"),
    [
        ("/data/lake", ("file", "/data/lake/flights/planes")),
        ("s3://bucket/lake", ("s3://bucket", "lake/flights/planes")),
        ("s3a://bucket/deep/lake", ("s3://bucket", "deep/lake/flights/planes")),
        ("s3://ann:SECRET@bucket/lake", ("s3://bucket", "lake/flights/planes")),
        ("s3a://KEY@bucket/lake", ("s3://bucket", "lake/flights/planes")),
        ("hdfs://node:8020/lake", ("hdfs://node:8020", "lake/flights/planes")),
        (
            "abfss://tables@account.dfs.core.windows.net/lake",
            ("abfss://tables@account.dfs.core.windows.net", "lake/flights/planes"),
        ),
        (
            "abfss://ann:SECRET@account.dfs.core.windows.net/lake",
            ("abfss://account.dfs.core.windows.net", "lake/flights/planes"),
        ),
    ],
)
def test_a_table_has_the_name_that_spark_tells_openlineage(
    lake: str, meant: tuple[str, str]
) -> None:
    environment = replace(Environment.read({}), lake=lake)
    assert lineage.address(environment, "flights.planes") == meant
