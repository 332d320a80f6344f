"""What consumers of predictions rely on stays, whatever becomes of features and models."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from expectations.predictions import MADE_BY, prediction_columns
from jobs.__main__ import main
from jobs.lake import contract
from jobs.lake.contract import breaches
from pipelines import catalog
from pipelines.errors import UsageError
from pipelines.model import LinearModel
from pipelines.spec import Deprecation, Pipeline
from tools import contracts

WEATHER = catalog.pipeline("weather")
PROMISED = contract.contract(WEATHER)
SINCE, UNTIL = date(2026, 11, 26), date(2027, 6, 1)
BEFORE, AFTER = UNTIL - timedelta(days=1), UNTIL
HOUR = Deprecation(column="hour", since=SINCE, until=UNTIL, why="Use forecast_at.")


def without_hour(**more: object) -> Pipeline:
    return replace(WEATHER, carried=(), **more)  # type: ignore[arg-type]


@pytest.mark.policy
@pytest.mark.parametrize("name", catalog.names())
def test_each_pipeline_keeps_what_it_promised(name: str) -> None:
    wrong = contracts.differences(name)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", catalog.names())
def test_the_contract_is_what_the_gate_demands_of_predictions(name: str) -> None:
    pipeline = catalog.pipeline(name)
    promised = {one.column: one for one in contract.contract(pipeline)}
    assert set(promised) == {*pipeline.entity, *prediction_columns(pipeline)}
    never_null = {column for column, one in promised.items() if not one.nullable}
    assert never_null == {*pipeline.entity, pipeline.prediction, *MADE_BY}
    assert all(one.meaning for one in promised.values())


def test_other_features_and_another_model_change_no_contract() -> None:
    kept = WEATHER.views[0]
    training = replace(
        WEATHER.training,
        numeric=tuple(feature.name for feature in kept.features),
        family=LinearModel(l2=1),
        baselines=WEATHER.training.baselines[1:],
    )
    other = replace(WEATHER, views=(kept,), training=training)
    assert contract.contract(other) == PROMISED


def test_a_column_that_would_vanish_is_named_with_the_way_out() -> None:
    (told,) = breaches("weather", PROMISED, contract.contract(without_hour()), SINCE)
    assert told.startswith("weather.predictions: column 'hour' (int) would vanish.")
    assert "deprecated=(Deprecation(column='hour', type='int', since=…" in told


def test_a_type_that_would_change_is_named() -> None:
    retyped = [replace(one, type="string") if one.column == "hour" else one for one in PROMISED]
    (told,) = breaches("weather", PROMISED, retyped, SINCE)
    assert "column 'hour' would become string, and was promised as int" in told


def test_a_column_that_could_be_null_from_now_on_is_named() -> None:
    loose = [replace(one, nullable=True) if one.column == "station" else one for one in PROMISED]
    (told,) = breaches("weather", PROMISED, loose, SINCE)
    assert "column 'station' could be null" in told


def test_a_new_column_and_another_meaning_break_nothing() -> None:
    wider = replace(WEATHER, carried=("hour", "dewp"))
    reworded = [replace(one, meaning="other") for one in contract.contract(wider)]
    assert breaches("weather", PROMISED, reworded, SINCE) == []


def test_a_deprecated_column_stays_until_its_day_though_nothing_makes_it() -> None:
    told = contract.contract(replace(WEATHER, deprecated=(HOUR,)))
    assert breaches("weather", PROMISED, told, BEFORE) == []
    gone = without_hour(deprecated=(replace(HOUR, type="int"),))
    kept = contract.contract(gone)
    assert breaches("weather", told, kept, BEFORE) == []
    (last,) = kept[-1:]
    assert (last.column, last.type, last.nullable) == ("hour", "int", True)
    assert last.told.startswith(
        "Deprecated since 2026-11-26, until 2027-06-01: Use forecast_at. Nothing makes it"
    )
    nothing = contract.contract(without_hour())
    (refused,) = breaches("weather", kept, nothing, BEFORE)
    assert "It was promised until 2027-06-01: keep it until then." in refused
    assert breaches("weather", kept, nothing, AFTER) == []


def test_a_deprecation_must_be_seen_before_it_runs_out() -> None:
    new = contract.contract(replace(WEATHER, deprecated=(HOUR,)))
    (told,) = breaches("weather", PROMISED, new, UNTIL)
    assert "column 'hour' would be deprecated until 2027-06-01, which is over already" in told
    assert breaches("weather", PROMISED, new, BEFORE) == []
    # One that was seen may be over.
    assert breaches("weather", new, new, AFTER) == []
    sooner = replace(HOUR, until=date(2026, 12, 1))
    shortened = contract.contract(replace(WEATHER, deprecated=(sooner,)))
    (told,) = breaches("weather", new, shortened, date(2026, 12, 1))
    assert "which is over already. It was promised until 2027-06-01" in told


def test_the_day_until_which_a_column_was_promised_comes_no_sooner() -> None:
    told = contract.contract(replace(WEATHER, deprecated=(HOUR,)))
    sooner = replace(HOUR, until=UNTIL - timedelta(days=1))
    shortened = contract.contract(replace(WEATHER, deprecated=(sooner,)))
    (refused,) = breaches("weather", told, shortened, SINCE)
    assert "column 'hour' would be deprecated until 2027-05-31 alone. It was promised" in refused
    assert "until 2027-06-01: keep it until then." in refused
    later = replace(HOUR, until=UNTIL + timedelta(days=1))
    longer = contract.contract(replace(WEATHER, deprecated=(later,)))
    assert breaches("weather", told, longer, SINCE) == []
    # To take a deprecation back promises more.
    assert breaches("weather", told, PROMISED, SINCE) == []
    assert breaches("weather", told, shortened, AFTER) == []


def test_a_column_may_be_null_only_once_its_deprecation_was_seen() -> None:
    (never_null,) = [one for one in PROMISED if one.column == "station"]
    gone = {"deprecated_since": "2026-11-26", "deprecated_until": str(UNTIL)}
    announced = [replace(never_null, **gone)]
    null = [replace(one, nullable=True) for one in announced]
    (told,) = breaches("weather", [never_null], null, SINCE)
    assert "column 'station' could be null" in told
    assert breaches("weather", [never_null], announced, SINCE) == []
    assert breaches("weather", announced, null, SINCE) == []


def test_a_deprecation_of_what_is_not_there_is_refused() -> None:
    odd = replace(WEATHER, deprecated=(replace(HOUR, column="hours"),))
    with pytest.raises(UsageError, match="deprecates 'hours', which its predictions do not have"):
        contract.contract(odd)
    with pytest.raises(UsageError, match="since 2027-06-01 must be before until"):
        replace(HOUR, since=UNTIL)
    with pytest.raises(UsageError, match="say why"):
        replace(HOUR, why=" ")


def test_a_column_whose_type_nothing_declares_is_named() -> None:
    untyped = tuple(replace(table, types={}) for table in WEATHER.derived)
    with pytest.raises(UsageError, match=r"the type of forecast_at.*types=\{'forecast_at': …\}"):
        contract.contract(replace(WEATHER, derived=untyped))


_KINDS = {
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
}
AS_PROMISED = pa.schema({one.column: _KINDS[one.type] for one in PROMISED})


def _with_hour_as(kind: pa.DataType) -> pa.Schema:
    """Columns of predictions, as a transform gives them that casts the hour of the feed."""
    place = AS_PROMISED.get_field_index("hour")
    return AS_PROMISED.set(place, pa.field("hour", kind))


DECIMAL = _with_hour_as(pa.decimal128(9, 2))


def _promising_decimals() -> Pipeline:
    hours, *others = WEATHER.derived
    typed = replace(hours, types={**hours.types, "hour": "decimal(9,2)"})
    return replace(WEATHER, derived=(typed, *others))


def test_what_is_of_another_type_than_is_promised_is_told_with_the_way_out() -> None:
    assert contract.not_as_promised(WEATHER, AS_PROMISED) == []
    (told,) = contract.not_as_promised(WEATHER, DECIMAL)
    assert told.startswith(
        "weather.predictions: column 'hour' is decimal(9,2) in the lake, and is promised as int"
    )
    assert "CAST(hour AS INT); or" in told
    assert "declare types={'hour': 'decimal(9,2)'} of the table" in told
    assert contract.not_as_promised(_promising_decimals(), DECIMAL) == []
    local = _with_hour_as(pa.timestamp("us"))
    (told,) = contract.not_as_promised(WEATHER, local)
    assert told.endswith("CAST(hour AS INT): nothing can be promised as timestamp[us].")


def test_a_promise_that_was_never_true_is_corrected_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "file_of", lambda name: tmp_path / f"{name}.json")
    assert contracts.main(["--write"]) == 0
    monkeypatch.setattr("pipelines.weather.PIPELINE", _promising_decimals())
    assert contracts.main(["--write"]) == 1
    file = tmp_path / "weather.json"
    others = [one for one in PROMISED if one.column != "hour"]
    file.write_text(contract.written(others))
    assert contracts.main(["--write"]) == 0
    types = {one.column: one.type for one in contract.promised(file)}
    assert types["hour"] == "decimal(9,2)"


def test_a_type_that_nothing_can_be_promised_as_is_refused() -> None:
    hours = WEATHER.derived[0]
    with pytest.raises(UsageError, match=r"Table 'hours': no types \['decimal'\]. Known: .*9,2"):
        replace(hours, types={"hour": "decimal"})
    with pytest.raises(UsageError, match=r"Deprecation of 'hour': no types \['number'\]"):
        replace(HOUR, type="number")


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    now = contract.contract(replace(WEATHER, deprecated=(HOUR,)))
    file = tmp_path / "weather.json"
    assert contract.promised(file) == ()
    file.write_text(contract.written(now))
    assert contract.promised(file) == now


def test_the_tool_writes_no_contract_that_breaks_a_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "file_of", lambda name: tmp_path / f"{name}.json")
    assert contracts.main([]) == 1
    assert "weather.json is not what is declared" in capsys.readouterr().out
    assert contracts.main(["--write"]) == 0
    written = (tmp_path / "weather.json").read_text()
    monkeypatch.setattr("pipelines.weather.PIPELINE", without_hour())
    assert contracts.main(["--write"]) == 1
    assert "column 'hour' (int) would vanish" in capsys.readouterr().out
    assert (tmp_path / "weather.json").read_text() == written


def test_the_command_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "weather", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["column"] for one in told] == [one.column for one in PROMISED]
    assert told[0]["type"] == "date"
    assert main(["contract", "weather", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("column,type,nullable,meaning,deprecated_since,")
