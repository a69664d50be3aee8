"""What needs a package of its own: it says which one, and nothing else imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gravito.atlas import Client
from gravito.stasis import Cache, cached, default_cache
from gravito.testing import gravito_cache

__all__ = ["gravito_cache"]

EXTRAS = {
    "django": ("django", "django"),
    "starlette": ("starlette", "starlette"),
    "prometheus": ("prometheus_client", "prometheus"),
    "telemetry": ("opentelemetry", "otel"),
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_is_named_with_the_remedy(module: str) -> None:
    package, extra = EXTRAS[module]
    code = (
        f"import sys\nsys.modules[{package!r}] = None\n"
        f"try:\n    import gravito.stasis.{module}\nexcept ImportError as error:\n    print(error)\n"
    )
    assert f"pip install 'gravito[{extra}]'" in run(code)


def test_the_room_imports_none_of_them() -> None:
    packages = {package for package, _ in EXTRAS.values()} - {
        "opentelemetry"
    }  # redis-py takes it if it is there
    code = f"import sys, gravito.stasis\nprint({packages}.intersection(sys.modules))"
    assert run(code) == "set()\n"
    code = "import sys, gravito.stasis\nprint('gravito.stasis.telemetry' in sys.modules)"
    assert run(code) == "False\n"


class TestFixture:
    async def test_it_is_empty_and_the_default(self, gravito_cache: Cache, redis: Client) -> None:
        @cached(60, "k")
        async def load() -> int:
            return 1

        assert await gravito_cache.get("k") is None
        assert await load() == 1
        assert await gravito_cache.get("k") == 1
        assert default_cache() is gravito_cache
        assert await redis.exists("cache:k:k")

    async def test_each_test_has_its_own(self, gravito_cache: Cache) -> None:
        assert await gravito_cache.get("k") is None
        assert gravito_cache.stats().misses == 1

    def test_afterwards_it_is_the_default_no_more(self) -> None:
        assert default_cache()._connection is None
