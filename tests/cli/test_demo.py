"""`gravito demo` run as a program, and the head of the terminal's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from gravito import __version__
from gravito.cli import app

RUN = "from gravito.cli import app; app(prog_name='gravito')"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **more}


def test_walks_through_everything(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, "demo", "--gets", "3000"],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(folder)),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout, "escape codes where no terminal is"
    for part in (
        "redis = DB.connection",
        "-> valkey 9" if os.environ.get("GRAVITO_ENGINE") is None else "-> redis",
        '-> {"name": "Alice"}',
        "[True, True, 'val1', 1]",
        "tries: 2, stock and sold: ['3', '1']",
        "'notifications': 'a second process speaks'",
        "released by bob: 0, by alice: 1",
        "3000/3000",
        "3,000 replies, each the right one",
    ):
        assert part in done.stdout
    assert "say(" not in done.stdout
    assert "advance(" not in done.stdout


def test_reads_no_configuration_of_the_user(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "demo", "--gets", "1"],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(folder), REDIS_URL="redis://127.0.0.1:1", GRAVITO_ENV="production"),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_control_c_ends_it(folder: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", RUN, "demo", "--gets", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(folder), PYTHONUNBUFFERED="1"),
        start_new_session=True,
    )
    try:
        assert program.stdout is not None
        for line in program.stdout:
            if line.startswith("6."):  # the publisher's process is about to start
                break
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
        output, errors = program.communicate(timeout=30)
    finally:
        program.kill()
    assert program.returncode == 130
    assert output.endswith("Stopped.\n")
    assert errors == ""


def test_the_list_of_commands_imports_none_of_them() -> None:
    check = (
        "import sys; from gravito.cli import app; app(['--help'], standalone_mode=False); "
        "assert 'gravito.atlas' not in sys.modules and 'redis' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("demo", "serve", "doctor", "bench"):
        assert f"  {name} " in done.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"gravito {__version__}\n")


def test_a_misspelt_command_is_corrected() -> None:
    result = CliRunner().invoke(app, ["demoo"])
    assert result.exit_code == 2
    assert "Did you mean 'demo'?" in result.output
