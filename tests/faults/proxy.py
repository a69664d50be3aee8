"""A TCP proxy that misbehaves on command. It has a loop and a thread of its own: it never waits for the client's."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Literal, Self

Way = Literal["up", "down"]  # towards the server, towards the client

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: close() sends RST instead of FIN
_READ = 64 * 1024


class Proxy:
    """Between a client and a server on 127.0.0.1. Attributes may be changed at any time, from any thread.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0  # where it listens
        self.delay: tuple[float, float] = (0.0, 0.0)  # seconds that a chunk is late, each way: from, to
        self.rate: dict[Way, float] = {}  # bytes a second
        self.piece: dict[Way, int] = {}  # bytes of a chunk
        self.swallow: set[Way] = set()  # a black hole: bytes are read and forgotten
        self.deaf: set[Way] = set()  # bytes are not even read, so that the sender's buffers fill
        self.accepting = True  # a new connection is reset at once while False
        self.first_budget: int | None = None  # the next connection is reset after so many bytes to the client
        self.connections = 0  # accepted so far
        self._links: list[_Link] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def allow(self, count: int, then: Literal["reset", "cut", "hold"]) -> None:
        """Let `count` more bytes through to the client on each open connection; then reset, cut or hold it."""
        self._call(lambda: [link.allow(count, then) for link in self._links])

    def release(self) -> None:
        """Let go what is held."""
        self._call(lambda: [link.release() for link in self._links])

    def reset(self) -> None:
        """Reset every connection now, both sides."""
        self._call(lambda: [link.reset() for link in list(self._links)])

    def cut(self) -> None:
        """Close every connection now, in order (FIN)."""
        self._call(lambda: [link.cut() for link in list(self._links)])

    def heal(self) -> None:
        """No more faults for what comes next; what was swallowed stays lost."""
        self.delay, self.rate, self.piece = (0.0, 0.0), {}, {}
        self.swallow, self.deaf, self.accepting = set(), set(), True

    # -- in the proxy's thread -------------------------------------------------------------------------------

    def _call(self, act: Callable[[], Any]) -> None:
        async def acting() -> None:
            act()

        asyncio.run_coroutine_threadsafe(acting(), self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_READ)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for link in list(self._links):
            link.reset()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self.accepting:
            _abort(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=_READ)
        except OSError:
            _abort(writer)
            return
        link = _Link(self, writer, up_writer)
        self._links.append(link)
        if self.first_budget is not None:
            link.allow(self.first_budget, "reset")
            self.first_budget = None
        try:
            await asyncio.gather(
                link.pump("up", reader, up_writer),
                link.pump("down", up_reader, writer),
                return_exceptions=True,
            )
        except asyncio.CancelledError:
            pass  # the proxy ends; asyncio's streams would report it as an error
        finally:
            self._links.remove(link)
            link.reset()


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._budget: int | None = None  # bytes that may still go down; None: any number
        self._then = "reset"
        self._freed = asyncio.Event()  # what is held may go on

    def allow(self, count: int, then: str) -> None:
        self._budget, self._then = count, then
        self._freed.clear()

    def release(self) -> None:
        self._budget = None
        self._freed.set()

    def reset(self) -> None:
        _abort(self._client)
        _abort(self._server)

    def cut(self) -> None:
        self._client.close()
        self._server.close()

    async def pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction: a reader that notes when each chunk is due, and a writer that keeps to it."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        carrying = asyncio.ensure_future(self._carry(way, line, writer))
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            while True:
                while way in self._proxy.deaf:  # noqa: ASYNC110  # set from other threads
                    await asyncio.sleep(0.005)
                data = await reader.read(self._proxy.piece.get(way, _READ))
                if not data:
                    break
                due = max(due, loop.time() + random.uniform(*self._proxy.delay))
                await line.put((due, data))
            await line.put((0.0, b""))
            await carrying
        except OSError:
            pass
        finally:
            carrying.cancel()
            if way not in self._proxy.swallow:  # a black hole lets no end through either
                self.reset() if way == "down" else self.cut()

    async def _carry(
        self, way: Way, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.get()
            if not data:
                return
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if way in self._proxy.swallow:
                continue
            await self._write(way, data, writer)
            if rate := self._proxy.rate.get(way):
                await asyncio.sleep(len(data) / rate)

    async def _write(self, way: Way, data: bytes, writer: asyncio.StreamWriter) -> None:
        if way == "down" and self._budget is not None:
            now, rest = data[: self._budget], data[self._budget :]
            self._budget -= len(now)
            writer.write(now)
            await writer.drain()
            if self._budget == 0 and self._then != "hold":
                # The last bytes must have been read before a reset, which would overtake them.
                await asyncio.sleep(0.002)
                self.reset() if self._then == "reset" else self.cut()
                return
            if not rest:
                return
            await self._freed.wait()
            data = rest
        writer.write(data)
        await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass
    writer.transport.abort()
