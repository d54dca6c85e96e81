"""The picture of the exported page: a simulated patient's answer and first recording, as docs/images/page.webp.

python docs/make_page_picture.py PAGE [--to FILE]

PAGE is a folder that `heartml export NAME --page PAGE` wrote. Needs Playwright (the test tools have it) and Chromium or
Chrome on PATH, or its path in HEARTML_BROWSER.
"""

import argparse
import functools
import http.server
import io
import os
import shutil
import threading
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).resolve().parent / "images" / "page.webp"
WIDTH, HEIGHT = 900, 1290
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}


class _Files(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    """Make the picture, and say where it is."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="PAGE")
    parser.add_argument("--to", type=Path, default=PICTURE, metavar="FILE")
    options = parser.parse_args()
    browser = os.environ.get("HEARTML_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=options.page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        shown = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = shown.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB")
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        tab.locator("body[data-ready=true]").wait_for(timeout=120_000)
        tab.locator("#examples button").nth(1).click()
        tab.locator("li.recording").nth(2).wait_for(timeout=120_000)
        tab.wait_for_timeout(1500)
        shot = tab.screenshot()
        shown.close()
    server.shutdown()
    options.to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(shot)) as picture:
        picture.convert("RGB").save(options.to, quality=88, method=6)
    print(f"{options.to}: {options.to.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
