"""Addresses of several nodes, as text: `host`, `host:port`, `[::1]:port`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

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
