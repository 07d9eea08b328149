"""Pages read by a real Chromium, from a folder."""

import contextlib
import shutil
import time

import pytest

AUTOPLAY = "--autoplay-policy=no-user-gesture-required"


@contextlib.contextmanager
def launched(*arguments):
    """Chromium without a screen; the test is skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make setup-dev")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[AUTOPLAY, *arguments])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, **options):
    """A page that fails the test on any console error, failing request or request to a network."""
    context = browser.new_context(**options)
    page, faults = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: "ERR_ABORTED" in (request.failure or "") or faults.append(request.url))
    page.on(
        "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or faults.append(request.url)
    )
    page.on("dialog", lambda dialog: faults.append(dialog.message) or dialog.dismiss())
    yield page
    context.close()
    assert not faults


def until(page, expression, seconds=20):
    """Wait in here: the page's own policy forbids Playwright's waiting, which evaluates text."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)
