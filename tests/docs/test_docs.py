"""Every code block of the pages is run, and what the pages say about files, options and errors is compared.

How a block is run:
- `python`: in the page's order, in one event loop and one namespace per page, in an empty working directory; await
  works as in `python -m asyncio`. A block with `asyncio.run` at the start of a line is a program of its own
  and runs as one.
- `# -> value` behind a statement is what its value must look like; behind a `print`, what it must print. `...`
  stands for anything. A line that is never reached is an error.
- `console`: lines that begin with `$`. `gravito doctor`, `gravito --version` and `pytest` are run; of the other commands of
  `gravito` and of `make`, the options and targets are checked.
- `ini`, `yaml` and `dockerfile`: units, compose files and images. They are read, and each command of `gravito` in them
  is checked likewise; units by `systemd-analyze verify`, too, where that is.
- A block behind `<!-- file: name -->` is written to that file.
- A block behind `<!-- not run: reason -->` is only compiled, and there may be few of them.
- A block behind `<!-- other: celery -->` shows another library. It is compiled, and where that is installed, what the
  block imports must be there.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import gc
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import typer.main
import yaml

from gravito import errors
from gravito.atlas import TLS, Breaker, Client, Limits, Retry, Settings, Timeouts, facade
from gravito.atlas.manager import ConnectionManager
from gravito.cli import app
from gravito.horizon import JobOptions
from gravito.horizon.options import Options

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "README.zh-TW.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.md")),
]
MOST_NOT_RUN = 2
# programs of which only the name is known here
KNOWN = {
    "pip",
    "git",
    "uvicorn",
    "curl",
    "docker",
    "mkdir",
    "cd",
    "python",
    "sudo",
    "source",
    "REDIS_URL=redis://127.0.0.1:6379/0",
}

_FENCE = re.compile(r"(?:<!-- *(?P<mark>[^\n]*?) *-->\n)?```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_EXPECTED = re.compile(r"#\s*->\s*(.*)$")


@dataclass(frozen=True)
class Block:
    page: str
    line: int  # of its first line of code
    kind: str
    code: str
    mark: str  # what the comment in front of it says

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["kind"],
            found["code"],
            found["mark"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def matches(shown: str, expected: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, shown, re.S) is not None


@dataclass
class Checker:
    """Compares values with the comments behind them."""

    block: Block
    expected: dict[int, str]  # line of the page -> what stands behind `# ->`
    reached: set[int] = field(default_factory=set)

    def value(self, line: int, value: Any) -> None:
        self._compare(line, repr(value))

    def printed(self, line: int, *values: Any, sep: str = " ") -> None:
        self._compare(line, sep.join(str(value) for value in values))

    def _compare(self, line: int, shown: str) -> None:
        self.reached.add(line)
        assert matches(shown, self.expected[line]), (
            f"{self.block.page}:{line} says {self.expected[line]!r} and gets {shown!r}"
        )


class _Checked(ast.NodeTransformer):
    """Puts a check behind every statement that has an expected value."""

    def __init__(self, expected: dict[int, str]) -> None:
        self._expected = expected

    def _call(self, method: str, node: ast.stmt, *values: ast.expr) -> ast.Expr:
        checker = ast.Attribute(ast.Name("__checker__", ast.Load()), method, ast.Load())
        line = node.end_lineno or 0
        call = ast.Call(checker, [ast.Constant(line), *values], [])
        return ast.copy_location(ast.Expr(call), node)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        if (node.end_lineno or 0) not in self._expected:
            return node
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
            return self._call("printed", node, *value.args)
        return self._call("value", node, value)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if (node.end_lineno or 0) not in self._expected:
            return node
        target = node.targets[0]
        assert isinstance(target, ast.Name), "an expected value needs a plain name in front of it"
        return [node, self._call("value", node, ast.Name(target.id, ast.Load()))]


def expectations(block: Block) -> dict[int, str]:
    found = {}
    for number, line in enumerate(block.code.splitlines(), block.line):
        expected = _EXPECTED.search(line)
        if expected:
            found[number] = expected[1].strip()
    return found


def compiled(block: Block, expected: dict[int, str]) -> Any:
    tree = ast.parse("\n" * (block.line - 1) + block.code, str(ROOT / block.page))
    tree = ast.fix_missing_locations(_Checked(expected).visit(tree))
    return compile(tree, str(ROOT / block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run_block(block: Block, namespace: dict[str, Any]) -> None:
    expected = expectations(block)
    checker = namespace["__checker__"] = Checker(block, expected)
    try:
        async with asyncio.timeout(20):
            result = eval(compiled(block, expected), namespace)
            if inspect.iscoroutine(result) or isinstance(result, Awaitable):
                await result
    except AssertionError:
        raise
    except Exception as error:
        error.add_note(f"in the block at {block}")
        raise
    missed = set(expected) - checker.reached
    assert not missed, f"{block.page}: never reached the lines {sorted(missed)}"


def run_program(block: Block, folder: Path) -> None:
    done = program([sys.executable, "-W", "error", "-c", block.code], folder)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    expected = list(expectations(block).values())
    shown = done.stdout.splitlines()
    assert len(shown) == len(expected), f"{block} prints {shown}"
    for line, pattern in zip(shown, expected, strict=True):
        assert matches(line, pattern), f"{block} says {pattern!r} and prints {line!r}"


def program(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def commands(block: Block) -> Iterator[list[str]]:
    for line in block.code.splitlines():
        if line.startswith("$ "):
            yield line[2:].partition("  #")[0].split()


def run_console(block: Block, folder: Path) -> None:
    for command in commands(block):
        name, *arguments = command
        if name == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
            assert arguments[0] in targets, f"{block}: no target {arguments[0]}"
        elif name == "gravito":
            run_gravito(block, arguments, folder)
        elif name == "pytest":
            done = program([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], folder)
            assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        else:
            assert name in KNOWN, f"{block}: who checks {name}?"


def run_gravito(block: Block, arguments: list[str], folder: Path) -> None:
    start = [sys.executable, "-c", "from gravito.cli import app; app(prog_name='gravito')"]
    if arguments in (["--version"], ["doctor"], ["doctor", "--json"]):
        folder = folder / "empty"  # the page's own configuration names a server that is not there
        folder.mkdir(exist_ok=True)
        done = program([*start, *arguments], folder)
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        return
    check_gravito(block, arguments)


def check_gravito(block: Block, arguments: list[str]) -> None:
    """Whether there is such a command, with these options."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"{block}: {command.name} has no command {name}"
        command = command.resolve_command(typer.Context(command), [name])[1]  # imported only now
    known = {"--help"} | {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for option in rest:
        if option.startswith("-"):
            assert option.partition("=")[0] in known, f"{block}: {command.name} has no {option}"


def check_file(block: Block, folder: Path) -> None:
    """Read a configuration file of other programs, and check the commands in it."""
    if block.kind == "ini":
        unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
        unit.read_string(block.code)
        assert unit.sections(), f"{block} has no section"
        found = [unit[section].get("ExecStart", "") for section in unit.sections()]
        words = [shlex.split(line) for line in found]
        if shutil.which("systemd-analyze") is not None:
            check_unit(block, folder)
    elif block.kind == "yaml":
        content = yaml.safe_load(block.code)
        words = [as_words(each.get("command", "")) for each in content.get("services", {}).values()]
    else:
        logical = block.code.replace("\\\n", " ").splitlines()
        steps = [line for line in logical if line.strip() and not line.startswith("#")]
        assert all(re.match(r"[A-Z]+ ", step) for step in steps), f"{block} is no Dockerfile"
        words = [json.loads(step.partition(" ")[2]) for step in steps if step.startswith("CMD ")]
    for command in words:
        if command and Path(command[0]).name == "gravito":
            check_gravito(block, command[1:])


def check_unit(block: Block, folder: Path) -> None:
    """What systemd says of it; the program that it starts is not here."""
    unit = folder / "page.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/usr/bin/env", block.code, flags=re.M))
    done = program(["systemd-analyze", "verify", str(unit)], folder)
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), f"{block}: {done.stdout}{done.stderr}"


def as_words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


async def check_page(page: str, folder: Path) -> None:
    # a module, for dataclasses and the cache look for the one that a class says it is of
    namespace = sys.modules.setdefault("__page__", ModuleType("__page__")).__dict__
    namespace.clear()
    namespace["__name__"] = "__page__"
    for block in blocks(page):
        if block.mark.startswith("not run:"):
            if block.kind == "python":
                compiled(block, {})
        elif block.mark.startswith("other:"):
            check_other(block)
        elif block.mark.startswith("file:"):
            path = folder / block.mark.removeprefix("file:").strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.kind == "console":
            await asyncio.to_thread(run_console, block, folder)
        elif block.kind in {"ini", "yaml", "dockerfile"}:
            await asyncio.to_thread(check_file, block, folder)
        elif block.kind == "python" and re.search(r"^asyncio\.run\(", block.code, re.M):
            await asyncio.to_thread(run_program, block, folder)
        elif block.kind == "python":
            await run_block(block, namespace)
        else:
            assert block.kind in {"text", "mermaid"}, (
                f"{block}: a block of kind {block.kind!r} is run by nobody"
            )


def check_other(block: Block) -> None:
    """Compile code of another library; import what it imports, if the library is here."""
    compiled(block, {})
    library = block.mark.removeprefix("other:").strip().replace("-", "_")
    assert re.search(rf"\b{library}\b", block.code), f"{block} does not name {library}"
    if importlib.util.find_spec(library) is None:
        return
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == library:
            module = importlib.import_module(str(node.module))
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            assert not missing, f"{block}: {node.module} has no {missing}"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, and a `DB` that has found nothing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a page's files can be imported by its blocks
    monkeypatch.setattr(facade, "DB", ConnectionManager())
    monkeypatch.setattr("gravito.atlas.DB", facade.DB)
    return tmp_path


@pytest.mark.newest
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, fresh: Path) -> None:
    async def run() -> None:
        try:
            await check_page(page, fresh)
        finally:
            await facade.DB.disconnect_all()
            async with Client.from_url("embedded://") as client:  # all pages have the same one
                await client.flushall()

    try:
        asyncio.run(run())
    finally:
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(str(fresh)):
                del sys.modules[name]
        gc.collect()  # jobs of this page must not stand in the way of the next one's


def test_few_blocks_are_not_run() -> None:
    marked = [block for page in PAGES for block in blocks(page) if block.mark.startswith("not run")]
    assert all(len(block.mark.removeprefix("not run:").strip()) > 10 for block in marked), (
        "a reason is missing"
    )
    assert len(marked) <= MOST_NOT_RUN, [str(block) for block in marked]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in headings(path.read_text(encoding="utf-8")), f"{page}: {target}"


def headings(text: str) -> set[str]:
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|txt))`", text))
    assert named
    places = (ROOT, ROOT / "src/gravito", ROOT / "src/gravito/atlas")
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert missing == []


def test_the_translated_guide_has_the_same_code() -> None:
    def shown(page: str) -> list[tuple[str, str]]:
        return [(block.kind, block.code) for block in blocks(page)]

    assert shown("docs/zh-TW/redis.md") == shown("docs/redis.md"), "code was changed in one of them only"
    codes = {block.code for block in blocks("README.md")}
    assert all(block.code in codes for block in blocks("README.zh-TW.md")), "README.md was changed alone"


def rows(heading: str, page: str = "docs/redis.md") -> list[list[str]]:
    """The cells of the first table behind a heading of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    section = text.split(f"# {heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


@pytest.mark.parametrize(("page", "heading"), [("docs/redis.md", "Options"), ("docs/zh-TW/redis.md", "選項")])
def test_the_table_of_options_is_the_code(page: str, heading: str) -> None:
    def described(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
        for option in msgspec.structs.fields(kind):
            if isinstance(option.default, (Timeouts, Limits, Retry)) or option.name in (
                "name",
                "tls",
                "breaker",
            ):
                continue
            yield f"`{prefix}{option.name}`", f"`{option.default!r}`"

    expected = dict(described(Settings))
    for name, kind in (
        ("timeouts", Timeouts),
        ("limits", Limits),
        ("retry", Retry),
        ("breaker", Breaker),
        ("tls", TLS),
    ):
        expected |= dict(described(kind, f"{name}."))
    assert {row[0]: row[1] for row in rows(heading, page)} == expected


def test_the_table_of_job_options_is_the_code() -> None:
    table = rows("Options", "docs/queue.md")
    listed = {name: row[1] for row in table for name in re.findall(r"`(\w+)`", row[0])}
    assert set(listed) == set(JobOptions.__annotations__)
    for option in msgspec.structs.fields(Options):
        if listed[option.name].startswith("`") and "," not in listed[option.name]:
            assert listed[option.name] == f"`{option.default!r}`", option.name


@pytest.mark.parametrize(("page", "heading"), [("docs/redis.md", "Errors"), ("docs/zh-TW/redis.md", "錯誤")])
def test_the_table_of_errors_is_the_code(page: str, heading: str) -> None:
    listed = {name for row in rows(heading, page) for name in re.findall(r"`(\w+Error)`", row[0])}
    assert listed == set(errors.__all__)


def test_the_console_has_the_pages_of_the_table() -> None:
    console = importlib.import_module("gravito.horizon.console._pages")
    titles = {page.menu for page in console.PAGES}
    titles |= {"One job", "Running"}  # reached from others
    assert {row[0] for row in rows("Pages", "docs/console.md")} <= titles


def test_the_checker_finds_a_wrong_value() -> None:
    block = Block("README.md", 1, "python", "x = 1  # -> 2\n", "")
    with pytest.raises(AssertionError, match="says '2' and gets '1'"):
        asyncio.run(run_block(block, {}))


def test_the_checker_finds_a_line_that_is_never_reached() -> None:
    code = textwrap.dedent("""
        def never():
            print("a")  # -> a
    """)
    with pytest.raises(AssertionError, match="never reached"):
        asyncio.run(run_block(Block("README.md", 1, "python", code, ""), {}))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ini", "[Service]\nExecStart=/srv/bin/gravito horizon wrok app:horizon\n"),
        ("yaml", "services:\n  worker:\n    command: [gravito, horizon, work, --quick]\n"),
        ("dockerfile", 'FROM python\nCMD ["gravito", "sreve"]\n'),
    ],
)
def test_the_checker_finds_a_command_that_is_not_there(kind: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="has no"):
        check_file(Block("README.md", 1, kind, code, ""), tmp_path)


def test_the_checker_finds_what_another_library_does_not_have() -> None:
    with pytest.raises(AssertionError, match="has no"):
        check_other(Block("README.md", 1, "python", "from redis.asyncio import Rediss\n", "other: redis"))
    with pytest.raises(AssertionError, match="does not name"):
        check_other(Block("README.md", 1, "python", "import asyncio\n", "other: redis"))
