"""Finding the Horizon of an application by `module:name`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from gravito.errors import GravitoError
from gravito.horizon import Horizon

__all__ = ["HELP", "Json", "Target", "load", "run_on"]

HELP = "Where the application's Horizon is: module:name, as app:horizon."


Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", help=HELP)]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON instead of text.")]


def load(target: str) -> Horizon:
    """The Horizon that `module:name` means; the module is imported, also from the present folder.

    Ends the program with a message when there is none.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        _fail(f"{target!r} names no Horizon; say module:name, as app:horizon.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # the application's own imports are at fault: its traceback says where
        _fail(f"There is no module {module!r} in {here} or on the Python path.")
    for part in name.split("."):
        if not hasattr(found, part):
            _fail(f"Module {module!r} has no {name!r}.")
        found = getattr(found, part)
    if not isinstance(found, Horizon):
        _fail(f"{target} is a {type(found).__name__}, not a Horizon.")
    return found


def run_on(target: str, main: Callable[[Horizon], Coroutine[Any, Any, int | None]]) -> None:
    """Run something on a Horizon, which is closed behind it; its errors end the program with a message and status 1.

    Args:
        target: as `load` takes it.
        main: what to do; gives the exit status, or None for 0.
    """
    horizon = load(target)

    async def guarded() -> int | None:
        try:
            return await main(horizon)
        finally:
            await horizon.aclose()
            await horizon.client.aclose()

    try:
        status = asyncio.run(guarded())
    except GravitoError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status or 0)


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)
