"""`dvc plots show` has a page of its own, which draws every plot of dvc.yaml in a browser without a network."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc_render import VegaRenderer, render_html
from support.workspaces import ROOT

BROWSER = os.environ.get("HEARTML_BROWSER") or next(filter(None, map(
    shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NAMED = "as recorded <b>a</b>"      # words of a table are shown as they are


def plots() -> dict[str, dict[str, Any]]:
    """File -> its properties, for every plot of dvc.yaml."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    return {path: properties for stage in stages for plot in stage.get("plots", [])
            for path, properties in plot.items()}


def page_of(folder: Path, drawn: dict[str, dict[str, Any]]) -> Path:
    """The page that DVC writes for these plots, with three rows each in two revisions."""
    config = configparser.ConfigParser()
    config.read_string((ROOT / ".dvc/config").read_text(encoding="utf-8").replace("    ", ""))
    renderers = []
    for path, properties in drawn.items():
        rows = [{properties["x"]: x, properties["y"]: y, "rev": rev}
                for rev in ("workspace", "HEAD") for x, y in (("0.5", NAMED), ("0.25", "b"), ("0.75", "c"))]
        if properties["template"] in {"scatter", "linear"}:
            rows = [{**row, properties["y"]: row[properties["x"]]} for row in rows]
        y = [{"filename": path, "field": properties["y"]}]
        renderers.append(VegaRenderer(rows, path, **properties, anchors_y_definitions=y,
                                      revs_with_datapoints=["workspace", "HEAD"]))
    return Path(render_html(renderers, folder / "index.html", ROOT / ".dvc" / config["plots"]["html_template"]))


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = page_of(tmp_path, plots()).read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)", text)
    assert not re.search(r"\b(?:fetch|import|XMLHttpRequest)\s*\(|url\(", text)
    assert text.count("vegaEmbed('#") == len(plots()) >= 6


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH and no HEARTML_BROWSER")
def test_a_browser_draws_every_plot_and_of_an_unknown_one_shows_the_numbers(tmp_path: Path) -> None:
    known = plots()
    unknown = {"other.csv": {"template": "linear", "x": "step", "y": "loss", "title": "another plot"}}
    page = page_of(tmp_path, known | unknown)
    done = subprocess.run([
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
    ], capture_output=True, text=True, timeout=120, check=False)
    assert "CONSOLE" not in done.stderr, done.stderr
    figures = re.findall(r"<figure>.*?</figure>", done.stdout, re.DOTALL)
    assert len(figures) == len(known) + 1
    drawn = {"confusion": r"<td style", "scatter": r"<circle ", "bar_horizontal": r"<rect ", "linear": r"<td>0\.25"}
    for figure, properties in zip(figures, (known | unknown).values(), strict=True):
        assert f"<figcaption>{properties['title']}</figcaption>" in figure
        assert len(re.findall(drawn[properties["template"]], figure)) >= 4, properties
        assert "NaN" not in figure
        assert "<b>" not in figure
    assert sum("&lt;b&gt;a" in figure for figure in figures) >= 2
