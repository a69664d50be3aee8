"""Whoever cannot see the console well, or uses no mouse: axe on every page in both schemes, and the keyboard alone."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from tests.browser import application as app
from tests.browser.addresses import PLACES, address
from tests.browser.visitor import Visitor
from tests.browser.world import World

LIGHT, LIGHT_INK = "rgb(246, 247, 248)", "rgb(23, 32, 42)"
DARK, DARK_INK = "rgb(17, 22, 27)", "rgb(230, 235, 240)"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@functools.cache
def axe() -> str:
    """https://github.com/dequelabs/axe-core, as the package brings it."""
    return (files("selenium_axe_python") / "axe-core" / "axe.min.js").read_text()


def violations(visitor: Visitor) -> list[str]:
    """What axe finds: the rule, and where."""
    visitor.run(axe())
    script = """
        const done = arguments[arguments.length - 1];
        axe.run(document, {runOnly: arguments[0], resultTypes: ['violations']}).then(
            found => done(found.violations), error => done([{id: String(error), nodes: []}]));"""
    found: list[Any] = visitor.driver.execute_async_script(script, RULES)
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.parametrize("page", [*PLACES, "/login", "/jobs/default/nothing", "/jobs?state=dead&name=nobody"])
def test_axe_finds_nothing_in_light_and_in_dark(visitor: Visitor, world: World, page: str) -> None:
    if page == "/login":
        visitor.driver.delete_all_cookies()
    visitor.get(address(world, page))
    visitor.settled()
    _pleases(visitor)


def test_axe_finds_nothing_in_a_question(visitor: Visitor, world: World) -> None:
    world.push(app.greet.on("unserved").make("asked about"))
    visitor.get("/queues/unserved")
    visitor.press("Purge all ready jobs")
    _pleases(visitor)


def _pleases(visitor: Visitor) -> None:
    for scheme, paper, ink in (("light", LIGHT, LIGHT_INK), ("dark", DARK, DARK_INK)):
        visitor.scheme(scheme)
        assert visitor.paper() == paper
        assert visitor.run("return getComputedStyle(document.querySelector('h1')).color") == ink
        assert violations(visitor) == [], scheme


def test_axe_sees_what_is_wrong(visitor: Visitor) -> None:
    visitor.get("/")
    visitor.run("document.querySelector('main').insertAdjacentHTML('beforeend', '<button></button>')")
    assert any(found.startswith("button-name") for found in violations(visitor))


def test_the_first_tab_offers_to_skip_the_menu(visitor: Visitor) -> None:
    visitor.get("/")
    visitor.key(Keys.TAB)
    assert visitor.focused()["name"] == "Skip to the content"
    assert visitor.focused()["inside"]
    visitor.key(Keys.ENTER)
    assert visitor.focused()["tag"] == "main"


@pytest.mark.parametrize("page", PLACES)
def test_tab_reaches_every_control_in_order_and_shows_where_it_is(
    visitor: Visitor, world: World, page: str
) -> None:
    visitor.get(address(world, page))
    visitor.settled()
    script = """
        window.order = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
            .filter(one => !one.disabled && one.type !== 'hidden' && one.checkVisibility());
        window.seen = [];
        addEventListener('focusin', event => {
            const style = getComputedStyle(event.target);
            const shown = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
            window.seen.push([window.order.indexOf(event.target), shown, event.target.outerHTML.slice(0, 200)]);
        });
        return window.order.length;"""
    count = min(visitor.run(script), 60)  # a list of fifty rows goes on as it begins
    ActionChains(visitor.driver).send_keys(Keys.TAB * count).perform()
    visited = visitor.run("return window.seen")
    assert [html for _, shown, html in visited if not shown] == [], "the keyboard is not seen there"
    seen = [place for place, _, _ in visited if place != -1]  # the parts of a date are one control
    assert len(seen) >= min(count, 40)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen == list(range(seen[-1] + 1))


def test_a_queue_is_paused_with_the_keyboard_alone(visitor: Visitor, world: World) -> None:
    world.push(app.greet.on("by-keyboard").make("waits"))
    visitor.get("/queues")
    _tab_to(visitor, "by-keyboard")
    visitor.key(Keys.ENTER)
    visitor.until(lambda: visitor.path == "/queues/by-keyboard" and visitor.is_complete)
    _tab_to(visitor, "Pause")
    assert not world.sizes("by-keyboard").paused
    visitor.key(Keys.SPACE)
    visitor.until(lambda: "by-keyboard is paused" in visitor.notice)
    assert world.sizes("by-keyboard").paused


def test_jobs_are_chosen_and_deleted_with_the_keyboard_alone(visitor: Visitor, world: World) -> None:
    ids = [world.push(app.greet.on("keys").make(str(number))) for number in range(2)]
    visitor.get("/jobs?state=ready&queue=keys")
    _tab_to(visitor, "All on this page")
    visitor.key(Keys.SPACE)
    assert visitor.text("[data-count]") == "2"
    _tab_to(visitor, "Delete", back=True)
    visitor.key(Keys.ENTER)
    visitor.until(lambda: "Delete 2 jobs?" in visitor.text() and visitor.is_complete)
    _tab_to(visitor, "Delete 2")
    visitor.key(Keys.ENTER)
    visitor.until(lambda: "2 jobs are deleted" in visitor.notice)
    assert {world.state("keys", one) for one in ids} == {"unknown"}


def test_slash_goes_to_the_search(visitor: Visitor) -> None:
    visitor.get("/jobs")
    visitor.find("input[type=search]")
    visitor.key("/")
    assert visitor.focused()["tag"] == "input"


def _tab_to(visitor: Visitor, name: str, *, back: bool = False) -> None:
    if visitor.focused()["tag"] == "body":  # over the menu, as everybody does
        visitor.key(Keys.TAB)
        visitor.key(Keys.ENTER)
    for _ in range(200):
        visitor.key(*([Keys.SHIFT] if back else []), Keys.TAB)
        if visitor.focused()["name"] == name:
            return
    raise AssertionError(f"Tab never came to {name}")
