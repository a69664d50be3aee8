"""The console in a Django application, by uvicorn: its pages and changes, and Django's own beside them."""

from __future__ import annotations

import re

from tests.examples.programs import ROOT, Program, free_port, served

from gravito.atlas import Client
from gravito.horizon import Horizon

SITE = "tests.horizon.console.django_site.asgi:application"


async def test_it_is_mounted_beside_django(redis: Client) -> None:
    async with Horizon(redis) as horizon:
        address = redis.settings.path
        port = free_port()
        program = Program(["-m", "uvicorn", SITE, "--port", str(port)], ROOT, f"unix://{address}")
        try:
            with served(program, f"http://127.0.0.1:{port}") as web:
                assert web.get("/").text == "Django at /"
                assert web.get("/shop/").text == "Django at /shop/"
                page = web.get("/horizon/queues", headers={"accept": "text/html"})
                assert page.status_code == 200
                assert all(
                    link.startswith("/horizon/")
                    for link in re.findall(r' (?:href|action)="(/[^"]*)"', page.text)
                )
                csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
                assert csrf is not None
                form = {"csrf": csrf[1], "queue": "default", "back": "/horizon/queues"}
                headers = {"origin": f"http://127.0.0.1:{port}"}
                answer = web.post("/horizon/actions/queue.pause", data=form, headers=headers)
                assert answer.headers["location"] == "/horizon/queues"
                assert (await horizon.broker("default").sizes()).paused
        finally:
            program.end()
