"""The command line: right exit codes, one clear message, rows in every format."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.__main__ import main, parser
from jobs.commands.version import package_version
from jobs.services import replays
from jobs.services.airflow_api import Airflow
from jobs.version import code_version
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.resources import TRAINING, Pool
from pipelines.run import Run
from pipelines.stages import STAGES
from tests.conftest import free_port

COMMANDS = (
    *("up", "down", "status", "logs", "run", "land", "sql", "tables", "describe", "quality"),
    *("models", "explain", "rescore", "drift", "replay", "tune", "config", "completion", "demo"),
    *("contract", "warehouse", "announce"),
)
EACH_STAGE = [word for one in STAGES for word in ("--stage", one.name)]
HEAVY = "pyspark tensorflow pandas airflow great_expectations feast mlflow pyarrow duckdb"


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    # Where no Airflow answers.
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_PORT", str(free_port()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "flight", "--date", "2013-03-01"], "Did you mean 'flights'"),
        (["run", "flights", "--date", "2013-02-30"], "'2013-02-30' is not a date"),
        (["run", "flights", "--date", "2014-02-01"], "from 2012-12-31 to 2013-12-31"),
        (["run", "flights"], "`nightshift up` begins it. Or say which days"),
        (["plan", "flights"], "`nightshift up` begins it. Or say which days"),
        (["land", "flights"], "`nightshift up` begins it. Or say which days"),
        (
            ["land", "flights", "--date", "2013-03-01", "--until", "2013-03-02"],
            "Give either --until D, or --date D, or both --from D and --to D",
        ),
        (
            ["land", "flights", "--until", "2013-03-02", "--withhold", "wether"],
            "No feed of 'flights' named 'wether'. Did you mean 'weather'",
        ),
        (
            ["run", "flights", "--from", "2013-03-02"],
            "either --date D, or both --from D and --to D",
        ),
        (
            ["run", "flights", "--from", "2013-03-02", "--to", "2013-03-01"],
            "first day must not be after its last",
        ),
        (["run", "flights", "--date", "2013-03-01", "--stage", "trian"], "Did you mean 'train'"),
        (["run", "flights", "--date", "2013-03-01", "--run-id", "a b"], "not a run id"),
        (
            ["plan", "flights", "--date", "2013-03-01", "--restate", "--stage", "train"],
            "--restate does all stages: give it without --stage and --as-needed.",
        ),
        ([], "the following arguments are required: COMMAND. See: nightshift --help"),
        (["describe"], "the following arguments are required: table. See: nightshift describe"),
        (["staus"], "No command named 'staus'. Did you mean 'status'? Known: up, down, status"),
        (["run", "flights", "--dat", "2013-03-01"], "No option named '--dat'. Did you mean '--d"),
        (["run", "--dat=2013-03-01"], "No option named '--dat'. Did you mean '--date'? Known: --a"),
        (["--vers"], "No option named '--vers'. Did you mean '--version'? Known: --help, --ver"),
        (["--format", "csv", "status"], "No option named '--format'. Known: --help, --version"),
        (["models", "flights", "--format", "jsn"], "No format named 'jsn'. Did you mean 'json'?"),
        (["completion", "bsh"], "No shell named 'bsh'. Did you mean 'bash'? Known: bash, zsh"),
        (["tables", ""], "No pipeline named ''. Known: flights, weather"),
        (["warehouse", ""], "No pipeline named ''. Known: flights, weather"),
        (["maintain", ""], "No pipeline named ''. Known: flights, weather"),
        (
            ["run", "flights", "--date", ""],
            "--date is empty: leave it out, or give it a value. See",
        ),
        (
            ["land", "flights", "--until="],
            "--until is empty: leave it out, or give it a value. See",
        ),
        (
            ["down", "flights"],
            "unrecognized arguments: flights. See: nightshift down --help",
        ),
        (["logs", "spark", "--lines", "-1"], "'-1' is not a whole number from 0"),
    ],
)
@pytest.mark.usefixtures("empty_home")
def test_wrong_usage_exits_2_with_one_clear_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("Usage: ") or "\nUsage: " in said
    assert "Traceback" not in said


def test_a_dry_run_prints_the_plan_in_order_and_does_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "flights", "--date", "2013-03-01", "--dry-run", "--format", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["stage"] for step in steps] == [stage.name for stage in STAGES]
    assert steps[1]["tables"].split()[0] == "flights.flights"


@pytest.mark.usefixtures("empty_home")
@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("file", ["", "none/result.json"])
def test_a_result_that_could_not_be_written_is_refused_at_once(
    command: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / file
    assert main([command, "flights", "--date", "2013-03-01", "--result", str(result)]) == 2
    told = f"Usage: --result {result} is no file in a folder that is there.\n"
    assert capsys.readouterr().err == told


@pytest.mark.usefixtures("empty_home")
@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_result_where_one_may_not_write_is_refused_at_once(
    command: str,
    is_there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = tmp_path / "result.json"
    if is_there:
        result.touch()
    closed = result if is_there else tmp_path
    # Root, who may run the tests, may write everywhere.
    monkeypatch.setattr(os, "access", lambda place, _: place != closed)
    assert main([command, "flights", "--date", "2013-03-01", "--result", str(result)]) == 2
    told = f"Usage: --result {result} cannot be written: name a file in a folder in which you"
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("empty_home")
def test_without_days_a_replayed_pipeline_means_the_day_that_yesterday_stands_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    replays.begin_all(Environment.read())
    capsys.readouterr()
    assert main(["run", "flights", "--dry-run", "--format", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert {step["days"] for step in steps} == {"2013-03-31"}
    result = tmp_path / "plan.json"
    asked = ["plan", "flights", "--result", str(result), "--note-run", "manual__1"]
    assert main([*asked, "--format", "json"]) == 0
    said = capsys.readouterr()
    told = json.loads(result.read_text())
    assert told["rows"] == json.loads(said.out)
    assert told["has_work"]
    holes = [row["days"] for row in told["rows"] if row["state"] == "hole"]
    assert (holes[0], holes[-1]) == ("2012-12-31", "2013-03-30"), "from the start of the record"
    assert told["nights"] == len(holes) == 90
    assert " stands for 2013-03-31." in said.err
    assert "Warning: the run got no note: No answer from Airflow" in said.err
    assert main(["plan", "flights", "--date", "2013-03-31", "--format", "json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert "hole" not in {row["state"] for row in named}, "a day that is named stands alone"


@pytest.mark.usefixtures("empty_home")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([], []),
        (["--restate"], ["--restate does all stages on these days"]),
        (["--stage", "train"], ["--stage does these stages on these days"]),
        (EACH_STAGE, ["--stage does these stages on these days"]),
        (["--stage", "train", "--as-needed"], []),
    ],
)
def test_a_plan_tells_the_days_on_which_a_run_of_the_same_words_does_all(
    asked: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "flights", "--date", "2013-03-31", *asked, "--format", "json"]) == 0
    reasons = [row["reason"] for row in json.loads(capsys.readouterr().out)]
    assert [reason for reason in reasons if reason.endswith("on these days")] == told


@pytest.mark.usefixtures("empty_home")
def test_the_plan_of_a_run_in_airflow_makes_a_pool_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[object, ...]] = []

    def make_pools(_: Airflow, pools: Sequence[Pool]) -> None:
        done.append(("pools", *pools))

    def note(_: Airflow, dag: str, run_id: str, text: str) -> None:
        done.append((dag, run_id, text.partition(":")[0]))

    monkeypatch.setattr(Airflow, "make_pools", make_pools)
    monkeypatch.setattr(Airflow, "note", note)
    assert main(["plan", "flights", "--date", "2013-03-31", "--note-run", "manual__1"]) == 0
    assert done == [("pools", TRAINING), ("flights", "manual__1", "**2013-03-31**")]


@pytest.mark.parametrize(
    "command",
    [
        ["run", "flights", "--date", "2013-03-01", "--dry-run"],
        ["config", "--format", "json"],
        ["staus"],
    ],
    ids=" ".join,
)
def test_a_light_command_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys; from jobs.__main__ import main; main(sys.argv[2:]); "
        "print(set(sys.argv[1].split()) & set(sys.modules))"
    )
    started = subprocess.run(
        [sys.executable, "-c", program, HEAVY, *command], capture_output=True, text=True
    )
    assert started.stdout.splitlines()[-1] == "set()", started.stderr


def test_every_command_explains_itself() -> None:
    text = parser().format_help()
    assert {name for name in COMMANDS if f"\n    {name}" not in text} == set()


def test_the_help_tells_every_exit_code() -> None:
    told = " ".join(parser().format_help().split())
    assert told.endswith(
        "Exit codes: 0 done, 1 the data or the model was refused, 2 wrong usage, 3 a fault, "
        "4 files of a feed have not landed yet, 5 a model awaits a person, 6 another run of the "
        "pipeline goes on."
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_for_every_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: nightshift {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["airflow", "task"])
@pytest.mark.parametrize(
    "words",
    [
        ["dags", "trigger", "--conf", "{}", "x", "--", "-y"],
        ["--", "--", "-y"],
        ["--help"],
        [],
    ],
)
def test_every_word_behind_a_command_of_airflows_is_its_own(command: str, words: list[str]) -> None:
    assert parser().parse_args([command, *words]).words == words


@pytest.mark.parametrize("words", [["rollback", "flights"], ["approve", "flights", "3"]])
def test_what_was_said_of_a_model_and_interrupted_is_looked_at_before_it_is_said_again(
    words: list[str],
    empty_home: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.__main__._said_in_server", interrupted)
    assert main([*words, "--why", "w"]) == 3
    said = capsys.readouterr().err
    # Said again, a rollback goes back one model further.
    assert said == (
        "\nInterrupted: it may be on record already. Look before you say it again: "
        "nightshift models flights\n"
    )


@pytest.mark.usefixtures("empty_home")
def test_what_was_said_of_a_model_and_could_not_be_printed_is_looked_at_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rollback(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("jobs.commands.decide.rollback", rollback)
    assert main(["rollback", "flights", "--why", "w"]) == 3
    disk, *_, last = capsys.readouterr().err.splitlines()
    assert disk.startswith("Fault: A disk is full") and "run it again" in disk
    assert last == (
        "How it ended is not known: it may be on record already. Look before you say it again: "
        "nightshift models flights"
    )


def test_what_was_interrupted_otherwise_is_gone_on_with(
    empty_home: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.night.make_true", interrupted)
    assert main(["run", "flights", "--date", "2013-03-01"]) == 3
    said = capsys.readouterr().err
    assert "nothing half-written was published; the same command does the rest." in said


def test_no_parser_takes_a_shortened_option() -> None:
    for shortened in ("--retr", "--dat=2013 03 01"):
        with pytest.raises(UsageError, match=shortened):
            parser().parse_args(["run", "flights", shortened])


def test_the_version_is_that_of_the_package_and_of_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"nightshift {package_version()} (code {code_version()})\n"


def test_the_packages_version_is_that_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert package_version() == declared


def test_sql_prints_the_result_of_every_statement(
    empty_home: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "-- numbers\nSELECT 1 AS a; SET threads = 1; SELECT '1E5' AS b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(("+", "|-"))] == [
        "| a |",
        "| 1 |",
        "",
        "| b   |",
        "| 1E5 |",
    ]


def test_sql_of_an_unknown_run_is_wrong_usage(
    empty_home: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "--run", "r1", "--format", "json", "SELECT 1"]) == 2
    assert "No run named 'r1'. The last runs: none yet" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--rescore"], ["--restate", "--rescore"]])
def test_a_run_scores_again_what_was_served_only_when_told_to(
    flags: list[str], empty_home: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []

    def night(run: Run, *_: object, **__: object) -> int:
        given.append(run.rescore)
        return 0

    monkeypatch.setattr("jobs.night.make_true", night)
    monkeypatch.setattr("jobs.night.run_night", night)
    assert main(["run", "flights", "--date", "2013-03-01", *flags]) == 0
    assert given == ["--rescore" in flags]


@pytest.mark.parametrize("flags", [[], ["--profile"], ["--restate", "--profile"]])
def test_a_run_is_looked_at_only_when_told_to(
    flags: list[str],
    empty_home: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[bool] = []

    def night(run: Run, *_: object, **__: object) -> int:
        # As a stage's process is given it.
        given.append(Run.from_json(run.at(STAGES[0]).to_json()).profile)
        return 0

    monkeypatch.setattr("jobs.night.make_true", night)
    monkeypatch.setattr("jobs.night.run_night", night)
    assert main(["run", "flights", "--date", "2013-03-01", *flags]) == 0
    assert given == ["--profile" in flags]
    assert ("profile  " in capsys.readouterr().out) == ("--profile" in flags)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_sql_for_programs_takes_one_result(
    form: str, empty_home: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", "SELECT 1 AS a; SELECT 2 AS b", "--format", form]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "csv, json and parquet hold the rows of one" in printed.err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_dev_null(closed: str) -> None:
    # What the command itself has opened must be none of the three.
    command = f"{sys.executable} -m jobs config --format json {closed}"
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_locales_encoding_lacks_is_written_as_an_escape(encoding: str) -> None:
    command = [sys.executable, "-m", "jobs", "config"]
    given = {**os.environ, "PYTHONIOENCODING": encoding}
    ran = subprocess.run(command, cwd=ROOT, env=given, capture_output=True)
    assert ran.returncode == 0
    assert b"smtps://\\u2026" in ran.stdout


def test_an_environment_that_makes_no_sense_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_SPARK_PORT", "http")
    assert main(["config"]) == 2
    assert "NIGHTSHIFT_SPARK_PORT='http' is not a whole number" in capsys.readouterr().err


@pytest.fixture(params=["", "1"], ids=["held", "unbuffered"])
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether Python holds what it prints, as it does unless a machine has it otherwise."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def _ended(
    program: str,
    file: Path,
    stdout: int,
    stderr: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", program, str(file)]
    return subprocess.run(words, cwd=ROOT, stdout=stdout, stderr=stderr, text=True)


def _without_reader(program: str, file: Path) -> int:
    """The exit code of a program whose output is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        # Of warnings somebody may read on.
        heard = _ended(program, file, writing)
        file_is_made = file.exists()
        file.unlink(missing_ok=True)
        ran = _ended(program, file, writing, writing)
    finally:
        os.close(writing)
    assert "BrokenPipeError" not in heard.stderr
    assert (ran.returncode, file.exists()) == (heard.returncode, file_is_made)
    return ran.returncode


WORKING = """
import sys
from pathlib import Path
from jobs import __main__ as command

def night(*_):
    print("a stage", flush=True)
    print("a warning", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("done")
    print("the cost")
    return 1

command._run = night
sys.exit(command.main(["run", "flights", "--date", "2013-01-01"]))
"""
ENDLESS = WORKING.replace("_run = night", "_ENDLESS = [night]; command._run = night")


@pytest.mark.usefixtures("streams")
def test_work_goes_on_where_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    # It ended at the first line, with exit code 0.
    assert _without_reader(WORKING, tmp_path / "file") == 1
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.usefixtures("streams")
def test_what_only_prints_ends_where_nobody_reads_it(tmp_path: Path) -> None:
    assert _without_reader(ENDLESS, tmp_path / "file") == 0
    assert not (tmp_path / "file").exists()


SHORT = """
import sys
from jobs import __main__ as command

def rows(*_):
    print("a row")
    return 0

command._ENDLESS = [rows]
command._config = rows
sys.exit(command.main(["{word}"]))
"""
"""It ends before what it has printed is written, where Python holds that."""


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("word", ["config", "--help"])
def test_a_reader_that_has_gone_before_the_first_row_is_no_fault(word: str, tmp_path: Path) -> None:
    assert _without_reader(SHORT.format(word=word), tmp_path / "file") == 0


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize(
    "program",
    [SHORT.format(word="config"), SHORT.format(word="--help"), ENDLESS, WORKING],
    ids=["config", "help", "endless", "working"],
)
def test_rows_for_which_a_disk_has_no_room_are_told(program: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = _ended(program, tmp_path / "file", full.fileno())
    assert ended.returncode == 3
    assert "Fault: Standard output could not be written: [Errno 28] No space left" in ended.stderr
    assert "Exception ignored" not in ended.stderr
    # The work of a night is done all the same, and it is not told as failed.
    assert (tmp_path / "file").exists() == (program == WORKING)
