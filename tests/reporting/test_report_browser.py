"""A headless browser shows the report in light and in dark, and loads nothing from elsewhere."""

import html
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.browsers import BROWSER, needs_browser


def look(page: Path, scheme: str, folder: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Open a page in a headless browser: pixels [height, width, 3] in [0, 1], console lines, addresses it asked for."""
    import matplotlib.image

    shot, net, profile = folder / f"{scheme}.png", folder / f"{scheme}.json", folder / f"profile-{scheme}"
    done = subprocess.run([
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", f"--log-net-log={net}",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", f"--screenshot={shot}",
        "--window-size=1280,900", page.as_uri(),
    ], capture_output=True, text=True, timeout=120, check=False)
    assert shot.exists(), done.stderr
    events = json.loads(net.read_text())["events"]
    asked = [event["params"]["url"] for event in events
             if event.get("params", {}).get("initiator", "not an origin") != "not an origin"]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return matplotlib.image.imread(shot)[..., :3], console, asked


@needs_browser
def test_a_browser_shows_the_page_in_light_and_in_dark(pages, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(pages["promoted"], encoding="utf-8")
    shown = {}
    for scheme in ("light", "dark"):
        pixels, console, asked = look(page, scheme, tmp_path)
        assert console == []
        assert [address for address in asked if not address.startswith("data:")] == []
        assert pixels.shape == (900, 1280, 3)
        assert pixels.std() > 0.04, "the page is blank"
        shown[scheme] = pixels
    assert np.median(shown["light"]) > 0.9 and np.median(shown["dark"]) < 0.15


# A window is never narrower than 500 pixels, a frame in it is.
FRAME = """<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{page}" onload="
const seen = this.contentDocument, all = [seen.documentElement, ...seen.querySelectorAll('.card')];
const wide = all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className + ' ' + e.innerText.slice(0, 40));
document.title = 'measured ' + all.length + ' at ' + this.contentWindow.innerWidth + ' wide ' + JSON.stringify(wide);
"></iframe>"""


def with_five_classes(text: str) -> str:
    """The first confusion matrix as of the longest names that a task of five classes has."""
    names = ("artifact", "extrahls", "extrastole", "murmur", "normal")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(f'<tr><th scope="row">{name}</th>{"<td>262</td>" * 5}</tr>' for name in names)
    made = f'style="--classes: 5"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return re.sub(r'(<table class="confusion" data-numbers="metrics" ).*?</table>', rf"\1{made}", text, count=1,
                  flags=re.DOTALL)


@needs_browser
@pytest.mark.parametrize("width", [390, 800, 1100, 1240])
def test_nothing_sticks_out_sideways(pages, tmp_path, width):
    page = tmp_path / "report.html"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", pages["promoted"])
    framed = FRAME.format(width=width, page=html.escape(with_five_classes(without_policy)))
    page.write_text(f"<!doctype html><title>waits</title><body>{framed}</body>", encoding="utf-8")
    done = subprocess.run([
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,1000", "--dump-dom", page.as_uri(),
    ], capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"<title>measured (\d+) at (\d+) wide (.*?)</title>", done.stdout)
    assert found and int(found[1]) > 15 and int(found[2]) == width, done.stderr
    assert found[3] == "[]"


@needs_browser
def test_the_browser_would_have_told(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://example.org/x.png'><script>nope()</script>", encoding="utf-8")
    _, console, asked = look(page, "light", tmp_path)
    assert any("nope" in line for line in console)
    assert asked == ["http://example.org/x.png"]
