"""Arguments that stand for several things, checked before anything is done.

One text alone is a mistake where a list is wanted: it would be taken for its letters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gravito import errors

__all__ = ["keyed", "several", "turns"]


def several(
    what: str, given: Any, wrong: Callable[[str], Exception] = errors.InvalidKeyError
) -> Iterable[Any]:
    """`given` itself, if it can list something.

    Args:
        what: the argument's name.
        given: the argument.
        wrong: makes the error of a message.

    Raises:
        InvalidKeyError: it is one text, or lists nothing; or what `wrong` makes.
    """
    if isinstance(given, str | bytes):
        raise wrong(f"{what} is the text {given!r:.100}; give a list of {what}")
    if not isinstance(given, Iterable):
        raise wrong(f"{what} is of type {type(given).__name__}; give a list of {what}")
    return given


def keyed(what: str, given: Any) -> Mapping[str, Any]:
    """`given` itself, if it has something for each of several keys.

    Raises:
        ConfigurationError: it is no mapping.
    """
    if not isinstance(given, Mapping):
        raise errors.ConfigurationError(
            f"{what} is of type {type(given).__name__}; allowed: a mapping of keys to {what}", field=what
        )
    return given


def turns(concurrency: Any) -> asyncio.Semaphore:
    """What lets so many go on at the same time.

    Raises:
        ConfigurationError: it is no number, or nobody would have a turn.
    """
    if type(concurrency) is not int or concurrency < 1:
        raise errors.ConfigurationError(
            f"concurrency is {concurrency!r}; allowed: a whole number from 1 on",
            field="concurrency",
            value=concurrency,
        )
    return asyncio.Semaphore(concurrency)
