"""What the benchmark asks of a cache, and what is kept in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

TTL = 600  # seconds
TASKS = 50
MANY = 100
KEYS = [f"user:{number}" for number in range(MANY)]
TEAM = 7

# About a kilobyte, however it is serialised; the same for all.
VALUE: dict[str, Any] = {
    "id": 1017,
    "name": "Alice Example",
    "email": "alice@example.org",
    "active": True,
    "score": 97.5,
    "roles": ["reader", "writer", "admin"],
    "address": {"street": "12 Long Lane", "city": "Utrecht", "zip": "3511"},
    "created": "2026-01-31T12:00:00+00:00",
    "about": "x" * 760,
}

Get = Callable[[str], Awaitable[Any]]
Put = Callable[[str, Any], Awaitable[Any]]
GetMany = Callable[[Sequence[str]], Awaitable[Any]]
Load = Callable[[int], Awaitable[Any]]  # the user of that number, from the cache or computed


class CacheContender(Protocol):
    """A cache on the engine, set up as its documentation recommends for many tasks."""

    async def open(self, stack: AsyncExitStack, host: str, port: int) -> None:
        """Connect, and leave the closing to the stack."""

    def gets(self) -> Mapping[str, Get]:
        """The ways to get a value, by a short name; "" where there is one."""

    def puts(self) -> Mapping[str, Put]:
        """The ways to store a value for TTL seconds."""

    def manys(self) -> Mapping[str, GetMany]:
        """The ways to get several values: a list, or a dict in the order of the keys."""

    def loads(self) -> Mapping[str, Load]:
        """The ways to have a function's result kept for TTL seconds, with two tags where there are any."""

    def locals(self) -> Mapping[str, Get]:
        """The ways to get a value that was put before without asking the server."""
