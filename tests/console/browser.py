"""A real Chromium, driven through its own chromedriver; nothing is downloaded."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import JavascriptException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WAIT_S = 10.0


class Browser:
    """One browser window; everything it complained about is kept."""

    def __init__(self, address: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.address = address
        self.driver = webdriver.Chrome(options, Service(executable_path=str(CHROMEDRIVER)))
        self.width = 0
        self._faults: list[str] = []

    def quit(self) -> None:
        self.driver.quit()

    def reset(self) -> None:
        """Forget choices and complaints, and be a desk screen."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.size(1280, 900)
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._faults = []

    def size(self, width: int, height: int) -> None:
        self.width = width
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Emulate what the system prefers, such as ``prefers_color_scheme="dark"``."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)
        self.wait(lambda: self.js("return innerWidth") == self.width, "the emulated width")

    def js(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)  # type: ignore[no-untyped-call]

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return self.wait(lambda: next(iter(self.all(css)), None), f"an element {css}")

    def text(self, css: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.textContent.trim() ?? ''", css))

    def texts(self, css: str) -> list[str]:
        return list(self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", css))

    def is_shown(self, css: str) -> bool:
        return bool(self.js("return document.querySelector(arguments[0])?.checkVisibility() ?? false", css))

    def press(self, keys: str, *, shift: bool = False) -> None:
        chain = ActionChains(self.driver)
        chain = chain.key_down(Keys.SHIFT).send_keys(keys).key_up(Keys.SHIFT) if shift else chain.send_keys(keys)
        chain.perform()

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                found = condition()
            except (StaleElementReferenceException, JavascriptException):
                found = None
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {timeout_s} s for {what}; the page:\n{self.text('main')[:1500]}")

    def wait_live(self) -> None:
        """Wait until the stream has renewed the figures."""
        self.wait(lambda: not self.js("return document.querySelector('#live').classList.contains('off')"), "the stream")

    def faults(self) -> list[str]:
        """Return what the browser logged as warnings and errors since `reset`: policy, scripts, failed loads."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._faults += [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]
        return self._faults

    def forgive(self, part: str) -> None:
        """Expect a complaint: there must be one with this part, and it is dropped."""
        self.wait(lambda: any(part in fault for fault in self.faults()), f"the browser to log {part}")
        self._faults = [fault for fault in self._faults if part not in fault]
