"""The backend for Django: what its documentation says of each method, in both faces, and Django's own users of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.cache import CacheKeyWarning, caches
from django.core.cache.utils import make_template_fragment_key
from django.test import RequestFactory, override_settings
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import django as ours
from gravito.stasis._portal import portal
from gravito.stasis.django import GravitoCache

if not settings.configured:
    settings.configure(
        SECRET_KEY="k" * 50, DEBUG=False, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], ROOT_URLCONF=__name__
    )
    django.setup()

Made = Callable[..., GravitoCache]


@pytest.fixture
def make(redis: Client) -> Iterator[Made]:
    """Backends on the test's server."""

    def make(options: dict[str, Any] | None = None, **params: Any) -> GravitoCache:
        return GravitoCache(redis.settings.url, {"OPTIONS": options or {}, **params})

    ours._caches.clear()
    yield make
    for cache in ours._caches.values():
        cache.sync.close()
        if isinstance(cache._connection, Client):
            portal.call(cache._connection.aclose)
    ours._caches.clear()
    portal.close()


@pytest.fixture
def configured(make: Made, redis: Client) -> Iterator[None]:
    """Django's default cache is ours, for values of every kind."""
    backend = "gravito.stasis.django.GravitoCache"
    options = {"serializer": "pickle"}
    default = {"BACKEND": backend, "LOCATION": redis.settings.url, "OPTIONS": options}
    with override_settings(CACHES={"default": default}):
        yield


class Face:
    """One backend, by its synchronous or its asynchronous methods."""

    def __init__(self, backend: GravitoCache, loop: asyncio.AbstractEventLoop | None) -> None:
        self._backend = backend
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if self._loop is None:
            return getattr(self._backend, name)
        method = getattr(self._backend, f"a{name}")
        loop = self._loop
        return lambda *args, **kwargs: loop.run_until_complete(method(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, make: Made) -> Iterator[Face]:
    backend = make()
    if request.param == "sync":
        yield Face(backend, None)
        return
    with asyncio.Runner() as runner:
        yield Face(backend, runner.get_loop())


class TestMethods:
    def test_get_and_set(self, face: Face) -> None:
        assert face.set("k", {"a": [1, None, "x"]}) is None
        assert face.get("k") == {"a": [1, None, "x"]}
        assert face.get("other") is None
        assert face.get("other", 5) == 5
        face.set("none", None)
        assert face.get("none", "default") is None

    def test_add(self, face: Face) -> None:
        assert face.add("k", 1) is True
        assert face.add("k", 2) is False
        assert face.get("k") == 1

    def test_delete_and_has_key(self, face: Face) -> None:
        face.set("k", 1)
        assert face.has_key("k") is True
        assert face.delete("k") is True
        assert face.delete("k") is False
        assert face.has_key("k") is False

    def test_many(self, face: Face) -> None:
        assert face.set_many({"a": 1, "b": None}, timeout=60) == []
        assert face.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
        assert face.delete_many(["a", "c"]) is None
        assert face.get_many(("a", "b")) == {"b": None}
        assert face.set_many({}) == []

    def test_one_text_is_not_several_keys(self, face: Face) -> None:
        face.set("a", 1, timeout=60)
        for method in (face.get_many, face.delete_many):
            with pytest.raises(errors.InvalidKeyError, match="keys is the text 'abc'; give a list of keys"):
                method("abc")
        assert face.get("a") == 1

    def test_counters(self, face: Face) -> None:
        with pytest.raises(ValueError, match="'n' not found"):
            face.incr("n")
        face.set("n", 41, timeout=None)
        assert (face.incr("n"), face.incr("n", 10), face.decr("n", 2), face.incr("n", -1)) == (42, 52, 50, 49)
        assert face.get("n") == 49
        face.set("n", "text")
        with pytest.raises(errors.CacheError, match="no whole number"):
            face.incr("n")

    def test_counting_keeps_the_time_to_live(self, face: Face) -> None:
        face.set("n", 1, timeout=None)
        face.incr("n")
        assert left(face, "n") == -1

    def test_get_or_set(self, face: Face) -> None:
        assert face.get_or_set("k", 1) == 1
        assert face.get_or_set("k", 2) == 1
        assert face.get_or_set("c", lambda: 3, 60) == 3
        assert face.get_or_set("c", lambda: 4) == 3
        assert face.get_or_set("gone", lambda: 5, 0) == 5
        assert face.get("gone") is None
        face.set("none", None)
        assert face.get_or_set("none", lambda: 6) is None

    def test_touch(self, face: Face) -> None:
        assert face.touch("k") is False
        face.set("k", 1, timeout=10)
        assert face.touch("k", 1000) is True
        assert left(face, "k") > 10_000
        assert face.touch("k", None) is True
        assert left(face, "k") == -1
        assert face.touch("k") is True
        assert 10_000 < left(face, "k") <= 300_000
        assert face.touch("k", 0) is True
        assert face.get("k") is None

    def test_versions(self, face: Face) -> None:
        face.set("k", 1)
        face.set("k", 2, version=2)
        assert (face.get("k"), face.get("k", version=2)) == (1, 2)
        assert face.incr_version("k", 2) == 3
        assert (face.get("k"), face.get("k", version=3)) == (None, 1)
        assert face.decr_version("k", version=3) == 2
        assert face.get("k", version=2) == 1
        with pytest.raises(ValueError, match="not found"):
            face.incr_version("nothing")

    def test_clear(self, face: Face, redis: Client) -> None:
        face.set("k", 1)
        face.set("k", 1, version=2)
        asyncio.run(by(redis, "SET", "of somebody else", 1))
        assert face.clear() is None
        assert (face.get("k"), face.get("k", version=2)) == (None, None)
        assert asyncio.run(by(redis, "GET", "of somebody else")) == "1"

    @pytest.mark.parametrize("timeout", ["x", timedelta(seconds=5)])
    def test_timeouts_that_cannot_be(self, face: Face, timeout: Any) -> None:
        with pytest.raises(errors.InvalidTTLError, match=r"timeout .* is a .*: give seconds, None"):
            face.set("k", 1, timeout)
        assert face.get("k") is None

    @pytest.mark.parametrize("timeout", [0, -1, -0.5])
    def test_what_ends_at_once(self, face: Face, timeout: float) -> None:
        face.set("k", 1)
        face.set("k", 2, timeout)
        assert face.get("k") is None
        assert face.add("k", 2, timeout) is True
        assert face.get("k") is None
        face.set("k", 1)
        assert face.add("k", 2, timeout) is False
        face.set_many({"k": 1, "l": 2}, timeout)
        assert face.get_many(["k", "l"]) == {}

    def test_timeouts(self, face: Face) -> None:
        face.set("default", 1)
        face.set("forever", 1, None)
        face.set("short", 1, 0.5)
        face.set("long", 1, 10**12)
        assert 200_000 < left(face, "default") <= 300_000
        assert left(face, "forever") == -1
        assert 0 < left(face, "short") <= 500
        assert left(face, "long") > 300_000


async def by(client: Client, *command: Any) -> Any:
    """What a command returns, on a connection of its own."""
    async with Client.from_url(client.settings.url) as other:
        return await other.execute(*command)


def left(face: Face, key: str, prefix: str = "") -> int:
    """ms left to a key."""
    backend = face._backend
    store = backend._cache._core.store

    async def ask() -> list[int]:
        return await store.remaining([f"django:k:{prefix}:1:{key}"])

    loop = face._loop
    return (portal.call(ask) if loop is None else loop.run_until_complete(ask()))[0]


class TestKeys:
    def test_prefixes_keep_apart(self, make: Made) -> None:
        a, b = make(KEY_PREFIX="a"), make(KEY_PREFIX="b")
        a.set("k", 1)
        b.set("k", 2)
        assert (a.get("k"), b.get("k"), make().get("k")) == (1, 2, None)
        assert "k" in a
        assert "other" not in a

    def test_a_function_of_ones_own(self, make: Made) -> None:
        backend = make(KEY_FUNCTION=lambda key, prefix, version: f"{key}!{version}", VERSION=5)
        backend.set("k", 1)
        assert backend._cache.sync.get("k!5") == 1

    def test_django_warns_of_keys_that_memcached_refuses(self, make: Made) -> None:
        with pytest.warns(CacheKeyWarning, match="longer than 250"):
            make().set("k" * 300, 1)

    def test_what_cannot_be_a_key(self, make: Made) -> None:
        with pytest.warns(CacheKeyWarning), pytest.raises(ValueError, match="has 2003 bytes"):
            make().set("k" * 2000, 1)


class TestConfiguration:
    def test_by_django(self, redis: Client, make: Made) -> None:
        configuration = {
            "BACKEND": "gravito.stasis.django.GravitoCache",
            "LOCATION": redis.settings.url,
            "TIMEOUT": 60,
            "KEY_PREFIX": "site",
            "OPTIONS": {"prefix": "web", "MAX_ENTRIES": 5, "fail_safe": {"timeout": 1.0}},
        }
        with override_settings(CACHES={"default": configuration}):
            backend = caches["default"]
            backend.set("k", 1)
            assert backend._cache.sync.get("site:1:k") == 1
            assert repr(backend) == "<GravitoCache on <Cache 'web' on redis>>"
            assert backend._cache._fail_safe.timeout == 1.0
            caches.close_all()  # as at the end of each request
            assert backend.get("k") == 1

    def test_all_threads_share_one_cache(self, make: Made) -> None:
        assert make()._cache is make()._cache
        assert make({"prefix": "other"})._cache is not make()._cache

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"nothing": 1}, "CACHES: there is no option 'nothing'; allowed: store"),
            ({"store": "disk"}, "there is no store 'disk'"),
            ({"fail_safe": {"nothing": 1}}, "CACHES: fail_safe is"),
            ({"serializer": "yaml"}, "serializer 'yaml' is not known"),
            ({"secret": "s" * 20}, 'only used with serializer="pickle"'),
        ],
    )
    def test_what_cannot_be_used(self, make: Made, options: dict[str, Any], message: str) -> None:
        with pytest.raises(errors.ConfigurationError, match=message):
            make(options)
        assert ours._caches == {}

    def test_values_that_only_pickle_takes_are_refused_without_it(self, make: Made) -> None:
        with pytest.raises(errors.SerializationError, match="cannot be stored"):
            make().set("k", threading.Thread)

    def test_without_a_server(self) -> None:
        backend = GravitoCache("redis://127.0.0.1:1", {"OPTIONS": {"prefix": "nowhere"}})
        assert backend.get("k", 7) == 7
        assert backend.set_many({"a": 1, "b": 2}) == ["a", "b"]
        assert backend.get_or_set("k", lambda: 3) == 3
        with pytest.raises(errors.ConnectionError):
            backend.delete("k")  # a lost invalidation is never silent
        ours._caches.clear()


class TestDjangosUsers:
    async def test_responses(self, make: Made) -> None:
        """What the per-view cache stores: HttpResponse, pickled and signed."""
        from django.http import HttpResponse

        backend = make({"serializer": "pickle"})
        await backend.aset("page", HttpResponse(b"hello", headers={"X-A": "b"}))
        found = await backend.aget("page")
        assert (found.content, found["X-A"]) == (b"hello", "b")
        await backend._cache._core.store.client.aclose()

    def test_sessions(self, configured: None) -> None:
        from django.contrib.sessions.backends.cache import SessionStore

        session = SessionStore()
        session["user"] = 7
        session.save()
        assert SessionStore(session.session_key)["user"] == 7
        session.flush()
        assert SessionStore(session.session_key).get("user") is None

    def test_views(self, configured: None) -> None:
        from django.http import HttpRequest, HttpResponse
        from django.views.decorators.cache import cache_page

        runs = []

        @cache_page(60)
        def view(request: HttpRequest) -> HttpResponse:
            runs.append(1)
            return HttpResponse(f"run {len(runs)}")

        request = RequestFactory().get("/page", {"a": "1"})
        assert [view(request).content for _ in range(3)] == [b"run 1"] * 3

    def test_fragments(self, configured: None) -> None:
        key = make_template_fragment_key("sidebar", ["a user"])
        caches["default"].set(key, "text")
        assert caches["default"].get(key) == "text"


class TestStampede:
    def test_one_run_for_all_threads_in_the_callers_thread(self, make: Made) -> None:
        backend = make()
        together, runs = threading.Barrier(6), []

        def factory() -> int:
            runs.append(threading.current_thread().name)
            return 1

        def one(_: int) -> int:
            together.wait(10)
            value: int = backend.get_or_set("k", factory, 60)
            return value

        with ThreadPoolExecutor(6, thread_name_prefix="web") as pool:
            assert list(pool.map(one, range(6))) == [1] * 6
        assert len(runs) == 1
        assert runs[0].startswith("web")

    async def test_both_faces_meet_in_one_entry(self, make: Made) -> None:
        backend = make()
        gate, runs = asyncio.Event(), []

        async def factory() -> int:
            runs.append(1)
            await gate.wait()
            return 1

        first = asyncio.create_task(backend.aget_or_set("k", factory, 60))
        await until(lambda: runs)
        second = asyncio.create_task(asyncio.to_thread(backend.get_or_set, "k", lambda: 2, 60))
        await asyncio.sleep(0)
        gate.set()
        assert [await first, await second] == [1, 1]
        await backend._cache._core.store.client.aclose()


urlpatterns: list[Any] = []
