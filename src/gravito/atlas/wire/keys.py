"""Where a command's keys stand: the server's key specifications in compact form, and rules for what moves.

`key_positions` is what routing, `key_prefix` and refusals across slots stand on. Most commands have their keys
at fixed places: `_FIXED` holds them as (first, last, step), counted in the arguments behind the command's
words, with a negative `last` counted from the end. `_COUNTED` are those that say how many keys they have;
the rest (`SORT`, `XREAD`, `GEORADIUS`, `MIGRATE`) have a rule each.

`policy` gives the server's hints for a command on several nodes. Sharded channels are no keys, but they choose
the slot as keys do: `slot_positions` knows both.

Tables are compared with `COMMAND` and `COMMAND GETKEYS` of a running server by tests/atlas/wire/test_keys.py.
Modules' commands and those of Redis 8 follow https://redis.io/docs/latest/commands/. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from gravito.atlas.wire import commands

__all__ = ["Policy", "key_positions", "keys_of", "policy", "slot_positions"]

Positions = tuple[int, ...]
Rule = Callable[[Sequence[Any]], Positions]

_FIXED: Final = {
    (0, 0, 1): """
        APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DELIFEQ DUMP EXPIRE EXPIREAT EXPIRETIME GEOADD
        GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE
        GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT
        HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX
        HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE
        LREM LSET LTRIM MEMORY|USAGE MOVE OBJECT|ENCODING OBJECT|FREQ OBJECT|IDLETIME OBJECT|REFCOUNT PERSIST
        PEXPIRE PEXPIREAT PEXPIRETIME PFADD PSETEX PTTL RESTORE RESTORE-ASKING RPOP RPUSH RPUSHX SADD SCARD SET
        SETBIT SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SORT_RO SPOP SRANDMEMBER SREM SSCAN STRLEN
        SUBSTR TTL TYPE XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP|CREATE XGROUP|CREATECONSUMER
        XGROUP|DELCONSUMER XGROUP|DESTROY XGROUP|SETID XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN XPENDING
        XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER
        ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE
        ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
    """,
    (0, -1, 1): """
        DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK WATCH
    """,
    (0, 1, 1): """
        BLMOVE BRPOPLPUSH COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE
    """,
    (0, -2, 1): "BLPOP BRPOP BZPOPMAX BZPOPMIN",
    (0, -1, 2): "MSET MSETNX",
    (1, -1, 1): "BITOP",
    (1, 1, 1): "PFDEBUG",
}

# Redis 8 and the modules.
_FIXED_ELSEWHERE: Final = {
    (0, 0, 1): """
        ARCOUNT ARDEL ARDELRANGE ARGET ARGETRANGE ARGREP ARINFO ARINSERT ARLASTITEMS ARLEN ARMGET ARMSET ARNEXT
        AROP ARRING ARSCAN ARSEEK ARSET BF.ADD BF.CARD BF.EXISTS BF.INFO BF.INSERT BF.LOADCHUNK BF.MADD
        BF.MEXISTS BF.RESERVE BF.SCANDUMP CF.ADD CF.ADDNX CF.COUNT CF.DEL CF.EXISTS CF.INFO CF.INSERT
        CF.INSERTNX CF.LOADCHUNK CF.MEXISTS CF.RESERVE CF.SCANDUMP CMS.INCRBY CMS.INFO CMS.INITBYDIM
        CMS.INITBYPROB CMS.QUERY DELEX DIGEST FT.SUGADD FT.SUGDEL FT.SUGGET FT.SUGLEN HIMPORT|SET INCREX
        JSON.ARRAPPEND JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR
        JSON.DEBUG|MEMORY JSON.DEL JSON.FORGET JSON.GET JSON.MERGE JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS
        JSON.OBJLEN JSON.RESP JSON.SET JSON.STRAPPEND JSON.STRLEN JSON.TOGGLE JSON.TYPE TDIGEST.ADD
        TDIGEST.BYRANK TDIGEST.BYREVRANK TDIGEST.CDF TDIGEST.CREATE TDIGEST.INFO TDIGEST.MAX TDIGEST.MIN
        TDIGEST.QUANTILE TDIGEST.RANK TDIGEST.RESET TDIGEST.REVRANK TDIGEST.TRIMMED_MEAN TOPK.ADD TOPK.COUNT
        TOPK.INCRBY TOPK.INFO TOPK.LIST TOPK.QUERY TOPK.RESERVE TS.ADD TS.ALTER TS.CREATE TS.DECRBY TS.DEL
        TS.GET TS.INCRBY TS.INFO TS.RANGE TS.REVRANGE VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS
        VRANDMEMBER VRANGE VREM VSETATTR VSIM XACKDEL XCFGSET XDELEX XNACK
    """,
    (0, 1, 1): "BLMOVEM LMOVEM TS.CREATERULE TS.DELETERULE",
    (0, -2, 1): "JSON.MGET",
    (0, -1, 3): "JSON.MSET TS.MADD",
}

# (where the number of keys stands, from key to key, the keys before it)
_COUNTED: Final = {
    (0, 1, ()): "LMPOP SDIFFCARD SINTERCARD SUNIONCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION",
    (0, 2, ()): "MSETEX",
    (1, 1, ()): "BLMPOP BZMPOP EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO",
    (1, 1, (0,)): "CMS.MERGE TDIGEST.MERGE ZDIFFSTORE ZINTERSTORE ZUNIONSTORE",
}

# Beside those that the table of commands calls neutral or the connection's own.
_KEYLESS: Final = """
    ACL ACL|DELUSER ACL|LOAD ACL|LOG ACL|SAVE ACL|SETUSER BGREWRITEAOF BGSAVE CLIENT CLIENT|KILL
    CLIENT|PAUSE CLIENT|UNBLOCK CLIENT|UNPAUSE CLUSTER CLUSTER|ADDSLOTS CLUSTER|ADDSLOTSRANGE
    CLUSTER|BUMPEPOCH CLUSTER|CANCELSLOTMIGRATIONS CLUSTER|DELSLOTS CLUSTER|DELSLOTSRANGE CLUSTER|FAILOVER
    CLUSTER|FLUSHSLOT CLUSTER|FLUSHSLOTS CLUSTER|FORGET CLUSTER|MEET CLUSTER|MIGRATESLOTS CLUSTER|REPLICATE
    CLUSTER|RESET CLUSTER|SAVECONFIG CLUSTER|SET-CONFIG-EPOCH CLUSTER|SETSLOT CLUSTERSCAN COMMANDLOG
    COMMANDLOG|RESET CONFIG CONFIG|RESETSTAT CONFIG|REWRITE CONFIG|SET DBSIZE DEBUG FAILOVER FLUSHALL
    FLUSHDB FT._LIST FT.AGGREGATE FT.ALIASADD FT.ALIASDEL FT.ALIASUPDATE FT.ALTER FT.CONFIG FT.CREATE
    FT.CURSOR FT.DICTADD FT.DICTDEL FT.DICTDUMP FT.DROPINDEX FT.EXPLAIN FT.EXPLAINCLI FT.HYBRID FT.INFO
    FT.PROFILE FT.SEARCH FT.SPELLCHECK FT.SYNDUMP FT.SYNUPDATE FT.TAGVALS FUNCTION FUNCTION|DELETE
    FUNCTION|FLUSH FUNCTION|KILL FUNCTION|LOAD FUNCTION|RESTORE HOTKEYS|GET HOTKEYS|RESET HOTKEYS|START
    HOTKEYS|STOP KEYS LATENCY LATENCY|RESET LOLWUT MEMORY MEMORY|PURGE MODULE MODULE|LOAD MODULE|LOADEX
    MODULE|UNLOAD OBJECT PFSELFTEST PUBLISH PUBSUB RANDOMKEY REPLICAOF SAVE SCAN SCRIPT SCRIPT|FLUSH
    SCRIPT|KILL SCRIPT|LOAD SENTINEL|CKQUORUM SENTINEL|CONFIG SENTINEL|FAILOVER SENTINEL|FLUSHCONFIG
    SENTINEL|GET-MASTER-ADDR-BY-NAME SENTINEL|MASTER SENTINEL|MASTERS SENTINEL|MONITOR SENTINEL|MYID
    SENTINEL|REMOVE SENTINEL|REPLICAS SENTINEL|RESET SENTINEL|SENTINELS SENTINEL|SET SENTINEL|SLAVES
    SHUTDOWN SLAVEOF SLOWLOG SLOWLOG|RESET SPUBLISH SWAPDB TS.MGET TS.MRANGE TS.MREVRANGE TS.QUERYINDEX WAIT
    WAITAOF XGROUP XINFO
"""

_CHANNELS: Final = {"SPUBLISH": (0, 0, 1), "SSUBSCRIBE": (0, -1, 1), "SUNSUBSCRIBE": (0, -1, 1)}


def _fixed(first: int, last: int, step: int) -> Rule:
    if first == last:
        return lambda args: (first,) if len(args) > first else ()
    if last < 0:
        return lambda args: tuple(range(first, len(args) + last + 1, step))
    return lambda args: tuple(range(first, min(len(args), last + 1), step))


def _counted(at: int, step: int, before: Positions) -> Rule:
    def rule(args: Sequence[Any]) -> Positions:
        end = at + 1 + _number(args, at) * step
        if end > len(args):
            return ()  # the server refuses it
        return (*before, *range(at + 1, end, step))

    return rule


def _number(args: Sequence[Any], at: int) -> int:
    """A number of keys; 0 for nonsense, which the server refuses."""
    try:
        return max(0, int(_text(args[at])))
    except (IndexError, ValueError):
        return 0


def _streams(args: Sequence[Any]) -> Positions:
    """XREAD, XREADGROUP: the first half of what follows STREAMS; the second half are ids."""
    values = {"COUNT": 1, "BLOCK": 1, "CLAIM": 1, "GROUP": 2, "NOACK": 0}
    at = 0
    while at < len(args):
        option = _text(args[at]).upper()
        if option == "STREAMS":
            return tuple(range(at + 1, at + 1 + (len(args) - at - 1) // 2))
        if option not in values:
            return ()
        at += 1 + values[option]
    return ()


def _sort(args: Sequence[Any]) -> Positions:
    """SORT: its key, and the one behind STORE. Patterns of BY and GET name keys only when it runs."""
    values = {"LIMIT": 2, "GET": 1, "BY": 1, "STORE": 1}
    store: Positions = ()
    at = 1
    while at < len(args):
        option = _text(args[at]).upper()
        if option == "STORE" and at + 1 < len(args):
            store = (at + 1,)  # the last one counts
        at += 1 + values.get(option, 0)
    return (0, *store) if args else ()


def _radius(args: Sequence[Any]) -> Positions:
    """GEORADIUS, GEORADIUSBYMEMBER: the key, and the one behind STORE or STOREDIST."""
    store: Positions = ()
    for at in range(4, len(args) - 1):
        if _text(args[at]).upper() in ("STORE", "STOREDIST"):
            store = (at + 1,)  # the last one counts
    return (0, *store) if args else ()


def _migrate(args: Sequence[Any]) -> Positions:
    """MIGRATE: one key at its place, or an empty string there and KEYS at the end."""
    if len(args) < 3:
        return ()
    if _text(args[2]):
        return (2,)
    values = {"AUTH": 1, "AUTH2": 2}
    at = 5
    while at < len(args):
        option = _text(args[at]).upper()
        if option == "KEYS":
            return tuple(range(at + 1, len(args)))
        at += 1 + values.get(option, 0)
    return ()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def _names(words: str) -> Iterator[str]:
    return (word.replace("|", " ") for word in words.split())


def _rules() -> dict[str, Rule]:
    flags = commands.Route.NEUTRAL | commands.Route.CONNECTION
    keyless = [name for name, route in commands.TABLE.items() if route & flags]  # WATCH is among them
    rules: dict[str, Rule] = dict.fromkeys((*keyless, *_names(_KEYLESS)), _keyless)
    for table in (_FIXED, _FIXED_ELSEWHERE):
        for span, words in table.items():
            rules.update(dict.fromkeys(_names(words), _fixed(*span)))
    for (at, step, before), words in _COUNTED.items():
        rules.update(dict.fromkeys(_names(words), _counted(at, step, before)))
    rules.update(dict.fromkeys(("XREAD", "XREADGROUP"), _streams))
    rules.update(dict.fromkeys(("GEORADIUS", "GEORADIUSBYMEMBER"), _radius))
    rules.update({"SORT": _sort, "MIGRATE": _migrate})
    return rules


def _keyless(args: Sequence[Any]) -> Positions:
    return ()


RULES: Final = _rules()  # by name, upper case, words parted by one space
# The commands with one key, which is their first argument.
SINGLE: Final = frozenset((*_names(_FIXED[0, 0, 1]), *_names(_FIXED_ELSEWHERE[0, 0, 1])))
SINGLE_AT: Final = {name: len(name.split()) for name in SINGLE}  # where it stands behind the command's words
_CHANNEL_RULES: Final = {name: _fixed(*span) for name, span in _CHANNELS.items()}


def rule_of(name: str) -> Rule | None:
    """The rule of a command's full name, for callers that keep it by name; None if its keys are not known."""
    return RULES.get(name) or RULES.get(" ".join(name.upper().split()))


def key_positions(name: str, args: Sequence[Any]) -> Positions | None:
    """Where the keys stand among a command's arguments.

    Args:
        name: the command; a container may come whole ("MEMORY USAGE") or in pieces ("MEMORY", args "USAGE", ...).
        args: everything behind the command's words.

    Returns:
        Indexes into `args`, ascending; empty for a command without keys, or with arguments that the server will
        refuse. None for a command that is not known here: ask `COMMAND GETKEYS`.
    """
    full, skip = _whole(name, args)
    rule = rule_of(full)
    if rule is None:
        return None
    return tuple(place + skip for place in rule(args[skip:])) if skip else rule(args)


def keys_of(name: str, args: Sequence[Any]) -> tuple[Any, ...] | None:
    """The keys themselves, as they were given; empty and None as for `key_positions`."""
    positions = key_positions(name, args)
    return None if positions is None else tuple(args[place] for place in positions)


def slot_positions(name: str, args: Sequence[Any]) -> Positions | None:
    """Where the arguments stand that choose the slot: keys, and the channels of sharded pub/sub."""
    channels = _CHANNEL_RULES.get(name.upper())
    return key_positions(name, args) if channels is None else channels(args)


def _whole(name: str, args: Sequence[Any]) -> tuple[str, int]:
    """The full upper-case name, and how many of the arguments belong to it."""
    full = " ".join(name.upper().split())
    if args and full in commands.CONTAINERS:
        whole = f"{full} {_text(args[0]).upper()}"
        if whole in RULES:
            return whole, 1
    return full, 0


class Policy(NamedTuple):
    """The server's hints for a command on a cluster; https://redis.io/docs/latest/develop/reference/command-tips/"""

    request: str | None = None  # all_nodes, all_shards, multi_shard, special; None: by key, or any one node
    response: str | None = None  # all_succeeded, one_succeeded, agg_sum, ...; None: replies as they are


_POLICIES: Final = {
    ("all_nodes", None): "COMMANDLOG|GET SLOWLOG|GET",
    ("all_nodes", "agg_sum"): "COMMANDLOG|LEN LATENCY|RESET SLOWLOG|LEN",
    ("all_nodes", "all_succeeded"): """
        ACL|DELUSER ACL|SAVE ACL|SETUSER CLIENT|SETINFO CLIENT|SETNAME COMMANDLOG|RESET CONFIG|RESETSTAT
        CONFIG|REWRITE CONFIG|SET SCRIPT|FLUSH SCRIPT|LOAD SLOWLOG|RESET
    """,
    ("all_nodes", "special"): """
        LATENCY|DOCTOR LATENCY|GRAPH LATENCY|HISTOGRAM LATENCY|HISTORY LATENCY|LATEST
    """,
    ("all_shards", None): "CLUSTER|SLOT-STATS KEYS",
    ("all_shards", "agg_logical_and"): "SCRIPT|EXISTS",
    ("all_shards", "agg_min"): "WAIT WAITAOF",
    ("all_shards", "agg_sum"): "DBSIZE",
    ("all_shards", "all_succeeded"): """
        FLUSHALL FLUSHDB FUNCTION|DELETE FUNCTION|FLUSH FUNCTION|LOAD FUNCTION|RESTORE MEMORY|PURGE PING
    """,
    ("all_shards", "one_succeeded"): "FUNCTION|KILL SCRIPT|KILL",
    ("all_shards", "special"): """
        FUNCTION|STATS INFO MEMORY|DOCTOR MEMORY|MALLOC-STATS MEMORY|STATS RANDOMKEY
    """,
    ("multi_shard", None): "MGET",
    ("multi_shard", "agg_sum"): "DEL EXISTS TOUCH UNLINK",
    ("multi_shard", "all_succeeded"): "MSET MSETEX",
    ("special", "special"): "CLUSTERSCAN SCAN",
}


def _by_name(table: Iterable[tuple[tuple[str, str | None], str]]) -> dict[str, Policy]:
    return {name: Policy(*hints) for hints, words in table for name in _names(words)}


POLICIES: Final = _by_name(_POLICIES.items())
_NO_POLICY: Final = Policy()


def policy(name: str) -> Policy:
    """What the server says of a command that concerns several nodes.

    Args:
        name: "DBSIZE" or "CONFIG SET", in any case.

    Returns:
        (request, response); both None for a command without such hints.
    """
    return POLICIES.get(" ".join(name.upper().split()), _NO_POLICY)
