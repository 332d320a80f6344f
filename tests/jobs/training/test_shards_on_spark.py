"""Rows that Spark lays out are those of one process, in an order that the seed alone draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import WriterProperties, write_deltalake
from pyspark.sql import SparkSession

from jobs.lake import snapshots
from jobs.stages import train
from jobs.training import (
    backtest,
    candidate,
    dataset,
    encoding,
    families,
    parts,
    pins,
    replay,
    shards,
    shards_on_spark,
)
from jobs.training.backtest import Backtest
from jobs.training.column_statistics import Bounds
from jobs.training.dataset import Dataset, OnSpark
from jobs.training.encoding import Examples
from jobs.training.families.linear import LinearFamily
from jobs.training.registry import Registry
from jobs.training.shards import Shards
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.run import Run
from tests.jobs.training import small
from tests.jobs.training.test_column_statistics import require_alike

# A test does its work some times over; the server is there for all of them.
pytestmark = pytest.mark.usefixtures("spark")
WINDOW = dataset.window(small.SMALL, small.LAST)
ROWS = small.rows_of(Days(small.FIRST, small.LAST + timedelta(days=2)))


@pytest.fixture
def run(environment: Environment) -> Run:
    return published(small.run_of(environment, "train"))


def published(
    run: Run,
    rows: pa.Table = ROWS,
    *,
    rows_of_group: int = 7,
) -> Run:
    """The run, with the rows in several row groups of a file a day."""
    path = run.environment.table_path("small.training")
    properties = WriterProperties(max_row_group_size=rows_of_group)
    write_deltalake(
        path,
        rows,
        partition_by=["landed_date"],
        mode="overwrite",
        schema_mode="overwrite",
        writer_properties=properties,
    )
    return run


@contextmanager
def on_spark(run: Run) -> Iterator[OnSpark]:
    with dataset.on_spark(run, snapshots.newest(run, "training"), WINDOW) as laid_out:
        yield laid_out


def in_process(run: Run) -> Dataset:
    rows = dataset.labelled(run, snapshots.newest(run, "training"), WINDOW.all)
    return dataset.judged(run, rows, WINDOW)


def words(examples: Examples | Shards | None) -> np.ndarray:
    assert examples is not None
    return shards.words_of(examples.read(0, len(examples)))


def in_any_order(rows: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in rows)


def judged_words(run: Run) -> np.ndarray:
    with on_spark(run) as laid_out:
        return words(laid_out.judged().fit)


def learning_from(run: Run, **training: object) -> Run:
    changed = run.pipeline.training.with_settings(training)
    return replace(run, pipeline=replace(run.pipeline, training=changed))


def test_both_models_get_the_rows_and_the_encoding_of_one_process(run: Run) -> None:
    snapshot = snapshots.newest(run, "training")
    rows = dataset.labelled(run, snapshot, WINDOW.all)
    with on_spark(run) as laid_out:
        for ours, theirs in (
            (laid_out.judged(), dataset.judged(run, rows, WINDOW)),
            (laid_out.fresh(), dataset.fresh(run, rows, WINDOW)),
        ):
            assert isinstance(ours.fit, Shards)
            require_alike(ours.encoding, theirs.encoding)
            assert len(ours.fit) == len(theirs.fit)
            assert in_any_order(words(ours.fit)) == in_any_order(words(theirs.fit))
            assert (ours.validation is None) == (theirs.validation is None)
            if ours.validation is not None:
                np.testing.assert_array_equal(words(ours.validation), words(theirs.validation))


def test_an_outcome_that_is_told_anew_counts_once_as_in_one_process(run: Run) -> None:
    # Of a day to fit, of two that validate, of one that is held out.
    days = (3, 14, 16, 20)
    older = [ROWS.slice(40 * day, 30) for day in days]
    newest = pa.repeat(pa.scalar(small.LAST), 30)
    anew = [small.with_column(rows, "landed_date", newest) for rows in older]
    # Learned by nobody if nothing of the later rows counts.
    far_off = pa.array(np.full(30, 9.0))
    anew = [small.with_column(rows, "x", far_off) for rows in anew]
    published(run, pa.concat_tables([ROWS, *anew]))
    snapshot = snapshots.newest(run, "training")
    rows = dataset.labelled(run, snapshot, WINDOW.all)
    with on_spark(run) as laid_out:
        assert len(laid_out.told_anew.days) == 4
        for ours, theirs in (
            (laid_out.judged(), dataset.judged(run, rows, WINDOW)),
            (laid_out.fresh(), dataset.fresh(run, rows, WINDOW)),
        ):
            require_alike(ours.encoding, theirs.encoding)
            assert in_any_order(words(ours.fit)) == in_any_order(words(theirs.fit))
            if theirs.validation is not None:
                np.testing.assert_array_equal(words(ours.validation), words(theirs.validation))


def test_columns_that_a_file_lacks_and_odd_values_are_learned_as_in_one_process(run: Run) -> None:
    rows = small.without_values(ROWS, "noise")
    rare = ["RR" if place % 80 == 0 else None for place in range(len(ROWS))]
    # No part of the key, in which nothing may lack.
    whole = ("batch_date", "line", "batch")
    run = replace(run, pipeline=replace(run.pipeline, entity=whole))
    published(run, small.with_column(rows, "oven", pa.array(rare)))
    with on_spark(run) as laid_out:
        ours = laid_out.judged()
        require_alike(ours.encoding, in_process(run).encoding)
        assert in_any_order(words(ours.fit)) == in_any_order(words(in_process(run).fit))


def test_neither_tasks_nor_shards_nor_repetition_change_the_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 5000)
    first = judged_words(run)
    monkeypatch.setattr(parts, "TASK_BYTES", 10_000)
    monkeypatch.setattr(shards, "SHARD_ROWS", 100)
    with on_spark(run) as laid_out:
        again = laid_out.judged()
        assert isinstance(again.fit, Shards)
        assert len(again.fit.rows) == 5
        np.testing.assert_array_equal(words(again.fit), first)
        repeated = laid_out.judged()
        assert repeated.encoding == again.encoding
        np.testing.assert_array_equal(words(repeated.fit), first)


def test_wide_rows_are_laid_out_in_more_shards_in_the_same_order(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged_words(run)
    bound = first.nbytes // 4
    monkeypatch.setattr(shards, "SHARD_BYTES", bound)
    again = judged_words(run)
    np.testing.assert_array_equal(again, first)
    with on_spark(run) as laid_out:
        fit = laid_out.judged().fit
        assert isinstance(fit, Shards)
        files = sorted(fit.folder.glob("shard-*"))
        assert len(files) == len(fit.rows) == 4
        # The numbers that are drawn decide which shard a row is in.
        assert max(file.stat().st_size for file in files) < 1.3 * bound


def test_a_shard_that_no_row_was_dealt_to_harms_nobody(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged_words(run)
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)
    with on_spark(run) as laid_out:
        fit = laid_out.judged().fit
        assert isinstance(fit, Shards)
        assert 0 in fit.rows
        found = shards.find(fit.folder)
        np.testing.assert_array_equal(words(found), first)
        np.testing.assert_array_equal(words(found.sample()), first)


def test_the_order_is_that_of_the_seed_and_not_that_of_the_table(run: Run) -> None:
    first = judged_words(run)
    other = judged_words(learning_from(run, seed=1))
    assert in_any_order(first) == in_any_order(other)
    assert not np.array_equal(first, other)
    # Rows of a day are spread over all: neighbours in the table are none in the shards.
    places = {row.tobytes(): place for place, row in enumerate(first)}
    rows = dataset.labelled(run, snapshots.newest(run, "training"), WINDOW.fit)
    encoded = encoding.encode(rows, encoding.learn(rows, small.TRAINING), small.TRAINING.label)
    order = np.array([places[row.tobytes()] for row in words(encoded)])
    in_order = np.arange(len(order))
    assert abs(np.corrcoef(order, in_order)[0, 1]) < 0.2


def test_in_whatever_order_spark_hands_over_what_was_told_the_bits_are_the_same(
    run: Run, tmp_path: Path
) -> None:
    with on_spark(run) as laid_out:
        window = laid_out._window(WINDOW.fit)
        known = laid_out.judged().encoding
    shares = [
        {
            "number": one.number,
            "of_day": one.of_day,
            **asdict(one.part),
        }
        for one in window.shares
    ]
    batch = pa.RecordBatch.from_pylist(shares)
    bounds = Bounds.of(window.rows, len(shares))
    told = _tables(shards_on_spark._Learn(window, bounds)(iter([batch])))
    of_x = told.filter(pc.equal(told["name"], "x"))
    merge = shards_on_spark._merging(bounds)
    backwards = of_x.take(np.arange(len(of_x))[::-1])
    assert merge(of_x).equals(merge(backwards))
    dealt = _tables(shards_on_spark._Deal(window, known, 1)(iter([batch])))
    width = len(known.columns) + 1
    for name, order in (
        ("one", np.arange(len(dealt))),
        ("other", np.arange(len(dealt))[::-1]),
    ):
        shards_on_spark._writing(str(tmp_path / name), width)(dealt.take(order))
    one, other = (tmp_path / name / "shard-00000" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def _tables(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches)


def test_the_same_rows_written_anew_lie_in_the_same_order(run: Run) -> None:
    first = judged_words(run)
    np.testing.assert_array_equal(judged_words(published(run)), first)


def test_validation_days_that_do_not_fit_are_laid_out_too(run: Run) -> None:
    with on_spark(learning_from(run, rows_in_process=50)) as laid_out:
        found = laid_out.judged().validation
        assert isinstance(found, Shards)
        assert in_any_order(words(found)) == in_any_order(words(in_process(run).validation))


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_in_the_lake(run: Run, *, fails: bool) -> None:
    lake = Path(run.environment.lake)

    def train() -> None:
        with on_spark(run) as laid_out:
            laid_out.judged()
            assert list(lake.glob("_training/small/*/judged/shard-*"))
            if fails:
                raise NightshiftError("came apart")

    if fails:
        with pytest.raises(NightshiftError, match="came apart"):
            train()
    else:
        train()
    assert list(lake.glob("_training/small/*")) == []


def test_too_few_rows_are_refused_as_in_one_process(run: Run) -> None:
    few = learning_from(run, min_rows=5000)
    with pytest.raises(Refused) as theirs:
        in_process(few)
    with on_spark(few) as laid_out, pytest.raises(Refused) as ours:
        laid_out.judged()
    assert str(ours.value) == str(theirs.value)
    rows = dataset.labelled(few, snapshots.newest(few, "training"), WINDOW.all)
    with pytest.raises(Refused) as theirs:
        dataset.fresh(few, rows, WINDOW)
    with on_spark(few) as laid_out, pytest.raises(Refused) as ours:
        laid_out.require_fresh()
    assert str(ours.value) == str(theirs.value)


def test_a_column_that_the_table_lacks_is_named(run: Run) -> None:
    published(run, ROWS.drop_columns(["oven"]))
    with (
        on_spark(run) as laid_out,
        pytest.raises(NightshiftError, match=r"reads column 'oven', which the rows do not have"),
    ):
        laid_out.judged()


def test_rows_that_were_made_with_another_entity_are_refused_as_in_one_process(run: Run) -> None:
    ovens = ROWS["oven"].to_pylist()
    ovens[len(ovens) // 2] = None
    published(run, small.with_column(ROWS, "oven", pa.array(ovens)))
    with pytest.raises(UsageError, match=r"1 rows .* have no 'oven'") as theirs:
        in_process(run)
    with on_spark(run) as laid_out, pytest.raises(UsageError) as ours:
        laid_out.judged()
    assert str(ours.value) == str(theirs.value)


@dataclass(frozen=True, kw_only=True)
class Streaming(LinearFamily):
    """A linear model that takes shards."""

    streams: bool = True


@pytest.mark.parametrize("cores", [0, 4])
def test_a_candidate_of_shards_is_that_of_one_process(run: Run, tmp_path: Path, cores: int) -> None:
    linear = replace(run, pipeline=small.learned_by(small.SMALL, small.LINEAR))
    recipe = replace(candidate.recipe_of(linear), family=Streaming())
    made = {}
    for is_on_spark in (False, True):
        folder = tmp_path / str(is_on_spark)
        folder.mkdir()
        chosen = replace(recipe, on_spark=is_on_spark)
        made[is_on_spark] = candidate.make(linear, chosen, folder, cores)
    ours, theirs = made[True], made[False]
    assert ours.validation_rows == theirs.validation_rows
    for one, other in (
        (ours.judged, theirs.judged),
        (ours.fresh, theirs.fresh),
    ):
        assert one.fit_rows == other.fit_rows
        assert len(one.sample) == len(other.sample)
        assert one.fit.curves["loss"] == pytest.approx(
            other.fit.curves["loss"],
            rel=1e-5,
        )


@pytest.fixture
def streaming(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose linear model takes shards, of a window that is large."""
    monkeypatch.setitem(families.FAMILIES, "linear", Streaming())
    linear = replace(run, pipeline=small.learned_by(small.SMALL, small.LINEAR))
    return learning_from(linear, rows_in_process=10)


def test_a_model_of_shards_is_found_again_and_replayed_to_the_same_weights(
    streaming: Run,
) -> None:
    told, again = (train.train(streaming) for _ in range(2))
    assert (told["laid_out_by"], told["fit_rows"]) == ("Spark", 39 * 12)
    assert (told["reused"], again["reused"]) == (False, True)
    environment = streaming.environment
    registry = Registry(environment, "small")
    # Today's declaration would read the rows into one process.
    first = replay.original(registry, environment, small.SMALL, str(told["model_version"]))
    elsewhere = replace(environment, home=environment.home / "of a stage server")
    found = replay.replay(registry, first, elsewhere)
    assert (found.same, found.changed) == (True, [])
    remote = replace(environment, spark_remote="sc://elsewhere:15002")
    with pytest.raises(Refused, match="SPARK_REMOTE need not have our code"):
        replay.original(registry, remote, small.SMALL, str(told["model_version"]))


def test_a_backtest_of_large_windows_says_what_one_of_small_ones_says(streaming: Run) -> None:
    losses = []
    for most in (10, None):
        asked = Backtest(
            pipeline=learning_from(streaming, rows_in_process=most).pipeline,
            days=Days(
                small.LAST + timedelta(days=1),
                small.LAST + timedelta(days=2),
            ),
            every=2,
            environment=streaming.environment,
            run_id="b1",
        )
        assert len(list(backtest.walk(asked, streaming.environment))) == 1
        losses.append(backtest.read(asked).predictions[backtest.MODEL])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert not np.array_equal(losses[0], losses[1]), "the order of the rows changes the last bits"


def test_the_declared_bound_decides_and_is_no_part_of_the_model(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = snapshots.count(run, snapshots.newest(run, "training"), WINDOW.all)
    at_most, large = (learning_from(run, rows_in_process=most) for most in (rows, rows - 1))
    small_recipe, large_recipe = map(candidate.recipe_of, (at_most, large))
    assert (small_recipe.on_spark, large_recipe.on_spark) == (False, True)
    assert candidate.recipe_of(learning_from(run, rows_in_process=None)).on_spark is False
    unsaid = pins.pins(run, candidate.recipe_of(run))
    assert pins.pins(at_most, small_recipe) == unsaid
    told = pins.pins(large, large_recipe)
    assert told.pop(pins.LAID_OUT)
    assert told == unsaid
    assert pins.fingerprint(told) != pins.fingerprint(pins.pins(large, large_recipe))
    assert capsys.readouterr().err == ""


def test_a_family_that_does_not_stream_reads_all_rows_and_says_so(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = replace(run, pipeline=small.learned_by(small.SMALL, small.LINEAR))
    assert candidate.recipe_of(learning_from(linear, rows_in_process=10)).on_spark is False
    assert "family 'linear' reads all rows at once" in capsys.readouterr().err
    elsewhere = replace(run.environment, spark_remote="sc://elsewhere:15002")
    foreign = replace(learning_from(run, rows_in_process=10), environment=elsewhere)
    assert candidate.recipe_of(foreign).on_spark is False
    assert "SPARK_REMOTE need not have our code" in capsys.readouterr().err


def test_a_session_is_that_of_the_run(run: Run, spark: SparkSession) -> None:
    with on_spark(run) as laid_out:
        assert laid_out.session is spark


def test_a_network_learns_from_shards_as_it_does_from_memory(
    run: Run, ranked: Environment, tmp_path: Path
) -> None:
    losses = []
    for rows_in_process in (1, None):
        asked = learning_from(run, rows_in_process=rows_in_process)
        recipe = candidate.recipe_of(asked)
        assert recipe.on_spark is (rows_in_process == 1)
        folder = tmp_path / str(rows_in_process)
        folder.mkdir()
        made = candidate.make(asked, recipe, folder, ranks_in=ranked)
        losses.append(made.judged.fit.curves["val_loss"][-1])
        curve = made.judged.fit.curves["loss"]
        assert curve[-1] < curve[0]
        assert made.fresh.fit.calibration_slope == made.judged.fit.calibration_slope
    # Another order of the same rows.
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
