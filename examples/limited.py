"""An API that each caller may use five times in ten seconds, over all processes and machines.

uvicorn limited:app
"""

from __future__ import annotations

import math

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gravito.atlas import DB
from gravito.stasis import Cache

cache = Cache()
calls = cache.limiter("api:{caller}", limit=5, per=10, kind="sliding")


async def quote(request: Request) -> JSONResponse:
    """A wise word, if the caller has not had too many."""
    caller = request.headers.get("x-api-key") or (request.client.host if request.client else "nobody")
    decision = await calls.attempt(caller=caller)
    headers = {"ratelimit-limit": str(decision.limit), "ratelimit-remaining": str(decision.remaining)}
    if not decision:
        headers["retry-after"] = str(math.ceil(decision.retry_after))
        return JSONResponse({"error": "too many calls"}, 429, headers)
    return JSONResponse({"quote": "Measure twice, cut once."}, headers=headers)


app = Starlette(routes=[Route("/quote", quote)], lifespan=DB.lifespan)
