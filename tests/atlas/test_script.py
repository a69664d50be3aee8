"""Lua scripts and functions on a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions as redis_errors

from gravito import errors

Redis = Any

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"


async def test_a_script_is_loaded_where_it_is_missing(redis: Redis) -> None:
    release = redis.script(RELEASE)
    await redis.set("lock", "mine")
    assert await release(keys=["lock"], args=["other"]) == 0
    assert await release(keys=["lock"], args=["mine"]) == 1
    await redis.script_flush()
    assert await release(["lock"], ["mine"]) == 0
    assert await redis.script_exists(release.sha) == [True]


async def test_many_calls_at_once_after_a_flush(redis: Redis) -> None:
    double = redis.script("return ARGV[1] * 2")
    assert await asyncio.gather(*[double(args=[n]) for n in range(100)]) == [n * 2 for n in range(100)]


async def test_from_a_file(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "answer.lua"
    path.write_text("-- k\u00fche\nreturn {ARGV[1], #KEYS}")
    script = redis.script(path)
    assert script.name == "answer.lua"
    assert await script(["a", "b"], ["x"]) == ["x", 2]
    with pytest.raises(errors.ConfigurationError, match=r"none\.lua"):
        redis.script(tmp_path / "none.lua")


@pytest.mark.parametrize("atomic", [False, True])
async def test_in_a_pipeline(redis: Redis, atomic: bool) -> None:
    double = redis.script("return ARGV[1] * 2")
    pipe = redis.pipeline(atomic)
    pipe.set("a", 1)
    await double(args=[4], client=pipe)
    double(args=[5], client=pipe)
    assert await pipe.get("a").exec() == [True, 8, 10, "1"]
    await redis.script_flush()
    double(args=[6], client=pipe)
    assert await pipe.exec() == [12]


async def test_while_a_pipeline_watches(redis: Redis) -> None:
    double = redis.script("return ARGV[1] * 2")
    async with redis.pipeline() as pipe:
        await pipe.watch("k")
        assert await double(args=[4], client=pipe) == 8
        pipe.multi()
        double(args=[5], client=pipe)
        assert await pipe.execute() == [10]


async def test_an_error_names_the_script_and_the_line(redis: Redis) -> None:
    broken = redis.script("local a = 1\nlocal b = 2\nerror('on purpose')", name="broken.lua")
    with pytest.raises(errors.ScriptError, match=r"broken\.lua, line 3: .*on purpose") as caught:
        await broken()
    assert (caught.value.script, caught.value.line) == ("broken.lua", 3)
    assert isinstance(caught.value, redis_errors.ResponseError)


async def test_a_script_that_does_not_compile(redis: Redis) -> None:
    with pytest.raises(errors.ScriptError, match=r"syntax\.lua, line 2"):
        await redis.script("return 1\nreturn return", name="syntax.lua")()


@pytest.mark.needs("codes of errors in scripts")
async def test_an_error_of_a_command_in_a_script_keeps_its_class(redis: Redis) -> None:
    await redis.set("text", "x")
    script = redis.script("\nreturn redis.call('lpush', KEYS[1], 1)", name="push.lua")
    with pytest.raises(errors.WrongTypeError, match=r"push\.lua, line 2") as caught:
        await script(["text"])
    assert caught.value.line == 2


@pytest.mark.parametrize("atomic", [False, True])
async def test_an_error_in_a_pipeline_names_all(redis: Redis, atomic: bool) -> None:
    broken = redis.script("\nerror('on purpose')", name="broken.lua")
    pipe = redis.pipeline(atomic).ping()
    broken(client=pipe)
    with pytest.raises(errors.ScriptError, match=r"# 2 \(EVALSHA\).*broken\.lua, line 2") as caught:
        await pipe.exec()
    assert caught.value.script == "broken.lua"
    broken(client=pipe)
    (error,) = await pipe.exec(raise_on_error=False)
    assert (error.script, error.line) == ("broken.lua", 2)


async def test_what_a_script_says_by_itself(redis: Redis) -> None:
    wire = await redis.client_id()
    with pytest.raises(errors.ResponseError, match="MOVED nowhere"):
        await redis.eval("return redis.error_reply('MOVED nowhere')", 0)
    assert await redis.eval("return {1, 'two', {3}}", 0) == [1, "two", [3]]
    assert await redis.client_id() == wire


async def test_redis_pys_names(redis: Redis) -> None:
    script = redis.register_script("return KEYS[1]")
    assert await script(keys=["k"]) == "k"
    assert await redis.evalsha(script.sha, 1, "x") == "x"
    with pytest.raises(redis_errors.NoScriptError):
        await redis.evalsha("0" * 40, 0)


@pytest.mark.needs("FUNCTION")
async def test_functions(redis: Redis) -> None:
    await redis.function_load(
        "#!lua name=mine\nredis.register_function('double', function(keys, args) return args[1] * 2 end)\n"
        "redis.register_function('fail', function() error('on purpose') end)"
    )
    assert await redis.fcall("double", 0, 4) == 8
    assert await redis.pipeline().fcall("double", 0, 5).exec() == [10]
    with pytest.raises(errors.ScriptError) as caught:
        await redis.fcall("fail", 0)
    assert caught.value.line == 3
