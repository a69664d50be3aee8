"""What a command asks of its wire: one table, filled from the server's command metadata.

An ordinary command travels on the shared wire. `needs_lease` names those that must have a wire to themselves:

- BLOCKING: the server may hold the reply, and every reply behind it.
- CONNECTION: it changes the state of the connection itself, so the wire is not clean afterwards.
- APART: it must not stand behind another command of the same wire. The server stops reading from the
  client whose script is running, so SCRIPT KILL behind that script would never be read; CLIENT UNPAUSE
  likewise waits behind a paused write. DEBUG may sleep, and may answer with anything at all.

Commands that stop the whole server (SAVE, KEYS, a long script) take no lease: no other wire would be served
any sooner. READ_ONLY is the server's own `readonly` flag; NEUTRAL commands lack that flag because they have
no keys, but change nothing either: both kinds may be sent again after a lost reply.

The table is compared with `COMMAND` of a running server by tests/atlas/test_commands.py. Commands of modules
and of Redis 8, which that server may lack, follow https://redis.io/docs/latest/commands/. Everything here is
pure; callers that are in a hurry keep the results by name.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Final

__all__ = [
    "CONTAINERS",
    "SUBSCRIBES",
    "TABLE",
    "Route",
    "blocking_timeout",
    "leaves_clean",
    "needs_lease",
    "route",
    "split",
]


class Route(enum.IntFlag):
    """What is known of a command; a name that is not in the table has none of these."""

    READ_ONLY = 1  # the server's `readonly`: reads keys, changes nothing
    BLOCKING = 2  # the server's `blocking`: for XREAD and XREADGROUP only with BLOCK
    CONNECTION = 4  # changes the connection's own state; its wire must not be shared afterwards
    APART = 8  # needs a wire of its own, and leaves it clean
    NEUTRAL = 16  # no keys, no change: may be repeated like a read


_READ_ONLY: Final = """
    BITCOUNT BITFIELD_RO BITPOS CLUSTERSCAN DBSIZE DUMP EVALSHA_RO EVAL_RO EXISTS EXPIRETIME FCALL_RO
    GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS
    HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSTRLEN HTTL HVALS KEYS
    LCS LINDEX LLEN LOLWUT LPOS LRANGE MGET PEXPIRETIME PFCOUNT PTTL RANDOMKEY SCAN SCARD SDIFF SINTER
    SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR SUNION TOUCH TTL TYPE
    XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD ZLEXCOUNT ZMSCORE ZRANDMEMBER
    ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    ZUNION MEMORY|USAGE OBJECT|ENCODING OBJECT|FREQ OBJECT|IDLETIME OBJECT|REFCOUNT XINFO|CONSUMERS
    XINFO|GROUPS XINFO|STREAM
"""

# Redis 8 and the modules; FT.CURSOR READ is not here, since each call moves the cursor on.
_READ_ONLY_ELSEWHERE: Final = """
    ARCOUNT ARGET ARGETRANGE ARGREP ARINFO ARLASTITEMS ARLEN ARMGET ARSCAN DIGEST SDIFFCARD SUNIONCARD VCARD
    VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM JSON.ARRINDEX JSON.ARRLEN JSON.GET
    JSON.MGET JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.STRLEN JSON.TYPE JSON.DEBUG|MEMORY FT._LIST
    FT.AGGREGATE FT.DICTDUMP FT.EXPLAIN FT.EXPLAINCLI FT.HYBRID FT.INFO FT.PROFILE FT.SEARCH FT.SPELLCHECK
    FT.SUGGET FT.SUGLEN FT.SYNDUMP FT.TAGVALS TS.GET TS.INFO TS.MGET TS.MRANGE TS.MREVRANGE TS.QUERYINDEX
    TS.RANGE TS.REVRANGE BF.CARD BF.EXISTS BF.INFO BF.MEXISTS BF.SCANDUMP CF.COUNT CF.EXISTS CF.INFO
    CF.MEXISTS CF.SCANDUMP CMS.INFO CMS.QUERY TOPK.COUNT TOPK.INFO TOPK.LIST TOPK.QUERY TDIGEST.BYRANK
    TDIGEST.BYREVRANK TDIGEST.CDF TDIGEST.INFO TDIGEST.MAX TDIGEST.MIN TDIGEST.QUANTILE TDIGEST.RANK
    TDIGEST.REVRANK TDIGEST.TRIMMED_MEAN
"""

_BLOCKING: Final = """
    BLMOVE BLMOVEM BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF XREAD XREADGROUP
"""

_CONNECTION: Final = """
    ASKING AUTH DISCARD EXEC HELLO HIMPORT|PREPARE HIMPORT|DISCARD HIMPORT|DISCARDALL MONITOR MULTI
    PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY READWRITE REPLCONF RESET SELECT SSUBSCRIBE SUBSCRIBE
    SUNSUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH CLIENT|CACHING CLIENT|CAPA CLIENT|IMPORT-SOURCE
    CLIENT|MAINT_NOTIFICATIONS CLIENT|NO-EVICT CLIENT|NO-TOUCH CLIENT|REPLY CLIENT|SETINFO CLIENT|SETNAME
    CLIENT|TRACKING CLUSTER|SYNCSLOTS SCRIPT|DEBUG
"""

# SHUTDOWN waits for replicas; so does CLUSTER SETSLOT (Valkey 8), for its own TIMEOUT.
_APART: Final = """
    CLIENT|UNPAUSE CLUSTER|SETSLOT DEBUG FUNCTION|KILL SCRIPT|KILL SHUTDOWN
"""

_NEUTRAL: Final = """
    COMMAND ECHO INFO LASTSAVE PING ROLE TIME ACL|CAT ACL|DRYRUN ACL|GENPASS ACL|GETUSER ACL|HELP ACL|LIST
    ACL|USERS ACL|WHOAMI CLIENT|GETNAME CLIENT|GETREDIR CLIENT|HELP CLIENT|ID CLIENT|INFO CLIENT|LIST
    CLIENT|TRACKINGINFO CLUSTER|COUNT-FAILURE-REPORTS CLUSTER|COUNTKEYSINSLOT CLUSTER|GETKEYSINSLOT
    CLUSTER|GETSLOTMIGRATIONS CLUSTER|HELP CLUSTER|INFO CLUSTER|KEYSLOT CLUSTER|LINKS CLUSTER|MYID
    CLUSTER|MYSHARDID CLUSTER|NODES CLUSTER|REPLICAS CLUSTER|SHARDS CLUSTER|SLAVES CLUSTER|SLOT-STATS
    CLUSTER|SLOTS COMMAND|COUNT COMMAND|DOCS COMMAND|GETKEYS COMMAND|GETKEYSANDFLAGS COMMAND|HELP
    COMMAND|INFO COMMAND|LIST COMMANDLOG|GET COMMANDLOG|HELP COMMANDLOG|LEN CONFIG|GET CONFIG|HELP
    FUNCTION|DUMP FUNCTION|HELP FUNCTION|LIST FUNCTION|STATS LATENCY|DOCTOR LATENCY|GRAPH LATENCY|HELP
    LATENCY|HISTOGRAM LATENCY|HISTORY LATENCY|LATEST MEMORY|DOCTOR MEMORY|HELP MEMORY|MALLOC-STATS
    MEMORY|STATS MODULE|HELP MODULE|LIST OBJECT|HELP PUBSUB|CHANNELS PUBSUB|HELP PUBSUB|NUMPAT PUBSUB|NUMSUB
    PUBSUB|SHARDCHANNELS PUBSUB|SHARDNUMSUB SCRIPT|EXISTS SCRIPT|HELP SCRIPT|SHOW SLOWLOG|GET SLOWLOG|HELP
    SLOWLOG|LEN XGROUP|HELP XINFO|HELP
"""


def _table() -> dict[str, Route]:
    table: dict[str, Route] = {}
    for flag, names in (
        (Route.READ_ONLY, _READ_ONLY),
        (Route.READ_ONLY, _READ_ONLY_ELSEWHERE),
        (Route.BLOCKING, _BLOCKING),
        (Route.CONNECTION, _CONNECTION),
        (Route.APART, _APART),
        (Route.NEUTRAL, _NEUTRAL),
    ):
        for word in names.split():
            key = word.replace("|", " ")
            table[key] = table.get(key, Route(0)) | flag
    return table


TABLE: Final = _table()  # by name, upper case, words parted by one space

CONTAINERS: Final = frozenset(name.split()[0] for name in TABLE if " " in name)

# Their messages come unasked, and each may have several replies.
SUBSCRIBES: Final = frozenset(
    {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
)

_LEASED: Final = Route.BLOCKING | Route.CONNECTION | Route.APART

# Where the timeout stands among the arguments, and how many of its units make a second.
_TIMEOUTS: Final = {
    "BLMOVE": (-1, 1),
    "BLMOVEM": (4, 1),
    "BLMPOP": (0, 1),
    "BLPOP": (-1, 1),
    "BRPOP": (-1, 1),
    "BRPOPLPUSH": (-1, 1),
    "BZMPOP": (0, 1),
    "BZPOPMAX": (-1, 1),
    "BZPOPMIN": (-1, 1),
    "WAIT": (-1, 1000),
    "WAITAOF": (-1, 1000),
}

# Options of XREAD and XREADGROUP before STREAMS, with the number of values that each takes.
_STREAM_OPTIONS: Final = {"COUNT": 1, "BLOCK": 1, "CLAIM": 1, "GROUP": 2, "NOACK": 0}


def split(name: str) -> tuple[str, ...]:
    """The words of a command as the server takes them: "config get" is ("config", "get")."""
    return tuple(name.split())


def route(name: str) -> Route:
    """What the table says of a command.

    Args:
        name: "GET" or "CONFIG GET", in any case.

    Returns:
        Its flags; none for a name that the table does not hold.
    """
    return TABLE.get(" ".join(name.upper().split()), Route(0))


def needs_lease(name: str, args: Sequence[object] = ()) -> bool:
    """Whether a command must have a wire to itself.

    Args:
        name: the command; a container may come whole ("CLIENT REPLY") or in pieces ("CLIENT", args "REPLY").
        args: what follows the name.

    Returns:
        True for a command that changes the connection's state, must stand apart, or blocks with these
        arguments. Inside MULTI nothing blocks, so a transaction asks only about CONNECTION.
    """
    full, rest = _whole(name, args)
    flags = TABLE.get(full, Route(0))
    if not flags & _LEASED:
        return False
    if full in ("XREAD", "XREADGROUP"):
        return _block_option(rest) is not None
    return True


def leaves_clean(name: str, args: Sequence[object] = ()) -> bool:
    """Whether a leased wire can be used again after this command: it did not change the connection's state."""
    return not TABLE.get(_whole(name, args)[0], Route(0)) & Route.CONNECTION


def blocking_timeout(name: str, args: Sequence[object] = ()) -> float:
    """How long the server may hold the reply because the command says so; deadlines are extended by it.

    Args:
        name: as for `needs_lease`.
        args: what follows the name.

    Returns:
        Seconds: 0.0 for a command that does not block, `math.inf` for one that may block for ever. An
        argument that is no number, or a negative one, counts as 0.0: the server refuses it at once.
    """
    full, rest = _whole(name, args)
    if full in ("XREAD", "XREADGROUP"):
        value, units = _block_option(rest), 1000
        return 0.0 if value is None else _seconds(value, units)
    position, units = _TIMEOUTS.get(full, (0, 1))
    if full not in _TIMEOUTS or not rest[position:]:
        return 0.0
    return _seconds(rest[position], units)


def for_the_rest(name: str, args: Sequence[object], left: float) -> list[object] | None:
    """The arguments with which a blocking command goes on waiting somewhere else.

    Args:
        name: as for `needs_lease`.
        args: what follows the name.
        left: seconds of its time that are left; `math.inf` for one that may block for ever.

    Returns:
        The arguments; None for a command that would mean something else now: WAIT is about the writes of the
        connection that it was sent on, and XREAD from `$` would pass over what was added meanwhile.
    """
    full, rest = _whole(name, args)
    if full in ("XREAD", "XREADGROUP"):
        place, units = _block_place(rest), 1000
        if full == "XREAD" and "$" in map(_text, _stream_ids(rest)):
            return None
    elif full in _TIMEOUTS and full not in ("WAIT", "WAITAOF"):
        place, units = _TIMEOUTS[full]
    else:
        return None
    changed = list(args)
    if place is not None and left != math.inf:
        amount = max(left, 0.001)
        place += 0 if place < 0 else len(args) - len(rest)
        changed[place] = str(math.ceil(amount * units)) if units > 1 else f"{amount:.3f}"
    return changed


def _whole(name: str, args: Sequence[object]) -> tuple[str, Sequence[object]]:
    """The full upper-case name and the arguments behind it, when a container came in pieces."""
    words = name.upper().split()
    if len(words) == 1 and args and words[0] in CONTAINERS:
        subcommand = _text(args[0]).upper()
        if (whole := f"{words[0]} {subcommand}") in TABLE:
            return whole, args[1:]
    return " ".join(words), args


def _stream_ids(args: Sequence[object]) -> Sequence[object]:
    """The ids of an XREAD: the latter half of what follows STREAMS."""
    at = 0
    while at < len(args) and (option := _text(args[at]).upper()) in _STREAM_OPTIONS:
        at += 1 + _STREAM_OPTIONS[option]
    return args[at + 1 + (len(args) - at - 1) // 2 :]


def _block_option(args: Sequence[object]) -> object | None:
    """The value of BLOCK, or None."""
    place = _block_place(args)
    return None if place is None else args[place]


def _block_place(args: Sequence[object]) -> int | None:
    """Where BLOCK's value stands. Keys and group names may be called BLOCK too, so options are walked."""
    at = 0
    while at < len(args):
        option = _text(args[at]).upper()
        if option not in _STREAM_OPTIONS:
            return None
        if option == "BLOCK":
            return at + 1 if at + 1 < len(args) else None
        at += 1 + _STREAM_OPTIONS[option]
    return None


def _seconds(value: object, units: int) -> float:
    try:
        amount = float(_text(value)) / units
    except ValueError:
        return 0.0
    return amount if amount > 0 else math.inf if amount == 0 else 0.0


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("ascii", "replace")
    return str(value)
