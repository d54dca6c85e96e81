"""The system's Chromium, driven by Playwright."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("HEARTML_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on PATH and no HEARTML_BROWSER: the page is not looked at in a browser")


@contextlib.contextmanager
def launched(*arguments: str) -> Iterator[Any]:
    """A headless browser; `new_context` of it is a fresh profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *arguments])
        try:
            yield found
        finally:
            found.close()
