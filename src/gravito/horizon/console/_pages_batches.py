"""Pages of batches and chains."""

from __future__ import annotations

import asyncio
from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from gravito.horizon._batches import BatchStatus
from gravito.horizon._chains import ChainStatus
from gravito.horizon.console._format import count, percent
from gravito.horizon.console._graph import Edge, Node, graph
from gravito.horizon.console._pages_jobs import before
from gravito.horizon.console._site import Ask
from gravito.horizon.console._visit import Visit

__all__ = ["batch", "batch_values", "batches", "chain", "parts_of"]

SIZE: Final = 20
_WIDE: Final = 4  # boxes in a row of a chain
_DRAWN: Final = 40  # jobs of a chain that are drawn
_TONES: Final = {
    "ok": "good",
    "dead": "bad",
    "cancelled": "warn",
    "unknown": "calm",
    "done": "good",
    "failed": "bad",
}


async def batches(ask: Ask) -> Response:
    """All batches, or all chains."""
    kind, offset = ask.choice("kind", ("batches", "chains")), ask.number("offset")
    (batches_known, some), (chains_known, chains) = await asyncio.gather(
        ask.repository.batches(offset, SIZE if kind == "batches" else 1),
        ask.repository.chains(offset, SIZE if kind == "chains" else 1),
    )
    return ask.render(
        "batches.html",
        kind=kind,
        batches=some,
        chains=chains,
        known={"batches": batches_known, "chains": chains_known},
        parts=parts_of,
        offset=offset,
        size=SIZE,
    )


async def batch(ask: Ask) -> Response:
    """One batch."""
    status = await ask.repository.batch(ask.place("batch"))
    return ask.render(
        "batch.html",
        batch=status,
        parts=parts_of(status),
        drawing=_batch_graph(ask.visit, status),
        begun=before(status.created),
        value=batch_values(status),
        live=ask.visit.url("/live/batch", of=status.id) if not status.finished else "",
        shape=batch_values(status)["shape"],
    )


async def chain(ask: Ask) -> Response:
    """One chain."""
    status = await ask.repository.chain(ask.place("chain"))
    return ask.render("chain.html", chain=status, drawing=_chain_graph(ask.visit, status), drawn=_DRAWN)


def parts_of(status: BatchStatus) -> list[tuple[str, float, str]]:
    """How the jobs of a batch ended, as the parts of a bar."""
    return [
        ("ok", status.ok, "good"),
        ("dead", status.dead + status.lost, "bad"),
        ("cancelled", status.cancelled + status.discarded, "warn"),
        ("left", status.left, "calm"),
    ]


def batch_values(status: BatchStatus) -> dict[str, str]:
    """The live values of a batch."""
    names = ("total", "left", "ok", "dead", "cancelled", "discarded", "lost")
    due = [one.when for one in status.followers if one.due is not None]
    return {
        "shape": f"{status.state} {status.finished} {due} {len(status.failed_ids)}",
        "share": percent(status.share),
        "bar": f"{100 * status.share:.1f}",
        **{name: count(getattr(status, name)) for name in names},
    }


def _batch_graph(visit: Visit, status: BatchStatus) -> Markup | None:
    if not status.followers:
        return None
    state = f"{count(status.total - status.left)} of {count(status.total)} ended"
    first = Node(0, 0, status.name or "jobs", state, _TONES.get(status.state, "main"))
    nodes, edges = [first], []
    for row, one in enumerate(status.followers):
        words = "pushed" if one.due is not None else "not needed" if status.finished else "not yet"
        href = visit.url(f"/jobs/{one.queue}/{one.id}") if one.due is not None else ""
        nodes.append(Node(1, row, one.name or one.id, words, "main" if one.due is not None else "calm", href))
        edges.append(Edge(0, row + 1, one.when, one.due is not None))
    said = ", ".join(f"{one.when}: {one.name}" for one in status.followers)
    return graph(nodes, edges, f"The batch, and what follows it: {said}")


def _chain_graph(visit: Visit, status: ChainStatus) -> Markup:
    nodes = [
        Node(
            *(number % _WIDE, number // _WIDE, job.name, f"{number + 1}: {_said(job.state)}"),
            _TONES.get(job.state, "main"),
            visit.url(f"/jobs/{job.queue}/{job.id}") if job.state != "unknown" else "",
        )
        for number, job in enumerate(status.jobs[:_DRAWN])
    ]
    edges = [
        Edge(number, number + 1, "", status.jobs[number].state == "ok") for number in range(len(nodes) - 1)
    ]
    return graph(nodes, edges, f"The chain: {' then '.join(node.label for node in nodes)}")


def _said(state: str) -> str:
    return {"unknown": "not there", "parked": "held back"}.get(state, state)
