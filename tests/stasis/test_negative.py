"""Exceptions that are kept: what is raised again is what the factory raised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from fastapi import FastAPI, HTTPException
from tests.stasis.workers import PATIENT

from gravito.atlas import Client
from gravito.stasis import Cache, cached
from gravito.stasis._negative import pack, revive


@pytest.fixture(params=["redis", "memory"])
async def cache(request: pytest.FixtureRequest, redis: Client) -> AsyncIterator[Cache]:
    async with Cache(request.param, connection=redis, fail_safe=PATIENT) as cache:
        yield cache


class NamedError(Exception):
    """Its arguments are in attributes only."""

    def __init__(self, *, id: int) -> None:
        self.id = id

    def __str__(self) -> str:
        return f"no {self.id}"


class TextError(Exception):
    """Its constructor makes its text."""

    def __init__(self, id: int, why: str = "gone") -> None:
        super().__init__(f"user {id}: {why}")
        self.id, self.why = id, why


class FileError(OSError):
    def __init__(self, name: str) -> None:
        super().__init__(2, "no such file", name)


class TwoError(ValueError, OSError):
    """The class that its instances are built on is not the first."""


class PickyError(Exception):
    def __new__(cls, *, id: int) -> PickyError:
        made = super().__new__(cls, id)
        made.id = id  # type: ignore[attr-defined]  # what a test looks for
        return made

    def __init__(self, *, id: int) -> None:
        pass


def noted() -> Exception:
    error = LookupError("x")
    error.add_note("of the second try")
    return error


def of_json() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        LookupError(),
        KeyError("k"),
        KeyError(("team", 7)),
        ValueError("a", 1, None, b"b", 2**70, "\ud800"),
        UnicodeDecodeError("utf8", b"\xff", 0, 1, "invalid"),
        FileNotFoundError(2, "no such file", "a.txt"),
        OSError(18, "other device", "a", None, "b"),
        NamedError(id=5),
        TextError(7),
        FileError("a.txt"),
        TwoError("a"),
        PickyError(id=3),
        HTTPException(404, "no such user", {"x-why": "gone"}),
        HTTPException(HTTPStatus.NOT_FOUND, {"ids": [1, UUID(int=1)]}),
        of_json(),
        noted(),
    ],
    ids=repr,
)
def test_it_comes_back_as_it_was(error: Exception) -> None:
    back = revive(pack(error), [Exception])
    assert type(back) is type(error)
    assert (str(back), repr(back), back.args, vars(back)) == (
        str(error),
        repr(error),
        error.args,
        vars(error),
    )
    for name in ("errno", "strerror", "filename", "filename2", "object", "start"):
        assert getattr(back, name, None) == getattr(error, name, None)


async def test_fastapi_answers_as_at_the_first_time(cache: Cache) -> None:
    runs = []

    @cached(ttl=60, key="user:{number}", errors={HTTPException: 30}, cache=cache)
    async def load(number: int) -> dict[str, int]:
        runs.append(number)
        raise HTTPException(404, {"no": number}, {"x-why": "gone"})

    app = FastAPI()

    @app.get("/{number}")
    async def page(number: int) -> dict[str, int]:
        return await load(number)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        answers = [await client.get("/7") for _ in range(2)]
    assert runs == [7]
    for answer in answers:
        assert (answer.status_code, answer.json()) == (404, {"detail": {"no": 7}})
        assert answer.headers["x-why"] == "gone"


async def test_all_who_wait_get_it_whole(cache: Cache) -> None:
    async def load() -> None:
        await asyncio.sleep(0.02)
        raise NamedError(id=3)

    async def read() -> Any:
        return await cache.remember("k", 60, load, errors={NamedError: 30})

    found = await asyncio.gather(*[read() for _ in range(3)], return_exceptions=True)
    found += await asyncio.gather(read(), return_exceptions=True)
    assert [error.id for error in found] == [3, 3, 3, 3]


class Closed:
    def __str__(self) -> str:
        raise RuntimeError


def test_what_cannot_be_stored_is_text_or_left_out() -> None:
    there = object()
    error = TextError(7, why="x" * 100_000)
    error.args = (there, Closed(), "x" * 100_000)
    error.place = there  # type: ignore[attr-defined]  # as applications do
    back = revive(pack(error), [TextError])
    assert back is not None
    assert back.args == (str(there), "Closed", "x" * 10_000)
    assert vars(back) == {"id": 7}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(("builtins.KeyError", ["k"])),  # as it was before attributes were kept
        msgspec.msgpack.encode(("builtins.KeyError", [b"\xff"], {})),
        msgspec.msgpack.encode(("builtins.KeyError", [], {"a": b""})),
        msgspec.msgpack.encode(("builtins.UnicodeDecodeError", [b"\x00\x01"], {})),  # too few arguments
        msgspec.msgpack.encode(("builtins.ExceptionGroup", [b"\x00\x01"], {})),
        msgspec.msgpack.encode(("os.PathLike", [], {})),
    ],
)
async def test_what_cannot_be_read_is_a_miss(cache: Cache, body: bytes, monkeypatch: Any) -> None:
    assert revive(body, [Exception]) is None

    def fails() -> None:
        raise KeyError("k")

    with monkeypatch.context() as patch:
        patch.setattr("gravito.stasis._negative.pack", lambda error: body)
        with pytest.raises(KeyError):
            await cache.remember("k", 60, fails, errors={Exception: 60})
    assert await cache.remember("k", 60, lambda: "there", errors={Exception: 60}) == "there"


def test_only_what_the_reader_names() -> None:
    assert revive(pack(KeyError("k")), [LookupError]) is not None
    assert revive(pack(KeyError("k")), [ValueError]) is None
    assert revive(pack(KeyError("k")), []) is None
