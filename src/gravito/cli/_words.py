"""A line of the shell, taken apart into words as redis-cli does. Pure."""

from __future__ import annotations

__all__ = ["is_secret", "split"]

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}
_SECRET = ("AUTH", "HELLO", "ACL SETUSER", "CONFIG SET REQUIREPASS", "CONFIG SET MASTERAUTH", "MIGRATE")


def split(line: str) -> list[str | bytes]:
    """The words of a line: parted by spaces; within double quotes escapes as \\n and \\xff, within single ones only \\'.

    Raises:
        ValueError: a quote that is not closed, or not followed by a space.
    """
    words: list[str | bytes] = []
    at = 0
    while True:
        while at < len(line) and line[at].isspace():
            at += 1
        if at >= len(line):
            return words
        word, at = _word(line, at)
        words.append(word)


def _word(line: str, at: int) -> tuple[str | bytes, int]:
    quote = line[at] if line[at] in "\"'" else ""
    if not quote:
        end = at
        while end < len(line) and not line[end].isspace():
            end += 1
        return line[at:end], end
    made, binary, at = bytearray(), False, at + 1
    while at < len(line):
        char = line[at]
        if char == quote:
            if at + 1 < len(line) and not line[at + 1].isspace():
                raise ValueError(f"a space is missing behind the quote at column {at + 1}")
            return bytes(made) if binary else made.decode(), at + 1
        if char == "\\" and at + 1 < len(line):
            if quote == '"' and line[at + 1] == "x" and _is_hex(line[at + 2 : at + 4]):
                made.append(int(line[at + 2 : at + 4], 16))
                binary, at = True, at + 4
                continue
            if quote == '"':
                char = _ESCAPES.get(line[at + 1], line[at + 1])
                at += 1
            elif line[at + 1] == "'":
                char, at = "'", at + 1
        made += char.encode()
        at += 1
    raise ValueError(f"the quote {quote} is not closed")


def _is_hex(digits: str) -> bool:
    return len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits)


def is_secret(line: str) -> bool:
    """Whether a line may hold a password, and has no place in a history."""
    words = " ".join(line.upper().split())
    return any(words.startswith(secret) for secret in _SECRET)
