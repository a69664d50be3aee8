"""Every page in Chromium: no complaint, live, light and dark, on a phone, and without scripts."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tests.browser import application as app
from tests.browser.addresses import PLACES, address, file_name
from tests.browser.visitor import PHONE, Visitor
from tests.browser.world import World

DARK = "rgb(17, 22, 27)"
LIGHT = "rgb(246, 247, 248)"


@pytest.mark.parametrize("page", PLACES)
def test_opens_without_a_complaint_and_hears_of_changes(visitor: Visitor, world: World, page: str) -> None:
    visitor.get(address(world, page))
    assert visitor.find("h1").text
    if visitor.run("return document.body.dataset.live"):
        visitor.until(lambda: visitor.text("#link-text") == "live", "it never became live")
    assert visitor.complaints() == []
    assert visitor.run("return document.querySelectorAll('[style], [onclick]').length") == 0
    visitor.shot(file_name(page))


@pytest.mark.parametrize("page", PLACES)
def test_on_a_phone_nothing_scrolls_sideways(visitor: Visitor, world: World, page: str) -> None:
    visitor.size(*PHONE)
    visitor.get(address(world, page))
    visitor.find("h1")
    wide = visitor.run("return document.documentElement.scrollWidth")
    assert wide <= PHONE[0], f"{page} is {wide} pixels wide"
    visitor.shot(f"{file_name(page)}-phone")


@pytest.mark.parametrize("page", PLACES)
def test_without_scripts_the_page_is_whole(visitor: Visitor, world: World, page: str) -> None:
    visitor.get(address(world, page))
    visitor.find("h1")
    with_script = visitor.driver.find_element(By.TAG_NAME, "h1").text
    visitor.scripts(False)
    visitor.get(address(world, page))
    assert visitor.driver.find_element(By.TAG_NAME, "h1").text == with_script
    assert visitor.driver.find_element(By.ID, "link").text in ("not live", "as of loading")


@pytest.mark.parametrize("page", ["/", "/queues", "/queues/{queue}", "/jobs", "/workers"])
def test_dark_by_the_system_and_by_choice(visitor: Visitor, world: World, page: str) -> None:
    visitor.get(address(world, page))
    assert visitor.paper() == LIGHT
    visitor.scheme("dark")
    assert visitor.paper() == DARK
    visitor.shot(f"{file_name(page)}-dark")
    visitor.press("Light", ".theme")
    assert visitor.paper() == LIGHT
    visitor.scheme("light")
    visitor.press("Dark", ".theme")
    assert visitor.paper() == DARK
    visitor.get("/workers")
    assert visitor.paper() == DARK


def test_a_pushed_job_is_counted_on_the_open_overview(visitor: Visitor, world: World) -> None:
    visitor.get("/")
    visitor.until(lambda: visitor.text("#link-text") == "live")
    visitor.run("window.same = true")  # gone if the page is loaded anew
    before = int(visitor.text('[data-key="q.unserved.ready"]').replace(",", ""))
    world.push(app.greet.on("unserved").make("live"))
    visitor.until(lambda: visitor.text('[data-key="q.unserved.ready"]') == str(before + 1), "no change seen")
    assert visitor.run("return window.same") is True


def test_a_new_queue_appears_on_the_open_list(visitor: Visitor, world: World) -> None:
    visitor.get("/queues")
    visitor.until(lambda: visitor.text("#link-text") == "live")
    visitor.run("window.same = true")
    assert "brand-new" not in visitor.text()
    world.push(app.greet.on("brand-new").make("live"))
    visitor.until(lambda: "brand-new" in visitor.text(), "the queue never appeared")
    assert visitor.run("return window.same") is True


def test_a_job_is_seen_to_run_and_to_end(visitor: Visitor, world: World) -> None:
    job_id = world.push(app.hold.make("watched"))
    visitor.get("/running")
    visitor.until(lambda: job_id[:8] in visitor.text(), "it is not seen to run")
    visitor.until(lambda: "30 %" in visitor.text(), "its progress is not seen")
    world.release("watched")
    visitor.until(lambda: world.state("slow", job_id) == "ok", "it did not end")
    visitor.until(lambda: f'value="slow/{job_id}"' not in visitor.driver.page_source, "it is not seen to end")
    assert world.state("slow", job_id) == "ok"
    assert visitor.path == "/running"


def test_the_console_asks_for_the_token_and_forgets_it(visitor: Visitor) -> None:
    visitor.press("Log out", "body")
    assert visitor.path.startswith("/login")
    visitor.get("/jobs")
    assert visitor.path.startswith("/login")
    visitor.find("input[name=token]").send_keys("wrong" + Keys.ENTER)
    visitor.until(lambda: visitor.driver.find_elements(By.CSS_SELECTOR, "[role=alert]"))
    assert "/login" in visitor.path
