"""TLS against a real server: what is accepted, what is refused, and the words of each refusal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.security.authority import Authority
from tests.security.conftest import StartTLS, free_port

from gravito import errors
from gravito.atlas import TLS, Client

PASSWORD = "open sesame"


def client_of(port: int, tls: TLS | None = None, host: str = "localhost", **options: Any) -> Client:
    """A client that tries once."""
    scheme = "redis" if tls is None else "rediss"
    extra = {} if tls is None else {"tls": tls}
    return Client.from_url(f"{scheme}://{host}:{port}", retry={"attempts": 0}, **extra, **options)


async def refusal(client: Client) -> errors.GravitoError:
    """The error of a first command."""
    async with client:
        with pytest.raises(errors.GravitoError) as caught:
            await client.ping()
    return caught.value


class TestAccepted:
    async def test_everything_travels_on_it(self, tls_port: int, authority: Authority) -> None:
        async with client_of(tls_port, TLS(ca_file=authority.file)) as redis:
            assert await redis.set("k", "v") is True
            assert await redis.pipeline().get("k").delete("k").exec() == ["v", 1]
            large = b"x" * 3_000_000
            await redis.set("large", large)
            assert await redis.with_options(decode_responses=False).getdel("large") == large
            async with await redis.subscribe("news") as news:
                await redis.publish("news", "hello")
                message = await news.get(timeout=5)
                assert message is not None
                assert message.data == "hello"
            assert await redis.blpop(["nothing"], timeout=0.01) is None

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_both_versions(
        self, version: ssl.TLSVersion, start_tls: StartTLS, authority: Authority
    ) -> None:
        only = {"tls-protocols": version.name.replace("_", ".")}
        port = start_tls(authority.certificate("localhost"), only)
        async with client_of(port, TLS(ca_file=authority.file)) as redis:
            assert await redis.ping() is True

    async def test_by_address(self, start_tls: StartTLS, authority: Authority) -> None:
        port = start_tls(authority.certificate("127.0.0.1"))
        async with client_of(port, TLS(ca_file=authority.file), host="127.0.0.1") as redis:
            assert await redis.ping() is True

    async def test_what_is_switched_off_is_not_checked(
        self, start_tls: StartTLS, authority: Authority, stranger: Authority
    ) -> None:
        port = start_tls(authority.certificate("elsewhere.example"))
        async with client_of(port, TLS(ca_file=authority.file, check_hostname=False)) as redis:
            assert await redis.ping() is True
        port = start_tls(stranger.certificate("elsewhere.example"))
        async with client_of(port, TLS(verify=False)) as redis:
            assert await redis.ping() is True

    async def test_options_of_a_url(self, tls_port: int, authority: Authority) -> None:
        async with Client.from_url(f"rediss://localhost:{tls_port}?ssl_ca_certs={authority.file}") as redis:
            assert await redis.ping() is True

    async def test_a_burst_of_tasks_on_it(self, tls_port: int, authority: Authority) -> None:
        async with client_of(tls_port, TLS(ca_file=authority.file)) as redis:
            assert await asyncio.gather(*[redis.incr("n") for _ in range(2000)]) == [*range(1, 2001)]
            await redis.delete("n")


class TestRefusedServers:
    async def test_an_unknown_authority(
        self, start_tls: StartTLS, authority: Authority, stranger: Authority
    ) -> None:
        port = start_tls(stranger.certificate("localhost"))
        for trusted in (authority.file, None):  # None: the system's authorities
            error = await refusal(client_of(port, TLS(ca_file=trusted)))
            assert type(error) is errors.TLSError
            assert "not signed by anybody trusted" in str(error)
            assert "tls.ca_file" in str(error)

    @pytest.mark.parametrize("name", ["elsewhere.example", "*.localhost"])
    async def test_another_name(self, name: str, start_tls: StartTLS, authority: Authority) -> None:
        port = start_tls(authority.certificate(name))
        error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert type(error) is errors.TLSError
        assert "is for another name" in str(error)
        assert "'localhost'" in str(error)

    async def test_another_address(self, tls_port: int, authority: Authority) -> None:
        error = await refusal(client_of(tls_port, TLS(ca_file=authority.file), host="127.0.0.1"))
        assert type(error) is errors.TLSError
        assert "is for another name" in str(error)

    async def test_expired(self, start_tls: StartTLS, authority: Authority) -> None:
        port = start_tls(authority.certificate("localhost", expired=True))
        error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert type(error) is errors.TLSError
        assert "has expired" in str(error)
        assert "Renew it" in str(error)

    async def test_not_valid_yet(self, start_tls: StartTLS, authority: Authority) -> None:
        port = start_tls(authority.certificate("localhost", early=True))
        error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert type(error) is errors.TLSError
        assert "not valid yet" in str(error)

    async def test_tls_1_1_alone(self, start_tls: StartTLS, authority: Authority) -> None:
        old = {"tls-protocols": "TLSv1.1", "tls-ciphers": "DEFAULT@SECLEVEL=0"}
        port = start_tls(authority.certificate("localhost"), old)
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            authority.lenient_context().wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            assert wrapped.version() == "TLSv1.1"  # the server could, so it is we who refuse
        error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert type(error) is errors.TLSError
        assert "TLS 1.2 or 1.3" in str(error)

    async def test_it_is_not_tried_again(self, start_tls: StartTLS, authority: Authority) -> None:
        port = start_tls(authority.certificate("localhost", expired=True))
        tls = TLS(ca_file=authority.file)
        retry, timeouts = {"attempts": 9, "base": 10.0, "cap": 10.0}, {"connect": 60.0}
        async with Client.from_url(
            f"rediss://localhost:{port}", tls=tls, retry=retry, timeouts=timeouts
        ) as redis:
            async with asyncio.timeout(5):
                with pytest.raises(errors.TLSError):
                    await redis.ping()


class TestMixedUp:
    async def test_tls_to_a_plain_server(self, plain_port: int, authority: Authority) -> None:
        # A Redis reads the first message of TLS as the beginning of a line, and waits for its end.
        error = await refusal(
            client_of(plain_port, TLS(ca_file=authority.file), timeouts={"connect": 0.4, "command": 5})
        )
        assert type(error) is errors.TLSTimeoutError
        assert isinstance(error, errors.TLSError)
        assert "Does the port speak TLS? Use redis:// for a plain one" in str(error)

    async def test_tls_to_a_peer_that_answers_in_plain(self, authority: Authority) -> None:
        async with peer(b"-ERR unknown command\r\n") as port:
            error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert type(error) is errors.TLSError
        assert "does not speak TLS. Use redis://" in str(error)

    async def test_tls_to_a_peer_that_hangs_up(self, authority: Authority) -> None:
        async with peer(b"") as port:
            error = await refusal(client_of(port, TLS(ca_file=authority.file)))
        assert isinstance(error, errors.ConnectionError)

    async def test_plain_to_a_tls_server(self, tls_port: int) -> None:
        error = await refusal(client_of(tls_port))
        assert isinstance(error, errors.ConnectionError)
        assert "rediss://" in str(error)

    async def test_nothing_secret_is_sent_before_the_peer_is_checked(
        self, authority: Authority, stranger: Authority
    ) -> None:
        received: list[bytes] = []
        cert, key = stranger.certificate("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port := free_port(), ssl=context)
        async with server:
            await refusal(client_of(port, TLS(ca_file=authority.file), password=PASSWORD))
        assert not any(received)


class TestClientsCertificate:
    @pytest.fixture
    def port(self, start_tls: StartTLS, authority: Authority) -> int:
        return start_tls(authority.certificate("localhost"), {"tls-auth-clients": "yes"})

    async def test_accepted(self, port: int, authority: Authority) -> None:
        cert, key = authority.certificate("client.example")
        async with client_of(port, TLS(ca_file=authority.file, cert_file=cert, key_file=key)) as redis:
            assert await redis.ping() is True

    async def test_certificate_and_key_in_one_file(self, port: int, authority: Authority) -> None:
        both = authority.joined(*authority.certificate("client.example"))
        async with client_of(port, TLS(ca_file=authority.file, cert_file=both)) as redis:
            assert await redis.ping() is True

    async def test_a_key_with_a_password(self, port: int, authority: Authority) -> None:
        cert, key = authority.certificate("client.example")
        locked = authority.locked(key, PASSWORD)
        tls = TLS(ca_file=authority.file, cert_file=cert, key_file=locked, key_password=PASSWORD)
        async with client_of(port, tls) as redis:
            assert await redis.ping() is True

    @pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
    async def test_none(self, version: str, start_tls: StartTLS, authority: Authority) -> None:
        only = {"tls-auth-clients": "yes", "tls-protocols": version}
        port = start_tls(authority.certificate("localhost"), only)
        for _ in range(5):  # the alert and the end of the connection race each other
            error = await refusal(client_of(port, TLS(ca_file=authority.file)))
            assert type(error) is errors.TLSError
            assert "tls.cert_file" in str(error)

    @pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
    async def test_a_strangers(
        self, version: str, start_tls: StartTLS, authority: Authority, stranger: Authority
    ) -> None:
        only = {"tls-auth-clients": "yes", "tls-protocols": version}
        port = start_tls(authority.certificate("localhost"), only)
        cert, key = stranger.certificate("client.example")
        error = await refusal(client_of(port, TLS(ca_file=authority.file, cert_file=cert, key_file=key)))
        assert type(error) is errors.TLSError
        assert "tls.cert_file" in str(error)


class TestFiles:
    """Files are the settings' matter: found before anything is sent, named, and never asked for at a terminal."""

    @pytest.mark.parametrize("given", ["missing", "empty", "no certificate"])
    async def test_authority(self, given: str, tls_port: int, tmp_path: Path) -> None:
        path = tmp_path / "ca.pem"
        if given != "missing":
            path.write_text("" if given == "empty" else "-----BEGIN CERTIFICATE-----\nx\n")
        error = await refusal(client_of(tls_port, TLS(ca_file=str(path))))
        assert isinstance(error, errors.ConfigurationError)
        assert error.field == "tls.ca_file"
        assert str(path) in str(error)

    @pytest.mark.parametrize("password", [None, "not this one"])
    async def test_a_locked_key(
        self, password: str | None, tls_port: int, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cert, key = authority.certificate("client.example")
        locked = authority.locked(key, PASSWORD)
        tls = TLS(ca_file=authority.file, cert_file=cert, key_file=locked, key_password=password)
        error = await refusal(client_of(tls_port, tls))
        assert isinstance(error, errors.ConfigurationError)
        assert error.field == "tls.key_password"
        assert ("is missing" if password is None else "is wrong") in str(error)
        assert str(password) not in str(error)

    async def test_a_key_of_another_certificate(self, tls_port: int, authority: Authority) -> None:
        cert, _ = authority.certificate("client.example")
        _, key = authority.certificate("other.example")
        error = await refusal(client_of(tls_port, TLS(ca_file=authority.file, cert_file=cert, key_file=key)))
        assert isinstance(error, errors.ConfigurationError)
        assert error.field == "tls.key_file"

    @pytest.mark.parametrize("field", ["cert_file", "key_file"])
    async def test_one_that_is_not_there(
        self, field: str, tls_port: int, authority: Authority, tmp_path: Path
    ) -> None:
        cert, key = authority.certificate("client.example")
        files = {"cert_file": cert, "key_file": key, field: str(tmp_path / "nothing.pem")}
        error = await refusal(client_of(tls_port, TLS(ca_file=authority.file, **files)))
        assert isinstance(error, errors.ConfigurationError)
        assert error.field == f"tls.{field}"
        assert "nothing.pem" in str(error)


@contextlib.asynccontextmanager
async def peer(answer: bytes) -> AsyncIterator[int]:
    """A server that says one thing to whoever connects, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    serve_: Callable[..., Awaitable[None]] = serve
    server = await asyncio.start_server(serve_, "127.0.0.1", port := free_port())
    async with server:
        yield port
