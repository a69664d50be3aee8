"""What the server says of its commands: for completion and help."""

from __future__ import annotations

from typing import Any

import msgspec

from gravito.atlas import Client
from gravito.errors import ResponseError

__all__ = ["Command", "read_commands"]


class Command(msgspec.Struct, frozen=True):
    """One command, or a subcommand with its two words."""

    name: str
    summary: str = ""
    since: str = ""
    group: str = ""
    complexity: str = ""
    syntax: str = ""

    def help(self) -> str:
        """All that is known of it, as lines."""
        said = [f"{self.name} {self.syntax}".rstrip(), f"  {self.summary}"]
        said += [f"  since {self.since}, group {self.group}"] if self.since else []
        said += [f"  {self.complexity}"] if self.complexity else []
        return "\n".join(said)


async def read_commands(client: Client) -> dict[str, Command]:
    """The server's commands by name in capitals; by their names alone where it has no docs (before 7.0)."""
    try:
        docs = await client.execute("COMMAND", "DOCS")
    except ResponseError:
        try:
            names = await client.execute("COMMAND")
        except ResponseError:  # no right to ask
            return {}
        return {name.upper(): Command(name.upper()) for name in sorted(str(entry[0]) for entry in names)}
    found: dict[str, Command] = {}
    for name, doc in sorted(docs.items()):
        _add(found, name, doc)
    return found


def _add(found: dict[str, Command], name: str, doc: dict[str, Any]) -> None:
    full = name.upper().replace("|", " ")
    found[full] = Command(
        full,
        str(doc.get("summary", "")),
        str(doc.get("since", "")),
        str(doc.get("group", "")),
        str(doc.get("complexity", "")),
        " ".join(_argument(argument) for argument in doc.get("arguments", [])),
    )
    for inner, inner_doc in sorted(doc.get("subcommands", {}).items()):
        _add(found, inner, inner_doc)


def _argument(argument: dict[str, Any]) -> str:
    """An argument as its page writes it: `[EX seconds]`, `key [key ...]`, `NX|XX`."""
    kind, flags = argument.get("type"), argument.get("flags", ())
    parts = [_argument(part) for part in argument.get("arguments", [])]
    if kind == "oneof":
        shown = "|".join(parts)
    elif kind == "block":
        shown = " ".join(parts)
    elif kind == "pure-token":
        shown = ""
    else:
        shown = str(argument.get("display_text") or argument.get("name"))
    token = argument.get("token")
    shown = " ".join(part for part in (token, shown) if part)
    if "multiple" in flags:
        shown = f"{shown} [{shown} ...]"
    return f"[{shown}]" if "optional" in flags else shown
