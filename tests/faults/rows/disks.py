"""The embedded engine's disk: full, gone, torn, or holding a snapshot alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.bench import CANARY, Bench, row
from tests.faults.control import Control

from gravito import errors
from gravito.atlas.embedded import Engine

MIB = 1024 * 1024


def _small_disk(bench: Bench, size: int) -> Path | None:
    """A file system of `size` bytes; None where this user may not make one."""
    folder = bench.folder()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return None
    bench.at_end(lambda: subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True))
    return folder


@row(
    "disk-full",
    "the disk of a kept engine is full (synced every second, and always)",
    "writes fail and say why, reads go on, all works when there is room; what was acknowledged is there after a restart",
)
async def disk_full(bench: Bench) -> None:
    for policy in ("everysec", "always"):
        folder = _small_disk(bench, 6 * MIB)
        if folder is None:
            bench.ledger.note(skipped="needs the right to mount a file system")
            return
        # A rewrite would need room of its own in the middle of the row.
        server = bench.server(folder / "data", {"appendfsync": policy, "auto-aof-rewrite-percentage": 0})
        await _fill(bench, server, folder, policy)
        server.hang_up()


def _enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={64 * MIB}", str(folder)], check=True)


async def _fill(bench: Bench, server: Control, folder: Path, policy: str) -> None:
    client = bench.client(server, timeout=2.0)
    acknowledged: list[int] = []
    refused: object = None
    for number in range(1_000):
        outcome = await bench.outcome(client.set(f"key {number}", "x" * 20_000))
        if isinstance(outcome, Exception):
            refused = outcome
            break
        acknowledged.append(number)
        if policy == "everysec" and number % 20 == 0:
            await asyncio.sleep(0.02)
    bench.ledger.promise(isinstance(refused, errors.GravitoError), f"{policy}: a full disk was not noticed")
    if (
        policy == "everysec"
    ):  # with "always" the server ends itself rather than acknowledge what it cannot keep
        bench.ledger.promise(isinstance(refused, errors.ResponseError), f"{refused!r}")
        bench.ledger.figures.wrong += len(await client.get("key 0")) != 20_000
    else:
        bench.ledger.promise(getattr(refused, "maybe_applied", False), f"{refused!r}")
    bench.ledger.note(**{f"{policy}_says": f"{type(refused).__name__}: {refused}"[:160]})
    await asyncio.to_thread(_enlarge, folder)
    if policy == "everysec":
        took = await bench.until(
            lambda: server.plain.info("persistence")["aof_last_write_status"] == "ok", 5.0
        )
        bench.ledger.promise(took < 5.0, "the server did not go on when there was room")
        await asyncio.sleep(1.1)  # the last second's writes reach the disk
        server.kill()
    await asyncio.to_thread(server.restart)
    await bench.revive(client)
    bench.ledger.figures.operations += len(acknowledged)
    for number in acknowledged:
        bench.ledger.figures.wrong += len(await client.get(f"key {number}") or "") != 20_000


@row(
    "folder-removed",
    "the folder of a kept engine is removed under it, and the engine killed",
    "starts again, and the log warns that the data are gone",
)
async def folder_removed(bench: Bench) -> None:
    folder = bench.folder() / "data"
    server = bench.server(folder)
    client = bench.client(server)
    await client.set("key", "value")
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    bench.ledger.figures.wrong += await client.get("key") != "value"  # it goes on from memory
    os.kill(int(server.ask("INFO", "server")["process_id"]), 9)
    server.hang_up()
    await asyncio.to_thread(server.engine.wait, 5.0)
    with bench.logged() as lines:
        await asyncio.to_thread(server.restart)
    await bench.revive(client)
    bench.ledger.promise(any("data are lost" in line for line in lines), f"no warning, but {lines}")
    bench.ledger.figures.wrong += await client.get("key") is not None
    bench.ledger.figures.operations = 1


@row(
    "aof-torn",
    "the append-only file's last bytes are missing after a kill -9, at every length of the last command",
    "starts, and the log warns; all commands but the torn one are there",
)
async def aof_torn(bench: Bench) -> None:
    kept = bench.folder() / "kept"
    with Control(CANARY, kept) as first:
        for number in range(20):
            first.plain.set(f"key {number}", "value")
        first.kill()
    length = len("*3\r\n$3\r\nSET\r\n$6\r\nkey 19\r\n$5\r\nvalue\r\n")
    for cut in range(1, length, bench.pick(13, 1)):
        folder = bench.folder() / "data"
        shutil.copytree(kept, folder)
        _shorten(folder, cut)
        with bench.logged() as lines, Control(CANARY, folder) as again:
            bench.ledger.promise(
                any("torn" in line for line in lines), f"{cut} bytes short: no warning, but {lines}"
            )
            found = again.plain.dbsize()
            bench.ledger.figures.wrong += found != 19 or again.plain.get("key 19") is not None
        bench.ledger.figures.operations += 1


@row(
    "aof-broken",
    "the append-only file is spoiled in its middle",
    "fails with what to do; the file stays as it is",
)
async def aof_broken(bench: Bench) -> None:
    folder = bench.folder() / "data"
    with Control(CANARY, folder) as first:
        for number in range(20):
            first.plain.set(f"key {number}", "value")
        first.kill()
    file = _log(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"\0" * 20
    file.write_bytes(data)
    again = Control(CANARY, folder)
    error = None
    try:
        await asyncio.to_thread(again.restart)
    except errors.EngineError as found:
        error = found
        bench.ledger.error(error)
    finally:
        again.engine.stop()
    bench.ledger.promise(error is not None, "it started without the half of its data")
    bench.ledger.promise(
        "--fix" in str(error) or "check-aof" in str(error), f"no word of what to do: {error}"
    )
    bench.ledger.figures.wrong += file.read_bytes() != data
    bench.ledger.figures.operations = 1


@row(
    "snapshot-only",
    "a kept engine is given a folder that holds a dump.rdb alone",
    "starts with its data, keeps them, and keeps what is written from then on",
)
async def snapshot_only(bench: Bench) -> None:
    folder = bench.folder()
    source = bench.folder()
    # A private engine that saves: what a user copies from another server.
    with Engine(directives={"dir": str(source), "requirepass": CANARY}) as engine:
        import redis

        plain = redis.Redis(unix_socket_path=engine.path, password=CANARY)
        plain.mset({f"key {number}": number for number in range(100)})
        plain.save()
        plain.close()
    shutil.copy(source / "dump.rdb", folder / "dump.rdb")
    for round_ in range(3):
        server = Control(CANARY, folder)
        with server:
            found = server.plain.dbsize()
            bench.ledger.figures.wrong += found != 100 + round_
            server.plain.set(f"more {round_}", 1)
            server.kill()
        bench.ledger.figures.operations += 1
    bench.ledger.promise((folder / "dump.rdb").exists(), "the snapshot was taken away")


def _log(folder: Path) -> Path:
    """The append-only file that grows."""
    return max((folder / "appendonlydir").glob("*.incr.aof"))


def _shorten(folder: Path, count: int) -> None:
    file = _log(folder)
    os.truncate(file, file.stat().st_size - count)
