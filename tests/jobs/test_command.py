"""The command line: right exit codes, one clear message, rows in every format."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobs.__main__ import main, parser
from pipelines.stages import STAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "flight", "--date", "2013-03-01"], "Did you mean 'flights'"),
        (["run", "flights", "--date", "2013-02-30"], "'2013-02-30' is not a date"),
        (["run", "flights", "--date", "2014-02-01"], "from 2012-12-31 to 2013-12-31"),
        (["run", "flights"], "either --date D, or both --from D and --to D"),
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
    ],
)
def test_wrong_usage_exits_2_with_one_clear_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_a_dry_run_prints_the_plan_in_order_and_does_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "flights", "--date", "2013-03-01", "--dry-run", "--format", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["stage"] for step in steps] == [stage.name for stage in STAGES]
    assert steps[1]["tables"].split()[0] == "flights.flights"


def test_the_command_imports_nothing_heavy() -> None:
    heavy = (
        "{'pyspark', 'tensorflow', 'pandas', 'airflow', "
        "'great_expectations', 'feast', 'mlflow', 'pyarrow'}"
    )
    night = ["run", "flights", "--date", "2013-03-01", "--dry-run"]
    code = (
        "import sys; from jobs.__main__ import main; "
        f"main({night}); sys.exit(str({heavy} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        ).stderr.splitlines()[-1]
        == "set()"
    )


def test_every_command_explains_itself() -> None:
    text = parser().format_help()
    assert all(
        f"  {name} " in text
        for name in ("up", "down", "status", "run", "land", "sql", "quality", "models", "demo")
    )
