"""The `nightshift` command.

Importing this is cheap: each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs.output import FORMATS
from pipelines import catalog
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.events import Event
from pipelines.run import Run, new_run_id
from pipelines.stages import STAGES, select, stage


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 data or model refused, 2 wrong usage, 3 a fault."""
    from jobs.night import explain

    arguments = parser().parse_args(argv)
    try:
        return int(arguments.command(arguments, Environment.read()) or 0)
    except KeyboardInterrupt:
        print(
            "\nInterrupted: nothing half-written was published; the same command does the rest.",
            file=sys.stderr,
        )
        return 3
    except BrokenPipeError:
        return 0
    except Exception as error:  # the last border before the shell
        return explain(error)[0]


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="nightshift",
        description=(
            "A batch machine-learning platform: every night from landed files to predictions."
        ),
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, does: str, function: object) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=does, description=does)
        one.set_defaults(command=function)
        return one

    command("up", "Start the platform: Spark, Airflow and the stage server, on loopback.", _up)
    command("down", "Stop the platform and everything that it started.", _down)
    command("status", "Tell which services run, and how they are.", _status)

    night = command(
        "run", "Run a pipeline over a day or a range of days, all stages or some.", _run
    )
    _add_pipeline_and_days(night)
    night.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="S",
        help=f"only this stage; may be repeated. Stages: {', '.join(s.name for s in STAGES)}",
    )
    night.add_argument(
        "--run-id",
        default=None,
        help="identifies the run in every table that it writes; by default a new one",
    )
    night.add_argument(
        "--retrain",
        action="store_true",
        help="train again even when a model with the same pins is there",
    )
    night.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    night.add_argument(
        "--no-notify",
        action="store_true",
        help="send no notification; for a caller that sends them itself, with `nightshift notify`",
    )
    _add_format(night)

    _add_notify(
        command("notify", "Have people told what a run has recorded; for a scheduler.", _notify)
    )

    _add_pipeline_and_days(
        command("land", "Drop the example's source files for a day or a range of days.", _land)
    )

    ask = command("sql", "Query the tables of the lake with SQL (DuckDB, no JVM).", _sql)
    ask.add_argument("statement", help="for example: SELECT * FROM flights.predictions LIMIT 10")
    _add_format(ask)

    quality = command(
        "quality", "Tell how the data of a day was judged, and where its report is.", _quality
    )
    _add_pipeline_and_days(quality)
    _add_format(quality)

    models = command("models", "List the models of a pipeline, newest first.", _models)
    models.add_argument("pipeline")
    _add_format(models)

    command(
        "demo",
        "The whole platform in one go: "
        "start it, load a quarter, run two nights, show what came out.",
        _demo,
    )
    return top


def _add_notify(tell: argparse.ArgumentParser) -> None:
    _add_pipeline_and_days(tell)
    tell.add_argument("--event", required=True, choices=[str(event) for event in Event])
    tell.add_argument("--run-id", required=True, help="the run that it happened to")
    tell.add_argument("--stage", metavar="S", help="the stage that was refused or failed")
    tell.add_argument(
        "--since",
        metavar="T",
        help="when the stage began, such as 2013-03-02T08:30:00+00:00; what was recorded before "
        "is not its reason",
    )
    tell.add_argument(
        "--message", metavar="TEXT", help="why the stage failed, if it recorded no reason"
    )


def _add_pipeline_and_days(one: argparse.ArgumentParser) -> None:
    one.add_argument("pipeline")
    one.add_argument("--date", metavar="D", help="the day whose night it is, YYYY-MM-DD")
    one.add_argument("--from", dest="first", metavar="D", help="first day of a range")
    one.add_argument("--to", dest="last", metavar="D", help="last day of a range")


def _add_format(one: argparse.ArgumentParser) -> None:
    one.add_argument("--format", choices=FORMATS, default="table", help="how rows are printed")


def _days(arguments: argparse.Namespace) -> Days:
    if arguments.date and not (arguments.first or arguments.last):
        return Days.of(parse_day(arguments.date))
    if arguments.first and arguments.last and not arguments.date:
        return Days(parse_day(arguments.first), parse_day(arguments.last))
    raise UsageError("Say which days: either --date D, or both --from D and --to D.")


def _run(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.night import plan, run_night
    from jobs.output import show

    run = Run(
        pipeline=catalog.pipeline(arguments.pipeline),
        days=_days(arguments),
        environment=environment,
        run_id=arguments.run_id or new_run_id(),
        retrain=arguments.retrain,
    )
    stages = select(arguments.stage)
    print(f"{run.pipeline.name} {run.days}  run {run.run_id}", file=sys.stderr)
    if arguments.dry_run:
        steps = plan(run, stages)
        show(
            ["stage", "days", "tables", "does"],
            [(s.stage.name, str(run.days), " ".join(s.tables), s.stage.does) for s in steps],
            arguments.format,
        )
        return 0
    return run_night(run, stages, notify=not arguments.no_notify)


def _notify(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.notify import notify, parse_instant

    run = Run(
        pipeline=catalog.pipeline(arguments.pipeline),
        days=_days(arguments),
        environment=environment,
        run_id=arguments.run_id,
        stage=stage(arguments.stage) if arguments.stage else None,
    )
    since = parse_instant(arguments.since) if arguments.since else None
    return notify(run, Event(arguments.event), since, arguments.message)


def _up(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import up

    return up(environment)


def _down(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import down

    return down(environment)


def _status(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.services import status

    return status(environment)


def _land(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.land import land
    from jobs.night import summary

    landed = land(catalog.pipeline(arguments.pipeline), environment, _days(arguments))
    print(f"Landed in {environment.landing}: {summary(landed)}")
    return 0


def _sql(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.lake.sql import query
    from jobs.output import show

    show(*query(environment, arguments.statement), arguments.format)
    return 0


def _quality(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.quality import quality

    return quality(
        catalog.pipeline(arguments.pipeline), environment, _days(arguments), arguments.format
    )


def _models(arguments: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.models import models
    from jobs.output import show

    show(*models(catalog.pipeline(arguments.pipeline), environment), arguments.format)
    return 0


def _demo(_: argparse.Namespace, environment: Environment) -> int:
    from jobs.commands.demo import demo

    return demo(environment)


if __name__ == "__main__":
    sys.exit(main())
