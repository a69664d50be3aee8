"""After a fork: the child must not touch the parent's sockets, and must not find them in its clients."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gravito.atlas.client import Client

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_inherited: list[Any] = []  # the parent's wires, kept in the child so that no finalizer runs on them


def watch(client: Client) -> None:
    """Let go of the client's wires in forked children."""
    _clients.add(client)


def _in_child() -> None:
    """A child starts with no wires; its own first command, in its own loop, opens some.

    The sockets are replaced by /dev/null rather than closed: what the parent shares with the child (the socket,
    the loop's poll set) stays as it was, and the number is not given to another file that a finalizer would close.
    """
    blank = os.open(os.devnull, os.O_RDWR)
    for client in list(_clients):
        for state in client._states.values():
            _inherited.append(state)
            for wire in [wire for wire in state.wires() if wire.fileno() >= 0]:
                os.dup2(blank, wire.fileno())
            state.disown()
        client._states.clear()
        client._states.past.forget()
    os.close(blank)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
