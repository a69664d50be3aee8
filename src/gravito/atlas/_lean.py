"""The hottest commands without redis-py's per-call machinery; `bench get50 set500` is what justifies each.

Same parameters, replies and errors as redis-py's methods; whatever is not the plain case goes to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class LeanCommands:
        """redis-py's signatures are the ones to check against."""

else:

    class LeanCommands:
        """GET and SET in one step."""

        def get(self, name: Any) -> Any:
            """Return the value at key `name`, or None. https://redis.io/commands/get"""
            return self._send(self._specs["GET"], ("GET", name), None, self._text)

        def set(self, name: Any, value: Any, ex: Any = None, *more: Any, **options: Any) -> Any:
            """Set the value at key `name`; redis-py's options. https://redis.io/commands/set"""
            if more or options or (ex is not None and ex.__class__ is not int):
                return super().set(name, value, ex, *more, **options)
            args = ("SET", name, value) if ex is None else ("SET", name, value, "EX", ex)
            return self._send(self._specs["SET"], args, None, self._text)
