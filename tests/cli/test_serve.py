"""`gravito serve`, run as a program."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gravito.atlas import Client

PASSWORD = "s3cr3t-of-the-test"
RUN = "from gravito.cli.serve import serve; import typer; typer.run(serve)"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, sys.path))
        program = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        started.append(program)
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def block() -> int:
    """The first of six TCP ports in a row that are free, as those of their buses and sentinels are."""
    first = 16_500 + 6 * random.randrange(250)
    while not all(
        _is_free(each + beyond) for each in range(first, first + 6) for beyond in (0, 10_000, 20_000)
    ):
        first = 16_500 + 6 * random.randrange(250)
    return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def heading(program: subprocess.Popen[str]) -> str:
    """What it prints when it serves."""
    assert program.stdout is not None
    lines = []
    for line in program.stdout:
        lines.append(line)
        if line.startswith("Stop with"):
            return "".join(lines)
    assert program.stderr is not None
    raise AssertionError(f"it did not come up: {program.stderr.read()}")


def ask(port: int, *lines: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for line in lines:
            connection.sendall(line.encode() + b"\r\n")
            reply = connection.recv(65536)
        return reply


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(start: Start, port: int, number: int) -> None:
    program = start("--port", str(port))
    text = heading(program)
    assert f"redis://127.0.0.1:{port}" in text
    assert "in memory" in text
    assert ask(port, "PING") == b"+PONG\r\n"
    program.send_signal(number)
    output, errors = program.communicate(timeout=5)
    assert program.returncode == 0
    assert output == "Stopped.\n"
    assert errors == ""
    with pytest.raises(ConnectionRefusedError):
        ask(port, "PING")


def test_a_folder_keeps_the_data(start: Start, port: int, tmp_path: Path) -> None:
    for _ in range(2):
        program = start("--port", str(port), "--dir", str(tmp_path))
        assert str(tmp_path) in heading(program)
        reply = ask(port, "INCR n")
        program.terminate()
        program.wait(5)
    assert reply == b":2\r\n"


def test_a_taken_port_is_said(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        program = start("--port", str(number))
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 1
    assert f"Port {number} on 127.0.0.1 is taken" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_password(start: Start, port: int, host: str) -> None:
    program = start("--port", str(port), "--host", host)
    _, errors = program.communicate(timeout=10)
    assert program.returncode == 1
    assert "GRAVITO_SERVE_PASSWORD" in errors


def test_a_password_is_asked_for_and_never_shown(start: Start, port: int) -> None:
    program = start("--port", str(port), "--host", "0.0.0.0", GRAVITO_SERVE_PASSWORD=PASSWORD)
    text = heading(program)
    assert PASSWORD not in text
    assert f":***@0.0.0.0:{port}" in text
    assert ask(port, "PING").startswith(b"-NOAUTH")
    assert ask(port, f"AUTH {PASSWORD}", "PING") == b"+PONG\r\n"
    engine = re.search(r"pid (\d+)", text)
    assert engine is not None
    if Path("/proc/self").is_dir():
        assert PASSWORD.encode() not in Path(f"/proc/{engine[1]}/cmdline").read_bytes()


def test_a_folder_in_use_is_said(start: Start, port: int, tmp_path: Path) -> None:
    from gravito.atlas.embedded import Engine

    with Engine(tmp_path):
        program = start("--port", str(port), "--dir", str(tmp_path))
        _, errors = program.communicate(timeout=10)
    assert program.returncode == 1
    assert "in use by another" in errors


def test_the_engines_own_end_is_said(start: Start, port: int) -> None:
    program = start("--port", str(port))
    engine = re.search(r"pid (\d+)", heading(program))
    assert engine is not None
    os.kill(int(engine[1]), signal.SIGKILL)
    _, errors = program.communicate(timeout=5)
    assert program.returncode == 1
    assert "ended by itself" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "no.such.host.invalid"), "does not resolve"),
        (("--host", "192.0.2.1"), "GRAVITO_SERVE_PASSWORD"),
    ],
)
def test_a_bad_host_is_said(start: Start, port: int, arguments: tuple[str, ...], message: str) -> None:
    program = start("--port", str(port), *arguments)
    _, errors = program.communicate(timeout=20)
    assert program.returncode == 1
    assert message in errors


def test_an_address_of_another_machine_is_said(start: Start, port: int) -> None:
    program = start("--port", str(port), "--host", "192.0.2.1", GRAVITO_SERVE_PASSWORD=PASSWORD)
    _, errors = program.communicate(timeout=10)
    assert program.returncode == 1
    assert "not an address of this machine" in errors


def test_a_cluster_until_ctrl_c(start: Start, block: int) -> None:
    port = block
    program = start("--cluster", "3", "--replicas", "1", "--port", str(port))
    lines = _lines(program, 9)
    assert lines[0].startswith(f"Serving  redis+cluster://127.0.0.1:{port},127.0.0.1:{port + 1},")
    assert [line.split()[0] for line in lines[2:8]] == ["Primary"] * 3 + ["Replica"] * 3
    pids = [int(line.rpartition(" ")[2]) for line in lines[2:8]]
    os.kill(pids[5], signal.SIGKILL)
    assert program.stdout is not None
    assert program.stdout.readline() == f"127.0.0.1:{port + 5} has ended.\n"
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=10)[0] == "Stopped.\n"
    assert program.returncode == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_sentinels_with_a_password(start: Start, block: int) -> None:
    port = block
    program = start("--sentinel", "--port", str(port), GRAVITO_SERVE_PASSWORD=PASSWORD)
    lines = _lines(program, 9)
    shown = ",".join(f"127.0.0.1:{port + 20_000 + index}" for index in range(3))
    assert lines[0] == f"Serving  redis+sentinel://:***@{shown}/mymaster/0?sentinel_password=***"
    assert [line.split()[0] for line in lines[2:8]] == ["Primary"] + ["Replica"] * 2 + ["Sentinel"] * 3
    assert PASSWORD not in "".join(lines)

    async def use() -> None:
        url = lines[0].split()[1].replace("***", PASSWORD)
        async with Client.from_url(url) as client:
            assert await client.incr("n") == 1

    asyncio.run(use())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cluster", "3", "--sentinel"], "choose one"),
        (["--replicas", "1"], "--replicas needs --cluster or --sentinel"),
        (["--sentinel", "--dir", "data"], "a topology of this command keeps none"),
        (["--cluster", "3", "--port", "60000"], "too high: this topology needs port 70000"),
        (["--cluster", "3", "--host", "0.0.0.0"], "no address that nodes could tell others"),
    ],
)
def test_topologies_that_cannot_be(start: Start, arguments: list[str], said: str) -> None:
    program = start(*arguments, GRAVITO_SERVE_PASSWORD=PASSWORD)
    assert said in program.communicate(timeout=10)[1]
    assert program.returncode == 1


def _lines(program: subprocess.Popen[str], count: int) -> list[str]:
    assert program.stdout is not None
    lines = [program.stdout.readline().rstrip("\n") for _ in range(count)]
    if not lines[0]:
        pytest.fail(program.communicate(timeout=10)[1])
    return lines
