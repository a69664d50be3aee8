"""Graphs of what follows what, as SVG. Pure. The pages list the same jobs as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from gravito.horizon.console._format import short

__all__ = ["Edge", "Node", "graph"]

_WIDTH: Final = 168
_HEIGHT: Final = 46
_ACROSS: Final = 56  # between two columns
_DOWN: Final = 22  # between two rows


class Node(msgspec.Struct, frozen=True):
    """A box.

    Args:
        column: where it stands, from 0.
        row: likewise.
        label: what it is.
        below: a word on its state.
        tone: a class of the style sheet: main, good, bad, warn, calm.
        href: where it leads.
    """

    column: int
    row: int
    label: str
    below: str
    tone: str = "calm"
    href: str = ""


class Edge(msgspec.Struct, frozen=True):
    """An arrow between two nodes, by their places in the list."""

    start: int
    end: int
    label: str = ""
    done: bool = False


def graph(nodes: Sequence[Node], edges: Sequence[Edge], label: str) -> Markup:
    """The drawing.

    Args:
        nodes: boxes.
        edges: arrows.
        label: what it shows, in words.
    """
    width = max(node.column for node in nodes) * (_WIDTH + _ACROSS) + _WIDTH + 2
    height = max(node.row for node in nodes) * (_HEIGHT + _DOWN) + _HEIGHT + 2
    parts = [_edge(edge, nodes[edge.start], nodes[edge.end]) for edge in edges] + [_node(n) for n in nodes]
    return Markup(
        '<svg class="graph" viewBox="-1 -1 {} {}" width="{}" height="{}" role="group" aria-label="{}">{}</svg>'
    ).format(width, height, width, height, label, Markup("").join(parts))


def _place(node: Node) -> tuple[int, int]:
    return node.column * (_WIDTH + _ACROSS), node.row * (_HEIGHT + _DOWN)


def _node(node: Node) -> Markup:
    x, y = _place(node)
    box = Markup(
        '<g class="node {}"><title>{}: {}</title><rect x="{}" y="{}" width="{}" height="{}" rx="7"/>'
        '<text x="{}" y="{}">{}</text><text class="below" x="{}" y="{}">{}</text></g>'
    ).format(
        *(node.tone, node.label, node.below, x, y, _WIDTH, _HEIGHT),
        *(x + 10, y + 19, short(node.label, 22), x + 10, y + 36, short(node.below, 26)),
    )
    return Markup('<a href="{}">{}</a>').format(node.href, box) if node.href else box


def _edge(edge: Edge, start: Node, end: Node) -> Markup:
    (x1, y1), (x2, y2) = _place(start), _place(end)
    if end.column > start.column:
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        middle = x1 + _ACROSS // 2
        line = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2 - 6} {y2}"
        head = f"M{x2} {y2}l-7 -4v8z"
    else:  # on to the next row
        x1, y1, x2 = x1 + _WIDTH // 2, y1 + _HEIGHT, x2 + _WIDTH // 2
        middle = y1 + _DOWN // 2
        line = f"M{x1} {y1}V{middle}H{x2}V{y2 - 6}"
        head = f"M{x2} {y2}l-4 -7h8z"
    word = (
        Markup('<text class="word" x="{}" y="{}" text-anchor="end">{}</text>').format(
            x2 - 8, y2 - 5, edge.label
        )
        if edge.label
        else Markup("")
    )
    return Markup('<g class="edge {}"><path class="line" d="{}"/><path class="head" d="{}"/>{}</g>').format(
        "done" if edge.done else "", line, head, word
    )
