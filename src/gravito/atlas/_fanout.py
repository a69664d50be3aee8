"""Commands that several nodes answer: the parts, and how their replies become one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.wire.entry import Entry, Spec
from gravito.atlas.wire.resp import encode

_STEPS: Final = {"MGET": 1, "MSET": 2, "DEL": 1, "UNLINK": 1, "EXISTS": 1, "TOUCH": 1}
SPLIT: Final = frozenset(_STEPS)

# The server would ask the replicas too; they have it from their primaries, or are asked when they take over.
PRIMARIES: Final = frozenset({"SCRIPT LOAD", "SCRIPT FLUSH", "FUNCTION LIST"})

_tasks: set[asyncio.Task[None]] = set()  # kept from the garbage collector


def child(entry: Entry, packed: bytes | None = None, convert: bool = False) -> Entry:
    """A part of an entry: the same command, perhaps with other arguments, its reply as it comes."""
    spec = entry.spec if convert else msgspec.structs.replace(entry.spec, convert=None)
    future = entry.future.get_loop().create_future()
    options = entry.options if convert else None
    return Entry(future, packed or entry.packed, spec, options, entry.text, retry=entry.retry)


def start(entry: Entry, work: Coroutine[Any, Any, Any], converted: bool = False) -> Entry:
    """Let a coroutine find the entry's reply. The caller's going away ends it."""

    async def run() -> None:
        try:
            reply = await work
        except Exception as error:
            entry.fail(error)
            return
        if not converted:
            entry.finish(reply)
        elif not entry.future.done():
            entry.future.set_result(reply)

    task = entry.future.get_loop().create_task(run(), name=f"gravito {entry.spec.name}")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    task.add_done_callback(lambda task: entry.future.cancel() if task.cancelled() else None)
    entry.future.add_done_callback(lambda future: task.cancel() if future.cancelled() else None)
    return entry


async def all_of(children: list[Entry]) -> list[Any]:
    """All replies, or the first error once all are there; an error says if another part may have been applied."""
    replies = await asyncio.gather(*[each.future for each in children], return_exceptions=True)
    error = first_error(children[0].spec, replies)
    if error is not None:
        raise error
    return list(replies)


def first_error(spec: Spec, replies: list[Any]) -> BaseException | None:
    """The first error among the replies of a command's parts; it says if another part may have been applied."""
    failed = [reply for reply in replies if isinstance(reply, BaseException)]
    if not failed:
        return None
    if len(failed) < len(replies) and not spec.read_only and isinstance(failed[0], errors.GravitoError):
        failed[0].maybe_applied = True
    return failed[0]


# -- by slot -------------------------------------------------------------------------------------------------


def by_slot(spec: Spec, rest: tuple[Any, ...], found: dict[int, list[int]]) -> list[bytes]:
    """The packed command of each slot.

    Args:
        rest: the arguments behind the command's words.
        found: places of the keys among them, by slot.
    """
    step = _STEPS[spec.words[0].upper()]
    return [
        encode(
            (
                *spec.words,
                *[rest[place + more] for place in places for more in range(step) if place + more < len(rest)],
            )
        )
        for places in found.values()
    ]


def join_slots(spec: Spec, found: dict[int, list[int]], replies: list[Any]) -> Any:
    """One reply of those of the slots, in the order of the keys."""
    name = spec.words[0].upper()
    if name == "MSET":
        return replies[0]
    if name != "MGET":
        return sum(replies)
    joined = {
        place: value
        for places, some in zip(found.values(), replies, strict=True)
        for place, value in zip(places, some, strict=True)
    }
    return [joined[place] for place in sorted(joined)]


def split(cluster: Cluster, entry: Entry, rest: tuple[Any, ...], found: dict[int, list[int]]) -> None:
    """Send one command per slot, all in this loop turn, and join the replies in the order of the keys."""
    table = cluster.readers if entry.spec.read_only else cluster.owners
    children = []
    for slot, packed in zip(found, by_slot(entry.spec, rest, found), strict=True):
        part = child(entry, packed)
        table[slot].send(part)
        children.append(part)

    async def join() -> Any:
        return join_slots(entry.spec, found, await all_of(children))

    start(entry, join())


# -- by policy -----------------------------------------------------------------------------------------------


async def everywhere(
    cluster: Cluster,
    entry: Entry,
    nodes: Callable[[], list[ClusterNode]],
    response: str | None,
    send: Callable[[Any, Entry], None],
) -> Any:
    """Send a command to all of these nodes and join the replies as the server's policy says."""
    await cluster.ready()
    children = []
    for node in nodes():
        part = child(entry)
        send(node, part)
        children.append(part)
    if response == "one_succeeded":
        return await _one_of(children)
    return join_nodes(response, await all_of(children))


async def _one_of(children: list[Entry]) -> Any:
    replies = await asyncio.gather(*[each.future for each in children], return_exceptions=True)
    reply = first_good(replies)
    if isinstance(reply, BaseException):
        raise reply
    return reply


def first_good(replies: list[Any]) -> Any:
    """The first reply that is no error; the first error if all are."""
    return next((reply for reply in replies if not isinstance(reply, BaseException)), replies[0])


def join_nodes(response: str | None, replies: list[Any]) -> Any:
    """One reply of those of the nodes, as a policy says: `agg_sum`, `all_succeeded`, ..."""
    return _JOINS[response](replies)


def _concatenated(replies: list[Any]) -> Any:
    if all(isinstance(reply, list) for reply in replies):
        return [item for reply in replies for item in reply]
    return replies[0]


_JOINS: Final[dict[str | None, Callable[[list[Any]], Any]]] = {
    None: _concatenated,
    "all_succeeded": lambda replies: replies[0],
    "agg_sum": sum,
    "agg_min": min,
    "agg_max": max,
    "agg_logical_and": lambda replies: [int(all(column)) for column in zip(*replies, strict=True)],
}


async def first_key(cluster: Cluster, entry: Entry) -> Any:
    """RANDOMKEY: the first node that has any key gives one."""
    await cluster.ready()
    for node in cluster.primaries():
        part = child(entry)
        node.send(part)
        key = await part
        if key is not None:
            return key
    return None
