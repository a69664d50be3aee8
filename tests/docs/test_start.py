"""The start page, followed to the letter by processes: its files, its commands, its job seen done in the console."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
from tests.docs.test_docs import Block, blocks, commands
from tests.examples.programs import GRAVITO, Program, free_port, served, wait

PROGRAMS = {"gravito": GRAVITO, "uvicorn": ["-m", "uvicorn"]}


def with_files(folder: Path) -> list[Block]:
    """The page's files in a folder; its blocks."""
    page = blocks("docs/index.md")
    for block in page:
        if block.mark.startswith("file:"):
            # the page's own folder may belong to somebody who follows it on this machine
            code = block.code.replace("/tmp/hello-gravito", str(folder / "data"))
            (folder / block.mark.removeprefix("file:").strip()).write_text(code)
    return page


def command_of(page: list[Block], beginning: str) -> list[str]:
    [found] = [each for block in page for each in commands(block) if " ".join(each).startswith(beginning)]
    return [*PROGRAMS.get(found[0], []), *found[1:]]


def test_a_job_is_seen_done_in_the_console(tmp_path: Path) -> None:
    page = with_files(tmp_path)
    with ExitStack() as stack:

        def start(beginning: str, *more: str) -> Program:
            program = Program([*command_of(page, beginning), *more], tmp_path)
            stack.callback(program.end)
            return program

        web_port, console_port = free_port(), free_port()
        web = start("uvicorn", "--port", str(web_port))
        worker = start("gravito horizon work")
        console = start("gravito horizon console", "--port", str(console_port))
        site = stack.enter_context(served(web, f"http://127.0.0.1:{web_port}"))
        pages = stack.enter_context(served(console, f"http://127.0.0.1:{console_port}"))
        worker.shows("Working on default")

        method, address = command_of(page, "curl")[1:]
        job = site.request(method, httpx.URL(address).path).json()["job"]
        wait(shows(pages, "/jobs", job))
        wait(shows(pages, re.search(rf'href="([^"]*{job}[^"]*)"', pages.get("/jobs").text)[1], "Hello, Ann!"))  # type: ignore[index]
        wait(lambda: site.get("/").json()["greetings so far"] >= 1)

        for what in ("status", "jobs"):
            asked = start(f"gravito horizon {what}")
            assert asked.process.wait(60) == 0, asked.output
        assert job in asked.end()


def shows(pages: httpx.Client, path: str, text: str) -> Callable[[], bool]:
    return lambda: text in pages.get(path).text
