"""`gravito horizon work` and `gravito schedule` as processes, on an application in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

APPLICATION = """
import os, time
from pathlib import Path
from gravito.horizon import Horizon, job

horizon = Horizon()
here = Path(__file__).parent

@job(retries=0)
def note(text: str = "") -> None:
    with (here / "notes").open("a") as file:
        file.write(f"{os.getpid()} {text}\\n")

@job
def slow(text: str) -> None:
    note(f"begin {text}")
    time.sleep(1.0)
    note(f"end {text}")

horizon.schedule("often", note.make("fired")).every_second()
horizon.schedule("yearly", note).yearly().description("once in a while")
"""
PUSH = """
import asyncio, sys
from app import horizon, note, slow

async def main():
    for text in sys.argv[2:]:
        await {"note": note, "slow": slow}[sys.argv[1]].push(text)
    await horizon.aclose()
    await horizon.client.aclose()

asyncio.run(main())
"""


class Application:
    """An application's folder, and processes on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        # the folder's engine serves all its processes, and ends with the last one
        self.environ = {**os.environ, "REDIS_URL": f"embedded://{folder / 'data'}", "PYTHONUNBUFFERED": "1"}
        self._started: list[subprocess.Popen[str]] = []
        (folder / "app.py").write_text(APPLICATION)
        (folder / "push.py").write_text(PUSH)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """`gravito` in the background."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gravito.cli", *args],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def run(self, *args: str, status: int = 0) -> str:
        """`gravito` to its end."""
        process = self.start(*args)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        return output

    def push(self, job: str, *texts: str) -> None:
        """Queue a job for each text."""
        subprocess.run(
            [sys.executable, "push.py", job, *texts],
            cwd=self.folder,
            env=self.environ,
            check=True,
            timeout=60,
        )

    def lines(self) -> list[str]:
        """What the jobs have noted, with the process ids before."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def texts(self) -> list[str]:
        """The same without them."""
        return [line.partition(" ")[2] for line in self.lines()]

    def wait(self, condition: Callable[[], object]) -> None:
        """Until it holds."""
        end = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < end, self.lines()
            time.sleep(0.05)

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    """In an empty folder."""
    made = Application(tmp_path)
    yield made
    made.close()


def stop(process: subprocess.Popen[str]) -> str:
    """SIGTERM, and what it said to the end."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    return output


def test_a_worker_runs_jobs_and_drains_at_sigterm(application: Application) -> None:
    application.push("slow", "a", "b")
    worker = application.start("horizon", "work", "app:horizon", "--no-schedules", "--concurrency", "1")
    application.wait(lambda: "begin a" in application.texts())
    output = stop(worker)
    assert application.texts() == ["begin a", "end a"]
    assert "Stopped: 1 done" in output
    application.run("horizon", "work", "app:horizon", "--burst")
    assert application.texts() == ["begin a", "end a", "begin b", "end b"]


def test_a_killed_process_is_replaced_and_its_job_runs_again(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--processes", "2")
    application.push("slow", "a")
    application.wait(lambda: "begin a" in application.texts())
    os.kill(int(application.lines()[0].split()[0]), signal.SIGKILL)
    application.wait(lambda: "end a" in application.texts())
    assert application.texts() == ["begin a", "begin a", "end a"]
    application.push("note", "later")
    application.wait(lambda: "later" in application.texts())
    assert "ended with SIGKILL; a new one starts" in stop(supervisor)


def test_a_supervisor_that_is_killed_takes_its_workers_along(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--processes", "2")
    application.push("note", "here")
    application.wait(lambda: "here" in application.texts())
    worker = int(application.lines()[0].split()[0])
    supervisor.kill()
    supervisor.wait()
    application.wait(lambda: not _alive(worker))


def test_a_burst_of_several_processes_ends(application: Application) -> None:
    application.push("note", *(str(number) for number in range(50)))
    application.run("horizon", "work", "app:horizon", "--burst", "--processes", "2")
    assert sorted(application.texts(), key=int) == [str(number) for number in range(50)]


def test_a_process_is_replaced_after_its_share(application: Application) -> None:
    supervisor = application.start(
        *("horizon", "work", "app:horizon", "--no-schedules"), *("--max-jobs", "1", "--concurrency", "1")
    )
    for text in ("a", "b"):
        application.push("note", text)
        application.wait(lambda text=text: text in application.texts())
    assert len({line.split()[0] for line in application.lines()}) == 2
    stop(supervisor)


def test_a_changed_file_restarts_the_workers(application: Application) -> None:
    supervisor = application.start("horizon", "work", "app:horizon", "--no-schedules", "--reload")
    application.push("note", "before")
    application.wait(lambda: "before" in application.texts())
    module = application.folder / "app.py"
    module.write_text(module.read_text().replace('{text}\\n")', '{text} anew\\n")'))

    def changed() -> bool:
        application.push("note", "after")
        return "after anew" in application.texts()

    application.wait(changed)
    assert "app.py has changed; restarting" in stop(supervisor)


def test_workers_fire_schedules_once_between_them(application: Application) -> None:
    workers = [application.start("horizon", "work", "app:horizon") for _ in range(2)]
    application.wait(lambda: application.texts().count("fired") >= 3)
    for worker in workers:
        stop(worker)
    listed = json.loads(application.run("schedule", "list", "app:horizon", "--json"))
    assert [(row["name"], row["when"]) for row in listed] == [
        ("often", "* * * * * *"),
        ("yearly", "0 0 1 1 *"),
    ]
    assert listed[0]["last"] is not None
    assert listed[1]["last"] is None


def test_a_schedule_is_listed_paused_and_run_by_hand(application: Application) -> None:
    assert "once in a while" in application.run("schedule", "list", "app:horizon")
    assert "is queued as job" in application.run("schedule", "run", "app:horizon", "yearly")
    application.run("horizon", "work", "app:horizon", "--burst")
    assert application.texts() == [""]
    application.run("schedule", "pause", "app:horizon", "yearly")
    assert "paused" in application.run("schedule", "list", "app:horizon")
    application.run("schedule", "resume", "app:horizon", "yearly")
    assert "paused" not in application.run("schedule", "list", "app:horizon")
    assert "there is no schedule 'never'" in application.run(
        "schedule", "run", "app:horizon", "never", status=2
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app", "say module:name"),
        ("nothing:x", "no module 'nothing'"),
        ("app:x", "has no 'x'"),
        ("app:note", "not a Horizon"),
    ],
)
def test_a_target_that_is_none_is_named(application: Application, target: str, said: str) -> None:
    assert said in application.run("horizon", "work", target, status=2)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
