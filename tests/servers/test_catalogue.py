"""A missing server is said by name: skipped on a developer's machine, a failure where nothing may go untested."""

from __future__ import annotations

import pytest
from tests.servers import catalogue


@pytest.mark.parametrize("name", ["valkey9", "redis7"])
def test_a_server_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "find", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="is not installed"):
        catalogue.needed(name)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="install"):
        catalogue.needed(name)


def test_what_is_found_is_what_it_says() -> None:
    for name, server in catalogue.SERVERS.items():
        binary = catalogue.find(name)
        if binary is not None:
            version = catalogue.version_of(binary)
            assert version is not None
            assert server.versions[0] <= version < server.versions[1]


def test_what_a_server_lacks() -> None:
    assert catalogue.lacks("redis6", "SSUBSCRIBE")
    assert not catalogue.lacks("redis7", "SSUBSCRIBE")
    assert catalogue.lacks("redis7", "HEXPIRE")
    assert not catalogue.lacks("valkey9", "HEXPIRE")
