"""Addresses of several nodes."""

from __future__ import annotations

import pytest

from gravito.atlas import _addresses


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("h1", ("h1", 26379)),
        ("h1:7", ("h1", 7)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]", ("::1", 26379)),
        ("[::1]:7", ("::1", 7)),
    ],
)
def test_a_node(node: str, address: tuple[str, int]) -> None:
    assert _addresses.split(node, 26379) == address
    assert _addresses.split(_addresses.join(*address), 1) == address


@pytest.mark.parametrize(
    "node", ["", "h1:", "h1:0", "h1:65536", "h1:x", "::1", "[::1", "u@h1", "h 1", "h1/2", "h1:+7"]
)
def test_no_node(node: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        _addresses.split(node, 26379)
    assert not _addresses.are_nodes([node])


def test_a_list_of_nodes() -> None:
    assert _addresses.parse(" h1:1, h2 ,") == ("h1:1", "h2")
    assert _addresses.whole(["h1", "h2:7", "h1:1"], 1) == ("h1:1", "h2:7")
    assert _addresses.are_nodes(["h1"])
    for other in ("h1", None, [1], [("h1", 1)]):
        assert not _addresses.are_nodes(other)
