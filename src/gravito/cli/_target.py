"""Finding the Horizon of an application by `module:name`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NoReturn

import typer

from gravito.horizon import Horizon

__all__ = ["HELP", "load"]

HELP = "Where the application's Horizon is: module:name, as app:horizon."


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


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)
