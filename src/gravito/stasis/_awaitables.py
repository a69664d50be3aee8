"""What a store's plain methods return."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Ready(Generic[T]):
    """An awaitable of what is there already; awaiting it suspends nobody."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[None, None, T]:
        yield from ()  # nothing to wait for
        return self._value


class All:
    """An awaitable of the replies to commands that are on their way: a list, or the first error once all are there.

    Without tasks of their own, which `asyncio.gather` would make.

    Args:
        commands: what a client gave for each.
        none: an error that stands for None.
    """

    __slots__ = ("_none", "commands")

    def __init__(self, commands: Sequence[Any], none: type[Exception] | tuple[()] = ()) -> None:
        self.commands = commands
        self._none = none

    def __await__(self) -> Generator[Any, None, list[Any]]:
        replies: list[Any] = []
        failed: Exception | None = None
        for at, command in enumerate(self.commands):
            try:
                replies.append((yield from command.__await__()))
            except self._none:
                replies.append(None)
            except Exception as error:
                failed = failed or error
            except BaseException:  # cancelled: nobody will ask what became of the others
                for other in self.commands[at + 1 :]:
                    other.close()
                raise
        if failed is not None:
            raise failed
        return replies
