"""`@cached`: keys from arguments, methods, what is about one call's entry, and what it refuses."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, Event, Result, cached, default_cache, set_default_cache

if TYPE_CHECKING:
    pass  # type: ignore[import-not-found]  # as an application's own under TYPE_CHECKING


@pytest.fixture
async def cache(redis: Client) -> AsyncIterator[Cache]:
    async with Cache(connection=redis) as cache:
        yield cache


@pytest.fixture
def ours(cache: Cache) -> Iterator[Cache]:
    """The default cache."""
    set_default_cache(cache)
    yield cache
    set_default_cache(None)


class User(msgspec.Struct):
    id: int
    team: int
    run: int = 0


class Source:
    """What is computed, and how often."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate: asyncio.Event | None = None
        self.fails: Exception | None = None

    async def next(self) -> int:
        self.runs += 1
        run = self.runs
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return run


source: Source


@pytest.fixture(autouse=True)
def _source() -> None:
    global source
    source = Source()


@cached(ttl=300, key="user:{user_id}", tags=["team:{team_id}"], early=0.2, stale=600)
async def load_user(user_id: int, team_id: int = 7) -> User:
    """Load a user."""
    return User(user_id, team_id, await source.next())


class TestCalls:
    async def test_it_runs_once_for_each_entry(self, ours: Cache) -> None:
        first, second = await load_user(1), await load_user(user_id=1)
        assert first == second == User(1, 7, 1)
        assert type(second) is User
        assert await load_user(2) == User(2, 7, 2)
        assert source.runs == 2
        assert await ours.get("user:1") == first

    async def test_many_callers_one_run(self, ours: Cache) -> None:
        assert {user.run for user in await asyncio.gather(*[load_user(1) for _ in range(50)])} == {1}

    async def test_statistics_and_events_have_the_template(self, ours: Cache) -> None:
        seen: list[Event] = []
        ours.on("hit", seen.append)
        await load_user(1)
        await load_user(1)
        assert [(event.key, event.template) for event in seen] == [("user:1", "user:{user_id}")]
        assert ours.stats().templates["user:{user_id}"].hits == 1

    @pytest.mark.parametrize("tags", [[], ["team:{user_id}"]])
    async def test_all_that_is_about_it_is_counted_with_its_template(
        self, cache: Cache, redis: Client, tags: list[str]
    ) -> None:
        seen: list[Event] = []
        for kind in ("hit", "miss", "write", "forget", "error"):
            cache.on(kind, seen.append)

        @cached(60, "user:{user_id}", tags, cache=cache)
        async def load(user_id: int) -> int:
            return user_id

        assert [await load(1), await load(1), await load.peek(1), await load.peek(2)] == [1, 1, 1, None]
        assert await load.put(3, 3)
        assert await load.refresh(1) == 1
        assert await load.forget(1)
        await redis.set("cache:k:user:9", "no entry of a cache")
        assert await load(9) == 9
        assert {event.template for event in seen} == {"user:{user_id}"}
        ((template, counts),) = cache.stats().templates.items()
        assert template == "user:{user_id}"
        assert (counts.hits, counts.misses, counts.runs, counts.writes) == (2, 3, 3, 4)
        assert (counts.forgets, counts.errors) == (1, 1)

    async def test_errors_of_the_store_and_of_the_function_are_counted_with_it(self) -> None:
        cache = Cache(connection=Client.from_url("redis://127.0.0.1:1"))

        @cached(60, "user:{user_id}", cache=cache)
        async def load(user_id: int) -> int:
            return user_id

        assert await load(1) == 1
        assert await load.refresh(1) == 1
        assert await load.put(1, 1) is False
        assert await load.peek(1) is None
        with pytest.raises(errors.ConnectionError):
            await load.forget(1)
        assert list(cache.stats().templates) == ["user:{user_id}"]
        assert cache.stats().errors == 5

    async def test_a_flush_of_its_tag_ends_it(self, ours: Cache) -> None:
        await load_user(1, 7)
        await load_user(2, 8)
        await ours.tags("team:7").flush()
        assert await load_user(1, 7) == User(1, 7, 3)
        assert await load_user(2, 8) == User(2, 8, 2)

    async def test_a_result_decides_by_itself(self, cache: Cache) -> None:
        @cached(60, "r:{n}", cache=cache)
        async def load(n: int) -> Result[int]:
            return Result(await source.next(), store=n > 0)

        assert [await load(0), await load(0), await load(1), await load(1)] == [1, 2, 3, 3]

    async def test_flexible_serves_what_is_stale(self, cache: Cache) -> None:
        @cached(0.02, "f", cache=cache, stale=60, flexible=True)
        async def load() -> int:
            return await source.next()

        assert await load() == 1
        store = cache._core.store
        while (await store.remaining(["cache:k:f"]))[0] > 60_000:  # noqa: ASYNC110  # past its fresh time
            await asyncio.sleep(0.005)
        source.gate = asyncio.Event()
        assert await load() == 1
        await until(lambda: source.runs == 2)
        source.gate.set()

    async def test_the_default_cache_is_made_when_it_is_needed(self) -> None:
        set_default_cache(None)
        made = default_cache()
        assert default_cache() is made
        other = Cache("memory")
        set_default_cache(other)
        assert default_cache() is other
        assert await load_user(1) == User(1, 7, 1)
        assert other.stats().runs == 1
        set_default_cache(None)
        with pytest.raises(errors.ConfigurationError, match="of type str"):
            set_default_cache("redis")  # type: ignore[arg-type]

    async def test_a_cache_may_be_found_late(self) -> None:
        found = Cache("memory")

        @cached(60, "k", cache=lambda: found)
        async def load() -> int:
            return await source.next()

        assert [await load(), await load()] == [1, 1]
        found = Cache("memory")
        assert await load() == 2

    async def test_ttl_of_the_cache(self) -> None:
        cache = Cache("memory", ttl=100)

        @cached(key="k", cache=cache)
        async def load() -> int:
            return 1

        await load()
        left = await cache._core.store.remaining(["cache:k:k"])
        assert 0 < left[0] <= 100_000


class TestKeys:
    def test_templates_of_arguments(self) -> None:
        assert load_user.key(1) == load_user.key(user_id=1, team_id=3) == "user:1"

    def test_without_one_all_arguments_count(self) -> None:
        @cached(60)
        async def load(a: int, b: str = "x", *, c: bool = True) -> None: ...

        name = f"{__name__}.TestKeys.test_without_one_all_arguments_count.<locals>.load"
        assert load.key(1) == load.key(1, "x", c=True) == f"{name}:1:'x':%true"

    async def test_without_one_values_of_different_types_are_different_calls(self) -> None:
        @cached(60, cache=Cache("memory"))
        async def kind(value: object) -> str:
            return type(value).__name__

        values: list[Any] = [1, "1", 1.0, 78, b"x", "%x78", [1, 2], {1, 2}, None, "None", Decimal(1)]
        assert [await kind(value) for value in values] == [type(value).__name__ for value in values]

    def test_wrong_arguments(self) -> None:
        with pytest.raises(TypeError, match="missing a required argument: 'user_id'"):
            load_user.key()  # type: ignore[call-arg]

    async def test_wrong_arguments_of_a_call_store_nothing(self, ours: Cache, redis: Client) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'nobody'"):
            await load_user(1, nobody=2)  # type: ignore[call-arg]
        assert await redis.dbsize() == 0

    async def test_it_looks_like_the_function(self) -> None:
        assert load_user.__name__ == "load_user"
        assert load_user.__doc__ == "Load a user."
        assert list(inspect.signature(load_user).parameters) == ["user_id", "team_id"]
        assert repr(load_user) == "<CachedFunction load_user 'user:{user_id}'>"
        assert inspect.iscoroutinefunction(load_user) or inspect.iscoroutinefunction(load_user.__call__)


class Repository:
    def __init__(self, name: str, cache: Cache) -> None:
        self.name = name
        self.cache = cache

    @cached(60, "one:{n}", cache=default_cache)
    async def one(self, n: int) -> str:
        return f"{self.name}{await source.next()}"

    @cached(60, "each:{self.name}:{n}")
    async def each(self, n: int) -> str:
        return f"{self.name}{await source.next()}"

    @cached(60)
    async def usual(self, n: int) -> int:
        return n

    @classmethod
    @cached(60, "made:{n}")
    async def made(cls, n: int) -> str:
        return f"{cls.__name__}{n}"

    @staticmethod
    @cached(60, "plain:{n}")
    async def plain(n: int) -> int:
        return n


class TestMethods:
    async def test_self_is_no_part_of_the_key_unless_it_says_so(self, ours: Cache) -> None:
        a, b = Repository("a", ours), Repository("b", ours)
        assert [await a.one(1), await b.one(1)] == ["a1", "a1"]
        assert [await a.each(1), await b.each(1), await a.each(1)] == ["a2", "b3", "a2"]
        assert a.usual.key(5).endswith(".Repository.usual:5")

    async def test_what_is_about_an_entry_works_on_the_instance(self, ours: Cache) -> None:
        a = Repository("a", ours)
        assert await a.each(1) == "a1"
        assert a.each.key(1) == "each:a:1"
        assert await a.each.peek(1) == "a1"
        assert await a.each.forget(1) is True
        assert await a.each.peek(1) is None
        assert await a.each.refresh(n=1) == "a2"
        assert await Repository.each(a, 1) == "a2"
        assert await Repository.each.forget(a, 1) is True

    async def test_of_classes(self, ours: Cache) -> None:
        a = Repository("a", ours)
        assert await Repository.plain(3) == await a.plain(3) == 3
        assert await Repository.plain.forget(3) is True
        assert await Repository.made(3) == await a.made(3) == "Repository3"


class TestEntries:
    async def test_forget(self, ours: Cache) -> None:
        await load_user(1)
        assert await load_user.forget(1) is True
        assert await load_user.forget(1) is False
        assert (await load_user(1)).run == 2

    async def test_forget_while_it_runs(self, ours: Cache) -> None:
        source.gate = asyncio.Event()
        task = asyncio.create_task(load_user(1))
        await until(lambda: source.runs)
        await load_user.forget(1)
        source.gate.set()
        assert (await task).run == 1
        assert (await load_user(1)).run == 2

    async def test_put_and_peek(self, ours: Cache) -> None:
        assert await load_user.peek(1) is None
        assert await load_user.put(User(1, 7, 99), 1, 7) is True
        assert await load_user.peek(1) == User(1, 7, 99)
        assert await load_user(1) == User(1, 7, 99)
        await ours.tags("team:7").flush()
        assert await load_user.peek(1) is None
        assert source.runs == 0

    async def test_warm(self, ours: Cache) -> None:
        assert await load_user.warm([(1,), (2, 8), {"user_id": 3}]) == []
        assert source.runs == 3
        await asyncio.gather(load_user(1), load_user(2, 8), load_user(3))
        assert source.runs == 3

    async def test_warm_says_what_failed(self, ours: Cache) -> None:
        source.fails = KeyError("gone")
        failed = await load_user.warm([(1,), {"user_id": 2}])
        assert sorted(map(repr, failed)) == ["((1,), KeyError('gone'))", "({'user_id': 2}, KeyError('gone'))"]

    async def test_warm_refuses_before_it_runs(self, ours: Cache) -> None:
        with pytest.raises(TypeError, match="'abc' is a call's arguments"):
            await load_user.warm([(1,), "abc"])
        with pytest.raises(errors.ConfigurationError, match="calls is the text '12'; give a list of calls"):
            await load_user.warm("12")
        with pytest.raises(errors.ConfigurationError, match="calls is of type int"):
            await load_user.warm(12)  # type: ignore[arg-type]  # the point
        for wrong in (0, -1, None, "x"):
            with pytest.raises(
                errors.ConfigurationError, match=r"concurrency is .*; allowed: a whole number"
            ):
                await asyncio.wait_for(load_user.warm([(1,)], concurrency=wrong), 2)  # type: ignore[arg-type]  # the point
        assert source.runs == 0


class TestRefresh:
    async def test_computes_although_there_is_one(self, ours: Cache) -> None:
        await load_user(1)
        assert (await load_user.refresh(1)).run == 2
        assert (await load_user(1)).run == 2

    async def test_others_get_the_old_one_meanwhile(self, ours: Cache) -> None:
        await load_user(1)
        source.gate = asyncio.Event()
        task = asyncio.create_task(load_user.refresh(1))
        await until(lambda: source.runs == 2)
        assert (await load_user(1)).run == 1
        source.gate.set()
        assert (await task).run == 2
        assert (await load_user(1)).run == 2

    async def test_does_not_take_what_began_before(self, ours: Cache) -> None:
        source.gate = asyncio.Event()
        before = asyncio.create_task(load_user(1))
        await until(lambda: source.runs == 1)
        task = asyncio.create_task(load_user.refresh(1))
        source.gate.set()
        assert (await before).run == 1
        assert (await task).run == 2

    async def test_a_flush_meanwhile_wins(self, ours: Cache) -> None:
        await load_user(1)
        source.gate = asyncio.Event()
        task = asyncio.create_task(load_user.refresh(1))
        await until(lambda: source.runs == 2)
        await ours.tags("team:7").flush()
        source.gate.set()
        await task
        assert (await load_user(1)).run == 3

    async def test_a_failure_is_told_and_the_old_one_stays(self, ours: Cache) -> None:
        await load_user(1)
        source.fails = ValueError("no")
        with pytest.raises(ValueError, match="no"):
            await load_user.refresh(1)
        assert (await load_user(1)).run == 1

    async def test_without_the_store(self) -> None:
        cache = Cache(connection=Client.from_url("redis://127.0.0.1:1"))

        @cached(60, "k", cache=cache)
        async def load() -> int:
            return await source.next()

        assert await load.refresh() == 1
        assert await load.refresh() == 2


class TestTypes:
    async def test_the_return_annotation_is_checked(self, ours: Cache) -> None:
        found: list[Event] = []
        ours.on("error", found.append)
        await ours.tags("team:7").put("user:1", "no user")
        assert (await load_user(1)).run == 1
        assert "user:1" in str(found[0].error)

    @pytest.mark.parametrize("annotation", ["Absent", "Any", "User | Source", "Source"])
    async def test_one_that_cannot_be_checked_is_left_out(self, annotation: str) -> None:
        async def load() -> Any:
            return User(1, 2)

        load.__annotations__["return"] = annotation
        wrapped: Any = cached(60, "k", cache=Cache("memory"))(load)
        assert await wrapped() == await wrapped() == User(1, 2)
        assert wrapped._plan.type is None

    async def test_type_wins(self) -> None:
        @cached(60, "k", cache=Cache("memory"), type=list[int])
        async def load() -> Any:
            return [1]

        assert await load() == await load() == [1]
        assert load._plan.type == list[int]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"key": "user:{nobody}"}, "has no parameter 'nobody'; it has user_id"),
            ({"key": "user:{}"}, "is not the name of an argument"),
            ({"key": ""}, "the key is empty"),
            ({"tags": ["t:{nobody}"]}, "has no parameter 'nobody'"),
            ({"tags": "team"}, "give a list of tags"),
            ({"ttl": 0}, "is not positive"),
            ({"ttl": -1}, "is not positive"),
            ({"ttl": datetime(2100, 1, 1, tzinfo=UTC)}, r"Result\(value, ttl=\.\.\.\)"),
            ({"early": 2}, "early is 2"),
            ({"nothing": 2}, "there is no option 'nothing'; allowed: ttl, key, .*type, .*stale, flexible$"),
            ({"flexible": True}, "flexible needs stale"),
            ({"cache": "redis"}, "cache is of type str"),
        ],
    )
    def test_when_decorating(self, options: dict[str, Any], message: str) -> None:
        async def load(user_id: int) -> None: ...

        with pytest.raises(errors.GravitoError, match=message):
            cached(**{"ttl": 60, **options})(load)

    def test_a_plain_function(self) -> None:
        with pytest.raises(
            errors.ConfigurationError, match=r"is not asynchronous; write `async def`.*cache\.sync"
        ):

            @cached(60)  # type: ignore[arg-type]
            def load() -> int:
                return 1

    def test_without_parentheses(self) -> None:
        async def load(user_id: int) -> None: ...

        for bare in (load, classmethod(load), staticmethod(load)):
            with pytest.raises(errors.ConfigurationError, match=r"without parentheses: write @cached\(ttl="):
                cached(bare)  # type: ignore[arg-type]  # the point

    def test_the_wrong_order(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="stands above @classmethod; put it below"):

            class Wrong:
                @cached(60)  # type: ignore[arg-type]
                @classmethod
                async def load(cls) -> int:
                    return 1

    def test_any_number_of_arguments_make_no_key(self) -> None:
        with pytest.raises(errors.InvalidKeyError, match=r"takes \*args.*give key="):

            @cached(60)
            async def load(*args: int) -> int:
                return 1
