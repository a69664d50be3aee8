"""Pages that are looked at: monitoring, alerts, caches and connections, charts; and script that is planted in jobs."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from tests.browser import application as app
from tests.browser.test_browser_actions import fresh
from tests.browser.visitor import Visitor
from tests.browser.world import World

from gravito.horizon._watch import read_alerts


def test_a_tag_is_watched_and_watched_no_longer(visitor: Visitor, world: World) -> None:
    queue, tag = fresh(), f"tag {fresh()}"
    for number in range(3):
        world.push(app.greet.on(queue).tags(tag).make(str(number)))
    visitor.get("/monitoring")
    visitor.find("#f-tag").send_keys(tag)
    visitor.press("Watch")
    assert f"{tag} is watched" in visitor.notice
    [row] = [one for one in world.do(world.repository.tags).tags if one.tag == tag]
    assert row.counts == {"ready": 3}
    part = visitor.run(
        "return [...document.querySelectorAll('section')].find(one => one.innerText.includes(arguments[0])).innerText",
        tag,
    )
    assert "ready\n3" in part
    visitor.press(f"Remove {tag}")
    assert tag not in [one.tag for one in world.do(world.repository.tags).tags]


def test_an_alert_is_seen_to_begin_and_is_over(visitor: Visitor, world: World) -> None:
    world.horizon.alert("roof", app.Asked("alarm:roof"))
    visitor.get("/alerts")
    visitor.until(lambda: visitor.text("#link-text") == "live")
    visitor.run("window.same = true")
    row = "return [...document.querySelectorAll('tr')].find(one => one.innerText.includes('roof')).innerText"
    assert "quiet" in visitor.run(row)
    world.do(lambda: world.client.set("alarm:roof", "it burns"))
    world.look_at_alerts()
    assert world.do(lambda: read_alerts(world.horizon))["roof"].text == "it burns"
    visitor.until(lambda: "firing" in visitor.run(row) and "it burns" in visitor.run(row), "no alert is seen")
    world.do(lambda: world.client.delete("alarm:roof"))
    world.look_at_alerts()
    assert "roof" not in world.do(lambda: read_alerts(world.horizon))
    assert visitor.run("return window.same") is True
    visitor.get("/alerts")
    assert "quiet" in visitor.run(row)


def test_cache_and_connections_show_what_was_counted(visitor: Visitor, world: World) -> None:
    """Four hits and a miss of one template, a miss of another."""
    visitor.get("/connections")
    cells = "return [...document.querySelectorAll(arguments[0] + ' tr')].map(one => [...one.cells].map(c => c.innerText))"
    cache = {row[0]: row[1:] for row in visitor.run(cells, "[aria-labelledby=h-cache]")}
    assert cache["user"][:3] == ["80 %", "4", "1"]
    assert cache["all"][:3] == ["67 %", "4", "2"]
    head, own, *_ = visitor.run(cells, "[aria-labelledby=h-connections]")
    figures = dict(zip(head, own, strict=True))
    assert int(figures["Commands"].replace(",", "")) > 10
    assert figures["Round trip now"].endswith(("ms", "s"))
    stats = world.do(lambda: world.client.info("commandstats"))
    named = [row[0] for row in visitor.run(cells, "[aria-labelledby=h-commands]")][1:]
    assert named
    assert {f"cmdstat_{name.replace(' ', '|')}" for name in named} <= set(stats)


def test_charts_tell_their_values_to_pointers_and_keys(visitor: Visitor, world: World) -> None:
    visitor.get("/statistics")
    hit = visitor.find("figure.chart .hit:last-of-type rect")
    visitor.run("arguments[0].scrollIntoView({block: 'center'})", hit)
    ActionChains(visitor.driver).move_to_element(hit).perform()
    visitor.until(lambda: "done" in visitor.text("figure.chart .tip"), "the pointer is told nothing")
    latest = visitor.text("figure.chart .tip")
    visitor.run("document.querySelector('figure.chart').focus()")
    visitor.key(Keys.HOME)
    first = visitor.text("figure.chart .tip")
    visitor.key(Keys.ARROW_RIGHT)
    second = visitor.text("figure.chart .tip")
    assert len({latest, first, second}) == 3
    total = sum(world.sizes(name).totals.get("ok", 0) for name in world.do(world.repository.names))
    done = int(visitor.text("main .tile dd").replace(",", ""))
    assert 0 < done <= total


def test_figures_of_the_overview_go_on_without_a_reload(visitor: Visitor, world: World) -> None:
    """Of workers and totals; rows that come and go are tested beside."""
    visitor.get("/")
    visitor.until(lambda: visitor.text("#link-text") == "live")
    visitor.run("window.same = true")
    before = int(visitor.text('[data-key="total.ok"]').replace(",", ""))
    job_id = world.push(app.greet.make("counted"))
    visitor.until(lambda: world.state("default", job_id) == "ok")
    visitor.until(
        lambda: int(visitor.text('[data-key="total.ok"]').replace(",", "")) > before, "it is not counted"
    )
    assert visitor.run("return window.same") is True


SHOWING = [
    "/dead",
    "/jobs?state=dead&name=planted",
    "/batches",
    "/schedules",
    "/monitoring",
    "/alerts",
    "/connections",
]


def harmless(visitor: Visitor) -> None:
    """Nothing of what was planted has become an element, or has run."""
    assert visitor.run("return document.getElementById('pwn')") is None
    assert visitor.run("return document.querySelectorAll('script:not([src])').length") == 0
    assert not [line for line in visitor.complaints() if "pwn" in line or "Content Security" in line]


@pytest.mark.parametrize("page", SHOWING)
def test_planted_script_is_shown_as_text(visitor: Visitor, world: World, page: str) -> None:
    visitor.until(lambda: world.state("default", world.ids["planted"]) == "dead")
    visitor.get(page.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20"))
    visitor.find("h1")
    assert app.PLANTED in visitor.run("return document.querySelector('main').textContent")
    harmless(visitor)


def test_planted_script_is_text_on_its_own_pages(visitor: Visitor, world: World) -> None:
    visitor.until(lambda: world.state("default", world.ids["planted"]) == "dead")
    visitor.get(f"/batches/{world.ids['planted batch']}")
    assert visitor.text("h1") == app.PLANTED
    harmless(visitor)
    visitor.get(f"/jobs/default/{world.ids['planted']}")
    text = visitor.text()
    assert text.count(app.PLANTED) >= 5  # tag, argument, meta, class of error, its text
    visitor.press("Delete", ".head-actions")
    harmless(visitor)
