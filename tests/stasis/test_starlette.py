"""The response cache: what is kept and for whom, what HTTP's headers say about it, and that nobody gets another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.waiting import until

from gravito import errors
from gravito.atlas import Client
from gravito.stasis import Cache, set_default_cache
from gravito.stasis._http import Kept, Rules, directives, matches
from gravito.stasis.starlette import ResponseCache, cached_route

Answer = Callable[[Request], Response]


@pytest.fixture(autouse=True)
async def cache(redis: Client) -> AsyncIterator[Cache]:
    async with Cache(connection=redis) as cache:
        set_default_cache(cache)
        yield cache
        set_default_cache(None)


class Site:
    """An application that counts what it does."""

    def __init__(self, **options: Any) -> None:
        self.runs = 0
        self.gate: asyncio.Event | None = None
        self.headers: dict[str, str] = {}
        self.status = 200
        self.answer: Answer | None = None
        kept = [Middleware(ResponseCache, **options)]
        methods = ["GET", "HEAD", "POST"]
        route = Route("/{rest:path}", self._page, methods=methods, middleware=kept)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(Starlette(routes=[route])), base_url="http://site"
        )

    async def _page(self, request: Request) -> Response:
        self.runs += 1
        run = self.runs
        if self.gate is not None:
            await self.gate.wait()
        if self.answer is not None:
            return self.answer(request)
        return PlainTextResponse(f"run {run}", self.status, self.headers)

    async def get(self, path: str = "/a", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=named)

    async def texts(self, *requests: Any) -> list[str]:
        return [(await self.get(*request)).text for request in requests]


class TestKeeping:
    async def test_the_second_request_is_a_hit(self) -> None:
        site = Site()
        first, second = await site.get(), await site.get()
        assert (first.text, second.text) == ("run 1", "run 1")
        assert first.headers["cache-status"] == "Gravito; fwd=miss; stored"
        assert second.headers["cache-status"] == "Gravito; hit"
        assert second.headers["age"].isdecimal()
        assert second.headers["content-type"] == first.headers["content-type"]

    async def test_path_query_method_host_and_accept_tell_responses_apart(self) -> None:
        site = Site()
        for number, (path, headers) in enumerate(
            [
                ("/a", {}),
                ("/b", {}),
                ("/a?x=1", {}),
                ("/a?x=2", {}),
                ("/a", {"accept": "text/html"}),
                ("/a", {"host": "other"}),
            ],
            1,
        ):
            assert (await site.get(path, **headers)).text == f"run {number}"
            assert (await site.get(path, **headers)).text == f"run {number}"
        assert (await site.client.head("/a")).headers["cache-status"] == "Gravito; fwd=miss; stored"
        assert (await site.client.head("/a")).headers["cache-status"] == "Gravito; hit"
        assert (await site.get("/a")).text == "run 1"

    async def test_only_get_and_head(self) -> None:
        site = Site()
        assert [(await site.client.post("/a")).text for _ in range(2)] == ["run 1", "run 2"]

    @pytest.mark.parametrize("status", [201, 301, 404, 500])
    async def test_only_200(self, status: int) -> None:
        site = Site()
        site.status = status
        answers = [await site.get(), await site.get()]
        assert [each.text for each in answers] == ["run 1", "run 2"]
        assert [each.status_code for each in answers] == [status, status]
        assert "cache-status" not in answers[0].headers

    async def test_one_run_for_all_who_ask(self) -> None:
        site = Site()
        site.gate = asyncio.Event()
        tasks = [asyncio.create_task(site.get()) for _ in range(20)]
        await until(lambda: site.runs)
        site.gate.set()
        assert {answer.text for answer in await asyncio.gather(*tasks)} == {"run 1"}
        assert site.runs == 1

    async def test_a_client_who_leaves_does_not_take_it_from_others(self) -> None:
        site = Site()
        site.gate = asyncio.Event()
        first = asyncio.create_task(site.get())
        await until(lambda: site.runs)
        second = asyncio.create_task(site.get())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        site.gate.set()
        assert (await second).text == "run 1"

    async def test_past_its_time_the_old_one_serves(self, cache: Cache) -> None:
        site = Site(ttl=0.02, stale=60, key=lambda request: "page")
        await site.get()
        while (await cache._core.store.remaining(["cache:k:page"]))[0] > 60_000:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        site.gate = asyncio.Event()
        assert (await site.get()).text == "run 1"
        await until(lambda: site.runs == 2)
        site.gate.set()

    async def test_tags(self, cache: Cache) -> None:
        site = Site(tags=lambda request: [f"path:{request.url.path}"])
        assert await site.texts(("/a",), ("/b",), ("/a",)) == ["run 1", "run 2", "run 1"]
        await cache.tags("path:/a").flush()
        assert await site.texts(("/a",), ("/b",)) == ["run 3", "run 2"]

    async def test_one_text_is_not_several_tags(self) -> None:
        site = Site(tags=lambda request: "site")
        with pytest.raises(errors.InvalidKeyError, match="tags is the text 'site'; give a list of tags"):
            await site.get("/a")

    async def test_keys_of_ones_own(self, cache: Cache) -> None:
        site = Site(key=lambda request: None if request.url.path == "/no" else "page")
        assert await site.texts(("/a",), ("/b",), ("/no",), ("/no",)) == ["run 1", "run 1", "run 2", "run 3"]
        assert await cache.has("page")

    async def test_paths(self) -> None:
        site = Site(paths=["/a", "/b/*"])
        assert await site.texts(("/a",), ("/a",), ("/b/c",), ("/b/c",)) == [
            "run 1",
            "run 1",
            "run 2",
            "run 2",
        ]
        assert await site.texts(("/b",), ("/b",)) == ["run 3", "run 4"]

    async def test_an_error_of_the_application_is_everybodys_and_not_kept(self) -> None:
        site = Site()

        def fails(request: Request) -> Response:
            raise ValueError("no")

        site.answer = fails
        with pytest.raises(ValueError, match="no"):
            await site.get()
        site.answer = None
        assert (await site.get()).text == "run 2"

    async def test_background_tasks_run_and_hold_up_nobody(self) -> None:
        site, gate, ran = Site(), asyncio.Event(), []

        async def later() -> None:
            await gate.wait()
            ran.append(1)

        site.answer = lambda request: PlainTextResponse("done", background=BackgroundTask(later))
        assert (await site.get()).text == "done"
        assert ran == []
        gate.set()
        await until(lambda: ran)

    async def test_without_the_store(self) -> None:
        site = Site(cache=Cache(connection=Client.from_url("redis://127.0.0.1:1")))
        assert await site.texts((), ()) == ["run 1", "run 2"]


class TestPersonal:
    @pytest.mark.parametrize("header", ["authorization", "cookie"])
    async def test_who_says_who_they_are_gets_their_own(self, header: str) -> None:
        site = Site()
        assert (await site.get(**{header: "a"})).text == "run 1"
        assert (await site.get(**{header: "a"})).text == "run 2"
        assert (await site.get()).text == "run 3"
        assert (await site.get(**{header: "a"})).text == "run 4"

    async def test_unless_it_tells_them_apart(self) -> None:
        site = Site(vary=["Authorization"])
        for user, run in (("a", 1), ("b", 2), ("a", 1)):
            assert (await site.get(authorization=user)).text == f"run {run}"

    async def test_or_plays_no_part(self) -> None:
        site = Site(ignore=["cookie"])
        assert [(await site.get(cookie=value)).text for value in "ab"] == ["run 1", "run 1"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("set-cookie", "id=1"),
            ("cache-control", "private"),
            ("cache-control", "no-store"),
            ("cache-control", "max-age=0"),
            ("cache-control", "max-age=60, no-cache"),
            ("expires", "0"),
            ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("vary", "cookie"),
            ("vary", "accept, *"),
            ("content-type", "text/event-stream"),
        ],
    )
    async def test_responses_that_are_not_for_everybody(self, name: str, value: str) -> None:
        site = Site()
        site.headers = {name: value}
        assert await site.texts((), ()) == ["run 1", "run 2"]

    async def test_those_who_wait_do_not_get_it_either(self) -> None:
        site = Site()
        site.headers = {"set-cookie": "session=secret"}
        site.gate = asyncio.Event()
        tasks = [asyncio.create_task(site.get()) for _ in range(5)]
        await until(lambda: site.runs)
        await asyncio.sleep(0)
        site.gate.set()
        assert sorted(answer.text for answer in await asyncio.gather(*tasks)) == [
            f"run {n}" for n in range(1, 6)
        ]


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "least", "most"),
        [
            ({}, 59_000, 60_000),
            ({"cache-control": "max-age=100"}, 99_000, 100_000),
            ({"cache-control": "public, max-age=5, s-maxage=200"}, 199_000, 200_000),
            (
                {"date": "Mon, 01 Jan 2024 00:00:00 GMT", "expires": "Mon, 01 Jan 2024 00:05:00 GMT"},
                299_000,
                300_000,
            ),
        ],
    )
    async def test_how_long(self, headers: dict[str, str], least: int, most: int, cache: Cache) -> None:
        site = Site(key=lambda request: "page")
        site.headers = headers
        await site.get()
        assert least <= (await cache._core.store.remaining(["cache:k:page"]))[0] <= most

    async def test_304(self) -> None:
        site = Site()
        etag = (await site.get()).headers["etag"]
        for asked in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = await site.get(if_none_match=asked)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
            assert "content-type" not in answer.headers
        assert (await site.get(if_none_match='"other"')).status_code == 200
        assert site.runs == 1

    async def test_304_of_the_first_request(self) -> None:
        """The application does not see the condition, else it would answer 304 and nothing could be kept."""
        site = Site()

        def answer(request: Request) -> Response:
            headers = {"etag": '"mine"'}
            if "if-none-match" in request.headers:
                return Response(status_code=304, headers=headers)
            return PlainTextResponse("run 1", headers=headers)

        site.answer = answer
        assert (await site.get(if_none_match='"mine"')).status_code == 304
        assert (await site.get()).text == "run 1"
        assert site.runs == 1

    async def test_a_client_may_have_it_made_anew(self) -> None:
        site = Site()
        await site.get()
        assert (await site.get(cache_control="no-cache")).text == "run 2"
        assert (await site.get(pragma="no-cache")).text == "run 3"
        assert (await site.get()).text == "run 3"
        assert (await site.get(cache_control="no-store")).text == "run 4"
        assert (await site.get()).text == "run 3"

    async def test_unless_that_is_not_wanted(self) -> None:
        site = Site(reload=False)
        await site.get()
        assert (await site.get(cache_control="no-cache")).text == "run 1"

    async def test_parts_are_not_kept(self) -> None:
        site = Site()
        assert [(await site.get(range="bytes=0-1")).text for _ in range(2)] == ["run 1", "run 2"]


class TestBodies:
    async def test_in_pieces(self) -> None:
        site = Site()

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b"a", b"b", b"c"):
                yield piece

        site.answer = lambda request: StreamingResponse(pieces())
        assert await site.texts((), ()) == ["abc", "abc"]
        assert (await site.get()).headers["content-length"] == "3"
        assert site.runs == 1

    async def test_one_that_is_too_long_passes_whole(self) -> None:
        site = Site(max_body=10)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"12345"

        site.answer = lambda request: StreamingResponse(pieces())
        assert await site.texts((), ()) == ["12345" * 50] * 2
        assert site.runs == 2

    async def test_a_stream_without_end_reaches_its_client_as_it_comes(self) -> None:
        site, ended = Site(), asyncio.Event()
        site.answer = lambda request: endless(ended)
        seen: list[Any] = []
        task = asyncio.create_task(ask(site, seen))
        await until(lambda: len(seen) > 20)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait_for(ended.wait(), 10)

    async def test_one_whose_client_has_left_ends(self) -> None:
        site, ended = Site(), asyncio.Event()
        site.gate = asyncio.Event()
        site.answer = lambda request: endless(ended)
        task = asyncio.create_task(ask(site, []))
        await until(lambda: site.runs)
        task.cancel()
        await asyncio.wait([task])
        site.gate.set()
        await asyncio.wait_for(ended.wait(), 10)


def endless(ended: asyncio.Event) -> Response:
    """A stream of events; sets `ended` when it is ended."""

    async def events() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0)
        finally:
            ended.set()

    return StreamingResponse(events(), media_type="text/event-stream")


async def ask(site: Site, seen: list[Any]) -> None:
    """A request by ASGI itself; what comes is put into `seen`."""
    scope = {"type": "http", "method": "GET", "path": "/a", "query_string": b"", "scheme": "http"}

    async def send(message: Any) -> None:
        seen.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    transport: Any = site.client._transport
    await transport.app({**scope, "headers": [(b"host", b"site")]}, receive, send)


class TestFastAPI:
    async def test_a_router_of_cached_routes(self) -> None:
        runs: list[int] = []
        router = APIRouter(route_class=cached_route(ttl=60))

        @router.get("/users/{number}")
        async def user(number: int) -> dict[str, int]:
            runs.append(number)
            return {"number": number, "run": len(runs)}

        app = FastAPI()
        app.include_router(router)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            answers = [(await client.get(f"/users/{n}")).json() for n in (1, 1, 2, 1)]
            wrong = await client.get("/users/x")
        assert answers == [{"number": 1, "run": 1}] * 2 + [{"number": 2, "run": 2}, {"number": 1, "run": 1}]
        assert wrong.status_code == 422

    def test_bad_settings_are_told_at_once(self) -> None:
        with pytest.raises(errors.InvalidTTLError, match=r"^ttl 0 is not positive"):
            cached_route(ttl=0)
        for stale in (-1, "", "60"):
            with pytest.raises(errors.InvalidTTLError, match=r"^stale "):
                cached_route(stale=stale)
        with pytest.raises(errors.ConfigurationError, match="vary is the text 'accept'"):
            cached_route(vary="accept")
        with pytest.raises(
            errors.ConfigurationError, match=r"paths is the text '/news/\*'; give a list of paths"
        ):
            cached_route(paths="/news/*")
        with pytest.raises(TypeError, match="nothing"):
            cached_route(nothing=1)

    @pytest.mark.parametrize("field", ["paths", "vary", "ignore", "key", "tags", "max_body", "cache"])
    @pytest.mark.parametrize("wrong", ["text", b"text", 0, 1.5, True, [1]])
    def test_each_setting_is_checked(self, field: str, wrong: Any) -> None:
        with pytest.raises(errors.ConfigurationError, match=rf"^{field} is ") as raised:
            cached_route(**{field: wrong})
        assert raised.value.field == field

    def test_functions_of_the_request_are_plain(self) -> None:
        async def of(request: Request) -> str:
            return "k"

        for field in ("key", "tags"):
            with pytest.raises(errors.ConfigurationError, match=f"{field} is .*; allowed: a plain function"):
                cached_route(**{field: of})

    async def test_a_whole_application(self) -> None:
        app = FastAPI()
        runs: list[int] = []

        @app.get("/a")
        async def page() -> int:
            runs.append(1)
            return len(runs)

        app.add_middleware(ResponseCache, ttl=60, paths=["/a"])
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            assert [(await client.get("/a")).json() for _ in range(2)] == [1, 1]


class TestRules:
    def test_directives(self) -> None:
        headers = [(b"cache-control", b'Max-Age="5", private'), (b"cache-control", b"x")]
        assert directives(headers) == {"max-age": "5", "private": "", "x": ""}

    def test_what_must_be_revalidated_is_not_kept_where_stale_ones_serve(self) -> None:
        headers = [(b"cache-control", b"max-age=5, must-revalidate")]
        assert Rules((), (), False).lifetime(200, headers) == 5
        assert Rules((), (), True).lifetime(200, headers) is None

    def test_a_number_that_is_none(self) -> None:
        assert Rules((), (), False).lifetime(200, [(b"cache-control", b"max-age=soon")]) is None

    def test_an_etag_of_the_application_is_kept(self) -> None:
        kept = Kept.of(200, [(b"etag", b'W/"1"')], b"x")
        assert kept.etag == b'W/"1"'
        assert matches([(b"if-none-match", b'"1"')], kept.etag)
        assert not matches([], kept.etag)
