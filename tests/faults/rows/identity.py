"""Passwords: rotated under load, and never seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.faults.bench import CANARY, Bench, row

from gravito import errors
from gravito.atlas import Retry


@row(
    "rotation",
    "the password is rotated under load and all connections are ended, with a plain and an async provider",
    "the provider is asked at every connect; no command fails but blocking reads that were cut off; the old password is not used again",
)
async def rotation(bench: Bench) -> None:
    server = bench.server()
    server.ask("ACL", "SETUSER", "app", "on", f">{CANARY}-0", "~*", "&*", "+@all")
    current, asked = 0, 0

    def plain() -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return "app", f"{CANARY}-{current}"

    async def later() -> tuple[str, str]:
        await asyncio.sleep(0.001)
        return plain()

    providers: list[Callable[[], tuple[str, str]] | Callable[[], Awaitable[tuple[str, str]]]] = [plain, later]
    clients = [
        bench.client(
            server,
            password=None,
            credential_provider=provider,
            retry=Retry(attempts=20, base=0.002, cap=0.05),
        )
        for provider in providers
    ]
    over = False
    count = 0
    subscription = await clients[0].subscribe("news")

    async def read(at: int) -> None:
        nonlocal count
        client = clients[at % 2]
        while not over:
            token = f"token {at} {count}"
            bench.ledger.figures.wrong += (
                await bench.outcome(bench.ledger.watch(client.execute("ECHO", token))) != token
            )
            count += 1
            if at < 4:  # on leased wires too
                await bench.outcome(client.blpop(["none"], 0.01))

    tasks = [asyncio.ensure_future(read(at)) for at in range(20)]
    rounds = bench.pick(3, 40)
    for number in range(1, rounds + 1):
        await asyncio.sleep(0.05)
        server.ask("ACL", "SETUSER", "app", f">{CANARY}-{number}")
        current = number
        server.ask("ACL", "SETUSER", "app", f"<{CANARY}-{number - 1}")
        before = count
        for kind in ("normal", "pubsub"):
            server.kill_clients(kind)
        start = time.monotonic()
        await bench.until(lambda before=before: count > before + 40, 5.0)
        bench.ledger.recovered(time.monotonic() - start)
    over = True
    await asyncio.gather(*tasks)
    await clients[0].publish("news", "still here")
    while (message := await subscription.get(2.0)) is not None and message.type == "gap":
        pass
    bench.ledger.figures.wrong += message is None
    await subscription.aclose()
    refused = [entry for entry in server.plain.acl_log() if entry["reason"] == "auth"]
    bench.ledger.figures.operations = count
    bench.ledger.promise(not _but_blocked(bench), f"commands failed: {dict(bench.ledger.errors)}")
    bench.ledger.promise(not refused, f"{len(refused)} tries with an old password")
    bench.ledger.promise(asked > rounds, f"the provider was asked {asked} times")
    bench.ledger.note(rotations=rounds, provider_asked=asked)


def _but_blocked(bench: Bench) -> int:
    """Failures, but for blocking reads that were cut off: those cannot be asked again in the same meaning."""
    return sum(bench.ledger.errors.values()) - bench.ledger.errors["ConnectionLostError"]


@row(
    "rotation-deauth",
    "the user is removed and made anew with another password: every connection is ended by the server",
    "reads go on with the new password; a provider that fails is named, its error shows no secret",
)
async def rotation_deauth(bench: Bench) -> None:
    server = bench.server()
    number = 0

    def make() -> None:
        server.ask("ACL", "SETUSER", "app", "on", f">{CANARY}-{number}", "~*", "&*", "+@all")

    def provide() -> tuple[str, str]:
        if number < 0:
            raise RuntimeError(f"the vault does not know {CANARY}")
        return "app", f"{CANARY}-{number}"

    make()
    client = bench.client(
        server, password=None, credential_provider=provide, retry=Retry(attempts=20, base=0.002)
    )
    rounds = bench.pick(3, 30)
    for step in range(rounds):
        await bench.revive(client)
        number = step + 1
        server.ask("ACL", "DELUSER", "app")
        make()
        bench.ledger.figures.operations += 1
    bench.ledger.promise(not bench.ledger.errors, f"commands failed: {dict(bench.ledger.errors)}")
    number = -1
    server.kill_clients()
    outcome = None
    for _ in range(2):
        try:
            outcome = await client.execute("ECHO", "x")
        except errors.GravitoError as error:
            outcome = error
    bench.ledger.promise(type(outcome) is errors.AuthenticationError, f"{outcome!r}")
    bench.ledger.look(
        f"{outcome!r} {outcome}"
    )  # the provider's own error is its cause, and is not ours to hide


@row(
    "canary",
    "a password through settings, URLs, errors of every kind, logs and process arguments",
    "it is seen nowhere (all other rows look for it too)",
)
async def canary(bench: Bench) -> None:
    from gravito.atlas import Client, Settings
    from gravito.atlas.config import TLS

    server = bench.server()
    url = f"redis://user:{CANARY}@127.0.0.1:{server.port}"
    shown: list[str] = []
    settings = Settings.from_url(url)
    shown += [repr(settings), str(settings), settings.url, settings.address, repr(settings.__rich_repr__())]
    shown += [repr(TLS(cert_file="x", key_file="y", key_password=CANARY))]
    for bad in (
        f"redis://user:{CANARY}@host:port",
        f"redis://:{CANARY}@[",
        f"nonsense://:{CANARY}@host",
        f"redis://:{CANARY}@host?client_nam=x",
        f"redis://:{CANARY}@host/db",
    ):
        try:
            Settings.from_url(bad)
            bench.ledger.promise(False, "a bad URL was taken")
        except errors.ConfigurationError as error:
            bench.ledger.error(error)
    for password in (CANARY, "wrong-" + CANARY):
        client = Client(bench.settings(server, password=password, username="nobody"))
        shown += [repr(client), repr(await bench.outcome(client.get("x"))), repr(client._state().topology)]
        shown += [repr(client.connection_pool), repr(client.connection_pool.connection_kwargs.keys())]
        await client.aclose()
    good = bench.client(server)
    shown.append(repr(await bench.outcome(good.execute("AUTH", "default", CANARY + "x"))))
    shown.append(repr(await bench.outcome(good.execute("CONFIG", "SET", "requirepass"))))
    shown.append(repr(good.pipeline().auth(CANARY)))
    bench.ledger.look("\n".join(shown))
    bench.ledger.figures.operations = len(shown)
