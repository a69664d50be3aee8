"""A connected TCP socket: the first of a name's addresses that answers.

asyncio's own race between addresses forgets the winner's socket when its caller is cancelled in the same moment
(and uvloop has no race); a server would count that connection until the garbage collector found it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

_NEXT_ADDRESS = 0.25  # seconds that an address gets before the next one is tried beside it (RFC 8305)


async def dial(host: str, port: int) -> socket.socket:
    """Connect to `host`; with several addresses to whichever answers first.

    Returns:
        A connected socket that does not block. The caller closes it.

    Raises:
        OSError: of the only address; or of the first one, if all failed. `socket.gaierror` if there is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if len(found) == 1:
        sock = _socket(found[0])
        try:
            await loop.sock_connect(sock, found[0][4])
        except BaseException:
            sock.close()
            raise
        return sock
    return await _race(found)


async def _race(found: list[Any]) -> socket.socket:
    loop = asyncio.get_running_loop()
    addresses = iter(_alternating(found))
    running: dict[asyncio.Task[None], socket.socket] = {}
    failures: list[BaseException] = []
    winner: socket.socket | None = None
    try:
        while winner is None:
            address = next(addresses, None)
            if address is not None:
                try:
                    sock = _socket(address)
                except OSError as error:  # this machine does not speak the address's family
                    failures.append(error)
                    continue
                running[loop.create_task(loop.sock_connect(sock, address[4]))] = sock
            elif not running:
                raise failures[0]
            pause = None if address is None else _NEXT_ADDRESS
            done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                sock = running.pop(task)
                if (failure := task.exception()) is None and winner is None:
                    winner = sock
                else:
                    sock.close()
                    failures += [] if failure is None else [failure]
    finally:
        await _abandon(running)
    return winner


async def _abandon(running: dict[asyncio.Task[None], socket.socket]) -> None:
    """End the attempts before their sockets are closed: the loop still watches these."""
    for task in running:
        task.cancel()
    try:
        await asyncio.gather(*running, return_exceptions=True)
    finally:
        for sock in running.values():
            sock.close()


def _alternating(found: list[Any]) -> list[Any]:
    """The addresses with their families in turn, so that a broken IPv6 costs one step and not all of its addresses."""
    first = [each for each in found if each[0] == found[0][0]]
    rest = [each for each in found if each[0] != found[0][0]]
    mixed = [each for pair in zip(first, rest, strict=False) for each in pair]
    return mixed + first[len(rest) :] + rest[len(first) :]


def _socket(address: Any) -> socket.socket:
    sock = socket.socket(*address[:3])
    sock.setblocking(False)
    return sock
