"""The stage server, with a small library to preload and work of the tests' own."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Event, Thread, Timer
from typing import IO, Any

import psutil
import pytest

from jobs.commands import forwarding
from jobs.services import child, processes, stage_client, stopped
from jobs.services.home import private_home
from pipelines import wire
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError

WORK = "tests.jobs.services.work"
Sleeping = tuple[stage_client.Work, list[psutil.Process]]
"""Work that sleeps, and its two processes."""
CLIENT = f"""
import sys
from jobs.services import stage_client
from pipelines.environment import Environment
environment = Environment.read({{"NIGHTSHIFT_HOME": sys.argv[1]}})
stage_client.call(environment, "{WORK}:sleep", {{"file": sys.argv[2]}}, {{}})
"""
SERVER = f"""
import sys
from pathlib import Path
from jobs.services.stage_server import StageServer
names = ("say", "give", "generate", "fail", "die", "tell_variable", "sleep", "take", "take_and_die")
names += ("do_in_turn", "make_file")
functions = {{f"{WORK}:{{name}}" for name in names}} | {{"edited:main"}}
StageServer(Path(sys.argv[1]), preload=("colorsys", "no_such_library"), allowed=functions).serve()
"""


def until(holds: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def is_gone(process: psutil.Process) -> bool:
    return not processes.is_alive(process)


def processes_in(file: Path) -> list[psutil.Process]:
    """The processes whose ids are in the file, all alive still."""
    return [psutil.Process(int(pid)) for pid in file.read_text().split()]


@contextmanager
def serving(home: Environment, code: str = SERVER) -> Iterator[subprocess.Popen[bytes]]:
    """A stage server that is up, by a program of the tests' own."""
    # As `up` does first.
    private_home(home)
    path = wire.socket_path(home, "stages")
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert until(lambda: stage_client.available(home))
    yield process
    if process.poll() is None:
        process.terminate()
    assert process.wait(timeout=20) == 0
    assert not path.exists()


@pytest.fixture
def server(home: Environment) -> Iterator[subprocess.Popen[bytes]]:
    with serving(home) as process:
        yield process


@pytest.fixture
def sleeping(
    home: Environment, server: subprocess.Popen[bytes], tmp_path: Path
) -> Iterator[Sleeping]:
    file = tmp_path / "pids"
    work = stage_client.spawn(home, f"{WORK}:sleep", {"file": str(file)}, {})
    assert until(file.exists)
    yield work, processes_in(file)
    work.kill()


def test_a_child_writes_to_its_clients_output(
    home: Environment, server: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage_client.call(home, f"{WORK}:say", {"out": "to out", "err": "to err"}, {}) == 0
    assert capfd.readouterr() == ("to out\n", "to err\n")


@pytest.mark.parametrize(
    ("umask", "mode"),
    [
        (0o077, 0o600),
        (0o002, 0o664),
    ],
)
def test_a_child_makes_files_by_its_clients_umask(
    home: Environment, server: object, tmp_path: Path, umask: int, mode: int
) -> None:
    file = tmp_path / "file"
    before = os.umask(umask)
    try:
        assert stage_client.call(home, f"{WORK}:make_file", {"file": str(file)}, {}) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_exit_code_is_that_of_the_function(
    home: Environment, server: object, code: int
) -> None:
    assert stage_client.call(home, f"{WORK}:give", {"code": code}, {}) == code


def test_an_exception_is_a_fault_with_its_traceback(
    home: Environment, server: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage_client.call(home, f"{WORK}:fail", {"text": "the reason"}, {}) == 3
    assert "ValueError: the reason" in capfd.readouterr().err


def test_a_folder_that_the_server_does_not_see_is_a_fault_that_names_it(
    home: Environment,
    server: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hidden = tmp_path / "hidden"
    monkeypatch.setattr(Path, "cwd", lambda: hidden)
    assert stage_client.call(home, f"{WORK}:say", {"out": "", "err": ""}, {}) == 3
    told = f"cannot work there: [Errno 2] No such file or directory: '{hidden}'"
    assert told in capfd.readouterr().err


def test_a_working_folder_that_is_gone_is_told(
    home: Environment, server: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="The working folder is gone"):
        stage_client.call(home, f"{WORK}:give", {"code": 0}, {})
    # What can be done without the server is.
    assert forwarding.forward(home, ["plan", "flights"]) is None


def test_a_child_that_a_signal_kills_is_a_fault_that_names_the_signal(
    home: Environment, server: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage_client.call(home, f"{WORK}:die", {"signal": 9}, {}) == 3
    assert "killed by SIGKILL" in capfd.readouterr().err
    assert stage_client.spawn(home, f"{WORK}:die", {"signal": 11}, {}).wait() == -11


def test_a_child_that_is_lost_is_told_from_one_that_ends_and_from_what_is_not_run(
    home: Environment, server: object
) -> None:
    killed = stage_client.called(home, f"{WORK}:die", {"signal": 9}, {})
    assert (killed.code, killed.is_lost, killed.is_refused) == (3, True, False)
    failed = stage_client.called(home, f"{WORK}:give", {"code": 3}, {})
    assert (failed.code, failed.is_lost, failed.is_refused) == (3, False, False)
    misused = stage_client.called(home, f"{WORK}:give", {"code": 2}, {})
    assert (misused.code, misused.is_lost, misused.is_refused) == (2, False, False)
    unknown = stage_client.called(home, "os:system", {"command": "true"}, {})
    assert (unknown.code, unknown.is_lost, unknown.is_refused) == (2, False, True)


def test_code_that_tensorflow_has_generated_goes_with_its_child(
    home: Environment, server: object, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    (folder / "another.py").touch()
    assert stage_client.call(home, f"{WORK}:generate", {"folder": str(folder)}, {}) == 0
    assert [file.name for file in folder.iterdir()] == ["another.py"]


def test_variables_reach_one_child_alone(
    home: Environment, server: object, capfd: pytest.CaptureFixture[str]
) -> None:
    for environ in ({"NIGHT": "x"}, {}):
        stage_client.call(home, f"{WORK}:tell_variable", {"name": "NIGHT"}, environ)
    assert capfd.readouterr().out == "x\nNone\n"


def test_what_is_not_on_the_list_is_not_run(
    home: Environment, server: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage_client.call(home, "os:system", {"command": "true"}, {}) == 2
    assert "does not run 'os:system'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1{",
        b"\0\0\0\2[]",
        b"\0\0\0\2{}",
        wire.encode({"function": f"{WORK}:give", "argument": {"code": 0}, "environ": {}}),
    ],
    ids=["too long", "not JSON", "not an object", "empty", "without files"],
)
def test_the_server_survives_a_bad_request(home: Environment, server: object, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(wire.socket_path(home, "stages")))
        client.sendall(sent)
        reply = wire.decode(client.recv(65536))
    assert reply is not None
    assert reply["exit_code"] in (2, 3)
    assert stage_client.call(home, f"{WORK}:give", {"code": 0}, {}) == 0


def test_a_request_may_come_in_pieces_and_a_client_may_leave_in_the_middle(
    home: Environment, server: object
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(wire.socket_path(home, "stages")))
        client.sendall(b"\0\0")
    assert stage_client.call(home, f"{WORK}:give", {"code": 0}, {}) == 0


def test_several_children_work_at_once(home: Environment, sleeping: Sleeping) -> None:
    work, _ = sleeping
    assert stage_client.call(home, f"{WORK}:give", {"code": 1}, {}) == 1
    assert work.wait(0.01) is None


def test_killed_work_leaves_no_process(sleeping: Sleeping) -> None:
    work, its_own = sleeping
    work.kill()
    assert all(until(lambda one=one: is_gone(one)) for one in its_own)


def test_the_server_survives_a_client_that_leaves_as_its_child_dies(
    home: Environment, server: subprocess.Popen[bytes], sleeping: Sleeping
) -> None:
    work, (child, _) = sleeping
    # Stopped, so that it hears of both in one look, of the death first.
    server.send_signal(signal.SIGSTOP)
    child.kill()
    assert until(lambda: is_gone(child))
    work.kill()
    server.send_signal(signal.SIGCONT)
    assert stage_client.call(home, f"{WORK}:give", {"code": 0}, {}) == 0
    assert server.poll() is None


def test_a_child_dies_with_its_client(home: Environment, server: object, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    program = [sys.executable, "-c", CLIENT, str(home.home), str(file)]
    process = subprocess.Popen(program, cwd=ROOT)
    assert until(file.exists)
    doomed = processes_in(file)
    process.kill()
    process.wait()
    assert all(until(lambda one=one: is_gone(one)) for one in doomed)


def test_a_child_dies_with_the_server(server: subprocess.Popen[bytes], sleeping: Sleeping) -> None:
    work, (child, _) = sleeping
    server.terminate()
    assert work.wait(20) == 3
    assert server.wait(20) == 0
    assert until(lambda: is_gone(child))


def test_an_edit_is_in_force_at_the_next_request(
    home: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = SERVER.replace("import sys", f"import sys; sys.path.insert(0, {str(tmp_path)!r})", 1)
    # Two edits within a second would look the same to the compiled file's time stamp.
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    with serving(home, code):
        for text in ("first", "second"):
            (tmp_path / "edited.py").write_text(f"def main(argument): print({text!r})")
            assert stage_client.call(home, "edited:main", {}, environ) == 0
    lines = capfd.readouterr().out.splitlines()  # the server's own log is among them
    assert [line for line in lines if line in {"first", "second"}] == ["first", "second"]


OWN = """
import os
AT = os.getpid()
def main(argument):
    print("{text}", "shared" if AT == os.getppid() else "anew")
"""
"""A module that tells whether its server has imported it, or the child that is asked."""


def test_our_own_modules_are_shared_until_one_is_edited(
    home: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    an_hour_ago = time.time() - 3600
    for name in ("edited", "beside"):
        (tmp_path / f"{name}.py").write_text(OWN.format(text="first"))
        os.utime(tmp_path / f"{name}.py", (an_hour_ago, an_hour_ago))
    (tmp_path / "broken.py").write_text("raise RuntimeError('half an edit')")
    own = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from jobs.services import child
child.OWN_PACKAGES = {{"edited", "beside", "broken"}}
"""
    code = own + SERVER.replace('("colorsys", "no_such_library")', '("edited", "beside", "broken")')
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    asked: list[int] = []

    def ask() -> None:
        asked.append(stage_client.call(home, "edited:main", {}, environ))

    with serving(home, code):
        ask()
        # Another of our modules: `edited` may have taken something from it.
        os.utime(tmp_path / "beside.py", (an_hour_ago + 1, an_hour_ago + 1))
        ask()
        (tmp_path / "edited.py").write_text(OWN.format(text="second"))
        ask()
        (tmp_path / "beside.py").unlink()
        ask()
    lines = capfd.readouterr().out.splitlines()  # the server's own log is among them
    assert [line for line in lines if line.startswith(("first", "second"))] == [
        "first shared",
        "first anew",
        "second anew",
        "second anew",
    ]
    assert asked == [0, 0, 0, 0]
    assert any("cannot preload broken: RuntimeError: half an edit" in line for line in lines)


def test_a_module_edited_while_it_is_imported_is_imported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "nightshift_own.py"
    file.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(child, "OWN_PACKAGES", {"nightshift_own"})
    import_module("nightshift_own")
    written = file.stat().st_mtime_ns
    assert not child.is_edited(child.code_of_own_modules(written + 2 * 10**9))
    assert child.is_edited(child.code_of_own_modules(written))


def test_a_module_is_found_that_is_new_in_a_folder_which_was_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nightshift_old.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    # What is written beside it would mark the folder anew after it was looked into.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import_module("nightshift_old")
    seen = tmp_path.stat().st_mtime_ns
    (tmp_path / "nightshift_new.py").write_text("")
    # As where both happened at one moment of the file system's clock.
    os.utime(tmp_path, ns=(seen, seen))
    with pytest.raises(ModuleNotFoundError):
        import_module("nightshift_new")
    child.look_for_modules_anew()
    assert import_module("nightshift_new").__file__ == str(tmp_path / "nightshift_new.py")


def test_no_pipeline_is_imported_by_the_server() -> None:
    program = (
        "import sys; from importlib import import_module; from pipelines.catalog import names; "
        "from jobs.services.stage_server import PRELOAD; "
        "[import_module(one) for one in PRELOAD if one.startswith('jobs.')]; "
        "print(*(one for one in sys.modules if one.rpartition('.')[2] in names() "
        "and one.partition('.')[0] in {'pipelines', 'jobs', 'features', 'expectations'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_its_socket_is_its_owners_alone(home: Environment, server: object) -> None:
    path = wire.socket_path(home, "stages")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_server_that_answers_nothing_is_not_there(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_ANSWER_SECONDS", 0.5)
    with serving(home) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            # What is asked of it would be waited for without end.
            assert not stage_client.available(home)
            begun = stage_client.spawn(home, f"{WORK}:give", {"code": 1}, {})
            assert begun.wait(60) == 1
        finally:
            process.send_signal(signal.SIGCONT)
        assert until(lambda: stage_client.available(home))


def test_who_has_people_told_does_not_wait_long_for_a_server_that_answers_nothing(
    home: Environment,
) -> None:
    with serving(home) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert forwarding.forward(home, ["notify"], most_seconds=0.3) is None
            assert time.monotonic() - began < 5
        finally:
            process.send_signal(signal.SIGCONT)


def test_who_waits_is_told_once_of_what_is_stopped(
    home: Environment,
    server: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    marked_by, said = processes.marked, print
    looks: list[Path] = []
    is_told = Event()

    def look(home: Path) -> list[psutil.Process]:
        looks.append(home)
        return marked_by(home)

    def say(line: str, **options: Any) -> None:
        said(line, **options)
        if f"process {one.pid} " in line:
            is_told.set()

    def go_on() -> None:
        is_told.wait(60)
        before = len(looks)
        # In which it would be told of again.
        until(lambda: len(looks) >= before + 3)
        server.send_signal(signal.SIGCONT)

    monkeypatch.setattr(stopped, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(stopped, "print", say, raising=False)
    monkeypatch.setattr(processes, "marked", look)
    server.send_signal(signal.SIGSTOP)
    # As Spark is one of the platform, which a stage waits for. With a home of its own it would be
    # described by that too, and other tests may have named one.
    marked = {"PATH": os.environ["PATH"], processes.MARK: str(home.home)}
    with subprocess.Popen(["sleep", "600"], env=marked) as one:
        try:
            one.send_signal(signal.SIGSTOP)
            # However long a look takes, the server is stopped until it was told.
            Thread(target=go_on, daemon=True).start()
            assert stage_client.called(home, f"{WORK}:give", {"code": 0}, {}).code == 0
        finally:
            one.kill()
    told = capsys.readouterr().err
    assert told.count(f"`kill -CONT {one.pid}` lets it go on") == 1
    # The server is told of too, when it is, in any order.
    says = f"Meanwhile: process {one.pid} (sleep 600) is stopped (SIGSTOP)"
    assert any(line.startswith(says) for line in told.splitlines())


def test_a_server_that_answers_nothing_is_waited_for_once(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home) as process:
        monkeypatch.setattr(wire, "_ANSWER_SECONDS", 3)
        monkeypatch.setattr(wire, "_ANSWER_AGAIN_SECONDS", 0.1)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            # As a night asks for each of its stages, and a training for each of its ranks.
            found = [stage_client.available(home) for _ in range(10)]
        finally:
            process.send_signal(signal.SIGCONT)
        assert not any(found)
        # It takes 4 s, and a machine may be slow; ten that wait take 30.
        assert time.monotonic() - began < 25, "each of them waited"
        assert until(lambda: stage_client.available(home))
        # It is no more one that is known for its silence, for which a tenth of a second is enough.
        monkeypatch.setattr(wire, "_ANSWER_SECONDS", 60)
        process.send_signal(signal.SIGSTOP)
        goes_on = Timer(2.5, process.send_signal, [signal.SIGCONT])
        goes_on.start()
        is_there = stage_client.available(home)
        goes_on.join()
        assert is_there


def test_a_server_that_is_slow_to_answer_is_there(home: Environment) -> None:
    with serving(home) as process:
        # As where a machine has its memory on the disk.
        process.send_signal(signal.SIGSTOP)
        goes_on = Timer(6, process.send_signal, [signal.SIGCONT])
        goes_on.start()
        is_there = stage_client.available(home)
        goes_on.join()
        assert is_there


def test_without_a_server_work_runs_in_a_new_process(home: Environment, tmp_path: Path) -> None:
    assert not stage_client.available(home)
    file = tmp_path / "output"
    lines = {"out": "to out", "err": "to err"}
    with file.open("w") as output:
        assert stage_client.spawn(home, f"{WORK}:say", lines, {}, output).wait() == 0
    assert sorted(file.read_text().splitlines()) == ["to err", "to out"]
    assert stage_client.spawn(home, f"{WORK}:give", {"code": 1}, {}).wait(60) == 1


def _without_reader() -> IO[str]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_work_beside_us_goes_on_where_nobody_reads_what_it_prints(home: Environment) -> None:
    lines = {"out": "to out", "err": "to err"}
    with _without_reader() as output:
        # In a new process, then in a child of the server.
        assert stage_client.spawn(home, f"{WORK}:say", lines, {}, output).wait(60) == 0
        with serving(home):
            assert stage_client.spawn(home, f"{WORK}:say", lines, {}, output).wait(60) == 0


ENDLESS_STATEMENT = """
import sys
from jobs.commands import sql
from jobs.services import child
sql.in_child = lambda _: print("a row", flush=True)
sys.exit(child.execute("jobs.commands.sql:in_child", {}))
"""


def test_a_statement_ends_where_nobody_reads_its_rows() -> None:
    with _without_reader() as output:
        words = [sys.executable, "-c", ENDLESS_STATEMENT]
        ended = subprocess.run(words, cwd=ROOT, stdout=output, stderr=subprocess.PIPE)
    assert ended.returncode == 3
    assert b"BrokenPipeError" in ended.stderr


def test_work_in_a_new_process_can_be_killed(home: Environment, tmp_path: Path) -> None:
    work = stage_client.spawn(home, f"{WORK}:sleep", {"file": str(tmp_path / "pids")}, {})
    assert work.wait(0.01) is None
    work.kill()
    assert work.wait() == -9


@pytest.mark.parametrize("name", ["x" * 120, "ü" * 60])
def test_a_home_whose_path_is_too_long_for_a_socket_has_no_server(name: str) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": f"/{name}"})
    assert not stage_client.available(environment)
    with pytest.raises(ValueError, match="bytes too long"):
        wire.socket_path(environment, "stages")


@pytest.mark.policy
def test_the_client_is_light() -> None:
    heavy = {
        "psutil",
        "numpy",
        "pandas",
        "pyarrow",
        "pyspark",
        "tensorflow",
        "great_expectations",
        "feast",
        "mlflow",
        "supervisor",
    }
    client = subprocess.run(
        [sys.executable, "-c", "import sys, jobs.services.stage_client; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy & set(client.stdout.split()) == set()
