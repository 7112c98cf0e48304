"""A real browser without a window: pages opened from disk, looked at, used and photographed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


class Browser:
    """Chromium, with what the tests ask of it.

    Attributes:
        driver: What steers it.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, fragment: str = "", **look: Any) -> None:
        """Open a page from disk, in a window of some size and colour scheme."""
        self.look(**look)
        self.driver.get("about:blank")
        self.requests()  # what was asked for before is not of this page
        self.driver.get(page.absolute().as_uri() + fragment)

    def look(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Set the size of the window, and the colour scheme that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script gives."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Return the elements that a CSS selector finds."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """Return the only element that a CSS selector finds."""
        (element,) = self.all(selector)
        return element

    def text(self, selector: str) -> str:
        """Return what all elements say that a selector finds, whether or not they are seen."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return "\n".join(self.run(script, selector))  # at one moment: the page may draw anew

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: Callable[[], Any]) -> bool:
        """Return whether something comes true, within seconds: a page answers when it can."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        try:
            drawn_anew = [StaleElementReferenceException]
            wait = WebDriverWait(self.driver, 10, 0.05, ignored_exceptions=drawn_anew)
            return bool(wait.until(lambda _driver: condition()))
        except TimeoutException:
            return False

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return what the console said since the last call."""
        return [entry["message"] for entry in self._log("browser")]

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong with what is on the screen, as rule and place."""
        self.run(Path(os.environ["AXE"]).read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "axe.run(document, {runOnly: ['wcag2a','wcag2aa','wcag21a','wcag21aa','wcag22aa',"
            "'best-practice']}).then(arguments[0])"
        )
        return [
            f"{rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.driver.get_log(kind))  # type: ignore[attr-defined]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, and end it afterwards."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
