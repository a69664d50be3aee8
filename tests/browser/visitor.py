"""A visitor of the console: Chromium, by WebDriver. https://www.w3.org/TR/webdriver2/"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from tests.browser.world import TOKEN

__all__ = ["SHOTS", "Visitor", "opened"]

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
CHROMIUM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"
PHONE = (390, 844)
DESK = (1280, 900)


class Visitor:
    """One browser window.

    Args:
        driver: the browser.
        address: of the console.
    """

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address
        self._logins: list[dict[str, Any]] = []  # cookies of the first login

    def __repr__(self) -> str:
        return f"<Visitor at {self.driver.current_url}>"

    def get(self, path: str) -> None:
        """Open a page."""
        self.driver.get(self.address + path)

    def log_in(self) -> None:
        """Enter the token."""
        self.get("/login")
        self.find("input[name=token]").send_keys(TOKEN + Keys.ENTER)
        self.until(lambda: self.path == "/")

    def enter(self) -> None:
        """Be logged in, as after the first `log_in`, with nothing else remembered."""
        self.driver.delete_all_cookies()
        if not self._logins:
            self.log_in()
            self._logins = self.driver.get_cookies()
        for cookie in self._logins:
            self.driver.add_cookie(cookie)

    @property
    def path(self) -> str:
        """The address of the page, below the console."""
        return self.driver.current_url.removeprefix(self.address)

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector; waits for it."""
        found = self.until(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), f"no element {selector}"
        )
        return cast(WebElement, found[0])

    def text(self, selector: str = "main") -> str:
        """Its text, as it is shown."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def press(self, label: str, within: str = "main") -> None:
        """Press a button by its name, as a screen reader says it."""
        script = """
            const [label, within] = arguments;
            return [...document.querySelectorAll(within + ' button')].find(
                one => (one.getAttribute('aria-label') || one.innerText).trim() === label);"""
        self.until(lambda: self.run(script, label, within), f"no button {label!r} on {self.path}")
        button: Any = self.run(script, label, within)
        page = self.driver.find_element(By.TAG_NAME, "html")
        self.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        self.until(lambda: self._left(page), f"{label!r} led nowhere")

    def _left(self, page: WebElement) -> bool:
        return self.driver.find_element(By.TAG_NAME, "html").id != page.id and self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether the page is loaded."""
        return bool(self.run("return document.readyState") == "complete")

    def settled(self) -> None:
        """Wait until a page looks for nothing more."""
        self.find("h1")
        self.until(lambda: self.run("return document.querySelector('[aria-busy]')") is None, "it still looks")

    @property
    def notice(self) -> str:
        """What the console said about a change."""
        return self.text(".notice[role]")

    def run(self, script: str, *arguments: Any) -> Any:
        """A script in the page, through the debugger: the page's own policy does not bind it."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], Any], why: str = "", timeout: float = 20.0) -> Any:
        """Wait for something in the page, which may give way to another meanwhile. Returns what it is."""
        said = f"{why or 'it did not happen'} on {self.driver.current_url}"
        wait = WebDriverWait(self.driver, timeout, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), said)

    def complaints(self) -> list[str]:
        """What the browser's console has said since the last look: errors, and what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def size(self, width: int, height: int) -> None:
        """The viewport, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """What the visitor's system prefers: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def scripts(self, on: bool) -> None:
        """Whether pages may run scripts, from the next one on."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not on})

    def shot(self, name: str) -> None:
        """Keep a picture of the window."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{name}.png"))

    def paper(self) -> str:
        """The colour of the page."""
        return str(self.run("return getComputedStyle(document.body).backgroundColor"))

    def focused(self) -> dict[str, Any]:
        """The element that the keyboard is at: its tag, name, and whether it is seen to be."""
        script = """
            const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
            return JSON.stringify({tag: one.tagName.toLowerCase(), name: (one.getAttribute('aria-label') ||
                one.innerText || one.value || '').trim(), href: one.getAttribute('href'),
                outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
                inside: box.width > 0 && box.left >= 0 && box.right <= innerWidth + 1});"""
        found: dict[str, Any] = json.loads(self.run(script))
        return found

    def key(self, *keys: str) -> None:
        """Press keys, wherever the keyboard is at."""
        self.driver.switch_to.active_element.send_keys(*keys)


@contextmanager
def opened(address: str) -> Iterator[Visitor]:
    """A browser, which is ended."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    wanted = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", "--lang=en"]
    if os.geteuid() == 0:
        wanted.append("--no-sandbox")  # Chromium refuses to run as root with it
    for argument in wanted:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        visitor = Visitor(driver, address)
        visitor.size(*DESK)
        visitor.scheme("light")
        yield visitor
    finally:
        driver.quit()
