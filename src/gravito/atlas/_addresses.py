"""Addresses of several nodes, as text: `host`, `host:port`, `[::1]:port`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gravito.errors import ConfigurationError

_NODE = re.compile(r"(?P<host>[^\s\[\]:@/,?#]+|\[[0-9A-Fa-f:.%]+\])(?::(?P<port>\d{1,5}))?")


def split(node: str, port: int) -> tuple[str, int]:
    """Host (without brackets) and port of a node; `port` where it names none.

    Raises:
        ValueError: it is no address.
    """
    found = _NODE.fullmatch(node)
    number = int(found["port"] or port) if found else 0
    if found is None or not 1 <= number <= 65535:
        raise ValueError(node)
    return found["host"].strip("[]"), number


def join(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def whole(nodes: Iterable[str], port: int) -> tuple[str, ...]:
    """The nodes with their ports written out, each once, in their order."""
    return tuple(dict.fromkeys(join(*split(node, port)) for node in nodes))


def are_nodes(value: Any) -> bool:
    """Whether this is a list or a tuple of addresses."""
    if not isinstance(value, list | tuple):
        return False
    try:
        for node in value:
            split(node, 1)
    except (TypeError, ValueError):
        return False
    return True


def parse(text: str) -> tuple[str, ...]:
    """`h1:1,h2` as a tuple."""
    return tuple(node.strip() for node in text.split(",") if node.strip())


# -- other addresses than the nodes announce -----------------------------------------------------------------

Address = tuple[str, int]
Pairs = tuple[tuple[str, str], ...]


def is_map(value: Any) -> bool:
    """Whether this is a function, or a mapping from addresses to addresses, ports included."""
    if callable(value):
        return True
    try:
        pairs(value)
    except (TypeError, ValueError):
        return False
    return True


def pairs(value: Any) -> Pairs:
    """A mapping of addresses, or its pairs, in one spelling.

    Raises:
        TypeError, ValueError: it is none.
    """
    found = value.items() if isinstance(value, Mapping) else tuple(value)
    return tuple((join(*_with_port(announced)), join(*_with_port(reached))) for announced, reached in found)


def _with_port(node: str) -> Address:
    host, port = split(node, 65535)
    if not node.endswith(f":{port}"):
        raise ValueError(node)
    return host, port


def parse_map(text: str) -> dict[str, str]:
    """`a:1=b:2,c:3=d:4` as a mapping. Raises ValueError."""
    found: dict[str, str] = {}
    for part in parse(text):
        announced, mark, reached = part.partition("=")
        if not mark or announced in found:
            raise ValueError(part)
        found[announced.strip()] = reached.strip()
    return found


def translator(given: Any, connection: str) -> Callable[[Address], Address]:
    """A function from the address that a node announces to the one at which it is reached.

    Args:
        given: None, pairs as `pairs` makes them, or a function of (host, port).
        connection: its name, for messages.

    The function raises ConfigurationError if the one that was given fails, or answers no address.
    """
    if given is None:
        return lambda announced: announced
    if not callable(given):
        known = {split(announced, 0): split(reached, 0) for announced, reached in given}
        return lambda announced: known.get(announced, announced)

    def ask(announced: Address) -> Address:
        try:
            return _checked(given(announced))
        except Exception as error:
            raise ConfigurationError(
                f"connection {connection!r}: address_map does not say where {join(*announced)} is reached "
                f"({type(error).__name__}: {error})",
                field="address_map",
                allowed="a function from (host, port) to (host, port)",
            ) from error

    return ask


def _checked(answer: Any) -> Address:
    host, port = answer
    if type(host) is not str or type(port) is not int or split(join(host, port), 0) != (host, port):
        raise ValueError(f"{answer!r} is no (host, port)")
    return host, port
