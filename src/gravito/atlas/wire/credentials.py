"""What to authenticate with: fixed settings, or a provider that is asked at every connect."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, cast

from redis.credentials import CredentialProvider

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire.handshake import Credentials


async def current_credentials(settings: Settings) -> Credentials:
    """The provider's answer if there is a provider, else the settings' username and password.

    Raises AuthenticationError if the provider fails or answers with something else than credentials, and
    ConnectTimeoutError if it takes longer than connecting may.
    """
    if settings.credential_provider is None:
        return Credentials(settings.username, settings.password)
    who = f"the credential provider of connection '{settings.name}'"
    clock = asyncio.timeout(settings.timeouts.connect)
    try:
        async with clock:
            answer = await _ask(settings.credential_provider)
    except Exception as error:
        if clock.expired():
            raise errors.ConnectTimeoutError(
                f"{who} did not answer within {settings.timeouts.connect:g} s (timeouts.connect)"
            ) from None
        # its text may hold what it tried, so only its class is named; the cause is chained
        raise errors.AuthenticationError(f"{who} failed with {type(error).__name__}") from error
    if isinstance(answer, str):
        return Credentials(settings.username, answer)
    parts = answer if isinstance(answer, tuple) and all(isinstance(part, str) for part in answer) else ()
    if len(parts) == 1:
        return Credentials(settings.username, parts[0])
    if len(parts) == len(Credentials._fields):
        return Credentials(*parts)
    raise errors.AuthenticationError(
        f"{who} returned {type(answer).__name__}; allowed: a password, or a tuple (username, password)"
    )


async def _ask(provider: Any) -> Any:
    ask = _method(provider)
    own = getattr(type(ask), "__call__", None)  # noqa: B004  # an object may be callable by an async method
    if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(own):
        return await ask()
    answer = await _in_a_thread(ask)  # it may ask a vault over the network
    return await answer if inspect.isawaitable(answer) else answer


def _method(provider: Any) -> Callable[[], Any]:
    """What to call. redis-py's base class has an async method that would block the event loop with the plain one."""
    inherited = CredentialProvider.get_credentials_async
    if getattr(type(provider), "get_credentials_async", inherited) is not inherited:
        return cast(Callable[[], Any], provider.get_credentials_async)
    return cast(Callable[[], Any], getattr(provider, "get_credentials", provider))


async def _in_a_thread(ask: Callable[[], Any]) -> Any:
    """Call in a thread that nobody waits for when it hangs: neither the loop's executor nor the program's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(answer: Any, error: BaseException | None) -> None:
        if future.done():  # the caller's time was up
            if inspect.iscoroutine(answer):
                answer.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)

    def work() -> None:
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = context.run(ask)
        except StopIteration as stop:  # which no future takes
            error = RuntimeError(f"StopIteration: {stop}")
        except BaseException as failure:
            error = failure
        try:
            loop.call_soon_threadsafe(settle, answer, error)
        except RuntimeError:  # the loop was closed meanwhile
            pass

    context = copy_context()
    threading.Thread(target=work, name="gravito credentials", daemon=True).start()
    return await future
