"""A card says what the record says, escapes what people wrote, and never fails a night."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from jobs.commands import decide
from jobs.commands.card import card as card_command
from jobs.commands.decide import Said
from jobs.lake import lineage, model_events, ops
from jobs.training import cards, plots
from jobs.training.cards import render
from jobs.training.cards.card import Card, Section, Table
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.spec import Pipeline
from tests.jobs.training import small

MORNING = datetime(2013, 1, 8, 5, tzinfo=UTC)
EVIL = "<script>alert(1)</script> | *odd* [x](y)\n# and more"


def _judged(day: str, rows: int, **loss: float) -> dict[str, Any]:
    return {"day": day, "rows": rows, "loss": loss}


BY_DAY = [
    _judged("2013-01-19", 10, candidate=0.4, champion=0.5, rate=0.6),
    _judged("2013-01-20", 30, candidate=0.6, champion=0.5, rate=0.9),
    _judged("2013-01-21", 20, candidate=0.5, champion=0.5, rate=0.9),
    _judged("2013-01-22", 30, candidate=0.6, champion=0.5, rate=0.9),
    _judged("2013-01-23", 10, candidate=0.4, champion=0.5, rate=0.6),
]
EVIDENCE = {
    "rows": 100,
    "days": 5,
    "task": "binary_classification",
    "candidate": {
        "auc": 0.7,
        "log_loss": 0.5400,
        "brier": 0.2,
        "mean_prediction": 0.24,
        "label_mean": 0.25,
    },
    "champion": {"auc": 0.69, "log_loss": 0.5},
    "baselines": {"rate": {"auc": 0.6, "log_loss": 0.85}},
    "challenge": {"days": 30, "gain": 0.00123},
    "slices": [
        {
            "column": "line",
            "value": "AA",
            "rows": 50,
            "candidate_loss": 0.61,
            "champion_loss": 0.52,
            "candidate_low": 0.59,
            "candidate_high": 0.63,
            "surely_worse_by": 0.0456,
            "worse_by_at_most": 0.1234,
        },
        {"column": "line", "value": "<b>", "rows": 5, "candidate_loss": 0.3, "champion_loss": None},
    ],
    "by_day": BY_DAY,
}
PINS = {
    "table": "training",
    "table_version": 3,
    "fresh_days": "2013-01-08..2013-01-09",
    "fit_days": "2013-01-01..2013-01-05",
    "training": {"task": "binary_classification", "numeric": ["x"], "categorical": ["line"]},
    "family": {"name": "linear", "l2": 1.0},
    "libraries": {"numpy": "2.4"},
    "code_version": "abc123",
}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small.models_at(tmp_path)


def keep(
    environment: Environment,
    pins: Mapping[str, Any] = PINS,
    pipeline: Pipeline = small.SMALL,
) -> ModelVersion:
    files = environment.home / "files"
    files.mkdir(exist_ok=True)
    (files / "linear.json").write_text("{}")
    return Registry(environment, pipeline.name).keep(
        files,
        as_of=small.LAST,
        fingerprint="f",
        recipe="",
        family="linear",
        params={"calibration_slope": 0.93},
        curves={"loss": [0.6, 0.5]},
        pins=pins,
    )


def judge(
    environment: Environment,
    model: ModelVersion,
    evidence: Mapping[str, Any] = EVIDENCE,
    **changes: object,
) -> None:
    row = {
        "pipeline": model.name,
        "as_of": model.as_of,
        "event": "promoted",
        "model_version": model.version,
        "rival_version": "7",
        "metrics": json.dumps(evidence),
        "reason": "it was better",
        "who": model_events.GATE,
    }
    model_events.record(environment, [{**row, **changes}])


def text_of(environment: Environment, model: ModelVersion, pipeline: Pipeline = small.SMALL) -> str:
    folder = cards.write(environment, pipeline, Registry(environment, pipeline.name), model)
    return (folder / cards.TEXT).read_text()


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(
        self,
        tag: str,
        attrs: list[tuple[str, str | None]],
    ) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_card_tells_what_was_measured_and_how_sure_it_is(environment: Environment) -> None:
    model = keep(environment)
    judge(environment, model)
    text = text_of(environment, model)
    assert text.startswith("# small, version 1: serves since the night 2013-01-24\n")
    assert "| this model | 0.7000 | 0.5400 | 0.2000 |" in text
    assert "| champion of then (version 7) | 0.6900 | 0.5000 |  |" in text
    assert "| baseline rate | 0.6000 | 0.8500 |  |" in text
    # Of days with 10, 30, 20, 30 and 10 rows.
    assert re.search(r"\| of this model \| 0.5400 \| 0.4333 \| 0.5857 \|", text)
    assert re.search(
        r"less that of champion of then \(version 7\) \| 0.0400 \| -0.0667 \| 0.0857", text
    )
    assert "| line AA | 50 | 0.6100 | 0.5900 | 0.6300 | 0.5200 | 0.0456 | 0.1234 |" in text
    assert "| gain | 0.00123 |" in text
    assert "| this model | 0.2400 | 0.2500 |" in text
    assert "stretched by 0.93" in text
    assert "2013-01-08..2013-01-09" in text
    assert "- It was not surely better than the champion of then (version 7)" in text
    assert "not surely better than the baseline rate" not in text
    assert "| l2 | 1.0 |" in text
    assert "numpy 2.4" in text


def test_a_card_says_so_where_the_model_was_surely_worse(environment: Environment) -> None:
    model = keep(environment)
    loss = {"candidate": 0.6, "champion": 0.5, "rate": 0.9}
    by_day = [{**day, "loss": loss} for day in BY_DAY]
    judge(environment, model, {**EVIDENCE, "by_day": by_day})
    text = text_of(environment, model)
    assert (
        "- It was surely worse than the champion of then (version 7): the interval of the "
        "difference is above 0." in text
    )
    assert "the baseline rate: the interval" not in text


def test_of_few_days_a_card_tells_no_interval(environment: Environment) -> None:
    model = keep(environment)
    judge(environment, model, {**EVIDENCE, "by_day": BY_DAY[:4]})
    text = text_of(environment, model)
    assert re.search(r"less that of baseline rate \| -0\.\d+ \|  \|  \|", text)
    assert "surely better than the baseline rate: 4 days are too few for an interval" in text


def test_the_limits_name_weak_and_small_slices(environment: Environment) -> None:
    model = keep(environment)
    judge(environment, model)
    text = text_of(environment, model)
    assert "- Slices with fewer than 10 rows were not judged: line \\<b\\>." in text
    assert "- Its loss was above that of the champion of then on line AA." in text


def test_what_people_say_shows_when_the_card_is_written_anew(environment: Environment) -> None:
    first, second = keep(environment), keep(environment)
    judge(environment, first)
    judge(environment, second)
    before = text_of(environment, second)
    decide.rollback(environment, small.SMALL, None, Said(who="alice", why="odd on Mondays"))
    after = text_of(environment, second)
    assert "alice" not in before
    assert after.startswith("# small, version 2: rolled back\n")
    assert "| rolled back | alice | 1 | odd on Mondays |" in after
    assert text_of(environment, first).startswith("# small, version 1: serves since")


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ("refused", "refused"),
        ("kept", "kept back"),
        ("awaiting", "awaits a person"),
        ("rejected", "rejected"),
        ("something_new", "something new"),
    ],
)
def test_the_title_says_what_has_become_of_it(
    environment: Environment, event: str, state: str
) -> None:
    model = keep(environment)
    judge(environment, model, event=event)
    assert text_of(environment, model).startswith(f"# small, version 1: {state}\n")


def test_the_summary_calls_the_model_by_a_noun(environment: Environment) -> None:
    assert " A linear model, trained as of " in text_of(environment, keep(environment))


def test_one_that_was_followed_by_another_served_before(environment: Environment) -> None:
    first, second = keep(environment), keep(environment)
    judge(environment, first)
    judge(environment, second)
    assert text_of(environment, first).startswith("# small, version 1: served before\n")


def test_a_record_that_lacks_what_is_written_today_has_a_shorter_card(
    environment: Environment,
) -> None:
    model = keep(environment, pins={"ranks": 2})
    text = text_of(environment, model)
    assert text.startswith("# small, version 1: not evaluated\n")
    assert "Quality" not in text
    assert "Lineage" not in text
    judge(environment, model, {"candidate": {"auc": 0.7}, "champion": None})
    assert "| this model | 0.7000 |  |  |" in text_of(environment, model)


def test_a_regression_has_the_metrics_of_its_task(environment: Environment) -> None:
    model = keep(environment, pins={}, pipeline=small.TWIN)
    judge(environment, model, {"candidate": {"r2": 0.91, "rmse": 1.5}})
    text = text_of(environment, model, small.TWIN)
    assert "| model | R² | RMSE |" in text
    assert "| this model | 0.9100 | 1.5000 |" in text


def test_texts_of_strangers_are_texts_on_the_page_and_in_markdown(
    environment: Environment,
) -> None:
    model = keep(environment)
    judge(environment, model, reason=EVIL, who="<img src=http://evil.example>")
    folder = cards.write(environment, small.SMALL, Registry(environment, "small"), model)
    html = (folder / cards.PAGE).read_text()
    page = Page(html)
    assert {"script", "b", "link", "iframe"}.isdisjoint(page.tags)
    assert "img" not in page.tags
    assert page.links == []
    assert "<script>alert(1)</script> | *odd*" in page.text
    assert "default-src 'none'" in html
    text = (folder / cards.TEXT).read_text()
    (line,) = [line for line in text.splitlines() if "alert" in line]
    assert r"\<script\>alert(1)\</script\> \| \*odd\* \[x\](y)\\n# and more" in line
    assert re.search(r"(?<!\\)<", text) is None


def test_pictures_of_the_evaluation_are_in_the_page_and_beside_the_markdown(
    environment: Environment,
) -> None:
    model = keep(environment)
    judge(environment, model)
    registry = Registry(environment, "small")
    curve = plots.learning_curve({"loss": [0.6, 0.5]}, "log loss")
    registry.log_evaluation(model, {}, {"learning_curve": curve, "other": Figure()})
    folder = cards.write(environment, small.SMALL, registry, model)
    page = Page((folder / cards.PAGE).read_text())
    assert len(page.links) == 1
    assert page.links[0].startswith("data:image/png;base64,")
    assert "![Learning curve](learning_curve.png)" in (folder / cards.TEXT).read_text()
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "other.png").exists()


def test_a_card_that_cannot_be_written_is_a_warning(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    model = keep(environment)
    registry = Registry(environment, "small")
    # A file where its folder should be.
    (environment.reports / "small").mkdir(parents=True)
    (environment.reports / "small" / "models").write_text("")
    assert cards.keep(environment, small.SMALL, registry, model) is None
    told = capsys.readouterr().err
    assert told.startswith("Warning: the card of model 'small' version 1 was not written: ")
    assert "nightshift card small 1" in told


def test_a_kept_card_is_beside_the_model_in_mlflow(environment: Environment) -> None:
    model = keep(environment)
    cards.keep(environment, small.SMALL, Registry(environment, "small"), model)
    run = environment.home / "mlartifacts" / "small" / model.run_id / "artifacts"
    assert (run / "card" / "index.html").is_file()
    assert (run / "card" / "card.md").is_file()


def test_live_quality_and_backtests_of_the_same_recipe_are_told(environment: Environment) -> None:
    model = keep(environment)
    judge(environment, model)
    at = datetime.now(UTC)
    measured = {"pipeline": "small", "rows": 10, "auc": 0.6, "measured_at": at}
    live = []
    for day, version, rate in (
        (25, "1", 0.2),
        (26, "1", 0.4),
        (26, "2", 0.9),
    ):
        event = date(2013, 1, day)
        means = {"mean_prediction": rate, "label_mean": 0.5, "log_loss": rate}
        about = {"event_date": event, "landed_date": event, "model_version": version}
        live.append({**measured, **means, **about})
    ops.append(environment, "live_quality", live)
    recipe = {"family": PINS["family"], "training": PINS["training"]}
    other = {**recipe, "family": {"name": "linear", "l2": 9.0}}
    tests = []
    for digest, settings, loss in (("same", recipe, 0.41), ("other", other, 0.99)):
        of_day = {"as_of": small.LAST, "event_date": small.LAST, "model": "model"}
        how = {"settings_digest": digest, "settings": json.dumps(settings), "log_loss": loss}
        tests.append({**measured, **of_day, **how})
        # Of the same day as of an earlier night, by a backtest of another phase.
        earlier = {"as_of": small.LAST - timedelta(days=3), "log_loss": 0.7}
        tests.append({**measured, **of_day, **how, **earlier})
    ops.append(environment, "backtests", tests)
    text = text_of(environment, model)
    assert "20 predictions of 2013-01-25 to 2013-01-26" in text
    assert "foretold 0.3, came 0.5" in text
    assert "| 2013-01-26 | 2013-01-26 | 10 | 0.6000 | 0.4000 |" in text
    assert "| same | 2013-01-24 to 2013-01-24 | model | 10 | 0.4100 |" in text
    assert "0.9900" not in text


def published(
    table: str,
    day: date,
    version: int,
    *inputs: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "pipeline": "small",
        "table_name": table,
        "day": day,
        "version": version,
        "rows": version * 100,
        "run_id": f"r{version}",
        "code_version": f"c{version}",
        "inputs": [dict(one) for one in inputs],
        "changed": True,
        "published_at": MORNING + timedelta(hours=version),
    }


def made_of(
    name: str,
    day: date,
    version: int | None = None,
    digest: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "first_day": day,
        "last_day": day,
        "digest": digest,
        "version": version,
    }


def test_the_lineage_goes_through_the_tables_of_then_to_their_files(
    environment: Environment,
) -> None:
    day, later = date(2013, 1, 8), date(2013, 1, 9)
    raw = "small.batches"
    rows = [
        published(raw, day, 1, made_of("small/batches/old.csv", day, digest="old")),
        # A correction that came after the training rows were made.
        published(raw, day, 9, made_of("small/batches/new.csv", day, digest="new")),
        published(raw, later, 2, made_of("small/lines.csv", later, digest="lines")),
        published("small.training", day, 3, made_of(raw, day, 2)),
        published("small.training", later, 4, made_of(raw, later, 2)),
    ]
    ops.append(environment, "publications", rows)
    both = Days(day, later)
    found = lineage.behind(environment, "small", "small.training", both, 3)
    told = {one.name: (one.rows, one.digests, one.codes) for one in found}
    assert told == {
        raw: (100, set(), {"c1"}),
        "small.training": (300, set(), {"c3"}),
        "small/batches": (0, {"old"}, set()),
    }
    # The version that was published after it shows the second day too.
    names = [one.name for one in lineage.behind(environment, "small", "small.training", both, 4)]
    assert names == [raw, "small.training", "small/batches", "small/lines.csv"]
    model = keep(environment)
    assert "| small.training | 2013-01-08 to 2013-01-08 | 300 |  | c3 |" in text_of(
        environment, model
    )


def test_the_lineage_tells_what_the_night_knew(environment: Environment) -> None:
    day, later = date(2013, 1, 8), date(2013, 1, 9)
    raw = "small.batches"
    old = published(raw, day, 1, made_of("small/batches/old.csv", day, digest="old"))
    new = published(raw, day, 2, made_of("small/batches/new.csv", day, digest="new"))
    # Both were there when the training rows were made, of a night that saw the first alone.
    seen = made_of(raw, day, 2) | {"known_from": day, "known_by": day}
    rows = [old | {"known_day": day}, new | {"known_day": later}]
    ops.append(environment, "publications", [*rows, published("small.training", day, 3, seen)])
    found = lineage.behind(environment, "small", "small.training", Days.of(day), 3)
    digests = {one.name: one.digests for one in found}
    assert digests["small/batches"] == {"old"}


def test_the_lineage_is_that_of_the_hour_when_the_rows_were_looked_up(
    environment: Environment,
) -> None:
    day, later = date(2013, 1, 8), date(2013, 1, 9)
    raw = "small.batches"
    files = [made_of(f"small/{name}.csv", day, digest=name) for name in "abcd"]
    landed = published(raw, day, 1, files[0])
    learned = published("small.training", day, 2, made_of(raw, day, 1))
    confirmed = {"changed": False, "published_at": MORNING + timedelta(hours=3)}
    rows = [
        landed,
        learned,
        landed | confirmed | {"inputs": files[1:2]},
        published("small.training", later, 4, made_of(raw, day, 1)),
        learned | confirmed | {"inputs": files[2:], "published_at": MORNING + timedelta(hours=5)},
    ]
    ops.append(environment, "publications", rows)
    of_then = {"table_version": 4, "table_taken_at": str(MORNING + timedelta(hours=4))}
    text = text_of(environment, keep(environment, PINS | of_then))
    # Rows that two publications tell of are counted once.
    assert "| small.batches | 2013-01-08 to 2013-01-08 | 100 |  | c1 |" in text
    named = [name for name in "abcd" if f"| small/{name}.csv | " in text]
    assert named == ["a", "b"]


def test_the_command_prints_the_card_of_the_model_that_serves(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="No model of 'small' serves"):
        card_command(environment, small.SMALL, None)
    judge(environment, keep(environment))
    judge(environment, keep(environment), event="kept")
    card_command(environment, small.SMALL, None)
    printed = capsys.readouterr()
    page = environment.reports / "small" / "models" / "1" / "index.html"
    assert printed.out.startswith("# small, version 1: serves")
    assert printed.err == f"Page: {page}\n"
    assert page.is_file()
    card_command(environment, small.SMALL, "2")
    assert capsys.readouterr().out.startswith("# small, version 2: kept back")
    with pytest.raises(UsageError, match="No version of model 'small' named '9'"):
        card_command(environment, small.SMALL, "9")


def test_the_command_reads_a_card_as_it_was_written_whatever_the_locale(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(environment, keep(environment))
    pipeline = replace(small.SMALL, title="How good is R²?")
    # As Python does under a locale of one byte a character.
    monkeypatch.setattr(io, "text_encoding", lambda given, *_: given or "latin-1")
    card_command(environment, pipeline, None)
    assert "How good is R²?" in capsys.readouterr().out


def test_a_champion_that_is_gone_is_no_wrong_usage(environment: Environment) -> None:
    judge(environment, keep(environment))
    Registry(environment, "small")._client.delete_model_version("small", "1")
    with pytest.raises(
        NightshiftError,
        match="^Version 1 of model 'small' serves and is not in MLflow. Restore it there, or have",
    ):
        card_command(environment, small.SMALL, None)


def test_a_command_on_a_card_is_code_on_one_line() -> None:
    section = Section(
        title="t",
        commands=("one\ntwo",),
        tables=(Table(header=("a",), rows=[(1,)]),),
    )
    made = Card(
        pipeline="p",
        version="1",
        summary="s",
        state="x",
        mood="warned",
        sections=(section,),
    )
    assert "    one\\ntwo\n" in render.markdown(made)
    assert "| a |\n| --- |\n| 1 |" in render.markdown(made)
