"""The same data for programs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gravito.horizon.console._actions import api_action
from gravito.horizon.console._site import Ask, Site

__all__ = ["routes"]


def routes(site: Site) -> list[Route]:
    """All of them."""

    async def act(request: Request) -> Response:
        return await api_action(Ask(site, request))

    return [Route("/api/actions/{name}", act, methods=["POST"], name="api_action")]
