"""The lane of meters that these tests share, and a browser where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.browser import CHROMEDRIVER, CHROMIUM, Browser
from tests.console.lane import Lane, lay
from tests.fixtures.stack import Stack


@pytest.fixture(scope="session")
def lane(stack: Stack) -> Lane:
    return lay(stack)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory, lane: Lane) -> Iterator[Browser]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt install chromium chromium-driver)")
    browser = Browser(lane.stack.addresses["console"], Path(tmp_path_factory.mktemp("chromium")))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.reset()
    yield chromium
    assert chromium.faults() == []
