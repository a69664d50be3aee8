"""The page of metrics says what was counted, as a chart and as a table."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.horizon.console.browsing import Browser, Parsed

from gravito.horizon import Horizon

Make = Callable[..., Browser]


def row(text: str, name: str) -> list[str]:
    """The cells of a row by its first one."""
    for one in re.findall(r"<tr><th scope=\"row\">.*?</tr>", text):
        cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", one)]
        if cells[0] == name:
            return cells
    raise AssertionError(f"no row {name}")


async def test_figures_by_job_and_queue_are_those_of_the_counters(browse: Make, horizon: Horizon) -> None:
    @horizon.job(retries=0)
    async def work(number: int) -> None:
        if number % 10 == 0:
            raise LookupError("tenth")

    @horizon.job(queue="b")
    async def other() -> None: ...

    await horizon.push_many(work.make(number) for number in range(200))
    await horizon.push_many(other.make() for _ in range(30))
    await horizon.work()
    browser = browse()
    for window in ("1h", "24h", "7d"):
        text = (await browser.get(f"/statistics?window={window}")).text
        assert row(text, "work")[1:4] == ["180", "20", "10 %"]
        assert row(text, "b")[1:3] == ["30", "0"]
        table = text[text.index("The charts as a table") :]
        assert (
            len(re.findall(r"<tr><th scope=\"row\">[^<]+</th>", table))
            >= {"1h": 60, "24h": 24, "7d": 168}[window]
        )
    only = (await browser.get("/statistics?queue=b")).text
    assert "By queue" not in only
    assert 'aria-label="Jobs done and runs failed each minute of the last hour: 30 done, 0 failed' in only
    one = (await browser.get("/statistics?job=work")).text
    assert "180 done, 20 failed" in one
    assert (await browser.get("/statistics?queue=a%20b")).status_code == 400


async def test_charts_are_read_by_keys_and_by_the_pointer(browse: Make, horizon: Horizon) -> None:
    browser = browse()
    parsed = Parsed((await browser.get("/statistics")).text)
    figures = parsed.all("figure")
    assert len(figures) == 3
    assert all(one.attributes["tabindex"] == "0" and one.attributes["aria-label"] for one in figures)
    assert len([one for one in parsed.all("g") if one.attributes.get("class") == "hit"]) == 3 * 60
    assert "none" in parsed.all("title")[-1].text  # nothing ran: no number is made up
