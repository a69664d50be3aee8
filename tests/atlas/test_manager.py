"""`DB` and `Redis`: names, clients, and their time to live, on the embedded engine."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from gravito.atlas import facade
from gravito.atlas.client import Client
from gravito.atlas.config import Settings
from gravito.atlas.manager import ConnectionManager
from gravito.errors import ConfigurationError, RefusedError

TWO = {
    "default": "redis",
    "connections": {"redis": "embedded://", "cache": {"driver": "embedded", "decode_responses": False}},
}
NOBODY = {"host": "127.0.0.1", "port": 1, "retry": {"attempts": 0}}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def manager() -> AsyncIterator[ConnectionManager]:
    manager = ConnectionManager()
    yield manager
    await manager.disconnect_all()


@pytest.fixture
def redis(manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The facade, on a manager of its own."""
    monkeypatch.setattr(facade, "DB", manager)
    return facade.Redis


class TestNames:
    def test_the_same_client_each_time_without_a_loop(self) -> None:
        manager = ConnectionManager()
        manager.configure(TWO)
        assert isinstance(manager.connection(), Client)
        assert manager.connection() is manager.connection("redis")
        assert manager.connection("cache") is manager.connection("cache")
        assert manager.connection("cache") is not manager.connection()

    def test_many_threads_get_one_client(self) -> None:
        manager = ConnectionManager()
        manager.configure(TWO)
        start = Barrier(8)

        def ask(_: int) -> Client:
            start.wait()
            return manager.connection()

        with ThreadPoolExecutor(8) as threads:
            assert len(set(map(id, threads.map(ask, range(8))))) == 1

    async def test_unknown_names_are_refused_with_the_known_ones(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        with pytest.raises(
            ConfigurationError, match=r"'cahce'; allowed: redis, cache; did you mean 'cache'\?"
        ):
            manager.connection("cahce")
        with pytest.raises(ConfigurationError):
            manager.set_default_connection("nowhere")
        for method in (manager.disconnect, manager.reconnect):
            with pytest.raises(ConfigurationError):
                await method("nowhere")
        with pytest.raises(ConfigurationError):
            manager.connection(3)  # type: ignore[arg-type]  # that is what is tested

    def test_names_are_told(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        assert manager.connection_names() == ["redis", "cache"]
        assert manager.has_connection("cache")
        assert not manager.has_connection("nowhere")
        assert manager.configuration.origin == "DB.configure"

    def test_another_default(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        manager.set_default_connection("cache")
        assert manager.default_connection == "cache"
        assert manager.configuration.default == "cache"
        assert manager.connection() is manager.connection("cache")
        manager.configure(TWO)
        assert manager.default_connection == "redis"


class TestAdding:
    @pytest.mark.parametrize("options", ["redis://h/3", {"host": "h", "db": 3}, Settings(host="h", db=3)])
    def test_mapping_url_or_settings(self, manager: ConnectionManager, options: Any) -> None:
        manager.configure(TWO)
        manager.add_connection("third", options)
        assert manager.connection("third").settings == Settings(name="third", host="h", db=3)
        assert manager.connection_names() == ["redis", "cache", "third"]

    def test_needs_no_configuration(
        self, manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GRAVITO_CONFIG", "broken.py")  # would be refused if it were looked at
        manager.add_connection("third", "redis://h")
        manager.set_default_connection("third")
        assert manager.has_connection("third")
        assert manager.connection() is manager.connection("third")

    def test_replaces_a_connection_of_the_same_name(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        before = manager.connection("cache")
        manager.add_connection("cache", "redis://h")
        assert manager.connection("cache") is not before
        assert manager.connection("cache").settings.host == "h"

    def test_bad_ones_change_nothing(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        for options in ("nonsense", {"port": 0}, 5):
            with pytest.raises(ConfigurationError, match="third"):
                manager.add_connection("third", options)  # type: ignore[arg-type]
        assert not manager.has_connection("third")


class TestConfiguring:
    def test_is_looked_for_at_the_first_use(
        self, manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REDIS_URL", "redis://late/4")
        assert manager.connection().settings == Settings(host="late", db=4)

    def test_file_in_the_working_directory(self, manager: ConnectionManager, tmp_path: Path) -> None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "database.py").write_text(f"DATABASE = {TWO!r}")
        assert manager.connection_names() == ["redis", "cache"]

    def test_a_file_that_asks_for_itself_is_refused(self, manager: ConnectionManager, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text("from gravito.atlas.facade import DB\nDB.connection()\n")
        program = "from gravito.atlas.facade import DB\nDB.connection()"
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"GRAVITO_CONFIG": "own.py"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "own.py cannot be imported" in result.stderr
        assert "while it is being read" in result.stderr
        assert "RecursionError" not in result.stderr

    def test_a_bad_configuration_leaves_the_old_one(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        client = manager.connection()
        with pytest.raises(ConfigurationError):
            manager.configure({"connections": {"redis": {"port": 0}}})
        assert manager.connection() is client

    def test_what_did_not_change_keeps_its_client(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        same, other = manager.connection("cache"), manager.connection("redis")
        manager.configure(TWO | {"connections": TWO["connections"] | {"redis": "redis://h"}})  # type: ignore[operator]
        assert manager.connection("cache") is same
        assert manager.connection("redis") is not other

    def test_the_later_of_configure_and_add_counts(self, manager: ConnectionManager) -> None:
        manager.add_connection("cache", "redis://added")
        manager.add_connection("more", "redis://more")
        manager.configure(TWO)
        assert manager.connection("cache").settings.driver == "embedded"
        assert manager.connection("more").settings.host == "more"

    async def test_a_replaced_client_is_closed_with_the_others(self, manager: ConnectionManager) -> None:
        def named(name: str) -> dict[str, Any]:
            return {"connections": {"redis": {"driver": "embedded", "client_name": name}}}

        manager.configure(named("old"))
        await manager.connection().ping()
        manager.configure(named("new"))
        assert await manager.connection().execute_command("CLIENT GETNAME") == "new"
        assert {"old", "new"} <= await _names_of_clients(manager)
        await manager.disconnect_all()
        names = await _names_of_clients(manager)
        assert "new" in names
        assert "old" not in names


async def _names_of_clients(manager: ConnectionManager) -> set[str]:
    """The process's engine may have clients of other tests, too."""
    return {each["name"] for each in await manager.connection().client_list()}


class TestTimeToLive:
    async def test_disconnect_closes_and_the_next_command_connects(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        client = manager.connection()
        first = await client.client_id()
        await manager.disconnect()
        assert await client.client_id() != first
        assert manager.connection() is client

    async def test_disconnect_of_one_leaves_the_other(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        kept = await manager.connection("cache").client_id()
        await manager.connection().ping()
        await manager.disconnect("redis")
        assert await manager.connection("cache").client_id() == kept

    async def test_disconnect_of_what_was_never_used(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        await manager.disconnect("cache")
        await manager.disconnect_all()
        assert manager.connection("cache").stats().connects == 0  # closing opened nothing

    async def test_reconnect(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        first = await manager.connection("cache").client_id()
        client = await manager.reconnect("cache")
        assert client is manager.connection("cache")
        assert await client.client_id() != first

    async def test_reconnect_tells_when_nobody_is_there(self, manager: ConnectionManager) -> None:
        manager.configure({"connections": {"redis": NOBODY}})
        with pytest.raises(RefusedError):
            await manager.reconnect()

    async def test_all_are_closed_although_one_fails(
        self,
        manager: ConnectionManager,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        manager.configure(TWO)
        closed: list[str] = []

        async def fail(client: Client) -> None:
            closed.append(client.settings.name)
            raise OSError(client.settings.name)

        manager.connection("redis"), manager.connection("cache")
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(Client, "aclose", fail)
            with pytest.raises(OSError, match="redis"):
                await manager.disconnect_all()
        assert closed == ["redis", "cache"]
        assert "cache" in caplog.text


class TestLifespan:
    async def test_configures_connects_and_closes(self, manager: ConnectionManager) -> None:
        async with manager.lifespan(configuration=TWO):
            first = await manager.connection().client_id()
        assert await manager.connection().client_id() != first

    async def test_takes_what_a_web_framework_passes(self, manager: ConnectionManager) -> None:
        manager.configure(TWO)
        application = object()
        async with manager.lifespan(application) as state:
            assert state is None
            assert await manager.connection().ping()

    def test_is_not_mistaken_for_a_generator(self, manager: ConnectionManager) -> None:
        # Starlette wraps generator functions itself, with a deprecation warning
        assert not inspect.isasyncgenfunction(manager.lifespan)

    async def test_errors_show_at_the_start(self, manager: ConnectionManager) -> None:
        with pytest.raises(RefusedError):
            async with manager.lifespan(configuration={"connections": {"redis": NOBODY}}):
                pytest.fail("the body must not run")

    async def test_connecting_can_wait(self, manager: ConnectionManager) -> None:
        async with manager.lifespan(configuration={"connections": {"redis": NOBODY}}, connect=False):
            assert manager.connection().stats().connects == 0  # nobody listens there, and nobody was asked

    async def test_closes_after_an_error_inside(self, manager: ConnectionManager) -> None:
        seen: list[int] = []

        async def work() -> None:
            async with manager.lifespan(configuration=TWO):
                seen.append(await manager.connection().client_id())
                raise KeyError

        with pytest.raises(KeyError):
            await work()
        assert await manager.connection().client_id() not in seen


class TestLoops:
    def test_two_loops_one_after_the_other(self) -> None:
        manager = ConnectionManager()
        manager.configure(TWO)

        async def once() -> int:
            await manager.connection().incr("loops")
            number = await manager.connection().client_id()
            await manager.disconnect_all()
            return int(number)

        assert asyncio.run(once()) != asyncio.run(once())

    def test_two_loops_in_two_threads(self) -> None:
        manager = ConnectionManager()
        manager.configure(TWO)
        both = Barrier(2)

        async def once() -> int:
            number = await manager.connection().client_id()
            await asyncio.to_thread(both.wait)  # both are connected at the same time
            await manager.connection().aclose()
            return int(number)

        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda _: asyncio.run(once()), range(2))
        assert first != second


class TestFacade:
    async def test_commands_go_to_the_default_connection(
        self, manager: ConnectionManager, redis: Any
    ) -> None:
        manager.configure(TWO)
        await redis.set("facade", "text")
        assert await redis.get("facade") == "text"
        assert await redis.connection("cache").get("facade") == b"text"
        assert await redis.pipeline().get("facade").exec() == ["text"]
        manager.set_default_connection("cache")
        assert await redis.get("facade") == b"text"

    def test_connection_is_the_manager_s(self, manager: ConnectionManager, redis: Any) -> None:
        manager.configure(TWO)
        assert redis.connection("cache") is manager.connection("cache")
        assert redis.connection() is manager.connection()

    def test_probing_does_not_look_for_a_configuration(
        self, manager: ConnectionManager, redis: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GRAVITO_CONFIG", "broken.py")
        assert not hasattr(redis, "__wrapped__")
        assert not hasattr(redis, "_repr_html_")
        assert "get" in dir(redis)
        assert "not configured yet" in repr(redis)
        with pytest.raises(ConfigurationError):
            redis.get("k")

    def test_unknown_attributes_and_assignment(self, manager: ConnectionManager, redis: Any) -> None:
        manager.configure(TWO)
        with pytest.raises(AttributeError):
            redis.no_such_command  # noqa: B018  # that is what is tested
        with pytest.raises(AttributeError, match=r"DB\.connection"):
            redis.get = None

    def test_repr_shows_state_and_no_secret(self, manager: ConnectionManager, redis: Any) -> None:
        assert repr(manager) == "<DB, not configured yet>"
        manager.add_connection("third", "redis://:hunter2@h")
        assert repr(manager) == "<DB third, not configured yet>"
        manager.configure(TWO)
        assert repr(manager) == "<DB 'redis' embedded, 'cache' embedded, 'third' h:6379, default 'redis'>"
        assert "hunter2" not in repr(redis)

    def test_importing_reads_and_starts_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "database.py").write_text("raise RuntimeError('was read')")
        program = "from gravito.atlas.facade import DB, Redis; print(DB, Redis)"
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert result.stdout.count("not configured yet") == 2
