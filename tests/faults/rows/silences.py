"""Servers and networks that say nothing any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.faults.bench import Bench, row
from tests.faults.control import Control
from tests.faults.proxy import Proxy

from gravito.atlas import Client, Retry

TIMEOUT, HEALTH = 0.3, 0.4  # seconds: what the bounds below are made of
SLACK = 0.15  # seconds: two cores that others use too

Fault = Callable[[Control, Proxy], None]


def _stop(server: Control, proxy: Proxy) -> None:
    server.suspend()


def _hole(server: Control, proxy: Proxy) -> None:
    proxy.swallow = {"up", "down"}


def _half_open_down(server: Control, proxy: Proxy) -> None:
    proxy.swallow = {"down"}


def _half_open_up(server: Control, proxy: Proxy) -> None:
    proxy.swallow = {"up"}


FAULTS: dict[str, tuple[Fault, str]] = {
    "stopped": (_stop, "SIGSTOP of the server"),
    "blackhole": (_hole, "the network swallows everything"),
    "half-open-down": (_half_open_down, "half-open: only what the server says is lost"),
    "half-open-up": (_half_open_up, "half-open: only what the client says is lost"),
}


def _heal(server: Control, proxy: Proxy) -> None:
    server.resume()
    proxy.heal()
    proxy.reset()  # a network that comes back does not know the connections of before


async def _busy(bench: Bench, act: Fault) -> None:
    """Commands in flight: each fails within its deadline, the wire is replaced within 1.5 of it."""
    server = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, timeout=TIMEOUT, connect=TIMEOUT, health=HEALTH, retry=Retry(attempts=2))
    shared = client._state().topology.shared
    bench.ledger.figures.bound = TIMEOUT * 1.5 + SLACK
    rounds = bench.pick(1, 10)
    for _ in range(rounds):
        await bench.revive(client)
        bench.ledger._recoveries.pop()  # that one is of the round before
        wire = shared.wire
        act(server, proxy)
        start = time.monotonic()
        waiting = [bench.ledger.watch(client.incr("n")) for _ in range(50)]
        for entry in waiting:
            outcome = await bench.outcome(entry)
            bench.ledger.promise(getattr(outcome, "maybe_applied", False), f"not maybe_applied: {outcome!r}")
        took = time.monotonic() - start
        bench.ledger.promise(
            took <= TIMEOUT + SLACK, f"callers waited {took:.3f} s for a deadline of {TIMEOUT} s"
        )
        await bench.until(lambda wire=wire: shared.wire is not wire, 5.0)
        bench.ledger.recovered(time.monotonic() - start)
        _heal(server, proxy)
        bench.ledger.figures.operations += len(waiting)
    took = await bench.revive(client)
    bench.ledger._recoveries.pop()
    bench.ledger.note(works_again=took)


async def _idle(bench: Bench, act: Fault) -> None:
    """Nothing in flight on the shared wire, and a subscription that waits: the health ping finds out."""
    server = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, timeout=TIMEOUT, connect=TIMEOUT, health=HEALTH)
    bench.ledger.figures.bound = HEALTH + TIMEOUT * 1.5 + SLACK
    rounds = bench.pick(1, 10)
    subscription = await client.subscribe("news")
    topology, hub = client._state().topology, client._hub()
    detected: dict[str, list[float]] = {"shared": [], "subscription": []}
    for number in range(rounds):
        await bench.revive(client)
        bench.ledger._recoveries.pop()
        await bench.until(lambda: hub._wire is not None, 5.0)
        await asyncio.sleep(HEALTH * (number % 4) / 4)  # at any point between two pings
        shared, pubsub = topology.shared.wire, hub._wire
        act(server, proxy)
        start = time.monotonic()

        async def lost(name: str, gone: Callable[[], bool], start: float = start) -> None:
            await bench.until(gone, 5.0)
            detected[name].append(time.monotonic() - start)
            bench.ledger.recovered(detected[name][-1])

        await asyncio.gather(
            lost("shared", lambda wire=shared: topology.shared.wire is not wire),
            lost("subscription", lambda wire=pubsub: hub._wire is not wire),
        )
        _heal(server, proxy)
        message = await subscription.get(5.0)
        bench.ledger.promise(message is not None and message.type == "gap", f"no gap event, but {message!r}")
        await client.publish("news", f"{number}")
        message = await subscription.get(5.0)
        bench.ledger.figures.wrong += message is None or message.data != f"{number}"
    bench.ledger.figures.operations = rounds * 2
    bench.ledger.note(**{f"{name}_max": max(times) for name, times in detected.items()})
    await subscription.aclose()


async def _leased(bench: Bench, act: Fault) -> None:
    """A blocking command: it fails at its own time-out plus the command's deadline."""
    server = bench.server()
    proxy = bench.proxy(server)
    client = bench.client(proxy, timeout=TIMEOUT, connect=TIMEOUT, retry=Retry(attempts=1))
    hold = 0.2
    bench.ledger.figures.bound = hold + TIMEOUT * 1.5 + SLACK
    rounds = bench.pick(1, 5)
    for number in range(rounds):
        await bench.revive(client)
        bench.ledger._recoveries.pop()
        await client.blpop(["nothing"], timeout=0.01)  # so that a wire lies ready
        entry = bench.ledger.watch(client.blpop([f"nothing {number}"], timeout=hold))
        await asyncio.sleep(0.02)
        act(server, proxy)
        start = time.monotonic()
        outcome = await bench.outcome(entry)
        # Before the fault the command had reached the server, which says "nothing came" if it can be heard.
        bench.ledger.promise(
            outcome is None or isinstance(outcome, Exception), f"a reply out of nowhere: {outcome!r}"
        )
        await bench.until(lambda: not client._state().topology.pool.lent, 5.0)
        bench.ledger.recovered(time.monotonic() - start)
        _heal(server, proxy)
        bench.ledger.figures.operations += 1
    await bench.revive(client)
    bench.ledger._recoveries.pop()


KINDS = {
    "busy": (
        _busy,
        "with commands in flight",
        "callers fail at their deadline; the wire is replaced within 1.5 of it",
    ),
    "idle": (
        _idle,
        "with nothing in flight, and a subscription",
        "both wires are replaced within a health interval and 1.5 deadlines; a gap event",
    ),
    "leased": (
        _leased,
        "under a blocking command",
        "it fails at its own time and the deadline; no wire stays lent",
    ),
}


def _register() -> None:
    for name, (act, words) in FAULTS.items():
        for kind, (attack, when, must) in KINDS.items():

            async def run(bench: Bench, attack: object = attack, act: Fault = act) -> None:
                await attack(bench, act)  # type: ignore[operator]

            row(f"{name}-{kind}", f"{words}, {when}", must)(run)


_register()


@row(
    "slow-network",
    "a network slower than the deadline, with replies that come late all the time",
    "late replies never reach another caller; the wire is not replaced while it speaks",
)
async def slow_network(bench: Bench) -> None:
    server = bench.server()
    proxy = bench.proxy(server)
    client: Client = bench.client(proxy, timeout=0.1)
    await client.execute("PING")
    wire = client._state().topology.shared.wire
    proxy.delay = (0.02, 0.06)  # there and back: now and then later than the deadline
    total = bench.pick(300, 5_000)
    numbers = iter(range(total))

    async def work() -> None:
        for number in numbers:
            token = f"token {number}"
            reply = await bench.outcome(bench.ledger.watch(client.execute("ECHO", token)))
            bench.ledger.figures.wrong += isinstance(reply, str) and reply != token

    await asyncio.gather(*[work() for _ in range(50)])
    bench.ledger.figures.operations = total
    bench.ledger.promise(client._state().topology.shared.wire is wire, "a slow wire was replaced")
    proxy.delay = (0.0, 0.0)
    await bench.revive(client)
