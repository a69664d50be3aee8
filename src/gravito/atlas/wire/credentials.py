"""What to authenticate with: fixed settings, or a provider that is asked at every connect."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from gravito import errors
from gravito.atlas.config import Settings
from gravito.atlas.wire.handshake import Credentials


async def current_credentials(settings: Settings) -> Credentials:
    """The provider's answer if there is a provider, else the settings' username and password.

    Raises AuthenticationError if the provider fails or answers with something else than credentials.
    """
    if settings.credential_provider is None:
        return Credentials(settings.username, settings.password)
    try:
        answer = await _ask(settings.credential_provider)
    except Exception as error:
        # its text may hold what it tried, so only its class is named; the cause is chained
        raise errors.AuthenticationError(
            f"the credential provider of connection '{settings.name}' failed with {type(error).__name__}"
        ) from error
    if isinstance(answer, str):
        return Credentials(settings.username, answer)
    parts = answer if isinstance(answer, tuple) and all(isinstance(part, str) for part in answer) else ()
    if len(parts) == 1:
        return Credentials(settings.username, parts[0])
    if len(parts) == len(Credentials._fields):
        return Credentials(*parts)
    raise errors.AuthenticationError(
        f"the credential provider of connection '{settings.name}' returned {type(answer).__name__}; "
        "allowed: a password, or a tuple (username, password)"
    )


async def _ask(provider: Any) -> Any:
    if hasattr(provider, "get_credentials_async"):
        return await provider.get_credentials_async()
    ask = getattr(provider, "get_credentials", provider)
    own = getattr(type(ask), "__call__", None)  # noqa: B004  # an object may be callable by an async method
    if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(own):
        return await ask()
    return await asyncio.to_thread(ask)  # it may ask a vault over the network
