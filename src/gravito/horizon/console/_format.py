"""How numbers, times and sizes are written; the pages and their live values share it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from markupsafe import Markup

__all__ = ["FILTERS", "count", "data", "duration", "ms", "percent", "rate", "short", "size", "when"]

NONE: Final = "\N{EN DASH}"  # where there is nothing to say
_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def count(number: float | None) -> str:
    """A whole number, with a comma between thousands."""
    return NONE if number is None else f"{number:,.0f}"


def rate(number: float | None) -> str:
    """A number that is small or large: 0.03, 4.2, 118, 42,900."""
    if number is None:
        return NONE
    return (
        f"{number:,.0f}"
        if number >= 100 or number == 0
        else f"{number:.1f}"
        if number >= 1
        else f"{number:.2f}"
    )


def percent(share: float | None) -> str:
    """A share from 0 to 1 as a percentage; what is a little more than nothing is not called nothing."""
    if share is None:
        return NONE
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 and share else f"{100 * share:.0f} %"


def duration(seconds: float | None) -> str:
    """A time span in its largest fitting units: 12 ms, 4.2 s, 3 min 20 s, 2 d 4 h."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds * 1000 < 10 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for (unit, name), (smaller, below) in zip(_UNITS, (*_UNITS[1:], (1.0, "s")), strict=True):
        if seconds >= unit:
            rest = int(seconds % unit // smaller)
            return f"{int(seconds // unit)} {name}" + (f" {rest} {below}" if rest else "")
    return NONE


def ms(milliseconds: float | None) -> str:
    """As `duration`, from milliseconds."""
    return NONE if milliseconds is None else duration(milliseconds / 1000)


def size(number: float | None) -> str:
    """Bytes: 512 B, 3.4 KiB, 1.2 GiB."""
    if number is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def when(moment: datetime | None) -> Markup:
    """A moment, in UTC; the script shows it in the reader's time zone."""
    if moment is None:
        return Markup('<span class="none">{}</span>').format(NONE)
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.isoformat(timespec="milliseconds"), f"{moment:%Y-%m-%d %H:%M:%S}"
    )


def short(text: str, most: int = 12) -> str:
    """The beginning of a long id."""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def data(value: Any, most: int = 20_000) -> str:
    """Arguments or a result for people: indented JSON; what has no JSON, as Python writes it."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        text = repr(value)
    return text if len(text) <= most else f"{text[:most]}\n... {len(text) - most:,} more characters"


FILTERS: Final = {
    "count": count,
    "rate": rate,
    "percent": percent,
    "duration": duration,
    "ms": ms,
    "size": size,
    "when": when,
    "short": short,
    "data": data,
}
