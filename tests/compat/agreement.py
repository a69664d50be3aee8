"""Run recorded calls on a client and say where two runs differ."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import redis

from .recorder import Call


@dataclasses.dataclass(frozen=True)
class Failure:
    """An exception that a call raised."""

    error: Exception


async def outcome(call: Call, client: Any) -> Any:
    """The reply of one call, iterators read to their end; a `Failure` if it raised."""
    try:
        reply = call.on(client)
        if inspect.isasyncgen(reply) or hasattr(reply, "__aiter__"):
            return [item async for item in reply]
        return await reply if inspect.isawaitable(reply) else reply
    except Exception as error:
        return Failure(error)


async def outcomes(calls: list[Call], client: Any) -> list[Any]:
    """The replies of all calls, one after the other."""
    return [await outcome(call, client) for call in calls]


def differences(calls: list[Call], expected: list[Any], actual: list[Any]) -> list[str]:
    """One line for each call whose outcome differs in value or in type."""
    return [
        f"{call}: expected {theirs!r}, got {ours!r}"
        for call, theirs, ours in zip(calls, expected, actual, strict=True)
        if not agree(call, theirs, ours)
    ]


def agree(call: Call, theirs: Any, ours: Any) -> bool:
    """Whether two outcomes of the call are the same, type for type."""
    if isinstance(theirs, Failure) and isinstance(ours, Failure):
        return same_error(theirs.error, ours.error)
    return identical(call.compare(theirs), call.compare(ours))


def same_error(theirs: Exception, ours: Exception) -> bool:
    """Whether ours is of redis-py's class and says the same.

    What the server said is compared to the letter. Of an argument that the client itself refuses, ours also
    names the command and the place, so there only the start is compared.
    """
    if not isinstance(ours, type(theirs)):
        return False
    if isinstance(theirs, redis.DataError):
        return str(ours).startswith(str(theirs).partition(".")[0])
    return str(ours) == str(theirs)


def identical(one: Any, other: Any) -> bool:
    """Equality that also asks for equal types, at every depth; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return (
            one.keys() == other.keys()
            and all(
                type(mine) is type(theirs)
                for mine, theirs in zip(sorted(one, key=repr), sorted(other, key=repr), strict=True)
            )
            and all(identical(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    if isinstance(one, set | frozenset):
        return one == other and {type(value) for value in one} == {type(value) for value in other}
    return bool(one == other or (one != one and other != other))
