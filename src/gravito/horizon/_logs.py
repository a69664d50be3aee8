"""The log of the processes that the terminal runs. What jobs say in it neither steers the terminal nor forges lines."""

from __future__ import annotations

import logging
import unicodedata

__all__ = ["escaped", "log_lines"]


class _Lines(logging.Formatter):
    """A line for each record; what belongs below it, as its traceback, is indented."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(map(escaped, super().format(record).split("\n")))


def log_lines(level: int = logging.INFO) -> None:
    """Log to standard error, unless the application has set up a log of its own.

    Args:
        level: the least that is shown.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def escaped(text: str) -> str:
    """A text as one line, with what does not print in the notation of Python."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char.isprintable() or char == "\t" or unicodedata.category(char) == "Zs":  # spaces of all scripts
        return char
    return char.encode("unicode_escape").decode()
