"""A web application with all three rooms: cached prices, orders as jobs, live news of them, and the console.

uvicorn shop:app --timeout-graceful-shutdown 5
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, StreamingResponse
from jobs import horizon, ship
from pydantic import BaseModel

from gravito.atlas import DB
from gravito.stasis import Cache, cached

console = horizon.console()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connections, and the console's watch over the alerts, from the start to the end."""
    async with DB.lifespan(app), console.lifespan():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/horizon", console)
cache = Cache()


class Order(BaseModel):
    """What a customer wants."""

    item: str


@cached(ttl=60, key="price:{item}", cache=cache)
async def price(item: str) -> float:
    """Made once a minute for each item, however many ask."""
    await asyncio.sleep(0.2)  # a slow service
    return round(2 + len(item) * 0.75, 2)


@app.get("/prices/{item}")
async def show_price(item: str) -> dict[str, float]:
    """The price of an item."""
    return {item: await price(item)}


@app.post("/orders", status_code=202)
async def order(wanted: Order) -> dict[str, str]:
    """Take an order; a worker ships it."""
    number = secrets.token_hex(4)
    await ship.id(number).push(number, wanted.item)
    return {"order": number}


@app.get("/orders/{number}")
async def follow(number: str) -> dict[str, str | None]:
    """How far an order is."""
    status = await horizon.handle(number).status()
    if status.state == "unknown":
        raise HTTPException(404, "there is no such order")
    return {"state": status.state, "note": status.progress[2] if status.progress else None}


@app.get("/news")
async def news() -> StreamingResponse:
    """What happens to orders, as server-sent events."""

    async def events() -> AsyncIterator[str]:
        async with await DB.connection().subscribe("orders") as subscription:
            yield "event: ready\ndata: {}\n\n"
            async for message in subscription:
                kind = "gap" if message.type == "gap" else "order"  # a gap: some may be missing, load anew
                yield f"event: {kind}\ndata: {message.data}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@app.get("/")
async def page() -> HTMLResponse:
    """A page to try it with."""
    return HTMLResponse(PAGE)


PAGE = """<!doctype html><meta charset="utf-8"><title>Shop</title>
<link rel="icon" href="data:,">
<h1>Shop</h1>
<form><input name="item" value="tea" aria-label="Item"> <button>Order</button></form>
<ul aria-live="polite"></ul><p><a href="horizon/">The job queue</a></p>
<script>
document.forms[0].onsubmit = event => {
  event.preventDefault()
  const item = event.target.item.value
  fetch("orders", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({item})})
}
new EventSource("news").addEventListener("order", event => {
  const {order, item, state} = JSON.parse(event.data)
  const line = document.createElement("li")
  line.textContent = `${order} ${item}: ${state}`
  document.querySelector("ul").prepend(line)
})
</script>
"""
