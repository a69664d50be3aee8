"""Replies for people to read, and for programs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["as_json", "plain", "pretty"]


def pretty(reply: Any) -> str:
    """A reply as lines: numbered elements, fields of maps with their values, kinds that would look alike told apart.

    What a server sends cannot steer the terminal: control characters are shown as escapes.
    """
    return "\n".join(_lines(reply))


def plain(reply: Any) -> str:
    """A reply for pipes: text as it is, one element a line, nothing for nil."""
    if reply is None:
        return ""
    if isinstance(reply, dict):
        return "\n".join(f"{plain(key)}\n{plain(value)}" for key, value in reply.items())
    if isinstance(reply, (list, tuple, set, frozenset)):
        return "\n".join(plain(item) for item in reply)
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    return str(reply)


def as_json(reply: Any) -> str:
    """A reply as JSON; sets become lists, and bytes that are no text are escaped."""
    return json.dumps(_jsonable(reply), ensure_ascii=False, indent=2)


def _jsonable(reply: Any) -> Any:
    if isinstance(reply, dict):
        return {plain(key): _jsonable(value) for key, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return [_jsonable(item) for item in reply]
    if isinstance(reply, (set, frozenset)):
        return [_jsonable(item) for item in sorted(reply, key=plain)]
    if isinstance(reply, bytes):
        return plain(reply)
    if isinstance(reply, Exception):
        return {"error": str(reply)}
    return reply


def _lines(reply: Any) -> Iterator[str]:
    if isinstance(reply, dict):
        yield from _fields(reply)
    elif isinstance(reply, (list, tuple)):
        yield from _items(list(reply), "(empty list)", ")")
    elif isinstance(reply, (set, frozenset)):
        yield from _items(sorted(reply, key=plain), "(empty set)", "~")
    else:
        yield _scalar(reply)


def _items(items: list[Any], empty: str, mark: str) -> Iterator[str]:
    if not items:
        yield empty
    width = len(str(len(items)))
    for number, item in enumerate(items, 1):
        yield from _indented(f"{number:>{width}}{mark} ", item)


def _fields(fields: dict[Any, Any]) -> Iterator[str]:
    if not fields:
        yield "(empty map)"
    for key, value in fields.items():
        lead = f"{_scalar(key)} => "
        if isinstance(value, (dict, list, tuple, set, frozenset)) and value:
            yield lead.rstrip()
            for line in _lines(value):
                yield f"  {line}"
        else:
            yield from _indented(lead, value)


def _indented(lead: str, item: Any) -> Iterator[str]:
    lines = _lines(item)
    yield lead + next(lines)
    for line in lines:
        yield " " * len(lead) + line


def _scalar(value: Any) -> str:
    if value is None:
        return "(nil)"
    if value is True or value is False:
        return f"({str(value).lower()})"
    if isinstance(value, int):
        return f"(integer) {value}"
    if isinstance(value, float):
        return f"(double) {value!r}"
    if isinstance(value, Exception):
        return f"(error) {_safe(str(value))}"
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if "\n" in text and text.isprintable() is False and _readable(text):
        return text.rstrip("\r\n").replace("\r\n", "\n")  # INFO and its kin are made for reading
    return f'"{_safe(text)}"'


def _readable(text: str) -> bool:
    """Lines of printable text, as INFO sends them; not a value that merely has a line feed."""
    return text.startswith("#") and all(line.isprintable() for line in text.split("\r\n"))


def _safe(text: str) -> str:
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or (
        f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
    )
