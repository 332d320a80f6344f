"""The `nightshift` command.

Importing this is cheap: each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from jobs.commands import completion, forwarding, in_server
from jobs.commands.parser import Parser
from jobs.commands.version import Version
from jobs.commands.who import user
from jobs.output import (
    FORMATS,
    lose_what_cannot_be_written,
    outlive_readers,
    prepare_streams,
    require_written,
)
from jobs.services import usage
from jobs.services.usage import Meter, Usage
from pipelines import catalog
from pipelines.days import Days, parse_day
from pipelines.environment import JDBC_PORT, PAGES, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.events import OF_NO_RUN, Event
from pipelines.forwarding import FORWARDED, LOST
from pipelines.redaction import redacted
from pipelines.stages import PLAN, STAGES, select, stage

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.spec import Pipeline

EXIT_CODES = (
    "Exit codes: 0 done, 1 the data or the model was refused, 2 wrong usage, 3 a fault, "
    "4 files of a feed have not landed yet, 5 a model awaits a person, 6 another run of the "
    "pipeline goes on."
)
Command = Callable[[argparse.Namespace, Environment], int]
_SERVER_SECONDS_OF_NOTIFY = 2.0
"""A callback of Airflow's has 17 s for all, and the command can do without the stage server."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, which `EXIT_CODES` tells."""
    prepare_streams()
    grammar = parser()
    completion.complete(grammar)
    arguments: argparse.Namespace | None = None
    try:
        arguments = _parsed(grammar, argv)
        code = int(arguments.command(arguments, Environment.read()))
        # Here, where it is told that the rest has no room.
        require_written()
    except KeyboardInterrupt:
        print(f"\nInterrupted: {_way_on(arguments)}", file=sys.stderr)
        return 3  # as after a fault: what was asked for is not done
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _is_said(arguments):
            # Who reads has seen enough, such as `head`.
            return 0
        from jobs.night import explain

        return _ended(arguments, explain(error)[0])
    finally:
        lose_what_cannot_be_written()
    return code


def _parsed(grammar: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What the words say."""
    try:
        arguments = grammar.parse_args(argv)
    except SystemExit:  # --help and --version end so
        require_written()
        raise
    arguments.command_line = sys.argv[1:] if argv is None else list(argv)
    if arguments.command not in _ENDLESS:
        outlive_readers()
    return arguments


def _is_said(arguments: argparse.Namespace | None) -> TypeGuard[argparse.Namespace]:
    """Whether it is what a person says of a model: said again, a rollback goes one model further.

    None: the words were not read yet.
    """
    return arguments is not None and arguments.command in (_rollback, _approve)


def _way_on(arguments: argparse.Namespace | None) -> str:
    """What to do after a command that has not come to its end."""
    if _is_said(arguments):
        return _MAY_BE_ON_RECORD.format(pipeline=arguments.pipeline)
    return "nothing half-written was published; the same command does the rest."


def _ended(arguments: argparse.Namespace | None, code: int) -> int:
    """The exit code of a command; after a fault of what is said of a model it may be on record.

    The fault itself may say to run it again, as that of a disk without room for what is printed.
    """
    if not _is_said(arguments) or code not in (LOST, NightshiftError.exit_code):
        return code
    print(f"How it ended is not known: {_way_on(arguments)}", file=sys.stderr)
    return NightshiftError.exit_code


def in_child(argument: Mapping[str, Any]) -> int:
    """Do a command that `forwarding.forward` has sent, in a child of the stage server.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """
    words = argument["words"]

    def do(environment: Environment) -> int:
        if words[0] not in FORWARDED:
            raise UsageError(
                f"The stage server does not do '{words[0]}'. If its code is older than that of "
                "this command, start it anew: `nightshift down`, then `nightshift up`."
            )
        arguments = parser().parse_args(words)
        arguments.is_child = True
        outlive_readers()
        return int(arguments.command(arguments, environment))

    try:
        return in_server.ended(argument, do)
    except SystemExit:
        # It was asked to end: nobody else can tell.
        return LOST
    except BaseException:  # such as a panic of a library in Rust
        import traceback

        told = redacted(traceback.format_exc(), argument["environment"])
        print(told, file=sys.stderr, end="", flush=True)
        return LOST


def parser() -> Parser:
    """The grammar of the command line."""
    top = Parser(
        prog="nightshift",
        description=(
            "A batch machine-learning platform: every night from landed files to predictions."
        ),
        epilog=EXIT_CODES,
    )
    top.set_defaults(is_child=False)
    top.add_argument("--version", action=Version, help="print the package's and the code's version")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, does: str, function: Command, **settings: Any) -> Parser:
        one: Parser = commands.add_parser(name, help=does, description=does, **settings)
        one.set_defaults(command=function)
        return one

    up = command(
        "up", "Start the platform: Spark, Airflow, MLflow and the stage server, on loopback.", _up
    )
    up.add_argument(
        "--jdbc",
        action="store_true",
        help=f"with a JDBC server (port {JDBC_PORT}); NIGHTSHIFT_JDBC_PORT asks for it at each up",
    )
    up.add_argument(
        "--foreground",
        action="store_true",
        help="stay until SIGTERM or Ctrl-C and then stop the platform, as a container wants it",
    )
    command("down", "Stop the platform and everything that it started.", _down)
    command("status", "Tell which services run, and how they are.", _status)
    _grammar_of_logs(command("logs", "List the services' logs, or print the end of one.", _logs))
    _grammar_of_airflow(
        command(
            "airflow",
            "Pass any command on to this platform's Airflow, such as `dags list`.",
            _airflow,
            # What begins with a dash is Airflow's too.
            prefix_chars="\0",
            add_help=False,
        )
    )
    users = command(
        "users", "List whom the settings let sign in, with role, and where the password is.", _users
    )
    _add_format(users)
    page = command("open", "Print the address of a page in the Airflow UI, and open it.", _open)
    _grammar_of_open(page)
    _grammar_of_run(
        command("run", "Run a pipeline over a day or a range of days, all stages or some.", _run)
    )
    plan = command(
        "plan", "Tell what a night has to do: what is missing, stale or current, and why.", _plan
    )
    _grammar_of_plan(plan)
    _grammar_of_notify(
        command("notify", "Have people told what a run has recorded; for a scheduler.", _notify)
    )
    _grammar_of_announce(
        command("announce", "Have people told of what is no run's; for a scheduler.", _announce)
    )
    _grammar_of_land(
        command(
            "land",
            "Drop the example's source files for a day or a range of days; without one all up to "
            "that of the night that was due last which are not there.",
            _land,
        )
    )
    _grammar_of_sql(command("sql", "Query the tables of the lake with SQL (DuckDB, no JVM).", _sql))
    _grammar_of_tables(
        command("tables", "List the tables of the lake, and what they hold.", _tables)
    )
    _grammar_of_describe(
        command("describe", "Tell the columns of a table, and what they mean.", _describe)
    )
    contract = command(
        "contract", "Tell what consumers of a pipeline's predictions may rely on.", _contract
    )
    _add_pipeline(contract)
    _add_format(contract)
    _grammar_of_warehouse(
        command(
            "warehouse",
            "Publish to PostgreSQL every day that it lacks, as each night does; tell what it did.",
            _warehouse,
        )
    )
    quality = command(
        "quality",
        "Tell what the last run of a day did and how its data was judged, and where its report is; "
        "exit code 1 where it was refused.",
        _quality,
    )
    _grammar_of_quality(quality)
    _grammar_of_waive(
        command(
            "waive",
            "Let a refused day through: who says so, why and until when stay on record.",
            _waive,
        )
    )
    waivers = command("waivers", "List the waivers of a pipeline, newest first.", _waivers)
    _add_pipeline(waivers)
    _add_format(waivers)
    models = command("models", "List the models of a pipeline, newest first.", _models)
    _add_pipeline(models)
    _add_format(models)
    card = command(
        "card", "Write the card of a model: purpose, quality, limits, lineage, who let it.", _card
    )
    _grammar_of_card(card)
    _grammar_of_rollback(
        command("rollback", "Have the model serve again that served before.", _rollback)
    )
    _grammar_of_approve(
        command("approve", "Let a model serve that awaits a person, or reject it.", _approve)
    )
    _grammar_of_backtest(
        command(
            "backtest",
            "Tell how good a model would have been: trained as of many nights, each scoring the "
            "days after it.",
            _backtest,
        )
    )
    _grammar_of_explain(
        command(
            "explain",
            "Tell why one prediction came out as it did, or what those of a night rest on.",
            _explain,
        )
    )
    _grammar_of_rescore(
        command(
            "rescore",
            "Score published nights again, by any model, and tell the difference to what was "
            "published.",
            _rescore,
        )
    )
    drift = command(
        "drift",
        "Tell what a night was watched for, what drifts most first: features, predictions, skew, "
        "coverage and quality.",
        _drift,
    )
    _add_pipeline_and_days(drift)
    _add_format(drift)
    _grammar_of_replay(
        command(
            "replay",
            "Train a model again from its pins, and tell whether its weights are the same.",
            _replay,
        )
    )
    _grammar_of_tune(
        command(
            "tune",
            "Try settings of a model over many nights: Optuna proposes, backtests judge.",
            _tune,
        )
    )
    _grammar_of_maintain(
        command("maintain", "Delete what is old and what nobody needs any more.", _maintain)
    )
    _grammar_of_migrate(
        command(
            "migrate", "Bring raw tables to the columns that their feeds declare by now.", _migrate
        )
    )
    _add_format(
        command("config", "Show every setting, and where it comes from; no secrets.", _config)
    )
    _add_format(
        command(
            "doctor",
            "Tell what this machine offers, what is used of it, and what is amiss; exit code 3 "
            "where there is a problem.",
            _doctor,
        )
    )
    command(
        "executor",
        "Be an executor of Spark in Kubernetes, where Spark starts one so; not for people.",
        _executor,
    )
    command(
        "task",
        "Be a task of Airflow's in a Pod, where its KubernetesExecutor starts one so; not for "
        "people.",
        _task,
        # What begins with a dash is Airflow's.
        prefix_chars="\0",
        add_help=False,
    ).add_argument("words", nargs=argparse.REMAINDER, help="what Airflow has the Pod do")
    _grammar_of_completion(
        command("completion", "Print the script by which a shell completes commands.", _completion)
    )
    demo = command(
        "demo",
        "The whole platform in one go: start it, load some months, run two nights, show what "
        "came out.",
        _demo,
    )
    _add_pipeline(demo, nargs="?", default="flights")
    return top


def _grammar_of_logs(one: Parser) -> None:
    service = one.add_argument("service", nargs="?", help="whose log; none: list the logs")
    _complete_with(service, completion.services)
    one.add_argument("--follow", action="store_true", help="go on with what is written from now on")
    one.add_argument(
        "--lines", type=_count, default=50, metavar="N", help="how many of the last lines (50)"
    )
    _add_format(one, "how the list is printed")


def _grammar_of_airflow(one: Parser) -> None:
    one.add_argument("words", nargs=argparse.REMAINDER, help="what Airflow's own command takes")


def _grammar_of_open(one: Parser) -> None:
    one.add_argument(
        "page", nargs="?", choices=list(PAGES), default="nights", help="which (nights)"
    )
    one.add_argument("--print", dest="only_print", action="store_true", help="open no browser")


def _grammar_of_run(one: Parser) -> None:
    _add_pipeline_and_days(one)
    _add_stages(one)
    one.add_argument(
        "--run-id", help="identifies the run in every table that it writes; by default a new one"
    )
    one.add_argument(
        "--approval",
        action="store_true",
        help="have a model that would be promoted await a person (`nightshift approve`), also "
        "where the pipeline does not ask for that",
    )
    one.add_argument(
        "--allow-mixed",
        action="store_true",
        help="train though the declaration or a transform changed within the days to learn from",
    )
    one.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    _add_extent(one)
    one.add_argument(
        "--no-notify",
        action="store_true",
        help="send no notification; for a caller that sends them itself, with `nightshift notify`",
    )
    one.add_argument(
        "--wait-seconds",
        metavar="N",
        type=_count,
        help="wait so long for another run of the pipeline, then end with exit code 6; by default "
        "until it has ended. For a scheduler",
    )
    one.add_argument(
        "--profile",
        action="store_true",
        help="look at where each second goes, and write a page of it",
    )
    one.add_argument(
        "--result",
        metavar="FILE",
        type=Path,
        help="write what became of the run to that file too, as JSON; for a scheduler",
    )
    one.add_argument(
        "--lost",
        metavar="JSON",
        help="only record and tell that who did the one stage was killed: since when, and what it "
        "took; for a scheduler",
    )
    _add_format(
        one,
        "how the plan is printed; without --dry-run csv and json print a row for each stage when "
        "the run ends, and what the stages say goes to stderr",
    )


def _add_stages(one: Parser) -> None:
    only = one.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="S",
        help=f"only this stage; may be repeated. Stages: {', '.join(s.name for s in STAGES)}",
    )
    _complete_with(only, completion.stages)
    one.add_argument(
        "--as-needed",
        action="store_true",
        help="with --stage: do only what is missing or stale up to the last day, as without it",
    )


def _add_extent(one: Parser) -> None:
    """What makes a run do more than is missing or stale since the first night: for its plan too."""
    one.add_argument(
        "--retrain",
        action="store_true",
        help="train again even when a model with the same pins is there",
    )
    one.add_argument(
        "--rescore",
        action="store_true",
        help="score these days again; predictions that differ from those served become a new "
        "revision, which otherwise are kept out",
    )
    one.add_argument(
        "--restate",
        action="store_true",
        help="do all stages on exactly these days, current or not; by default only what is missing "
        "or stale up to the last of them is done",
    )
    one.add_argument(
        "--allow-gap",
        action="store_true",
        help="go on over nights before the last that were never made and lack files; with "
        "--restate nights that were made keep their raw rows where files are gone",
    )
    one.add_argument(
        "--from-start",
        action="store_true",
        help="catch up all nights since the pipeline's first day, though none was ever run; by "
        "default those since the first that was",
    )


def _grammar_of_plan(one: Parser) -> None:
    _add_pipeline_and_days(one)
    _add_stages(one)
    _add_extent(one)
    one.add_argument(
        "--result",
        metavar="FILE",
        type=Path,
        help="write the plan to that file too, as JSON; for a scheduler",
    )
    one.add_argument(
        "--note-run",
        metavar="ID",
        help="also make it the note of that run of the pipeline's DAG in the platform's Airflow",
    )
    _add_format(one)


def _grammar_of_land(one: Parser) -> None:
    _add_pipeline_and_days(one)
    one.add_argument(
        "--until",
        metavar="D",
        help="all files up to that day that are not there; files that are there stay as they are",
    )
    one.add_argument(
        "--withhold",
        metavar="FEED",
        action="append",
        default=[],
        help="not this feed's file of the last day, as if it were late; may be repeated",
    )


def _grammar_of_notify(one: Parser) -> None:
    _add_pipeline_and_days(one)
    events = [str(event) for event in Event]
    one.add_argument("--event", required=True, choices=events, help="what has happened")
    one.add_argument("--run-id", required=True, help="the run that it happened to")
    happened_in = one.add_argument(
        "--stage",
        metavar="S",
        help="the stage that was refused, failed, or waits for files; plan: what comes before them "
        "in Airflow; without one, a night that failed between two stages",
    )
    _complete_with(happened_in, completion.stages)
    one.add_argument(
        "--since",
        metavar="T",
        help="when the stage began, such as 2013-03-02T08:30:00+00:00; what was recorded before "
        "is not its reason; of predictions_late, when they were due: where no run of the pipeline "
        "had begun by then, they are not late",
    )
    one.add_argument(
        "--message",
        metavar="TEXT",
        help="why; of a stage that was refused or failed, if it recorded no reason",
    )


def _grammar_of_announce(one: Parser) -> None:
    one.add_argument(
        "--event",
        required=True,
        choices=list(map(str, OF_NO_RUN)),
        help="declaration_unreadable: of each pipeline whose declaration cannot be read, place and "
        "reason; maintenance_failed: of one that ended before it could tell, for all pipelines",
    )
    one.add_argument("--message", metavar="TEXT", help="why; of maintenance_failed alone")


def _grammar_of_sql(one: Parser) -> None:
    one.add_argument(
        "statement",
        nargs="?",
        help="for example: SELECT * FROM flights.predictions LIMIT 10, or SHOW TABLES. Of several, "
        "separated by semicolons, each result is printed as a table; the other formats take one. "
        "None: those of standard input; at a terminal, a shell. A table may be asked for as it "
        "was: FROM flights.flights VERSION AS OF 12, TIMESTAMP AS OF '2026-11-25 08:00' (when it "
        "was published), KNOWN AS OF '2013-02-04' (as the night of that day saw it)",
    )
    one.add_argument("-f", "--file", metavar="FILE", help="run the statements of a file; -: stdin")
    one.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="write the rows there; the file is there in full or not at all",
    )
    one.add_argument(
        "--run",
        metavar="RUN",
        help="show the tables of the run's pipeline as that run left them (its id, as "
        "ops.stage_runs has it), once all of its stages are done; all other tables as of now",
    )
    one.add_argument(
        "--format",
        choices=(*FORMATS, "parquet"),
        default="table",
        help="how the rows are printed (table); parquet needs --output",
    )


def _grammar_of_tables(one: Parser) -> None:
    _add_pipeline(one, nargs="?")
    _add_format(one)


def _grammar_of_describe(one: Parser) -> None:
    one.add_argument("table", help="such as flights.predictions, or flights.flights_history")
    _add_format(one)


def _grammar_of_warehouse(one: Parser) -> None:
    _add_pipeline(one, nargs="?")
    one.add_argument("--dry-run", action="store_true", help="tell what is behind, publish nothing")
    _add_format(one)


def _grammar_of_quality(one: Parser) -> None:
    _add_pipeline_and_days(one)
    which = one.add_mutually_exclusive_group()
    which.add_argument(
        "--run", metavar="RUN", help="that run; none: the last one that did something on these days"
    )
    which.add_argument("--all", action="store_true", help="all runs on these days, newest first")
    _add_format(one)


def _grammar_of_waive(one: Parser) -> None:
    _add_pipeline_and_days(one)
    one.add_argument("table", nargs="?", help="the table that was refused, such as weather")
    one.add_argument("--expectation", metavar="E", help="its name, as the refusal tells it")
    one.add_argument(
        "--column", metavar="C", help="its column or measure; none: the only one of that name"
    )
    one.add_argument("--why", metavar="TEXT", help="why the data may be used all the same")
    one.add_argument(
        "--until", metavar="D", help="the last day (UTC) on which the waiver is in force"
    )
    one.add_argument("--by", metavar="NAME", help="who says so; by default the system's user")
    one.add_argument(
        "--revoke", metavar="ID", help="end the waiver of that id; what it let through stays"
    )


def _grammar_of_card(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument(
        "version",
        nargs="?",
        help="of the model, as `nightshift models` shows it; none: the one that serves",
    )


def _grammar_of_rollback(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument(
        "--to",
        metavar="VERSION",
        help="a version that has served; none: the one that would serve without the one that does",
    )
    one.add_argument(
        "--expected",
        metavar="VERSION",
        help="that serves as far as you know: refused where another does by now",
    )
    one.add_argument(
        "--refresh",
        action="store_true",
        help="newer fits of its recipe may take its place, as of any other model (refresh_days); "
        "of the version that serves already, only that",
    )
    _add_who_and_why(one)


def _grammar_of_approve(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument("version", help="of a model that awaits a person: see `nightshift models`")
    one.add_argument("--reject", action="store_true", help="it shall not serve")
    _add_who_and_why(one)


def _add_who_and_why(one: Parser) -> None:
    one.add_argument("--why", required=True, metavar="TEXT", help="kept in ops.model_events")
    one.add_argument("--by", metavar="NAME", help="who says it; none: the user of the system")


def _grammar_of_tune(one: Parser) -> None:
    _add_walk(one)
    one.add_argument(
        "--trials",
        type=_positive,
        default=20,
        metavar="N",
        help="trials in all, with those of earlier times (20)",
    )
    one.add_argument(
        "--seconds",
        type=_positive,
        metavar="S",
        help="after which no trial is begun, and those that run stop after the night that they are "
        "at: the next time goes on from there; none: no end",
    )
    one.add_argument(
        "--at-once",
        type=_positive,
        default=1,
        metavar="N",
        help="trials side by side, each with one rank (1)",
    )
    _add_format(one)


def _add_walk(one: Parser) -> None:
    """Which days a backtest scores, and how often it trains."""
    _add_pipeline(one)
    one.add_argument(
        "--from", dest="first", metavar="D", required=True, help="first day that is scored"
    )
    one.add_argument(
        "--to", dest="last", metavar="D", required=True, help="last day that is scored"
    )
    one.add_argument(
        "--every",
        type=_positive,
        default=7,
        metavar="N",
        help="days from one training to the next (7)",
    )


def _grammar_of_backtest(one: Parser) -> None:
    _add_walk(one)
    family = one.add_argument(
        "--family", metavar="F", help="another model family, with its default settings"
    )
    _complete_with(family, completion.families)
    one.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a setting of the family or of Training, such as window_days=180; "
        "may be repeated",
    )
    one.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="FEATURE",
        help="a feature that the model is not to read, or a pattern such as 'tail_*'; may be "
        "repeated",
    )
    one.add_argument(
        "--against",
        metavar="DIGEST",
        help="an earlier backtest to compare with, which has scored these days too",
    )
    _add_format(one)


def _grammar_of_explain(one: Parser) -> None:
    _add_pipeline_and_days(one)
    one.add_argument(
        "--key",
        action="extend",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="the prediction whose columns have these values; may be repeated. None: all "
        "predictions of the nights",
    )
    _add_format(one, "how the attributions are printed")


def _grammar_of_rescore(one: Parser) -> None:
    _add_pipeline_and_days(one)
    one.add_argument(
        "--model",
        metavar="VERSION",
        help="of the model that scores, as `nightshift models` shows it; by default the one that "
        "serves now",
    )
    one.add_argument(
        "--show",
        dest="part",
        metavar="PART",
        choices=("days", "slices", "changes"),
        help="only one part: days, slices or changes; by default csv and json print the days, a "
        "table all of them",
    )
    one.add_argument(
        "--top",
        type=_positive,
        default=10,
        metavar="N",
        help="the largest changes that are told (10)",
    )
    one.add_argument(
        "--publish",
        action="store_true",
        help="then score these nights as `nightshift run --rescore` does, which publishes what "
        "differs as new revisions; only by the model that serves them, and only nights that have "
        "published predictions",
    )
    _add_format(one)


def _grammar_of_replay(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument("version", help="of the model, as `nightshift models` shows it")
    _add_format(one)


def _grammar_of_maintain(one: Parser) -> None:
    pipeline = one.add_argument(
        "pipeline",
        nargs="*",
        help=f"only what is its own; of: {', '.join(catalog.names())}. None: all of them, and "
        "what they share",
    )
    _complete_with(pipeline, completion.pipelines)
    one.add_argument("--dry-run", action="store_true", help="tell what would go, delete nothing")
    one.add_argument(
        "--no-notify",
        action="store_true",
        help="send no notification of what cannot be cleaned; for a caller that tries again",
    )
    one.add_argument(
        "--wait-seconds",
        metavar="N",
        type=_count,
        help="wait so long for a run of each pipeline, and clean the others; end with exit code 6 "
        "where one has not ended; by default until it has. For a scheduler",
    )
    one.add_argument(
        "--result",
        metavar="FILE",
        type=Path,
        help="write to that file the pipelines that such a run went on of (`awaited`), as JSON; "
        "for a scheduler",
    )
    _add_format(one)


def _grammar_of_migrate(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument("--table", metavar="T", help="only this raw table; none: those of all feeds")
    one.add_argument(
        "--dry-run", action="store_true", help="tell what would be done, and do nothing"
    )
    one.add_argument(
        "--restate",
        action="store_true",
        help="where a column gets another type, have nights before a correction see it, too",
    )
    _add_format(one)


def _grammar_of_completion(one: Parser) -> None:
    ways = "; ".join(completion.HOW.values())
    one.add_argument("shell", choices=completion.SHELLS, help=f"to use it: {ways}")


def _add_pipeline(one: Parser, **settings: Any) -> None:
    pipeline = one.add_argument(
        "pipeline", help=f"one of: {', '.join(catalog.names())}", **settings
    )
    _complete_with(pipeline, completion.pipelines)


def _add_pipeline_and_days(one: Parser) -> None:
    _add_pipeline(one)
    one.add_argument("--date", metavar="D", help="the day whose night it is, YYYY-MM-DD")
    one.add_argument("--from", dest="first", metavar="D", help="first day of a range")
    one.add_argument("--to", dest="last", metavar="D", help="last day of a range")


def _add_format(one: Parser, does: str = "how rows are printed") -> None:
    exact = "a table rounds fractions to 6 digits, csv and json are exact"
    one.add_argument("--format", choices=FORMATS, default="table", help=f"{does}; {exact}")


def _complete_with(action: argparse.Action, completer: Callable[..., list[str]]) -> None:
    # How argcomplete is told what an argument may be.
    action.completer = completer  # type: ignore[attr-defined]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def _names_days(arguments: argparse.Namespace) -> bool:
    return bool(arguments.date or arguments.first or arguments.last)


def _days_or_due(
    arguments: argparse.Namespace, pipeline: Pipeline, environment: Environment
) -> Days:
    """The days that are named; of a replay, when none is, the one that yesterday stands for."""
    if _names_days(arguments) or pipeline.replay is None:
        return _days(arguments)
    from pipelines import replay

    calendar = replay.calendar(pipeline, environment)
    yesterday = calendar.day_before(datetime.now(UTC))
    day = calendar.day_of(yesterday)
    print(f"{yesterday} stands for {day}.", file=sys.stderr)
    return Days.of(day)


def _positive(text: str) -> int:
    number = _count(text)
    if not number:
        raise argparse.ArgumentTypeError("0 is too few: at least 1")
    return number


def _days(arguments: argparse.Namespace) -> Days:
    if arguments.date and not (arguments.first or arguments.last):
        return Days.of(parse_day(arguments.date))
    if arguments.first and arguments.last and not arguments.date:
        return Days(parse_day(arguments.first), parse_day(arguments.last))
    raise UsageError("Say which days: either --date D, or both --from D and --to D.")


def _up(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import stay_up, up

    if arguments.jdbc and not environment.runs("jdbc"):
        raise UsageError(
            f"--jdbc: NIGHTSHIFT_SERVICES={environment.services} does not name 'jdbc'."
        )
    start = stay_up if arguments.foreground else up
    return start(environment.with_jdbc() if arguments.jdbc else environment)


def _down(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import down

    return down(environment)


def _status(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import status

    return status(environment)


def _logs(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.logs import logs

    return logs(
        environment,
        arguments.service,
        follow=arguments.follow,
        lines=arguments.lines,
        form=arguments.format,
    )


def _airflow(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.airflow import pass_on

    return pass_on(environment, arguments.words)


def _users(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.output import show
    from jobs.services import accounts

    show(accounts.COLUMNS, accounts.rows(environment), arguments.format)
    if environment.auth == "fab":
        print(accounts.OF_FAB, file=sys.stderr)
    return 0


def _open(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.open import open_page

    return open_page(environment, arguments.page, only_print=arguments.only_print)


def _run(arguments: argparse.Namespace, environment: Environment) -> int:
    is_exact = _is_exact(arguments)
    _require_folder_of(arguments.result)
    from pipelines.run import Run, new_run_id

    pipeline = catalog.pipeline(arguments.pipeline)
    run = Run(
        pipeline=pipeline,
        days=_days_or_due(arguments, pipeline, environment),
        environment=environment,
        run_id=arguments.run_id or new_run_id(),
        retrain=arguments.retrain,
        allow_mixed=arguments.allow_mixed,
        needs_approval=arguments.approval,
        rescore=arguments.rescore,
        from_start=arguments.from_start or not _names_days(arguments),
        profile=arguments.profile,
    )
    stages = select(arguments.stage)
    if arguments.lost:
        if len(stages) != 1:
            raise UsageError("--lost is of one stage: give it with --stage.")
        return _tell_loss(arguments, run.at(stages[0]), *usage.of_lost(arguments.lost))
    if len(stages) == 1 and not (arguments.dry_run or arguments.is_child):
        code = _run_in_child(arguments, run.at(stages[0]))
        if code is not None:
            return code
    from jobs.commands.run import perform, show_plan
    from jobs.night import make_true, run_night

    print(f"{run.pipeline.name} {run.days}  run {run.run_id}", file=sys.stderr)
    if arguments.dry_run:
        return show_plan(run, stages, arguments.format)
    kept: list[Days] = []
    # Both give the exit code of the last stage.
    if is_exact:
        night = partial(
            run_night,
            run,
            stages,
            allow_gap=arguments.allow_gap,
            notify=not arguments.no_notify,
            in_place=arguments.is_child,
            wait_seconds=arguments.wait_seconds,
        )
    else:
        night = partial(
            make_true,
            run,
            stages,
            allow_gap=arguments.allow_gap,
            notify=not arguments.no_notify,
            in_place=arguments.is_child,
            wait_seconds=arguments.wait_seconds,
            kept=kept,
        )
    told = run.at(stages[0]) if len(stages) == 1 else run
    return perform(told, night, arguments.format, arguments.result, kept=kept)


def _is_exact(arguments: argparse.Namespace) -> bool:
    """Whether the stages are done on exactly the days that are named, current or not."""
    if arguments.restate and (arguments.stage or arguments.as_needed):
        raise UsageError("--restate does all stages: give it without --stage and --as-needed.")
    return bool(arguments.restate or (arguments.stage and not arguments.as_needed))


def _run_in_child(arguments: argparse.Namespace, run: Run) -> int | None:
    """The exit code of a run of one stage, done by a child of the stage server; None: by none."""
    began = datetime.now(UTC)
    meter = Meter(run.environment)
    command, *words = arguments.command_line
    named = [command, f"--run-id={run.run_id}", *words]
    code = forwarding.forward(run.environment, named)
    if code != LOST:
        return code
    return _tell_loss(arguments, run, began, meter.read())


def _tell_loss(arguments: argparse.Namespace, run: Run, began: datetime, taken: Usage) -> int:
    """Record, and tell, that whoever did the stage was lost; returns the exit code of a fault."""
    from jobs.commands.run import perform
    from jobs.night import lost

    # Nothing that was seen of it is left: there is no page of where its time went.
    run = replace(run, profile=False)
    how = partial(lost, run, began, taken, notify=not arguments.no_notify)
    return perform(run, how, arguments.format, arguments.result, since=began)


def _forwarded(
    arguments: argparse.Namespace, environment: Environment, most_seconds: float | None = None
) -> int | None:
    """The exit code of the command, done by a child of the stage server; None: none has done it."""
    if arguments.is_child:
        return None
    code = forwarding.forward(environment, arguments.command_line, most_seconds)
    return None if code == LOST else code


def _said_in_server(arguments: argparse.Namespace, environment: Environment) -> int | None:
    """The exit code of what a person says of a model, done by a child of the stage server.

    None: none has done it.
    """
    if arguments.is_child:
        return None
    command, *words = arguments.command_line
    # The child may be another user's.
    who = arguments.by if arguments.by is not None else user()
    code = forwarding.forward(environment, [command, f"--by={who}", *words])
    return None if code is None else _ended(arguments, code)


def _require_folder_of(result: Path | None) -> None:
    """Refuse a file that could not be written when all is done."""
    if result is None:
        return
    if result.is_dir() or not result.parent.is_dir():
        raise UsageError(f"--result {result} is no file in a folder that is there.")
    if not os.access(result if result.exists() else result.parent, os.W_OK):
        raise UsageError(
            f"--result {result} cannot be written: name a file in a folder in which you may write."
        )


def _plan(arguments: argparse.Namespace, environment: Environment) -> int:
    is_exact = _is_exact(arguments)
    _require_folder_of(arguments.result)
    if (code := _forwarded(arguments, environment)) is not None:
        return code
    from jobs.commands.plan import HEADER, plan, prepare_run, write_result
    from jobs.output import show
    from pipelines.run import Run

    pipeline = catalog.pipeline(arguments.pipeline)
    run = Run(
        pipeline=pipeline,
        days=_days_or_due(arguments, pipeline, environment),
        environment=environment,
        retrain=arguments.retrain,
        rescore=arguments.rescore,
        from_start=arguments.from_start or not _names_days(arguments),
    )
    stages = select(arguments.stage)
    found = plan(
        run,
        stages,
        allow_gap=arguments.allow_gap,
        is_exact=is_exact,
        are_named=bool(arguments.stage),
    )
    show(HEADER, found.rows, arguments.format)
    if arguments.result:
        write_result(found, arguments.result)
    if arguments.note_run:
        prepare_run(run, found, arguments.note_run)
    return 0


def _notify(arguments: argparse.Namespace, environment: Environment) -> int:
    code = _forwarded(arguments, environment, _SERVER_SECONDS_OF_NOTIFY)
    if code is not None:
        return code
    from jobs.commands.notify import notify, parse_instant
    from pipelines.run import Run

    of_plan = arguments.stage == PLAN
    run = Run(
        pipeline=catalog.pipeline(arguments.pipeline),
        days=_days(arguments),
        environment=environment,
        run_id=arguments.run_id,
        stage=stage(arguments.stage) if arguments.stage and not of_plan else None,
    )
    since = parse_instant(arguments.since) if arguments.since else None
    return notify(run, Event(arguments.event), since, arguments.message, of_plan=of_plan)


def _announce(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.announce import announce

    return announce(environment, Event(arguments.event), arguments.message)


def _land(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.land import land
    from jobs.night import summary

    pipeline = catalog.pipeline(arguments.pipeline)
    if _names_days(arguments):
        if arguments.until:
            raise UsageError("Give either --until D, or --date D, or both --from D and --to D.")
        days = _days(arguments)
    else:
        days = Days(pipeline.first_day, _until(arguments, pipeline, environment))
    landed = land(
        pipeline,
        environment,
        days,
        only_missing=not _names_days(arguments),
        withheld=arguments.withhold,
    )
    print(f"Landed in {environment.landing}: {summary(landed)}")
    return 0


def _until(arguments: argparse.Namespace, pipeline: Pipeline, environment: Environment) -> date:
    """The day of --until; of a replay, when it is not given, the last that is delivered by now."""
    if arguments.until:
        return parse_day(arguments.until)
    if pipeline.replay is None:
        return _days(arguments).last
    from pipelines import replay

    calendar = replay.calendar(pipeline, environment)
    return calendar.delivered_by(calendar.day_before(datetime.now(UTC)))


def _sql(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands import sql

    statements = sql.text_of(arguments.statement, arguments.file)
    if statements is None:
        from jobs.commands import sql_shell

        return sql_shell.run(environment, arguments.run)
    return sql.run(environment, statements, arguments.format, arguments.output, arguments.run)


def _tables(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands import tables
    from jobs.output import show

    # Such as "$PIPELINE" where it is not set: an empty name is no pipeline, and not all of them.
    named = arguments.pipeline is not None
    pipeline = catalog.pipeline(arguments.pipeline).name if named else None
    show(tables.TABLES, tables.tables(environment, pipeline), arguments.format)
    return 0


def _describe(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.tables import print_description

    print_description(environment, arguments.table, arguments.format)
    return 0


def _contract(arguments: argparse.Namespace, _: Environment) -> int:
    from jobs.commands.contract import HEADER, contract
    from jobs.output import show

    show(HEADER, contract(catalog.pipeline(arguments.pipeline)), arguments.format)
    return 0


def _warehouse(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.warehouse import HEADER, warehouse
    from jobs.output import show

    is_all = arguments.pipeline is None
    code, rows = warehouse(
        environment,
        catalog.readable() if is_all else [catalog.pipeline(arguments.pipeline)],
        # One of all that cannot be imported keeps none of the others from being published.
        catalog.unreadable() if is_all else {},
        is_dry=arguments.dry_run,
    )
    show(HEADER, rows, arguments.format)
    return code


def _quality(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.quality import quality

    pipeline = catalog.pipeline(arguments.pipeline)
    return quality(
        pipeline,
        environment,
        _days(arguments),
        arguments.format,
        run_id=arguments.run,
        show_all=arguments.all,
    )


def _waive(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands import waive

    pipeline = catalog.pipeline(arguments.pipeline)
    by = arguments.by or user()
    if arguments.revoke:
        return waive.revoke(pipeline, environment, arguments.revoke, by, arguments.why)
    wanted = {"TABLE": arguments.table, "--expectation": arguments.expectation}
    wanted |= {"--why": arguments.why, "--until": arguments.until}
    lacking = [name for name, value in wanted.items() if value is None]
    if lacking:
        raise UsageError(
            f"Say {', '.join(lacking)} too, as the command in the refusal does; or --revoke ID."
        )
    return waive.waive(
        pipeline,
        environment,
        arguments.table,
        days=_days(arguments),
        expectation=arguments.expectation,
        column=arguments.column,
        by=by,
        why=arguments.why,
        until=parse_day(arguments.until),
    )


def _waivers(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.waive import HEADER, waivers
    from jobs.output import show

    pipeline = catalog.pipeline(arguments.pipeline)
    show(HEADER, waivers(pipeline, environment), arguments.format)
    return 0


def _models(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.models import gone, models, of_others
    from jobs.output import show
    from jobs.services.processes import LOOPBACK

    pipeline = catalog.pipeline(arguments.pipeline)
    names, rows = models(pipeline, environment)
    show(names, rows, arguments.format)
    missing = gone(pipeline, environment, {version for version, *_ in rows})
    if missing:
        print(
            f"Version {missing} serves and is not in MLflow, so that no night can be scored. "
            f"Restore it there, or have another one serve: nightshift rollback {pipeline.name} "
            "--why TEXT. Where none served before, the next candidate that is fit takes its place.",
            file=sys.stderr,
        )
    left_out = of_others(pipeline, environment)
    if left_out:
        which = ", ".join(left_out)
        print(f"Not listed, because others made them in MLflow: version {which}", file=sys.stderr)
    print(f"The card of one: nightshift card {pipeline.name} VERSION", file=sys.stderr)
    if environment.keeps_models:
        where = f"http://{LOOPBACK}:{environment.mlflow_port}/#/models/{pipeline.name}"
        print(f"In MLflow, while the platform is up: {where}", file=sys.stderr)
    return 0


def _card(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.card import card

    card(environment, catalog.pipeline(arguments.pipeline), arguments.version)
    return 0


def _rollback(arguments: argparse.Namespace, environment: Environment) -> int:
    if (code := _said_in_server(arguments, environment)) is not None:
        return code
    from jobs.commands.decide import Said, rollback

    said = Said.by(arguments.by, arguments.why)
    pipeline = catalog.pipeline(arguments.pipeline)
    rollback(
        environment,
        pipeline,
        arguments.to,
        said,
        arguments.expected,
        may_refresh=arguments.refresh,
    )
    return 0


def _approve(arguments: argparse.Namespace, environment: Environment) -> int:
    if (code := _said_in_server(arguments, environment)) is not None:
        return code
    from jobs.commands.decide import Said, approve, reject

    said = Said.by(arguments.by, arguments.why)
    decide = reject if arguments.reject else approve
    decide(environment, catalog.pipeline(arguments.pipeline), arguments.version, said)
    return 0


def _tune(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands import tune
    from jobs.output import log_to_stderr, show

    pipeline = catalog.pipeline(arguments.pipeline)
    days = Days(parse_day(arguments.first), parse_day(arguments.last))
    pipeline.require_days(days)
    with log_to_stderr():
        rows = tune.tune(
            pipeline,
            environment,
            days,
            every=arguments.every,
            trials=arguments.trials,
            seconds=arguments.seconds,
            at_once=arguments.at_once,
        )
    show(tune.HEADER, rows, arguments.format)
    print(tune.advice(pipeline, rows), file=sys.stderr)
    return 0


def _backtest(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.backtest import backtest, changed
    from jobs.output import show

    declared = catalog.pipeline(arguments.pipeline)
    told = backtest(
        changed(declared, arguments.family, arguments.settings, arguments.without),
        environment,
        Days(parse_day(arguments.first), parse_day(arguments.last)),
        arguments.every,
        arguments.against,
    )
    show(told.header, told.rows, arguments.format)
    print(f"Page: {told.page}", file=sys.stderr)
    return 0


def _explain(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.explain import explain

    pipeline = catalog.pipeline(arguments.pipeline)
    days = _days_or_due(arguments, pipeline, environment)
    return explain(environment, pipeline, days, arguments.key, arguments.format)


def _rescore(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.rescore import Asked, rescore

    pipeline = catalog.pipeline(arguments.pipeline)
    asked = Asked(
        model=arguments.model,
        form=arguments.format,
        part=arguments.part,
        top=arguments.top,
        publish=arguments.publish,
    )
    days = _days_or_due(arguments, pipeline, environment)
    return rescore(environment, pipeline, days, asked)


def _drift(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.drift import HEADER, drift
    from jobs.output import show

    pipeline = catalog.pipeline(arguments.pipeline)
    days = _days_or_due(arguments, pipeline, environment)
    told = drift(environment, pipeline, days)
    show(HEADER, told.rows, arguments.format)
    print(f"Picture: {told.picture}", file=sys.stderr)
    return 0


def _replay(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.replay import replay as train_again

    pipeline = catalog.pipeline(arguments.pipeline)
    return train_again(environment, pipeline, arguments.version, arguments.format)


def _maintain(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.maintain import HEADER, maintain
    from jobs.commands.result import write_json
    from jobs.output import show

    _require_folder_of(arguments.result)
    is_all = not arguments.pipeline
    named = [catalog.pipeline(name) for name in dict.fromkeys(arguments.pipeline)]
    awaited: list[str] = []
    code, rows = maintain(
        environment,
        catalog.readable() if is_all else named,
        # One of all that cannot be imported keeps none of the others from being cleaned.
        catalog.unreadable() if is_all else {},
        is_shared=is_all,
        is_dry=arguments.dry_run,
        notify=not arguments.no_notify,
        wait_seconds=arguments.wait_seconds,
        awaited=awaited,
    )
    if arguments.result is not None:
        write_json(arguments.result, {"awaited": awaited})
    show(HEADER, rows, arguments.format)
    if arguments.dry_run:
        print("Nothing was deleted: this is what would go.", file=sys.stderr)
    return code


def _migrate(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.migrate import HEADER, migrate
    from jobs.output import show
    from pipelines.run import Run

    pipeline = catalog.pipeline(arguments.pipeline)
    # Its days do not matter: all that are published are looked at. What is published anew is so as
    # by the check of raw tables.
    run = Run(pipeline=pipeline, days=Days.of(pipeline.first_day), environment=environment)
    run = run.at(stage("check_raw"))
    code, rows = migrate(
        run, arguments.table, is_dry=arguments.dry_run, is_restating=arguments.restate
    )
    show(HEADER, rows, arguments.format)
    if not rows:
        print("Every raw table has the columns that its feed declares.", file=sys.stderr)
    return code


def _config(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.config import config
    from jobs.output import show

    show(*config(environment), arguments.format)
    return 0


def _doctor(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.doctor import COLUMNS, doctor
    from jobs.output import show

    code, rows = doctor(environment)
    show(COLUMNS, rows, arguments.format)
    return code


def _executor(_: argparse.Namespace, __: Environment) -> int:
    from jobs.spark import executor

    executor.become(os.environ)


def _task(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.task import become

    become(environment, arguments.words)


def _completion(arguments: argparse.Namespace, _: Environment) -> int:
    print(completion.script(arguments.shell))
    return 0


def _demo(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.demo import demo

    return demo(catalog.pipeline(arguments.pipeline), environment)


_ENDLESS = (_sql, _logs)
"""What may print without end, and does nothing else: it ends when nobody reads it any more."""
_MAY_BE_ON_RECORD = (
    "it may be on record already. Look before you say it again: nightshift models {pipeline}"
)


if __name__ == "__main__":
    sys.exit(main())
