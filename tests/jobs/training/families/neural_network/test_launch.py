from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from jobs.services import stage_client
from jobs.services.child import ALLOWED
from jobs.training.families import NeedsMore
from jobs.training.families.neural_network import job, launchers
from jobs.training.families.neural_network.launch import launch
from jobs.training.families.neural_network.launchers import FUNCTION
from jobs.training.families.neural_network.rendezvous import rendezvous
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from tests.jobs.training.small import environment_at, job_of


@pytest.fixture(autouse=True)
def _laid_out(tmp_path: Path) -> None:
    job.write(tmp_path, job_of())


@dataclass
class Fake:
    """Work that ends by itself with a code, or never."""

    code: int | None
    traceback: tuple[Path, str] | None = None
    """What it leaves, and where."""
    killed: bool = False

    def wait(self, timeout: float | None = None) -> int | None:
        if self.traceback:
            file, text = self.traceback
            file.write_text(text)
        return self.code

    def kill(self) -> None:
        self.killed = True


def _launch(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *ranks: Fake, timeout_seconds: float = 60
) -> None:
    _launch_again(monkeypatch, folder, ranks, 0, timeout_seconds)


def _launch_again(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    ranks: tuple[Fake, ...],
    restarts: int,
    timeout_seconds: float = 60,
) -> None:
    started = iter(ranks)
    monkeypatch.setattr(stage_client, "spawn", lambda *_: next(started))
    of_attempt = len(ranks) // (restarts + 1)
    environment = environment_at(folder)
    launch(environment, folder, of_attempt, timeout_seconds, restarts=restarts)


def test_the_stage_server_may_fork_a_rank() -> None:
    assert FUNCTION in ALLOWED


def test_all_ranks_ending_well_is_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _launch(monkeypatch, tmp_path, Fake(0), Fake(0), Fake(0))


@pytest.mark.parametrize("code", [-9, 137])
def test_a_killed_rank_ends_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    first, second = Fake(None), Fake(code)
    with pytest.raises(
        NeedsMore,
        match=r"Rank 1 of the training was killed by SIGKILL, so all ranks were ended",
    ):
        _launch(monkeypatch, tmp_path, first, second)
    assert first.killed


def test_the_error_that_a_rank_left_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = (job.error_file(tmp_path, 0), "Traceback\nValueError: x is not finite\n")
    with pytest.raises(
        NightshiftError,
        match=(
            r"Rank 0 of the training failed, "
            r"so all ranks were ended:\nTraceback\nValueError: x is not finite"
        ),
    ):
        _launch(monkeypatch, tmp_path, Fake(3, left), Fake(None))


def test_what_a_rank_refuses_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    says = "The training came apart: its loss is not finite. Learn with a lower rate."
    told = f"Traceback (most recent call last):\n  …\npipelines.errors.Refused: {says}\n"
    left = (job.error_file(tmp_path, 0), told)
    with pytest.raises(Refused, match=f"^{says}$"):
        _launch(monkeypatch, tmp_path, Fake(3, left), Fake(None))


def test_a_fault_after_a_refusal_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began = "Traceback (most recent call last):\n  …\n"
    told = f"{began}pipelines.errors.Refused: no\n\nDuring …:\n\n{began}OSError: disk full\n"
    left = (job.error_file(tmp_path, 0), told)
    with pytest.raises(NightshiftError, match="OSError: disk full") as raised:
        _launch(monkeypatch, tmp_path, Fake(3, left), Fake(None))
    assert type(raised.value) is NightshiftError


@pytest.mark.parametrize("error", ["MemoryError", "a.b.ResourceExhaustedError: OOM when …"])
def test_a_rank_that_finds_no_memory_needs_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    left = (job.error_file(tmp_path, 0), f"Traceback\n{error}\n")
    with pytest.raises(NeedsMore, match=error):
        _launch(monkeypatch, tmp_path, Fake(3, left), Fake(None))


def test_the_rank_that_took_the_others_with_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As TensorFlow tells it.
    told = "UnknownError: Read error [127.0.0.1]:1: Connection closed by peer\n"
    left = (job.error_file(tmp_path, 0), told)
    with pytest.raises(NightshiftError, match=r"Rank 1 of the training was killed by SIGKILL"):
        _launch(monkeypatch, tmp_path, Fake(1, left), Fake(-9))


@pytest.mark.parametrize(
    "told",
    [
        "UnknownError: … Horovod has been shut down. …\n",
        "UnknownError: … Timed out waiting 60000ms for recv operation to complete …\n",
    ],
)
def test_a_rank_that_hangs_is_named_and_its_place_taken_anew(
    told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.training.families.neural_network.launch._SETTLE_SECONDS", 0.2)
    # What the others say of it, who wait no longer than Gloo does.
    left = (job.error_file(tmp_path, 0), told)
    hanging = Fake(None)
    _launch_again(
        monkeypatch,
        tmp_path,
        (Fake(1, left), hanging, Fake(0), Fake(0)),
        restarts=1,
    )
    assert "Rank 1 of the training hung" in capfd.readouterr().err
    assert hanging.killed


def test_a_fault_is_named_though_another_rank_died_of_it_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault = (job.error_file(tmp_path, 1), "ValueError: x is not finite\n")
    of_it = (job.error_file(tmp_path, 0), "UnknownError: Connection closed by peer\n")
    ranks = (Fake(1, of_it), Fake(1, fault))
    with pytest.raises(NightshiftError, match=r"Rank 1 of the training failed.*\n.*not finite"):
        _launch_again(monkeypatch, tmp_path, ranks + ranks, restarts=1)


def test_a_rank_that_ends_by_itself_without_a_word_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NightshiftError, match=r"Rank 0 .* gone with exit code 1, so all ranks"):
        _launch_again(monkeypatch, tmp_path, (Fake(1), Fake(0)), restarts=1)


def test_lost_ranks_are_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = Fake(None)
    ranks = (lost, Fake(-9), Fake(0), Fake(0))
    _launch_again(monkeypatch, tmp_path, ranks, restarts=1)
    assert lost.killed
    told = capfd.readouterr().err
    assert "Warning: Rank 1 of the training was killed by SIGKILL" in told
    assert "They are started again, on localhost." in told


def test_a_rank_that_is_lost_each_time_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NightshiftError, match=r"Rank 0 of the training was killed by SIGTERM"):
        _launch_again(monkeypatch, tmp_path, (Fake(-9), Fake(-15)), restarts=1)


def test_a_fault_of_the_training_itself_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = (job.error_file(tmp_path, 0), "ValueError: x is not finite\n")
    never = Fake(0)
    with pytest.raises(NightshiftError, match=r"x is not finite"):
        _launch_again(monkeypatch, tmp_path, (Fake(3, left), never), restarts=1)
    assert not never.killed


def test_the_time_of_a_training_is_that_of_all_attempts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ranks = (Fake(-9), Fake(None))
    with pytest.raises(NeedsMore, match=r"ended after 0.1 s"):
        _launch_again(monkeypatch, tmp_path, ranks, restarts=1, timeout_seconds=0.1)


def test_ranks_that_never_end_are_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = Fake(None), Fake(0)
    with pytest.raises(NightshiftError, match=r"ended after 0.1 s: ranks \[0\] still ran"):
        _launch(monkeypatch, tmp_path, first, second, timeout_seconds=0.1)
    assert first.killed


def test_a_rank_that_cannot_start_ends_those_that_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Fake(None)
    started = iter([first])
    monkeypatch.setattr(stage_client, "spawn", lambda *_: next(started))
    with pytest.raises(StopIteration):
        launch(environment_at(tmp_path), tmp_path, 2, 60)
    assert first.killed


def tell_variables(argument: dict[str, str]) -> None:
    """What a rank of the test below does."""
    file = Path(argument["folder"]) / f"variables-{os.environ['HOROVOD_RANK']}.json"
    file.write_text(json.dumps(dict(os.environ)))


def test_ranks_have_the_variables_of_the_libraries_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switches = {
        "HOROVOD_FUSION_THRESHOLD": "1024",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "OMP_NUM_THREADS": "1",
        "NCCL_DEBUG": "INFO",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Where a rank stands is told by the launcher alone.
        "HOROVOD_RANK": "7",
    }
    secrets = {
        "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/s3cret",
        "SPARK_REMOTE": "sc://host:15002/;token=s3cret",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "s3cret",
        "TF_HUB_URL": "https://ann:s3cret@models.example",
        "HOROVOD_SECRET_KEY": "s3cret",
        "PGPASSWORD": "s3cret",
    }
    for name, value in {**switches, **secrets}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launchers, "FUNCTION", f"{__name__}:tell_variables")
    # No stage server is up there: each rank is a process of its own.
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path), **secrets})
    launch(environment, tmp_path, 2, 60)
    for rank in ("0", "1"):
        told = json.loads((tmp_path / f"variables-{rank}.json").read_text())
        assert "s3cret" not in str(told)
        assert {name: told[name] for name in switches} == {**switches, "HOROVOD_RANK": rank}


@pytest.mark.parametrize("in_store", [True, False])
def test_a_proxy_with_a_password_reaches_ranks_whose_rows_or_checkpoints_lie_behind_it(
    in_store: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = "s3://nights/jobs/checkpoint" if in_store else str(tmp_path / "checkpoint")
    job.write(tmp_path, replace(job_of(), checkpoint=places.place(checkpoint)))
    proxies = {
        "https_proxy": "http://ann:s3cret@proxy:3128",
        "HTTP_PROXY": "http://ann:s3cret@proxy:3128",
    }
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ELSEWHERE", "http://ann:s3cret@elsewhere")
    monkeypatch.setattr(launchers, "FUNCTION", f"{__name__}:tell_variables")
    launch(environment_at(tmp_path), tmp_path, 1, 60)
    told = json.loads((tmp_path / "variables-0.json").read_text())
    expected = proxies if in_store else dict.fromkeys(proxies, "")
    assert {name: told[name] for name in proxies} == expected
    assert told["ELSEWHERE"] == ""


def test_the_rendezvous_listens_on_loopback_only_and_ends() -> None:
    with rendezvous({"localhost": 2}, 2, "127.0.0.1") as found:
        port = int(found[0].variables["HOROVOD_GLOO_RENDEZVOUS_PORT"])
        listening = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        ]
        assert listening == ["127.0.0.1"]
        assert [place.variables["HOROVOD_RANK"] for place in found] == ["0", "1"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/scope/nothing", timeout=5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
