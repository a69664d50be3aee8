"""Commands that several nodes answer: the parts, and how their replies become one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from gravito import errors
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.topology.cluster import Cluster
from gravito.atlas.wire.entry import Entry
from gravito.atlas.wire.resp import encode

_STEPS: Final = {"MGET": 1, "MSET": 2, "DEL": 1, "UNLINK": 1, "EXISTS": 1, "TOUCH": 1}
SPLIT: Final = frozenset(_STEPS)

# The server would ask the replicas too; they have it from their primaries, or are asked when they take over.
PRIMARIES: Final = frozenset({"SCRIPT LOAD", "SCRIPT FLUSH", "FUNCTION LIST"})

_tasks: set[asyncio.Task[None]] = set()  # kept from the garbage collector


def child(entry: Entry, args: tuple[Any, ...] | None = None, convert: bool = False) -> Entry:
    """A part of an entry: the same command, perhaps with other arguments, its reply as it comes."""
    spec = entry.spec if convert else msgspec.structs.replace(entry.spec, convert=None)
    packed = entry.packed if args is None else encode(args)
    options = entry.options if convert else None
    return Entry(
        entry.future.get_loop().create_future(), packed, spec, options, entry.text, retry=entry.retry
    )


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
    failed = [reply for reply in replies if isinstance(reply, BaseException)]
    if failed:
        error = failed[0]
        if (
            len(failed) < len(replies)
            and not children[0].spec.read_only
            and isinstance(error, errors.GravitoError)
        ):
            error.maybe_applied = True
        raise error
    return list(replies)


# -- by slot -------------------------------------------------------------------------------------------------


def split(cluster: Cluster, entry: Entry, rest: tuple[Any, ...], found: dict[int, list[int]]) -> None:
    """Send one command per slot, all in this loop turn, and join the replies in the order of the keys."""
    name = entry.spec.words[0].upper()
    step = _STEPS[name]
    table = cluster.readers if entry.spec.read_only else cluster.owners
    parts = list(found.values())
    children = []
    for slot, places in found.items():
        args = tuple(
            rest[place + more] for place in places for more in range(step) if place + more < len(rest)
        )
        part = child(entry, (*entry.spec.words, *args))
        table[slot].send(part)
        children.append(part)

    async def join() -> Any:
        replies = await all_of(children)
        if name == "MSET":
            return replies[0]
        if name != "MGET":
            return sum(replies)
        joined = {
            place: value
            for places, some in zip(parts, replies, strict=True)
            for place, value in zip(places, some, strict=True)
        }
        return [joined[place] for place in sorted(joined)]

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
    return _JOINS[response](await all_of(children))


async def _one_of(children: list[Entry]) -> Any:
    replies = await asyncio.gather(*[each.future for each in children], return_exceptions=True)
    good = [reply for reply in replies if not isinstance(reply, BaseException)]
    if good:
        return good[0]
    error = replies[0]
    assert isinstance(error, BaseException)
    raise error


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
