"""The start page as a new user follows it: its files in an empty folder, its programs, and a job seen done."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from tests.examples.programs import GRAVITO, ROOT, Program, free_port, served, wait

PAGE = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """What the page has one type, without the dollar."""
    return re.findall(r"^\$ (.+)$", PAGE, re.M)


def program(folder: Path, command: str, *more: str) -> Program:
    """A program of the page, as a process of the folder; nothing but the page's own file says where the data are."""
    assert command in commands(), f"the page has no {command!r}"
    name, *words = command.split()
    start = GRAVITO if name == "gravito" else ["-m", name]
    return Program([*start, *words, *more], folder)


def test_a_job_is_done_and_seen_in_the_console(tmp_path: Path) -> None:
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```", PAGE, re.S | re.M):
        (tmp_path / name).write_text(content)
    assert {path.name for path in tmp_path.iterdir()} == {".env", "app.py"}
    ports = free_port(), free_port()
    started = [
        program(tmp_path, "uvicorn app:web", "--port", str(ports[0])),
        program(tmp_path, "gravito horizon work app:horizon"),
        program(tmp_path, "gravito horizon console app:horizon", "--port", str(ports[1])),
    ]
    try:
        web, console = (f"http://127.0.0.1:{port}" for port in ports)
        with served(started[0], web) as application, served(started[2], console) as pages:
            assert any(
                command.startswith("curl -X POST http://127.0.0.1:8000/greet/Ann") for command in commands()
            )
            job_id = application.post("/greet/Ann").json()["job"]
            wait(lambda: seen(pages, job_id))
            page = pages.get(f"/jobs/default/{job_id}", headers={"accept": "text/html"}).text
            assert "Hello, Ann!" in page
            assert application.get("/").status_code == 200
            status = program(tmp_path, "gravito horizon status app:horizon")
            done = program(tmp_path, "gravito horizon jobs app:horizon --state done")
            assert (status.process.wait(60), done.process.wait(60)) == (0, 0), status.end() + done.end()
            assert job_id in done.end()
            assert "Workers" in status.end()
        assert (tmp_path / "data").is_dir()
    finally:
        for one in reversed(started):
            one.end()


def seen(pages: httpx.Client, job_id: str) -> bool:
    """Whether the console lists the job as one that went well."""
    jobs = pages.get("/api/jobs", params={"state": "done"}).json()["jobs"]
    return [one["state"] for one in jobs if one["id"] == job_id] == ["ok"]
