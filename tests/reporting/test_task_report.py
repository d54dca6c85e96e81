"""Laws of the report: its figures are the evaluation's, nothing is loaded from elsewhere, and a browser shows it."""

import html
import io
import json
import os
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from support import finished_project

from heartml.core import paths
from heartml.core.system import files
from heartml.core.tasks import TaskError
from heartml.metrics import METRICS
from heartml.reporting import number_format, task_report
from heartml.reporting import svg as plots
from heartml.reporting.number_format import figure, span
from heartml.reporting.task_report import headline, listening, worst_errors
from heartml.reporting.task_report.charts import importance
from heartml.stages import report

HOSTILE = "simulated-<script>alert('x')</script>&\"quoted\""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("HEARTML_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on PATH and no HEARTML_BROWSER: the page is not looked at in a browser")


class Page(HTMLParser):
    """Every attribute, every table cell of the tables of figures, and all visible text."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.cells, self.words, self.tags = [], [], [], []
        self.in_numbers, self.in_cell = False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.in_numbers = dict(attrs).get("data-numbers") == "metrics"
        if tag == "td" and self.in_numbers:
            self.in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag == "td":
            self.in_cell = False
        if tag == "table":
            self.in_numbers = False

    def handle_data(self, data):
        self.words.append(data)
        if self.in_cell:
            self.cells[-1] += data + " "


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A finished project with a patient whose name is hostile, as the working folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("project")
        names = {f"simulated-{100 + child}": f"{HOSTILE}{child}" for child in range(50)}
        found = finished_project.reported(root, patch, children=50, seconds=3.0, skill=0.5, names=names)
        yield json.loads(files.canonical_json(found))


@pytest.fixture(scope="module")
def pages(project):
    """Before the gate, promoted, refused, and first of its kind."""
    return {
        "unjudged": task_report.render(finished_project.TASK, None, None),
        "promoted": task_report.render(finished_project.TASK, finished_project.verdict(promote=True),
                                       finished_project.lineage()),
        "refused": task_report.render(finished_project.TASK, finished_project.verdict(promote=False),
                                      finished_project.lineage()),
        "first": task_report.render(finished_project.TASK, finished_project.verdict(promote=True, champion=None),
                                    finished_project.lineage()),
    }


def numbers_in(value):
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_in(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_in(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@pytest.mark.parametrize("kind", ["unjudged", "promoted", "refused", "first"])
def test_every_number_in_a_table_of_results_stands_in_the_metrics(project, pages, kind):
    gate = {"unjudged": None}.get(kind, finished_project.verdict(promote=True))
    heard = numbers_in(files.read_json(paths.robustness(finished_project.TASK)))
    allowed = numbers_in(project) + (numbers_in(gate["comparison"]) if gate else []) + heard + [abs(n) for n in heard]
    shown = {number_format.figure(n) for n in allowed} | {f"{n:,}" for n in allowed if isinstance(n, int)}
    text = re.sub(r"fewer than (\d+) groups", r"\1", " ".join(Page(pages[kind]).cells))
    found = re.findall(r"\d[\d,]*\.?\d*", text)
    assert len(found) > 100
    assert [number for number in found if number not in shown] == []


def test_the_first_words_are_the_verdict_with_its_interval(project, pages):
    text = " ".join(" ".join(Page(pages["unjudged"]).words).split())
    number = project["held_out"][project["metric"]]
    opening = text[text.index("HeartML evaluation report"): text.index("Not a medical device")]
    fitted = project["out_of_fold"][project["metric"]]
    others = f"cross-fitted on {project['counts']['out_of_fold']['units']} others {figure(fitted['value'])}"
    for expected in (figure(number["value"]), span(number), f"{others} ({span(fitted)})",
                     "An ensemble of 3 models on 2 encoders",
                     project["floor_titles"][project["best_floor"]["held_out"]].lower(),
                     f"{project['counts']['held_out']['units']} patients"):
        assert expected in opening


@pytest.mark.parametrize(("kind", "words"), [
    ("promoted", ["Promoted: version 4 is the champion", "Against the champion, version 3", "+0.04 (+0.01 to +0.09)"]),
    ("refused", ["Not promoted: version 4 stays a challenger", "Champion (version 3)", "0.71"]),
    ("first", ["Promoted: version 4 is the champion", "There was no champion to compare with."]),
    ("unjudged", ["Not judged yet", "Whether it serves is decided by the gate"]),
])
def test_the_gates_verdict_is_told(pages, kind, words):
    text = " ".join(" ".join(Page(pages[kind]).words).split())
    assert [expected for expected in words if expected not in text] == []


@pytest.mark.parametrize("kind", ["unjudged", "promoted"])
def test_nothing_is_loaded_from_elsewhere(pages, kind):
    page = Page(pages[kind])
    loads = [(tag, name, value[:40]) for tag, name, value in page.attributes
             if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "content", "style")]
    outside = [load for load in loads if not re.match(r"data:|#", load[2]) and load[1] in ("src", "href", "srcset")]
    assert outside == []
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in pages[kind] and not re.search(r"url\(\s*['\"]?(?!data:|#)", pages[kind])
    assert "://" not in re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", pages[kind])
    policy = next(dict(a) for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'") and "http" not in policy["content"]


def test_hostile_names_stay_text(pages):
    page = Page(pages["unjudged"])
    assert HOSTILE in " ".join(page.words), "the hostile patient is among the worst errors"
    assert "<script" not in pages["unjudged"]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_hostile_quarantine_and_lineage_stay_text(project):
    before = pd.read_parquet(paths.QUARANTINE)
    files.write_parquet(paths.QUARANTINE, before.assign(detail=HOSTILE, source_file=HOSTILE, reason="<img src=x>"))
    lineage = finished_project.lineage(run_id=HOSTILE)
    text = task_report.render(finished_project.TASK, finished_project.verdict(promote=True) | {"version": "<b>4</b>"},
                              lineage)
    files.write_parquet(paths.QUARANTINE, before)
    assert "<script" not in text and "<img src=x" not in text and "<b>4" not in text


def test_the_same_inputs_give_the_same_bytes_and_no_place_or_day(project, pages):
    assert task_report.render(finished_project.TASK, None, None) == pages["unjudged"]
    text = re.sub(r"base64,[\w+/=]+", "", pages["unjudged"])
    assert str(Path.cwd()) not in text and not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_the_page_is_light_enough_to_send(pages):
    assert len(pages["promoted"].encode()) < 3_000_000


def test_pictures_tables_and_sounds_have_names(pages):
    page = Page(pages["promoted"])
    unnamed = [(tag, a) for tag, a in page.tags
               if tag in ("img", "svg", "audio") and not (a.get("alt") or a.get("aria-label"))]
    assert unnamed == []
    assert all(a.get("scope") in ("row", "col") for tag, a in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags
    targets = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} <= targets


def test_a_class_with_too_few_groups_shows_no_number(project, pages):
    few = [name for name, entry in project["per_class"]["held_out"].items() if not entry["estimable"]]
    assert few
    assert f"not estimable: fewer than {project['min_groups']} groups" in " ".join(Page(pages["unjudged"]).words)


def test_suspicions_are_told_on_the_first_screen(project, pages):
    text = " ".join(" ".join(Page(pages["unjudged"]).words).split())
    care = text[text.index("Read with care"): text.index("Cross-fitted on everything else")]
    for entry in project["confounded"]:
        assert f"{entry['class']} (AUC {number_format.figure(entry['auc']['value'])}" in care
        assert project["floor_titles"][entry["floor"]].lower() in care
    for name, entry in project["counts"]["held_out"]["classes"].items():
        assert (f"{name} ({entry['groups']})" in care) == (entry["groups"] < project["min_groups"])


def test_what_is_left_to_a_human_is_told_and_marked_on_the_curve(project, pages):
    page = Page(pages["unjudged"])
    text = " ".join(" ".join(page.words).split())
    told = text[text.index("Left to a human"): text.index("The dashed line is the whole part")]
    for part in ("held_out", "out_of_fold"):
        left = project["referral"][part]
        assert left["below"] == 0.5 and 0 < left["referred"]["value"] < 1
        assert f"{round(100 * left['referred']['value'])} % of the" in told
        for name, of in left["classes"].items():
            assert f"{name} {of['referred']} of {of['units']}" in told
        if left["estimable"]:
            assert f"{number_format.figure(left['scores'][project['metric']]['value'])} " in told
    estimable = [project["referral"][part]["estimable"] for part in ("held_out", "out_of_fold")]
    assert True in estimable
    curves = [svg for svg in re.findall(r"<svg.*?</svg>", pages["unjudged"], re.DOTALL) if "left undecided" in svg]
    dots = [svg.count("<circle") for svg in curves]
    assert dots == [2 * one for one in estimable][-len(dots):], "a dot a line"


def test_a_model_that_refers_nothing_marks_nothing(project):
    nothing = {part: {**left, "below": 0.0} for part, left in project["referral"].items()}
    assert task_report.tables.referral({**project, "referral": nothing}, ("held_out", "out_of_fold")) is None
    table = pd.read_csv(paths.evaluation(finished_project.TASK) / "plots/abstention.csv")
    drawn = task_report.figures.abstention(table[table["part"] == "held_out"], project["metric"], nothing["held_out"])
    assert "<circle" not in drawn.svg


def test_a_patients_places_reliability_and_abstention_are_shown(project, pages):
    page = Page(pages["unjudged"])
    labels = " ".join(a["aria-label"] for _, a in page.tags if "aria-label" in a)
    estimable = [name for name, entry in project["locations"].items() if entry["estimable"]]
    assert estimable
    for name in estimable:
        assert f"{name}, Macro AUC: {number_format.figure(project['locations'][name]['macro_auc']['value'])}" in labels
    for words in ("by source", "by age group", "by sex"):
        assert labels.count(f"held-out part, {words}") == labels.count(f"everything else, {words}") == 1
    assert labels.count("Reliability diagram before and after calibration") == 2
    assert labels.count("Scores when the least sure are left undecided") == 2


def test_what_noise_costs_is_drawn_and_told(project, pages):
    found = files.read_json(paths.robustness(finished_project.TASK))
    page = Page(pages["unjudged"])
    labels = " ".join(a["aria-label"] for _, a in page.tags if "aria-label" in a)
    text = " ".join(" ".join(page.words).split())
    section = text[text.index("Robustness All"): text.index("Worst errors", text.index("Robustness All"))]
    for entry in found["conditions"]:
        change = entry["change"]
        assert f"{entry['title']}, {entry['words']}" in section
        assert f"{number_format.signed(change['value'])} {number_format.span(change)}" in section
        assert f"{entry['title']}, {entry['words']}, Macro AUC: " in labels
    assert "Macro AUC against the loudness of added noise" in labels
    assert "Confidence against the loudness of added noise" in labels


def test_the_worst_error_comes_first_and_sounds_like_its_recording(project, pages):
    wrong = pd.read_parquet(paths.evaluation(finished_project.TASK) / "predictions.parquet")
    wrong = wrong[wrong["label"] != wrong["decision"]]
    truth = [row[f"c_{row['label']}"] for _, row in wrong.iterrows()]
    worst = wrong.iloc[int(np.argmin(truth))]
    page = Page(pages["unjudged"])
    first = next(a for tag, a in page.tags if tag == "audio")
    assert worst["unit_id"] in first["aria-label"]
    kind, content = first["src"].split(";base64,")
    played, rate_hz = soundfile.read(io.BytesIO(__import__("base64").b64decode(content)))
    assert kind == "data:audio/flac" and rate_hz == 8000 and 2 < len(played) / rate_hz < 9


def test_the_colours_of_the_bars_are_told_and_are_those_of_the_bars(pages):
    legend = re.search(r'aria-label="Colours of the bars">(.*?)</ul>', pages["unjudged"])[1]
    assert re.findall(r'class="(\w+)">([\w ]+)<', legend) == [
        ("said", "decided"), ("truth", "truth"), ("rest", "other classes")]
    for kind in ("said", "truth"):
        assert pages["unjudged"].count(f'class="bar {kind}"') == pages["unjudged"].count("instead of")
        assert re.search(rf"\.{kind} {{ --c: ", pages["unjudged"]) and f".bar.{kind} i" in pages["unjudged"]


def test_held_out_errors_stand_before_cross_fitted_ones_and_fill_up():
    table = pd.DataFrame({
        "unit_id": list("abcd"), "part": ["0", "test", "test", "1"], "label": "Absent",
        "decision": ["Present", "Present", "Absent", "Present"], "c_Absent": [0.01, 0.4, 0.9, 0.001], "c_Present": 0.5,
    })
    assert list(worst_errors.worst(table, 3)["unit_id"]) == ["b", "d", "a"]
    assert list(worst_errors.worst(table, 1)["unit_id"]) == ["b"]


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_spectrogram_shows_the_tone_that_is_there(seed):
    tone_hz = 60 + np.random.default_rng(seed).integers(0, 680)
    tone = np.sin(2 * np.pi * tone_hz * np.arange(8000) / listening.RATE_HZ).astype(np.float32)
    png = listening.spectrogram_png(tone)
    width, height = (int.from_bytes(png[16 + 4 * i:20 + 4 * i]) for i in range(2))
    data = zlib.decompress(png[png.index(b"IDAT") + 4:png.index(b"IEND") - 8])
    pixels = np.frombuffer(data, np.uint8).reshape(height, width + 1)[:, 1:]
    brightest = height - 1 - int(pixels.sum(axis=1, dtype=int).argmax())
    assert abs((brightest + 1) * listening.RATE_HZ / listening.FFT_SIZE - tone_hz) < 25


@pytest.mark.parametrize(("samples", "value"), [(0, 0.0), (10, 0.0), (10, 0.5), (8000, 0.3)])
def test_silence_and_scraps_can_be_shown(samples, value):
    excerpt = listening.excerpt(np.full(samples, value, np.float32), 44100)
    assert np.isfinite(excerpt).all()
    assert listening.spectrogram_png(excerpt).startswith(b"\x89PNG")
    listening.flac(excerpt)


def test_an_excerpt_keeps_its_pitch_at_any_rate():
    for rate_hz in (2000, 4000, 11025, 44100):
        time_s = np.arange(3 * rate_hz) / rate_hz
        excerpt = listening.excerpt(np.sin(2 * np.pi * 100 * time_s).astype(np.float32), rate_hz)
        assert len(excerpt) / listening.RATE_HZ == pytest.approx(3, abs=0.01)
        spectrum = np.abs(np.fft.rfft(excerpt))
        assert np.fft.rfftfreq(len(excerpt), 1 / listening.RATE_HZ)[spectrum.argmax()] == pytest.approx(100, abs=1)


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
@settings(deadline=None)
def test_ticks_are_few_and_within_their_limits(low, width):
    found = plots.ticks(low, low + width)
    assert 1 <= len(found) <= 6
    assert all(low - width / 100 <= value <= low + width * 1.01 for value in found)


@given(st.lists(st.floats(0, 1), min_size=1))
@settings(deadline=None)
def test_the_scale_of_shares_holds_them_and_nothing_that_no_share_can_be(values):
    low, high = plots.domain(values)
    assert 0 <= low < high <= 1
    assert low <= min(values) + 1e-6 and max(values) <= high + 1e-6


@given(st.lists(st.floats(-1e4, 1e4), min_size=1))
@settings(deadline=None)
def test_the_scale_of_differences_holds_them_and_has_a_width_also_where_nothing_changed(values):
    low, high = plots.domain(values, unit=False)
    assert low < high
    assert low <= min(values) + 1e-6 and max(values) <= high + 1e-6


def test_a_whisker_lies_where_its_numbers_say():
    svg = plots.whisker({"value": 0.5, "low": 0.25, "high": 0.75}, (0.0, 1.0), "half <&>", reference=0.1)
    assert 'x1="25.00%" x2="75.00%"' in svg and 'cx="50.00%"' in svg and 'x1="10.00%"' in svg
    assert "half &lt;&amp;&gt;" in svg


def test_importance_is_the_share_of_the_differences_that_a_choice_explains():
    table = pd.DataFrame({"encoder": ["a", "a", "b", "b"], "pooling": ["x", "y", "x", "y"], "head": ["h"] * 4,
                          "level": ["unit"] * 4, "value": [0.1, 0.1, 0.5, 0.5]})
    assert dict(importance(table)) == pytest.approx({"encoder": 1, "pooling": 0, "head": 0, "level": 0})


def test_every_metric_has_a_title_and_a_meaning(project):
    for name in METRICS:
        found = project | {"official": [name], "metric": name}
        assert dict(headline.meanings(found))[headline.TITLES[name]]


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
@pytest.mark.parametrize("width", [390, 800, 1280])
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


@pytest.mark.parametrize(("value", "text"), [(0.814, "0.81"), (0.996, "1.00"), (15123.4, "15,123"), (None, "–")])
def test_figures_are_rounded_numbers(value, text):
    assert number_format.figure(value) == text
    assert number_format.signed(-0.052) == "−0.05" and number_format.signed(0.26) == "+0.26"
    assert number_format.span({"low": 0.731, "high": 0.884}) == "0.73 to 0.88"


def test_a_task_that_is_none_is_refused_as_elsewhere() -> None:
    with pytest.raises(TaskError, match="no task 'nope'"):
        report.run("nope")
