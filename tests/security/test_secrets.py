"""A password that must be nowhere: put through every public surface, then looked for in what came out."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from rich.pretty import pretty_repr
from tests.security.conftest import free_port
from typer.testing import CliRunner

from gravito import errors
from gravito.atlas import TLS, Client, Settings
from gravito.atlas.embedded import Engine
from gravito.atlas.manager import ConnectionManager
from gravito.atlas.wire.handshake import Credentials, check, steps
from gravito.cli import app
from gravito.testing import ScriptedPeer

CANARY = "c4nary-p4ssw0rd"
USER = "c4nary-us3r"
OURS = Path(errors.__file__).parent


def everything_about(error: BaseException) -> str:
    """An error with its chain, in each form in which it is shown, and the locals of our own frames."""
    shown = []
    for each in chain_of(error):
        shown += [str(each), repr(each), repr(vars(each)), pretty_repr(each)]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if str(OURS) in frame.f_code.co_filename:
                shown += [
                    f"{name} = {value!r} {pretty_repr(value)}" for name, value in frame.f_locals.items()
                ]
    return "\n".join(shown)


def messages_of(error: BaseException) -> str:
    """An error with its chain. Frames hold what was being parsed, so that the text alone is the matter."""
    return "\n".join(f"{each} {each!r} {vars(each)}" for each in chain_of(error))


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what a traceback would show with it."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


@pytest.fixture
def check_clean(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., None]]:
    """Say what else came out; at the end it, the logs and both outputs are searched."""
    texts: list[str] = []
    caplog.set_level(logging.DEBUG)
    yield lambda *values: texts.extend(str(value) for value in values)
    out, err = capfd.readouterr()
    formatter = logging.Formatter("%(message)s %(args)s")
    texts += [out, err, *(formatter.format(record) for record in caplog.records)]
    for text in texts:
        assert CANARY not in text


@pytest.fixture
async def debugging() -> AsyncIterator[None]:
    """asyncio's debug mode writes handles and tasks to the log."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    yield
    loop.slow_callback_duration = 60


@pytest.fixture(scope="session")
def guarded() -> Iterator[Engine]:
    """A server that asks for the password."""
    with Engine(directives={"requirepass": CANARY}, port=free_port()) as engine:
        yield engine


class TestWithoutAServer:
    def test_settings(self, check_clean: Callable[..., None]) -> None:
        for settings in (
            Settings(username=USER, password=CANARY),
            Settings.from_url(f"redis://{USER}:{CANARY}@h:1/2"),
            Settings.from_url(f"rediss://h:1/2?password={CANARY}&ssl_password={CANARY}"),
            Settings.from_mapping(
                "x", {"password": CANARY, "tls": {"cert_file": "c", "key_password": CANARY}}
            ),
            Settings(path="/x.sock", password=CANARY),
            Settings(credential_provider=lambda: CANARY),
        ):
            check_clean(
                settings, repr(settings), f"{settings}", pretty_repr(settings), settings.url, settings.address
            )
            check_clean(repr(Client(settings)), pretty_repr(Client(settings)), repr(settings.tls))
        check_clean(repr(TLS(cert_file="c", key_password=CANARY)), repr(Credentials(USER, CANARY)))
        for protocol in (2, 3):
            check_clean(*map(repr, steps(protocol, Credentials(USER, CANARY), 1, "web")))

    @pytest.mark.parametrize(
        "url",
        [
            f"redis://{USER}:{CANARY}@host:port/0",
            f"redis://{USER}:{CANARY}@h:99999",
            f"redis://{USER}:{CANARY}@h/database",
            f"redis://{USER}:{CANARY}@h?nonsense=1",
            f"redis://{USER}:{CANARY}@h?protocol=9",
            f"redis://{USER}:{CANARY}@[::1",
            f"http://{USER}:{CANARY}@h",
            f"{USER}:{CANARY}@h:6379",
            f"redis://{USER}:pa/ss{CANARY}@h",
            f"redis://{USER}:pa#ss{CANARY}@h",
            f"redis://{USER}:pa?ss{CANARY}@h",
            f"redis://:{CANARY}%zz@h:x",
            f"redis://h?passwrd={CANARY}",
            f"redis://h?password={CANARY}&password={CANARY}",
            f"redis://{USER}:{CANARY}@h?password={CANARY}x",
            f"embedded://{USER}:{CANARY}@h",
            f"unix://{USER}:{CANARY}@",
            f"redis://{quote(CANARY)}@h:1:2",
        ],
    )
    def test_urls_that_cannot_be_used(self, url: str, check_clean: Callable[..., None]) -> None:
        try:
            settings = Settings.from_url(url)
        except errors.ConfigurationError as error:
            check_clean(messages_of(error))
        else:  # it can: what it shows is the matter
            check_clean(repr(settings), settings.url)

    @pytest.mark.parametrize(
        "bad", [{"password": 5}, {"password": [CANARY]}, {"pasword": CANARY}, {"db": CANARY}]
    )
    def test_mappings_that_cannot_be_used(
        self, bad: dict[str, Any], check_clean: Callable[..., None]
    ) -> None:
        with pytest.raises(errors.ConfigurationError) as caught:
            Settings.from_mapping("x", {"password": CANARY, **bad})
        if "db" not in bad:  # a value that is shown as what it is
            check_clean(messages_of(caught.value))

    def test_the_manager(
        self, check_clean: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("REDIS_URL", f"redis://{USER}:{CANARY}@127.0.0.1:1/0")
        manager = ConnectionManager()
        client = manager.connection()
        assert client.settings.password == CANARY
        manager.add_connection("other", {"password": CANARY})
        check_clean(
            manager, pretty_repr(manager), manager.configuration, pretty_repr(manager.configuration), client
        )

    @pytest.mark.parametrize(
        "text",
        [
            f"ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' '{CANARY}'",
            f"ERR unknown command `AUTH`, with args beginning with: `{CANARY}`, ",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOAUTH HELLO must be called with the client already authenticated",
        ],
    )
    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_servers_that_repeat_what_they_do_not_know(
        self, protocol: int, text: str, check_clean: Callable[..., None], debugging: None
    ) -> None:
        def answer(command: list[bytes]) -> Any:
            return Exception(text) if command[0] in (b"HELLO", b"AUTH") else "OK"

        async with (
            ScriptedPeer(answer, handshake=False) as peer,
            Client.from_url(
                peer.url, username=USER, password=CANARY, protocol=protocol, retry={"attempts": 0}
            ) as redis,
        ):
            with pytest.raises(errors.ConnectionError) as caught:
                await redis.get("k")
            check_clean(everything_about(caught.value))

    def test_a_step_is_shown_without_its_secret(self, check_clean: Callable[..., None]) -> None:
        plan = steps(3, Credentials(USER, CANARY), 0, None)
        with pytest.raises(errors.GravitoError) as caught:
            check(plan[0], errors.ResponseError("no"), "here")
        check_clean(everything_about(caught.value))


class TestWithAServer:
    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_a_life(
        self, protocol: int, guarded: Engine, check_clean: Callable[..., None], debugging: None
    ) -> None:
        async with Client.from_url(
            f"unix://:{CANARY}@{guarded.path}", protocol=protocol, health_check=0.01, client_name="web"
        ) as redis:
            await redis.set("k", 1)
            pipe = redis.pipeline().get("k")
            await pipe.exec()
            subscription = await redis.subscribe("news", lambda message: None)
            state = redis._state()
            session = redis.client()
            await session.get("k")
            entry = redis.get("k")
            check_clean(redis, pipe, subscription, session, entry, redis.script("return 1"))
            check_clean(state.topology, state.topology.shared, state.topology.pool, state.hub)
            check_clean(pretty_repr(redis), redis.get_connection_kwargs(), redis.connection_pool)
            await entry
            async with Client.from_url(f"unix://:{CANARY}@{guarded.path}") as admin:
                await admin.execute("CLIENT", "KILL", "SKIPME", "yes")
            await redis.get("k")
            await session.aclose()
            with pytest.raises(errors.ResponseError) as caught:
                await redis.execute("CONFIG", "SET", "requirepass")
            check_clean(everything_about(caught.value))

    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_a_wrong_one(
        self, protocol: int, guarded: Engine, check_clean: Callable[..., None], debugging: None
    ) -> None:
        wrong = f"unix://{USER}:{CANARY}-wrong@{guarded.path}"
        async with Client.from_url(wrong, protocol=protocol) as redis:
            with pytest.raises(errors.AuthenticationError) as caught:
                await redis.pipeline().get("k").exec()
            check_clean(everything_about(caught.value))
            with pytest.raises(errors.AuthenticationError) as caught:
                await redis.subscribe("news")
            check_clean(everything_about(caught.value))
            with pytest.raises(errors.AuthenticationError) as caught:
                await redis.blpop(["k"], timeout=1)
            check_clean(everything_about(caught.value))

    def test_the_engine(self, guarded: Engine, check_clean: Callable[..., None]) -> None:
        assert guarded.path is not None
        check_clean(repr(guarded), pretty_repr(guarded))
        check_clean(
            subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        )
        config = Path(guarded.path).with_name("engine.conf")
        assert CANARY in config.read_text()  # the one place, and only this user may read it
        assert config.stat().st_mode & 0o077 == 0
        assert config.parent.stat().st_mode & 0o077 == 0

    def test_an_engine_that_cannot_start(self, check_clean: Callable[..., None]) -> None:
        for directives in ({"requirepass": CANARY, "nonsense": "x"}, {"requirepass": [CANARY, CANARY]}):
            with pytest.raises(errors.EngineError) as caught:
                Engine(directives=directives).ensure()
            check_clean(str(caught.value), repr(caught.value))

    @pytest.mark.parametrize("good", [True, False])
    @pytest.mark.parametrize("form", [[], ["--json"]])
    def test_doctor(
        self, good: bool, form: list[str], guarded: Engine, check_clean: Callable[..., None]
    ) -> None:
        password = CANARY if good else f"{CANARY}-wrong"
        result = CliRunner().invoke(
            app, ["doctor", "--url", f"redis://:{password}@127.0.0.1:{guarded.port}", *form]
        )
        assert result.exit_code == (0 if good else 1)
        if form:
            json.loads(result.stdout)
        check_clean(result.output)

    def test_a_program_that_fails(self, guarded: Engine, check_clean: Callable[..., None]) -> None:
        code = (
            "import asyncio, logging, os\n"
            "logging.basicConfig(level=logging.DEBUG)\n"
            "from gravito.atlas import Client\n"
            "async def main():\n"
            "    async with Client.from_url(os.environ['WHERE']) as redis:\n"
            "        await redis.get('k')\n"
            "asyncio.run(main(), debug=True)\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", code],
            env={
                "WHERE": f"redis://{USER}:{CANARY}@127.0.0.1:{guarded.port}",
                "PYTHONPATH": str(Path(errors.__file__).parents[1]),
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "AuthenticationError" in done.stderr
        check_clean(done.stdout, done.stderr)
