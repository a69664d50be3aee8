"""Finding the Horizon of an application by `module:name`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any

import typer

from gravito.cli._output import complain
from gravito.errors import ConfigurationError, GravitoError
from gravito.horizon import Horizon
from gravito.horizon._target import find

__all__ = ["HELP", "Json", "Target", "completing", "load", "run_on"]

HELP = "Where the application's Horizon is: module:name, as app:horizon."


Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", help=HELP)]
Json = Annotated[bool, typer.Option("--json", help="For programs: JSON instead of text.")]


def load(target: str) -> Horizon:
    """The Horizon that `module:name` means; ends the program with a message when there is none."""
    try:
        return find(target)
    except ConfigurationError as error:
        complain(error)
        raise typer.Exit(2) from error


def completing(values: Iterable[str]) -> Callable[[str], list[str]]:
    """What the shell offers for an option that takes one of these values."""

    def offered(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return offered


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
        complain(error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(status or 0)
