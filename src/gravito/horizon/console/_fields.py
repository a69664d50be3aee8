"""What an address or a form may carry: named once, described by these names, and refused if it is anything else.

A condition that nobody reads would reach further than it was meant to: a misspelt one of "delete all that ..." deletes all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from gravito.errors import HorizonError

__all__ = ["FILTER", "LIMIT", "OFFSET", "QUEUE", "InvalidError", "Parameter", "check", "whole"]


class InvalidError(HorizonError):
    """What was asked for cannot be asked for."""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of an address, or a field of a form.

    Args:
        name: its name.
        about: what it says.
        kind: its type.
        required: whether it must be there.
        repeated: whether it may be there more than once.
    """

    name: str
    about: str
    kind: Any = str
    required: bool = False
    repeated: bool = False

    def check(self, text: str) -> None:
        """Refuse a value that is not of its type; an empty one is as good as none.

        Raises:
            InvalidError: with what would be taken.
        """
        if not text or self.kind is str:
            return
        plain = get_origin(self.kind) is Literal or (
            text.isascii() and text.isdigit()
        )  # 1e2 is no number here
        try:
            msgspec.convert(text if plain else None, self.kind, strict=False)
        except msgspec.ValidationError:
            choices = ", ".join(get_args(self.kind)) if get_origin(self.kind) is Literal else self.about
            raise InvalidError(f"{self.name} is {text[:50]!r}; allowed: {choices}") from None


def check(
    given: Iterable[tuple[str, Sequence[str]]], known: Sequence[Parameter], others: Iterable[str] = ()
) -> None:
    """Refuse names that nobody would read, and second values that nobody would.

    Args:
        given: names with their values.
        known: what is read.
        others: further names that may be there.

    Raises:
        InvalidError: with the name, and those that are allowed.
    """
    by_name, allowed = {one.name: one for one in known}, set(others)
    for name, values in given:
        if name in allowed:
            continue
        if name not in by_name:
            instead = (
                "; one job is at /api/jobs/{queue}/{id}, and changed by jobs.act" if name == "id" else ""
            )
            raise InvalidError(
                f"{name[:50]!r} is unknown here; allowed: {', '.join(by_name) or 'none'}{instead}"
            )
        if len(values) > 1 and not by_name[name].repeated:
            raise InvalidError(f"{name} is there {len(values)} times; allowed: once")


def whole(low: int, high: int) -> Any:
    """The type of a whole number within bounds."""
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


QUEUE: Final = Parameter("queue", "Of this queue; without it, of all.")
OFFSET: Final = Parameter("offset", "Entries to leave out, 0 to 10000000.", whole(0, 10_000_000))
LIMIT: Final = Parameter("limit", "Entries to give, 1 to 1000.", whole(1, 1000))
FILTER: Final = (  # the fields of `Filter`
    Parameter("name", "The job's name."),
    Parameter("tag", "One of its tags."),
    Parameter("outcome", "Of ended jobs.", Literal["ok", "cancelled"]),
    Parameter("error", "The class of its latest error."),
    Parameter("parent", "Id of the job that pushed it."),
    Parameter("batch", "Id of its batch."),
    Parameter("chain", "Id of its chain."),
    Parameter("since", "The earliest time, as 2030-12-31T18:00Z."),
    Parameter("until", "The latest time, likewise."),
)
