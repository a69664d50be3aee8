"""Arguments: checked at the push, encoded, decoded to their types; bodies and records; encryption."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import sys
import uuid
from contextvars import ContextVar
from typing import Annotated, Any, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.horizon.driving import drain

from gravito.atlas import Client
from gravito.errors import (
    ConfigurationError,
    JobFailedError,
    PayloadError,
    PayloadTooLargeError,
)
from gravito.horizon import Concurrency, Horizon, HorizonSettings, Rate, _packing, current_job, job, new_key
from gravito.horizon._arguments import Arguments
from gravito.horizon._payload import (
    FORMAT,
    Attempt,
    Body,
    End,
    Failure,
    Record,
    add_attempt,
    encode,
    read_body,
    read_record,
)
from gravito.horizon._sealing import Sealer


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Row(msgspec.Struct):
    name: str


class Extra(TypedDict, total=False):
    size: int


class Model:
    """As pydantic's models behave."""

    def __init__(self, n: int) -> None:
        self.n = n

    def model_dump(self, mode: str) -> dict[str, Any]:
        return {"n": self.n}

    @classmethod
    def model_validate(cls, data: Any) -> Model:
        return cls(**data)


def everything(
    a: int,
    b: str = "b",
    /,
    *rest: float,
    when: dt.datetime,
    colour: Colour = Colour.RED,
    point: Point | None = None,
    row: Row | None = None,
    who: uuid.UUID | None = None,
    price: decimal.Decimal = decimal.Decimal(1),
    words: set[str] = {"w"},  # noqa: B006
    extra: Extra = {},  # noqa: B006
    model: Model | None = None,
    **more: bytes,
) -> None: ...


def plain(count: Annotated[int, msgspec.Meta(ge=0)], name: str = "n", *, flag: bool = False) -> None: ...


def test_each_type_comes_back() -> None:
    arguments = Arguments("everything", everything)
    when, who = dt.datetime.now(dt.UTC), uuid.uuid4()
    given = {
        "when": when,
        "colour": Colour.RED,
        "point": Point(1),
        "row": Row("r"),
        "who": who,
        "price": decimal.Decimal("1.50"),
        "words": {"x", "y"},
        "extra": {"size": 3},
        "model": Model(5),
        "blob": b"\x00",
    }
    args, kwargs = arguments.decode(arguments.encode((1, "two", 3.5, 4), given))
    assert args == (1, "two", 3.5, 4.0)
    model = kwargs.pop("model")
    assert model.n == 5
    given.pop("model")
    assert kwargs == given


def test_defaults_come_from_the_code_that_runs() -> None:
    data = Arguments("plain", plain).encode((1,), {})
    assert msgspec.msgpack.decode(data) == {"count": 1}
    assert Arguments("plain", plain).decode(data) == ((), {"count": 1, "name": "n", "flag": False})

    def later(name: str = "new", count: int = 0, added: list[int] = [1]) -> None: ...  # noqa: B006

    assert Arguments("plain", later).decode(data) == ((), {"name": "new", "count": 1, "added": [1]})


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter", "words"),
    [
        ((), {}, None, "count"),
        ((1, "n", True), {}, None, "too many"),
        ((1,), {"count": 2}, None, "multiple values"),
        ((1,), {"nmae": "x"}, None, "nmae"),
        (("1",), {}, "count", "int"),
        ((-1,), {}, "count", ">= 0"),
        ((1, None), {}, "name", "None"),
        ((1,), {"flag": "yes"}, "flag", "bool"),
        ((1, object()), {}, "name", "object"),
        ((2**70,), {}, "count", ""),
    ],
)
def test_what_does_not_fit_is_named(args: Any, kwargs: Any, parameter: str | None, words: str) -> None:
    with pytest.raises(PayloadError, match="job 'plain'") as caught:
        Arguments("plain", plain).encode(args, kwargs)
    assert caught.value.parameter == parameter
    assert caught.value.job == "plain"
    assert words in str(caught.value)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["count", "name", "flag", "x"]), st.none() | st.integers() | st.text() | st.booleans()
    )
)
def test_what_is_accepted_can_be_decoded(kwargs: dict[str, Any]) -> None:
    arguments = Arguments("plain", plain)
    try:
        data = arguments.encode((), kwargs)
    except PayloadError:
        return
    _, decoded = arguments.decode(data)
    assert kwargs.items() <= decoded.items()


def test_a_body_that_does_not_fit_names_the_job() -> None:
    with pytest.raises(PayloadError, match=r"job 'plain'.*count"):
        Arguments("plain", plain).decode(encode({"name": "x"}))


def test_annotations_that_cannot_be_used() -> None:
    def missing(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def two(x: Model | Point | Row) -> None: ...

    with pytest.raises(ConfigurationError, match="import its type"):
        Arguments("missing", missing)
    with pytest.raises(ConfigurationError, match="parameter 'x' of job 'two'"):
        Arguments("two", two)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_other_bytes_are_no_body_and_no_record(data: bytes) -> None:
    for read, kind in ((read_body, Body), (read_record, Record)):
        try:
            found = read(data)
        except PayloadError:
            continue
        assert isinstance(found, kind)


def test_newer_formats_are_refused() -> None:
    body = encode(Body(FORMAT + 1, "x", msgspec.Raw(b"\x80"), 1, 0, 0))
    with pytest.raises(PayloadError, match=r"newer release.*update this worker"):
        read_body(body)
    with pytest.raises(PayloadError, match="newer release"):
        read_record(encode(Record(FORMAT + 1)))


@pytest.mark.parametrize("result", [None, 1, "x", [1], {"a": 1}, b"\xc0", 1.5, True])
def test_records_keep_any_result(result: Any) -> None:
    body = encode(Body(FORMAT, "x", msgspec.Raw(b"\x80"), 1, 0, 0))
    end = End("ok", 1, 2, 3, "w", None, True, msgspec.Raw(encode(result)))
    record = read_record(encode(Record(FORMAT, (), end, msgspec.Raw(body))))
    assert record.end is not None
    assert msgspec.msgpack.decode(record.end.result) == result
    assert read_body(record.body).name == "x"


def test_a_trail_stays_bounded() -> None:
    trail: tuple[Attempt, ...] = ()
    for number in range(1, 100):
        trail = add_attempt(trail, Attempt(number, 0, 0, "w", "retry", Failure("E", "m", "long")))
    assert len(trail) == 25
    assert (trail[0].number, trail[-1].number) == (1, 99)
    assert [bool(item.error and item.error.traceback) for item in trail] == [False] * 24 + [True]


# -- encryption ------------------------------------------------------------------------------------------------


def test_keys_rotate() -> None:
    old, new = new_key(), new_key()
    sealed = Sealer([old]).seal("a", b"secret")
    assert Sealer([new, old]).open("a", sealed) == b"secret"
    assert Sealer([new]).open("a", Sealer([new, old]).seal("a", b"x")) == b"x"
    with pytest.raises(PayloadError, match="none of the 1 keys"):
        Sealer([new]).open("a", sealed)
    with pytest.raises(PayloadError, match="belongs to a"):
        Sealer([old]).open("b", sealed)
    assert old not in repr(Sealer([old]))


@pytest.mark.parametrize("keys", ["abc", [b"short"], [None], ["x" * 44]])
def test_what_is_no_key(keys: Any) -> None:
    with pytest.raises(ConfigurationError, match="key") as caught:
        Horizon(keys=keys)
    assert "x" * 44 not in str(caught.value)


async def test_what_is_encrypted_cannot_be_read_on_the_server(
    redis: Client, caplog: pytest.LogCaptureFixture
) -> None:
    key = new_key()
    async with Horizon(redis, keys=[key]) as horizon:

        @horizon.job(retries=0)
        async def secret(word: str, fail: bool = False) -> str:
            if fail:
                raise ValueError(f"not {word}")
            return word + word

        good = await secret.push("swordfish")
        bad = await secret.push("swordfish", fail=True)

        async def stored() -> bytes:
            raw = redis.with_options(decode_responses=False)
            parts = [
                await raw.hgetall(f"horizon:{{default}}:{part}") for part in ("jobs", "results", "notes")
            ]
            return b"".join(value for part in parts for value in part.values())

        assert b"swordfish" not in await stored()
        await drain(horizon)
        assert await good.result(5) == "swordfishswordfish"
        with pytest.raises(JobFailedError, match="not swordfish") as caught:
            await bad.result(5)
        assert "raise ValueError" in caught.value.traceback
        data = await stored()
        assert data
        assert b"swordfish" not in data
        assert key not in repr(horizon)
        assert "is dead" in caplog.text
        assert "swordfish" not in caplog.text

    async with Horizon(redis, keys=[new_key()]) as other:
        with pytest.raises(JobFailedError, match="encrypted"):
            await other.handle(bad.id).result(5)
        with pytest.raises(PayloadError, match="none of the 1 keys"):
            await other.handle(good.id).result(5)


async def all_there_is(client: Client) -> str:
    """All keys with what they hold."""
    raw: Any = client.with_options(decode_responses=False)
    read = {
        b"hash": raw.hgetall,
        b"list": lambda key: raw.lrange(key, 0, -1),
        b"zset": lambda key: raw.zrange(key, 0, -1),
        b"set": raw.smembers,
        b"string": raw.get,
    }
    return repr({key: await read[await raw.type(key)](key) for key in await raw.keys("*")})


async def test_what_functions_say_of_encrypted_arguments_cannot_be_read_on_the_server(redis: Client) -> None:
    by_card = {"by": lambda card, **_: card}
    options: dict[str, Any] = {
        "unique": lambda card, **_: card,
        "fair_by": lambda card, **_: card,
        "rate": Rate(100, 60, **by_card),
        "concurrency": Concurrency(5, **by_card),
    }
    async with Horizon(redis, keys=[new_key()]) as horizon:

        @horizon.job(secret=["card"], **options)
        async def charge(card: str, amount: int) -> None: ...

        @horizon.job(unique=True)
        async def check(card: str) -> None: ...

        first, again = await charge.push("4111-hush", 1), await charge.push("4111-hush", 2)
        assert (first.new, again.new, again.id) == (True, False, first.id)
        assert (await charge.push("4112-hush", 1)).new
        assert (await check.push("4111-hush")).new
        assert not (await check.push("4111-hush")).new
        guess = hashlib.blake2b(check.make("4111-hush").data, digest_size=16).hexdigest()
        everything = await all_there_is(redis)
        assert first.id in everything
        assert "hush" not in everything
        assert guess not in everything
        assert len(await drain(horizon)) == 3
        assert (await charge.push("4111-hush", 1)).new


async def test_producers_agree_on_unique_keys_while_keys_rotate(redis: Client) -> None:
    old, new = new_key(), new_key()

    @job(unique=lambda card, **_: card)
    async def rotating(card: str) -> None: ...

    async with Horizon(redis, keys=[old]) as before, Horizon(redis, keys=[new, old]) as after:
        assert (await before.push(rotating.make("4111"))).new
        assert not (await after.push(rotating.make("4111"))).new
        (_, plain), _ = before.prepare(rotating.make("4112"))
        (_, rotated), _ = after.prepare(rotating.make("4112"))
        assert plain.unique == rotated.unique
    async with Horizon(redis, keys=[new]) as without:
        (_, other), _ = without.prepare(rotating.make("4112"))
        assert other.unique != plain.unique


async def test_a_worker_without_the_key_buries_the_job_and_says_why(redis: Client) -> None:
    async with Horizon(redis, keys=[new_key()]) as horizon:

        @horizon.job
        async def secret(word: str) -> None: ...

        handle = await secret.push("x")
    async with Horizon(redis) as other:
        other.register(secret)
        (done,) = await drain(other)
        assert done.outcome == "dead"
        with pytest.raises(JobFailedError, match="it is encrypted, and this Horizon has no keys") as caught:
            await other.handle(handle.id).result(5)
        assert caught.value.error_type == "gravito.errors.PayloadError"

        @other.job(encrypt=True)
        async def needs() -> None: ...

        with pytest.raises(ConfigurationError, match="no keys"):
            await needs.push()


# -- sizes, versions, what goes along -------------------------------------------------------------------------


async def test_sizes_are_limited(redis: Client) -> None:
    async with Horizon(redis, settings=HorizonSettings(max_bytes=1000)) as horizon:

        @horizon.job(retries=3)
        async def big(data: str, times: int = 1) -> str:
            return data * times

        @horizon.job(max_bytes=5000)
        async def bigger(data: str) -> None: ...

        with pytest.raises(PayloadTooLargeError, match=r"job 'big'.*allowed are 1000"):
            await big.push("x" * 1001)
        assert (await horizon.broker("default").sizes()).totals == {}
        await bigger.push("x" * 4000)
        handle = await big.push("x" * 900, 2)
        assert [done.outcome for done in await drain(horizon)] == ["ok", "dead"]
        with pytest.raises(JobFailedError, match=r"result of job 'big': 180\d bytes"):
            await handle.result(5)


async def test_what_goes_beside_the_arguments_is_limited_too(redis: Client) -> None:
    word = ContextVar("word", default="")
    settings = HorizonSettings(max_bytes=1000)
    async with Horizon(redis, settings=settings, carry=[word]) as horizon:

        @horizon.job
        async def small(data: str = "") -> None: ...

        @horizon.job(max_bytes=5000)
        async def larger(data: str) -> None: ...

        for call, named in (
            (small.meta(x="y" * 1001).make(), "metadata"),
            (small.tags("y" * 1001).make(), "tags"),
            (small.tags(*(f"t{n}" for n in range(300))).meta(x="y").make(), "tags"),
        ):
            with pytest.raises(
                PayloadTooLargeError, match=rf"job 'small': its {named} take 1\d+ bytes, allowed are 1000"
            ):
                await call.push()
        token = word.set("y" * 1001)
        with pytest.raises(PayloadTooLargeError, match="its context variables take"):
            await small.push()
        word.reset(token)
        assert (await horizon.broker("default").sizes()).totals == {}
        await small.tags("t").meta(x="y" * 900).push("z" * 900)
        await larger.meta(x="y" * 900).push("z" * 4900)
        await horizon.chain(*(small.make("z" * 900) for _ in range(20))).push()  # each of them is small
        assert len(await drain(horizon)) == 22


async def test_a_chain_s_first_body_is_bounded(redis: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packing, "_LARGEST", 5000)
    async with Horizon(redis, settings=HorizonSettings(max_bytes=1000)) as horizon:

        @horizon.job
        async def link(data: str) -> None: ...

        with pytest.raises(
            PayloadTooLargeError, match=r"its following jobs take \d+ bytes, allowed are 5000"
        ):
            await horizon.chain(*(link.make("z" * 900) for _ in range(6))).push()
        await horizon.chain(*(link.make("z" * 900) for _ in range(4))).push()


async def test_a_result_that_cannot_be_encoded_buries_the_job_once(redis: Client) -> None:
    runs = []
    async with Horizon(redis) as horizon:

        @horizon.job(retries=3)
        async def odd() -> object:
            runs.append(1)
            return object()

        @horizon.job(results=False)
        async def fine() -> object:
            return object()

        handle, other = await odd.push(), await fine.push()
        assert [done.outcome for done in await drain(horizon)] == ["dead", "ok"]
        assert runs == [1]
        with pytest.raises(JobFailedError, match="result of job 'odd': a object cannot be encoded"):
            await handle.result(5)
        assert (await other.wait(5)).state == "ok"


async def test_older_bodies_are_upgraded_and_newer_ones_refused(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job(name="greet")
        async def first(name: str) -> None: ...

        old = await first.push("Ada Lovelace")

    def upgrade(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
        assert version == 1
        given, family = arguments.pop("name").split()
        return {"given": given, "family": family}

    async with Horizon(redis) as horizon:

        @horizon.job(name="greet", version=2, upgrade=upgrade)
        async def second(given: str, family: str) -> str:
            return family

        await drain(horizon)
        assert await horizon.handle(old.id, job=second).result(5) == "Lovelace"
        new = await second.push("A", "B")
    async with Horizon(redis) as horizon:
        horizon.register(first)
        await drain(horizon)
        with pytest.raises(JobFailedError, match=r"are of version 2, this worker's code knows 1"):
            await horizon.handle(new.id).result(5)


async def test_a_version_without_an_upgrade_is_buried(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job(name="x")
        async def one() -> None: ...

        handle = await one.push()
    async with Horizon(redis) as horizon:

        @horizon.job(name="x", version=2)
        async def two() -> None: ...

        await drain(horizon)
        with pytest.raises(JobFailedError, match="no `upgrade`"):
            await horizon.handle(handle.id).result(5)


async def test_an_upgrade_that_exits_ends_its_job_alone(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job(name="x")
        async def one() -> None: ...

        handle = await one.push()
    async with Horizon(redis) as horizon:

        @horizon.job(name="x", version=2, upgrade=lambda version, arguments: sys.exit(3))
        async def two() -> None: ...

        await drain(horizon)
        with pytest.raises(JobFailedError, match="SystemExit"):
            await horizon.handle(handle.id).result(5)


async def test_context_variables_tags_and_metadata_go_along(redis: Client) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    unset: ContextVar[int] = ContextVar("unset")
    async with Horizon(redis, carry=[tenant, unset]) as horizon:

        @horizon.job(tags=["a"])
        async def seen() -> list[Any]:
            run = current_job()
            return [tenant.get("none"), unset.get(0), list(run.tags), run.meta]

        without = await seen.push()
        token = tenant.set("acme")
        handle = await seen.make().tags("b", "a").meta(user=7).push()
        tenant.reset(token)
        await drain(horizon)
        assert await handle.result(5) == ["acme", 0, ["a", "b"], {"user": 7}]
        assert await without.result(5) == ["none", 0, ["a"], {}]
        status = await handle.status()
        assert (status.tags, status.meta) == (("a", "b"), {"user": 7})
        assert tenant.get("none") == "none"
        tenant.set(object())  # type: ignore[arg-type]  # the mistake that is tested
        with pytest.raises(PayloadError, match="context variable 'tenant'"):
            await seen.push()
    with pytest.raises(ConfigurationError, match="same name"):
        Horizon(redis, carry=[tenant, ContextVar("tenant")])


async def test_the_trace_goes_along(redis: Client) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    async with Horizon(redis) as horizon:

        @horizon.job
        async def traced() -> int:
            return trace.get_current_span().get_span_context().trace_id & 0xFFFFFFFF

        with tracer.start_as_current_span("request") as span:
            wanted = span.get_span_context().trace_id & 0xFFFFFFFF
            handle = await traced.push()
        alone = await traced.push()
        await drain(horizon)
        assert await handle.result(5) == wanted
        assert await alone.result(5) == 0


async def test_metadata_that_cannot_be_encoded(redis: Client) -> None:
    async with Horizon(redis) as horizon:

        @horizon.job
        async def x() -> None: ...

        with pytest.raises(PayloadError, match="metadata"):
            await x.make().meta(a=object()).push()


def test_secret_parameters_must_exist() -> None:
    @job(name="secret-check", secret=["passwrod"])
    async def login(password: str) -> None: ...

    with pytest.raises(ConfigurationError, match="passwrod"):
        login.make("x")
