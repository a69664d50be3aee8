"""The health of the server that keeps the queues: what it says of itself, and what should be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gravito.errors import NoPermissionError, ResponseError
from gravito.horizon.console._format import percent, size

__all__ = ["Server", "Warning", "read_server", "server_of"]


class Warning(msgspec.Struct, frozen=True):
    """Something about the server that endangers jobs.

    Args:
        text: what it is.
        remedy: what to do.
        bad: whether jobs are lost or refused now; else it may come to that.
    """

    text: str
    remedy: str
    bad: bool = False


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server's own account. Empty texts and zeros where it says nothing.

    Args:
        name: Redis or Valkey, with its version.
        uptime: seconds.
        memory: bytes in use.
        most: bytes that it may use; 0: no bound.
        policy: what it does when that is full.
        persistence: how jobs outlive it.
        replication: its role, and who follows.
        clients: connections.
        commands: a second, of all its clients.
        warnings: see `Warning`.
    """

    name: str = ""
    uptime: int = 0
    memory: int = 0
    most: int = 0
    policy: str = ""
    persistence: str = ""
    replication: str = ""
    clients: int = 0
    commands: int = 0
    warnings: tuple[Warning, ...] = ()

    @property
    def full(self) -> float | None:
        """The share of its memory that is in use; None without a bound."""
        return self.memory / self.most if self.most else None


async def read_server(client: Any) -> Server:
    """Ask the server; one that may not be asked says nothing. https://redis.io/commands/info"""
    try:
        said = await client.info()
    except (NoPermissionError, ResponseError):
        return Server(
            warnings=(Warning("This user may not run INFO.", "Allow +info to see the server's health."),)
        )
    return server_of(said)


def server_of(info: Mapping[str, Any]) -> Server:
    """The account in an answer to INFO; of a cluster's, that of its first node. Pure."""
    if info and all(isinstance(value, Mapping) and "redis_version" in value for value in info.values()):
        info = next(iter(info.values()))
    kind = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or ""
    return Server(
        name=f"{kind} {version}".strip(),
        uptime=_number(info, "uptime_in_seconds"),
        memory=_number(info, "used_memory"),
        most=_number(info, "maxmemory"),
        policy=str(info.get("maxmemory_policy", "")),
        persistence=_persistence(info),
        replication=_replication(info),
        clients=_number(info, "connected_clients"),
        commands=_number(info, "instantaneous_ops_per_sec"),
        warnings=tuple(_warnings(info)),
    )


def _number(info: Mapping[str, Any], name: str) -> int:
    value = info.get(name, 0)
    return int(value) if isinstance(value, int | float) or str(value).isdigit() else 0


def _persistence(info: Mapping[str, Any]) -> str:
    if _number(info, "aof_enabled"):
        return "append-only file"
    return "snapshots only" if _number(info, "rdb_last_save_time") else "none"


def _replication(info: Mapping[str, Any]) -> str:
    if info.get("role") == "slave":
        return f"replica, link {info.get('master_link_status', 'unknown')}"
    followers = _number(info, "connected_slaves")
    return f"primary, {followers} {'replica' if followers == 1 else 'replicas'}"


def _warnings(info: Mapping[str, Any]) -> list[Warning]:
    found = []
    policy, most, used = (
        str(info.get("maxmemory_policy", "")),
        _number(info, "maxmemory"),
        _number(info, "used_memory"),
    )
    if policy and policy != "noeviction":
        text = f"The server may throw jobs away: its policy is {policy}."
        found.append(Warning(text, "CONFIG SET maxmemory-policy noeviction", bad=True))
    if most and used > 0.8 * most:
        text = f"Its memory is {percent(used / most)} full ({size(used)} of {size(most)}); when it is, pushes are refused."
        found.append(Warning(text, "Raise maxmemory, or purge ended jobs.", bad=used > 0.95 * most))
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok":
        found.append(
            Warning("It could not write to its disk.", "Look at the disk and the server's log.", bad=True)
        )
    if "aof_enabled" in info and not _number(info, "aof_enabled"):
        text = "Jobs accepted since its latest snapshot are lost if it stops."
        found.append(Warning(text, "CONFIG SET appendonly yes"))
    if _number(info, "loading"):
        found.append(Warning("It is reading its data.", "Wait until it has.", bad=True))
    if info.get("role") == "slave":
        found.append(Warning("This is a replica: it takes no jobs.", "Connect to the primary.", bad=True))
    if _number(info, "rejected_connections"):
        text = f"It has refused {_number(info, 'rejected_connections')} connections since it started."
        found.append(Warning(text, "Raise maxclients, or find out who opens so many."))
    return found
