"""What comes out of the codec is what went in, with its type; what cannot be read is said so, and runs nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import pickle
import random
import subprocess
import sys
import threading
import types
import zlib
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gravito import errors
from gravito.stasis import _codec, _faithful
from gravito.stasis._codec import LATER, Codec
from gravito.stasis._compression import compress, compression_id, decompress
from gravito.stasis._models import Models

SECRET = "sixteen bytes or more"
SERIALIZERS = ("msgpack", "json", "pickle")
COMPRESSIONS = (None, "zlib", "gzip", "lzma", "zstd")


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "1"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


@dataclasses.dataclass
class User:
    id: int
    name: str
    born: date | None = None
    level: Level = Level.LOW
    tags: tuple[str, ...] = ()
    extra: Any = None
    friends: list[User] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Admin(User):
    rights: Right = Right.READ


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    amount: Decimal
    when: datetime


@dataclasses.dataclass
class Counted:
    seen: int

    def __post_init__(self) -> None:
        self.seen += 1


class Item(msgspec.Struct, tag=True, rename="camel", array_like=True, frozen=True):
    item_id: UUID
    sizes: set[int]
    word: Word = Word.YES
    note: str | msgspec.UnsetType = msgspec.UNSET


class Order(msgspec.Struct):
    items: list[Item]
    users: dict[int, User]
    rate: float = 1.0
    blob: bytes = b""


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    number: int = pydantic.Field(alias="accountNumber")
    balance: Decimal = Decimal(0)
    opened: datetime | str | None = None
    owner: User | None = None
    _note: str = pydantic.PrivateAttr(default="")


class Doubling(pydantic.BaseModel):
    value: int

    @pydantic.field_validator("value")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2


Renamed = Doubling


class Names(pydantic.RootModel[list[str]]):
    pass


class Page(pydantic.BaseModel):
    accounts: list[Account]
    kind: Colour = Colour.RED


def codec(serializer: str = "msgpack", compression: str | None = None, **options: Any) -> Codec:
    """One with a secret where it needs one, that compresses whatever it can."""
    options.setdefault("compress_over", 0)
    if serializer == "pickle":
        options.setdefault("secret", SECRET)
    return Codec(serializer, compression, **options)


ALL = [(codec(name, packed), f"{name}-{packed}") for name in SERIALIZERS for packed in COMPRESSIONS]
each_codec = pytest.mark.parametrize("subject", [each for each, _ in ALL], ids=[name for _, name in ALL])


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types, all the way down. NaN is like NaN, and zero has its sign."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, datetime | time):
        zones = str(one.tzinfo) == str(other.tzinfo) and type(one.tzinfo) is type(other.tzinfo)
        return one.replace(tzinfo=None) == other.replace(tzinfo=None) and one.fold == other.fold and zones
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(x, y) for (a, x), (b, y) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return same(sorted(one, key=repr), sorted(other, key=repr))
    if isinstance(one, enum.Enum):
        return one is other
    if isinstance(one, msgspec.Struct):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    if isinstance(one, pydantic.BaseModel):
        return (
            same(one.__dict__, other.__dict__)
            and one == other
            and one.model_fields_set == other.model_fields_set
        )
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


NOW = datetime(2026, 3, 29, 2, 30, 1, 5)
ITEM = Item(UUID(int=7), {1, 2})
USER = User(1, "Alice", date(2000, 1, 2), Level.HIGH, ("a", "b"), {"when": NOW, 1: Decimal("1.0")})
ACCOUNT = Account(accountNumber=1, balance=Decimal("1.10"), opened="2026-01-01", owner=USER, more=(1, 2))
EXAMPLES: list[Any] = [
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(3**9000),
    0.0, -0.0, 1.5, 1e300, 5e-324, math.inf, -math.inf, math.nan,
    "", "1", "1.5", "null", "true", "NaN", "-1", " 1", "2026-01-01", "é\0\n", "\ud800", "a\udc00\ud83d\ude00",
    b"", b"1", b"1.5", b"\xff\0", bytearray(b"1"), bytearray(), [], [1, [2, [3]]], (), (1,), (1, (2, [3])), set(), {1, (2, "x")},
    frozenset(), frozenset({frozenset({b"1"}), "1"}), {}, {"a": 1}, {1: 1, "1": 2, None: 3, 1.5: 4, b"1": 5},
    {(1, 2): (3, 4)}, {2**70: 1}, {date(2026, 1, 1): 1}, {Level.LOW: 1, "x": Level.LOW}, {"@": 1}, {"@": ["tuple", [1]]},
    {"a": {"@": [1, 2], "b": (1,)}}, {True: False}, {math.inf: 1}, {"\ud800": 1},
    NOW, NOW.replace(tzinfo=UTC), NOW.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    NOW.replace(tzinfo=timezone(timedelta(seconds=1, microseconds=2))), NOW.replace(fold=1),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 10, 25, 2, 30, fold=0, tzinfo=ZoneInfo("Europe/Berlin")), datetime.min, datetime.max,
    date.min, date.max, time(1, 2, 3, 4), time(1, tzinfo=UTC), time(1, tzinfo=ZoneInfo("Europe/Berlin")),
    timedelta(0), timedelta(days=-1, microseconds=1), timedelta.max, timedelta.min,
    Decimal("1.10"), Decimal("-0"), Decimal("1E+1000"), Decimal("Infinity"), Decimal("NaN"), Decimal("sNaN"), UUID(int=1),
    Colour.RED, Colour.PAIR, Level.LOW, Word.YES, Right.READ, Right.READ | Right.WRITE, Right(0),
    Point(1), Point(1, 2.0), USER, Admin(2, "Bob", friends=[USER, Admin(3, "Eve")]), Frozen(Decimal("1.0"), NOW),
    User(1, "has an Admin", friends=[Admin(4, "x", rights=Right.WRITE)], extra=[ITEM, ACCOUNT, Point(1)]),
    ITEM, Item(UUID(int=1), set(), note="n"), Order([ITEM], {1: USER}, rate=1.5, blob=b"x"), Order([], {}, rate=1),
    ACCOUNT, Account(accountNumber=2), Doubling(value=4), Names(["a"]), Page(accounts=[ACCOUNT]), Counted(1),
]  # fmt: skip


@each_codec
def test_examples_come_back(subject: Codec) -> None:
    for value in EXAMPLES:
        assert same(subject.decode(subject.encode(value, "k"), "k"), value), value
    together = {"all": EXAMPLES}
    assert same(subject.decode(subject.encode(together, "k"), "k"), together)


_zones = st.none() | st.just(UTC) | st.sampled_from(["Europe/Berlin", "Asia/Kolkata"]).map(ZoneInfo)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text()
    | st.text(alphabet="0123456789.-+eE ", max_size=8)
    | st.binary()
    | st.datetimes(timezones=_zones)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([*Colour, *Level, *Word, *Right])
)
_users = st.builds(
    User,
    id=st.integers(),
    name=st.text(),
    born=st.none() | st.dates(),
    level=st.sampled_from(Level),
    tags=st.lists(st.text()).map(tuple),
    extra=_scalars,
)
_items = st.builds(Item, item_id=st.uuids(), sizes=st.sets(st.integers(-(2**63), 2**64 - 1)))
_accounts = st.builds(
    Account,
    accountNumber=st.integers(),
    balance=st.decimals(allow_nan=False, allow_infinity=False),
    opened=st.text(),
)
_hashable = st.recursive(
    _scalars.filter(lambda value: value == value), lambda inner: st.lists(inner).map(tuple)
)
_values = st.recursive(
    _scalars | st.binary().map(bytearray) | _users | _items | _accounts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_hashable, inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.sets(_hashable, max_size=4)
        | st.frozensets(_hashable, max_size=4)
    ),
    max_leaves=12,
)


@each_codec
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(value=_values)
def test_any_value_comes_back(subject: Codec, value: Any) -> None:
    assert same(subject.decode(subject.encode(value, "k"), "k"), value)


@settings(max_examples=60, deadline=None)
@given(value=_values)
def test_the_look_for_plain_values_sees_what_a_walk_sees(value: Any) -> None:
    assert _faithful._is_plain_by_level(value) is _faithful._is_plain_by_item(value)


def test_the_collector_shows_all_here() -> None:
    assert _faithful._collector_shows_all()
    holder = User(1, "x", extra=Level.LOW)
    assert not _faithful.is_plain(vars(holder))
    holder.level, holder.tags = 1, []  # type: ignore[assignment]
    holder.extra = bytearray()
    assert not _faithful.is_plain(vars(holder))
    holder.extra = 1
    assert _faithful.is_plain(vars(holder))


@each_codec
def test_private_attributes_and_what_was_set_come_back(subject: Codec) -> None:
    account = Account(accountNumber=1)
    account._note = "private"
    read = subject.decode(subject.encode(account, "k"), "k")
    assert (read, read._note, read.model_fields_set) == (account, "private", {"number"})


def test_optional_packages_are_not_imported() -> None:
    code = (
        "import sys; from gravito.stasis._codec import Codec; c = Codec(); c.decode(c.encode((1,), 'k'), 'k', tuple);"
        "sys.exit(bool({'pydantic', 'zstandard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# -- reading with a type -------------------------------------------------------------------------------------


@each_codec
@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (USER, User, USER),
        ({"id": 1, "name": "x"}, User, User(1, "x")),
        (USER, User | None, USER),
        (None, User | None, None),
        (USER, Any, USER),
        ([USER, Admin(2, "y")], list[User], [USER, Admin(2, "y")]),
        ((1, "x"), tuple[int, str], (1, "x")),
        ((1, 2), tuple[int, ...], (1, 2)),
        ({"a": USER}, dict[str, User], {"a": USER}),
        ({"a": (USER,)}, dict[str, Any], {"a": (USER,)}),
        (USER, User | Frozen, USER),
        (ACCOUNT, Account, ACCOUNT),
        ({"accountNumber": 3}, Account, Account(accountNumber=3)),
        ([ACCOUNT], list[Account], [ACCOUNT]),
        (Level.LOW, Level, Level.LOW),
        (1, Level, Level.LOW),
        ([Level.LOW], set[Level], {Level.LOW}),
        (1, float, 1.0),
        (Decimal("1.0"), Decimal, Decimal("1.0")),
        (NOW, datetime, NOW),
        (b"x", bytes, b"x"),
        (2**70, int, 2**70),
        ({1, 2}, list[int], [1, 2]),
        (Order([ITEM], {1: USER}), Order, Order([ITEM], {1: USER})),
    ],
)
def test_a_type_builds_and_checks(subject: Codec, value: Any, annotation: Any, expected: Any) -> None:
    assert same(subject.decode(subject.encode(value, "k"), "k", annotation), expected)


@each_codec
@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("1", int), (True, int), (USER, Item), ({"id": 1}, User), ([1, "x"], list[int]), (None, str), ("a", list[str]),
        (Colour.PAIR, Level), ({"a": (1,)}, dict[str, str]), ((1, 2), tuple[int]), (USER, Account), ("x", User | Frozen),
        ({1: (1,)}, dict[str, Any]),
    ],
)  # fmt: skip
def test_what_has_another_type_is_unreadable(subject: Codec, value: Any, annotation: Any) -> None:
    with pytest.raises(errors.UnreadableValueError, match="'k' cannot be read"):
        subject.decode(subject.encode(value, "k"), "k", annotation)


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_local_class_is_named_by_the_reader_or_registered(serializer: str) -> None:
    @dataclasses.dataclass
    class Local:
        x: int
        at: date

    value = [Local(1, date.min)]
    with pytest.raises(errors.SerializationError, match=r"'k'.*list.*Local.*types=\[\.\.\.\].*type="):
        codec(serializer).encode(value, "k")
    body = codec(serializer).encode(value, "k", list[Local])
    assert codec(serializer).decode(body, "k", list[Local]) == value
    with pytest.raises(errors.UnreadableValueError, match=r"no class .*Local.*register it with types"):
        codec(serializer).decode(body, "k")
    assert codec(serializer, types=[Local]).decode(body, "k") == value
    assert codec(serializer, types=[Local]).encode(value, "k") == body


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
def test_a_class_that_changed(serializer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new field with a default is filled in, one that is gone is left out; what does not fit is unreadable."""
    body = codec(serializer).encode({"u": USER}, "k")
    dated = codec(serializer).encode(User(1, "2026-01-01"), "k")

    def now_is(**fields: Any) -> None:
        namespace = {"__annotations__": fields, "new": 5} if "new" in fields else {"__annotations__": fields}
        changed = dataclasses.dataclass(type("User", (), namespace | {"__module__": __name__}))
        changed.__qualname__ = "User"
        monkeypatch.setattr(sys.modules[__name__], "User", changed)

    now_is(id=int, new=int)
    read = codec(serializer).decode(body, "k")["u"]
    assert (read.id, read.new) == (1, 5)
    now_is(id=str)
    with pytest.raises(errors.UnreadableValueError, match="Expected `str`, got `int`"):
        codec(serializer).decode(body, "k")
    now_is(name=date)
    with pytest.raises(errors.UnreadableValueError, match="Expected `date`, got `str`"):
        codec(serializer).decode(dated, "k")
    now_is(id=int, needed=int)
    with pytest.raises(errors.UnreadableValueError, match="needed"):
        codec(serializer).decode(body, "k")


# -- what cannot be stored -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Odd:
    value: date | str


@dataclasses.dataclass
class Started:
    value: dataclasses.InitVar[int]


class Text(str):
    pass


_circle: list[Any] = []
_circle.append(_circle)


@pytest.mark.parametrize("serializer", ["msgpack", "json"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "builtins:object has no form"),
        ([1, (2, object())], r"type builtins.list .*builtins:object has no form.*dataclass.*secret"),
        (1j, "complex has no form"),
        (memoryview(b"x"), "memoryview has no form"),
        (Text("x"), r"Text would come back as a str: cache str\(value\)"),
        (OrderedDict(a=1), r"OrderedDict would come back as a dict: cache dict\(value\)"),
        ({Text("x"): 1}, "Text would come back"),
        (_circle, "contains itself"),
        (Odd("x"), "test_codec:Odd could not be built again"),
        (Started(1), "test_codec:Started could not be built again"),
        (test_examples_come_back, "function has no form"),
        (User, "type has no form"),
    ],
)
def test_what_would_not_come_back_is_refused(serializer: str, value: Any, message: str) -> None:
    with pytest.raises(errors.SerializationError, match="'user:1'.*" + message) as caught:
        codec(serializer).encode(value, "user:1")
    assert isinstance(caught.value, TypeError)


def test_pickle_refuses_too() -> None:
    with pytest.raises(errors.SerializationError, match=r"'k'.*function.*cannot be pickled"):
        codec("pickle").encode(lambda: 1, "k")


@each_codec
def test_a_value_over_the_limit_is_refused(subject: Codec) -> None:
    small = codec(subject._name, max_bytes=1000)
    small.encode("x" * 900, "k")
    with pytest.raises(errors.SerializationError, match=r"'k'.*more than max_bytes=1000"):
        small.encode("x" * 1001, "k")


# -- what cannot be read -------------------------------------------------------------------------------------


@each_codec
@settings(max_examples=50, deadline=None)
@given(body=st.binary(max_size=80))
def test_any_bytes_are_a_value_or_unreadable(subject: Codec, body: bytes) -> None:
    with contextlib.suppress(errors.UnreadableValueError):
        subject.decode(body, "k")


@each_codec
def test_any_change_of_a_body_is_harmless(subject: Codec) -> None:
    body = subject.encode({"u": USER, "t": (ITEM, ACCOUNT)}, "k")
    for place in range(len(body)):
        for changed in (body[:place], body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]):
            with contextlib.suppress(errors.UnreadableValueError):
                subject.decode(changed, "k")


def test_readers_need_no_setting_of_the_writers() -> None:
    for name in ("msgpack", "json"):
        for packed in COMPRESSIONS:
            body = codec(name, packed).encode({"u": USER, "pad": "x" * 2000}, "k")
            for reader in SERIALIZERS:
                assert codec(reader).decode(body, "k")["u"] == USER


def test_a_short_value_is_not_compressed() -> None:
    value = "x" * 500
    assert Codec(compression="zlib").encode(value, "k") == Codec().encode(value, "k")
    assert len(Codec(compression="zlib").encode(value * 10, "k")) < 200
    noise = random.Random(1).randbytes(3000)
    assert Codec(compression="zlib").encode(noise, "k") == Codec().encode(noise, "k")


@pytest.mark.parametrize("packed", COMPRESSIONS[1:])
def test_a_decompression_bomb_stops_at_its_limit(packed: str) -> None:
    bomb = compress(bytes(50_000_000), compression_id(packed))
    assert len(bomb) < 500_000
    flags = bytes([compression_id(packed) << 4])
    reader = codec(max_bytes=10_000)
    with pytest.raises(
        errors.UnreadableValueError, match="50000000 bytes when decompressed, more than max_bytes=10000"
    ):
        reader.decode(flags + bomb, "k")
    lying = (9_000).to_bytes(4, "big") + bomb[4:]
    with pytest.raises(errors.UnreadableValueError, match="longer or shorter"):
        reader.decode(flags + lying, "k")


def test_a_lying_length_is_not_decompressed_whole() -> None:
    import tracemalloc

    bodies = []
    for packed in COMPRESSIONS[1:]:
        bomb = compress(bytes(50_000_000), compression_id(packed))
        bodies.append(bytes([compression_id(packed) << 4]) + (9_000).to_bytes(4, "big") + bomb[4:])
    tracemalloc.start()
    try:
        for body in bodies:
            with pytest.raises(errors.UnreadableValueError):
                codec(max_bytes=10_000).decode(body, "k")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_follows_a_compressed_value_is_not_ignored() -> None:
    data = (3).to_bytes(4, "big") + zlib.compress(b"\xa2ab") + b"more"
    with pytest.raises(errors.UnreadableValueError, match="longer or shorter"):
        codec().decode(b"\x10" + data, "k")


def test_a_recorded_name_imports_nothing_and_calls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = called.append  # type: ignore[method-assign]
    lazy.join = called.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    for name in (
        "lazy_module:User", "lazy_module:join", "lazy_module:", "colorsys:ONE_THIRD", "builtins:dict", "os:system",
        "subprocess:Popen", "builtins:type", ":", "", "msgspec:Struct.__init__", f"{__name__}:pydantic.BaseModel",
        f"{__name__}:Codec", f"{__name__}:Renamed", f"{__name__}:date",
    ):  # fmt: skip
        assert Models().find(name) is None, name
        for box, content in (("model", {"id": 1}), ("enum", "RED")):
            body = b"\x09" + msgspec.json.encode({"@": [box, [name, content]]})
            with pytest.raises(errors.UnreadableValueError):
                codec().decode(body, "k")
    assert called == []
    assert "colorsys" not in sys.modules


# -- pickle --------------------------------------------------------------------------------------------------


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_hostile_pickle_is_unreadable_without_side_effect(tmp_path: Path) -> None:
    target = tmp_path / "made by a pickle"
    payload = pickle.dumps(Hostile(target))
    signed_for_another = codec("pickle").encode(Hostile(target), "another key")
    signed_by_another = codec("pickle", secret="another secret of theirs").encode(Hostile(target), "k")
    other_flags = bytes([signed_for_another[0] | 0x08]) + codec("pickle").encode(Hostile(target), "k")[1:]
    for body in (
        b"\x02" + payload, b"\x02" + bytes(32) + payload, b"\x00" + payload, b"\x07" + payload,
        signed_for_another, signed_by_another, other_flags,
    ):  # fmt: skip
        for reader in (codec("pickle"), codec("msgpack"), codec("json"), codec("pickle", "zlib")):
            with pytest.raises(errors.UnreadableValueError):
                reader.decode(body, "k")
    assert not target.exists()
    # with the right signature it would have run, so it is the signature that stops it
    codec("pickle").decode(codec("pickle").encode(Hostile(target), "k"), "k")
    assert target.exists()


def test_secrets_can_be_replaced() -> None:
    old, new = b"the old secret, 16+", b"the new secret, 16+"
    body = codec("pickle", secret=old).encode({1}, "k")
    assert codec("pickle", secret=[new, old]).decode(body, "k") == {1}
    with pytest.raises(errors.UnreadableValueError, match="signature"):
        codec("pickle", secret=[new]).decode(body, "k")
    assert codec("pickle", secret=new).decode(codec("pickle", secret=[new, old]).encode(1, "k"), "k") == 1


def test_only_a_cache_that_chose_pickle_reads_it() -> None:
    body = codec("pickle").encode(1, "k")
    with pytest.raises(errors.UnreadableValueError, match='serializer="pickle" and the secret'):
        codec().decode(body, "k")


def test_no_secret_is_shown() -> None:
    subject = codec("pickle", "zlib", secret=SECRET)
    assert SECRET not in repr(subject)
    assert SECRET not in repr(vars(subject)["_formats"])
    with pytest.raises(errors.ConfigurationError) as caught:
        Codec("pickle", secret="too short")
    assert "too short" not in str(caught.value)
    assert caught.value.value is None


# -- settings ------------------------------------------------------------------------------------------------


class Upper:
    """A serializer of the application."""

    name = "upper"

    def dumps(self, value: Any, /) -> bytes:
        return str(value).upper().encode()

    def loads(self, data: bytes, /) -> Any:
        return data.decode()


def test_a_serializer_of_ones_own() -> None:
    own = Codec(Upper(), "zlib", compress_over=0)
    assert repr(own) == "<Codec upper, zlib over 0 bytes>"
    assert own.decode(own.encode("x" * 100, "k"), "k") == "X" * 100
    assert own.decode(own.encode("1", "k"), "k", str) == "1"
    with pytest.raises(errors.UnreadableValueError, match="another serializer"):
        codec().decode(own.encode("x", "k"), "k")
    other = Upper()
    other.name = "other"
    with pytest.raises(errors.UnreadableValueError, match="serializer 'other'"):
        Codec(other).decode(own.encode("x", "k"), "k")
    other.dumps = lambda value, /: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(errors.SerializationError, match=r"'k'.*str.*ZeroDivisionError.*serializer other"):
        Codec(other).encode("x", "k")
    other.dumps = lambda value, /: "text"  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(errors.SerializationError, match="'other' gave str instead of bytes"):
        Codec(other).encode("x", "k")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"serializer": "yaml"}, "serializer 'yaml' is not known.*msgpack.*json.*pickle"),
        ({"serializer": object()}, "name .*dumps and loads"),
        ({"compression": "brotli"}, "compression 'brotli' is not known.*zlib, gzip, lzma, zstd"),
        ({"compress_over": -1}, "compress_over -1: give a number of bytes from 0"),
        ({"compress_over": 1.5}, "compress_over 1.5"),
        ({"max_bytes": 0}, "max_bytes 0: give a number of bytes from 1"),
        ({"serializer": "pickle"}, "needs a secret of at least 16 bytes"),
        ({"serializer": "pickle", "secret": []}, "needs a secret"),
        ({"serializer": "pickle", "secret": [SECRET, "short"]}, "at least 16 bytes"),
        ({"secret": SECRET}, "secret is only used with serializer=\"pickle\""),
        ({"types": [int]}, "types: <class 'int'> is not a dataclass"),
        ({"types": [USER]}, "is not a dataclass"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        Codec(**options)


def test_zstd_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from gravito.stasis import _compression

    body = codec(compression="zstd").encode("x" * 1000, "k")
    monkeypatch.setitem(_compression._COMPRESSORS, 4, None)
    with pytest.raises(errors.ConfigurationError, match=r"zstandard: pip install .gravito\[zstd\]"):
        Codec(compression="zstd")
    with pytest.raises(errors.UnreadableValueError, match="compressed by zstd, which is not installed here"):
        codec().decode(body, "k")


# -- what takes long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_a_large_value_is_decompressed_in_a_thread(
    serializer: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec(serializer, compression, secret=SECRET if serializer == "pickle" else None)
    where: list[int] = []

    def noting(*args: Any) -> bytes:
        where.append(threading.get_ident())
        return decompress(*args)

    monkeypatch.setattr(_codec, "decompress", noting)
    for size, apart in ((100_000, False), (1_000_000, True)):
        body = codec.encode("x" * size, "k")
        assert (codec.decode_now(body, "k") is LATER) is apart
        where.clear()
        assert await codec.decode_apart(b"..." + body, "k", at=3) == "x" * size
        assert (where[-1] != threading.get_ident()) is apart
        assert codec.decode(body, "k") == "x" * size


async def test_a_large_value_is_bounded_before_a_thread_is_asked_for_more() -> None:
    body = Codec(compression="zlib").encode("x" * 1_000_000, "k")
    small = Codec(max_bytes=500_000)
    assert small.decode_now(body, "k") is LATER  # nothing was decompressed
    with pytest.raises(errors.UnreadableValueError, match="more than max_bytes=500000"):
        await small.decode_apart(body, "k")
    with pytest.raises(errors.UnreadableValueError, match="cannot be read"):
        await Codec().decode_apart(body[:-1], "k")
    signed = Codec("pickle", "zlib", secret=SECRET).encode("x" * 1_000_000, "k")
    with pytest.raises(errors.UnreadableValueError, match="another secret"):
        await Codec("pickle", secret="another one of sixteen").decode_apart(signed, "k")


def test_many_bodies_at_once() -> None:
    codec = Codec()
    values = [1, "a", {"b": [1]}, (1, 2), None]
    bodies = [b"12" + codec.encode(value, "k") for value in values]
    assert codec.decode_all(bodies, 2) == values
    for odd in (
        b"12",
        b"12\x00",
        b"12\x00\xc1",
        b"12\x00\x01\x01",
        b"12" + Codec("json").encode(1, "k"),
        None,
    ):
        assert codec.decode_all([*bodies, odd], 2) is None
