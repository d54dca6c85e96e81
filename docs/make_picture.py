"""The README's picture: the head of a report, from the verdict to the gate's reasons, as docs/images/report.webp.

python docs/make_picture.py [PAGE] [--to FILE] [--height 1300]

PAGE is a report that `heartml retrain` wrote; without it the demo's (`make run` makes it, `make picture` calls this).
Chromium without a window shows it 1,280 pixels wide; the picture ends at the last gap between two lines above --height,
so that no line is cut. Needs Chromium or Chrome on PATH, or its path in HEARTML_BROWSER.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "reports" / "simulated-murmur.html"
PICTURE = ROOT / "docs" / "images" / "report.webp"
WIDTH, HEIGHT = 1280, 1300      # pixels
GAP = 12                        # rows of one colour that count as a gap
MOST_BYTES = 300_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--blink-settings=preferredColorScheme=1")      # light, offline


def main() -> None:
    """Make the picture, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, metavar="PAGE")
    parser.add_argument("--to", type=Path, default=PICTURE, metavar="FILE")
    parser.add_argument("--height", type=int, default=HEIGHT, help="At most so many pixels high.")
    options = parser.parse_args()
    if not options.page.is_file():
        sys.exit(f"{options.page}: no such report; `make run` trains the demo and writes it")
    picture = whole_lines(photograph(options.page, options.height))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.to, lossless=True, quality=100, method=6)
    size = options.to.stat().st_size
    print(f"{options.to}: {picture.width} x {picture.height} pixels, {size / 1e3:.0f} kB")
    if size > MOST_BYTES:
        sys.exit(f"that is more than {MOST_BYTES / 1e3:.0f} kB: ask for less --height")


def photograph(page: Path, height: int) -> Image.Image:
    """The first `height` pixels of `page`, as a browser shows it.

    Raises:
        SystemExit: no browser, or it made no picture; its last words are shown.
    """
    browser = os.environ.get("HEARTML_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        sys.exit(f"no {', '.join(BROWSERS)} on PATH: install one, or name it in HEARTML_BROWSER")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, *QUIET, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}",
                   f"--screenshot={shot}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not shot.exists():
            sys.exit(f"{browser} made no picture: {done.stderr[-1000:]}")
        with Image.open(shot) as picture:
            return picture.convert("RGB")


def whole_lines(picture: Image.Image) -> Image.Image:
    """The picture without a line that its lower edge cuts: up to the middle of the lowest gap."""
    pixels = np.asarray(picture)                                        # [rows, columns, colours]
    empty = (pixels == pixels[:, :1]).all(axis=(1, 2))                  # rows of one colour
    ends = [row for row in range(GAP, len(empty) + 1) if empty[row - GAP:row].all()]
    lowest = ends[-1] if ends else len(empty)
    return picture.crop((0, 0, picture.width, lowest if lowest == len(empty) else lowest - GAP // 2))


if __name__ == "__main__":
    main()
