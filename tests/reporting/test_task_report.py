"""Laws of the report: its figures are the evaluation's, nothing is loaded from elsewhere, and a browser shows it."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from support import finished_project
from support.report_pages import HOSTILE, ReportPage

from heartml.core import paths
from heartml.core.system import files
from heartml.core.tasks import TaskError
from heartml.metrics import METRICS
from heartml.reporting import number_format, task_report
from heartml.reporting.number_format import figure, span
from heartml.reporting.task_report import headline, worst_errors
from heartml.stages import report


def test_the_first_words_are_the_verdict_with_its_interval(project, pages):
    text = " ".join(" ".join(ReportPage(pages["unjudged"]).words).split())
    number = project["held_out"][project["metric"]]
    opening = text[text.index("HeartML evaluation report"): text.index("Not a medical device")]
    fitted = project["out_of_fold"][project["metric"]]
    others = f"out of fold on {project['counts']['out_of_fold']['units']} others {figure(fitted['value'])}"
    for expected in (figure(number["value"]), span(number), f"{others} ({span(fitted)})",
                     "An ensemble of 3 models on 2 encoders",
                     project["floor_titles"][project["best_floor"]["held_out"]].lower(),
                     f"{project['counts']['held_out']['units']} patients"):
        assert expected in opening


@pytest.mark.parametrize(("kind", "words"), [
    ("promoted", ["Promoted: version 4 is the champion", "Against the champion, version 3", "+0.04 (+0.01 to +0.09)"]),
    ("refused", ["Not promoted: version 4 stays a challenger", "Champion (version 3)", "0.71"]),
    ("first", ["Promoted: version 4 is the champion", "There was no champion to compare with."]),
    ("unjudged", ["Not decided yet", "The gate decides whether it becomes the champion"]),
])
def test_the_gates_verdict_is_told(pages, kind, words):
    text = " ".join(" ".join(ReportPage(pages[kind]).words).split())
    assert [expected for expected in words if expected not in text] == []


@pytest.mark.parametrize("kind", ["unjudged", "promoted"])
def test_nothing_is_loaded_from_elsewhere(pages, kind):
    page = ReportPage(pages[kind])
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
    page = ReportPage(pages["unjudged"])
    assert HOSTILE in " ".join(page.words), "the hostile patient is among the worst errors"
    assert "<script" not in pages["unjudged"]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_hostile_quarantine_and_lineage_stay_text(project):
    before = pd.read_parquet(paths.QUARANTINE)
    files.write_parquet(paths.QUARANTINE, before.assign(detail=HOSTILE, source_file=HOSTILE, reason="<img src=x>"))
    lineage = finished_project.lineage_outline(run_id=HOSTILE)
    verdict = finished_project.gate_verdict(promote=True) | {"version": "<b>4</b>"}
    text = task_report.render(finished_project.TASK, verdict, lineage)
    files.write_parquet(paths.QUARANTINE, before)
    assert "<script" not in text and "<img src=x" not in text and "<b>4" not in text


def test_the_same_inputs_give_the_same_bytes_and_no_place_or_day(project, pages):
    assert task_report.render(finished_project.TASK, None, None) == pages["unjudged"]
    text = re.sub(r"base64,[\w+/=]+", "", pages["unjudged"])
    assert str(Path.cwd()) not in text and not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_the_page_is_light_enough_to_send(pages):
    assert len(pages["promoted"].encode()) < 3_000_000


def test_pictures_tables_and_sounds_have_names(pages):
    page = ReportPage(pages["promoted"])
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
    assert f"not estimable: fewer than {project['min_groups']} groups" in " ".join(ReportPage(pages["unjudged"]).words)


def test_suspicions_are_told_on_the_first_screen(project, pages):
    text = " ".join(" ".join(ReportPage(pages["unjudged"]).words).split())
    care = text[text.index("Read with care"): text.index("Out of fold, on everything else")]
    for entry in project["confounded"]:
        assert f"{entry['class']} (AUC {number_format.figure(entry['auc']['value'])}" in care
        assert project["floor_titles"][entry["floor"]].lower() in care
    for name, entry in project["counts"]["held_out"]["classes"].items():
        assert (f"{name} ({entry['groups']})" in care) == (entry["groups"] < project["min_groups"])


def test_what_is_left_to_a_human_is_told_and_marked_on_the_curve(project, pages):
    page = ReportPage(pages["unjudged"])
    text = " ".join(" ".join(page.words).split())
    told = text[text.index("Referred to a human"): text.index("The dashed line is the whole part")]
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
    drawn = task_report.charts.abstention(table[table["part"] == "held_out"], project["metric"], nothing["held_out"])
    assert "<circle" not in drawn.svg


def test_a_patients_places_reliability_and_abstention_are_shown(project, pages):
    page = ReportPage(pages["unjudged"])
    labels = " ".join(a["aria-label"] for _, a in page.tags if "aria-label" in a)
    estimable = [name for name, entry in project["locations"].items() if entry["estimable"]]
    assert estimable
    for name in estimable:
        assert f"{name}, Macro AUC: {number_format.figure(project['locations'][name]['macro_auc']['value'])}" in labels
    for words in ("by source", "by age group", "by sex"):
        assert labels.count(f"held-out part, {words}") == labels.count(f"everything else, {words}") == 1
    assert labels.count("Reliability diagram before and after calibration") == 2
    assert labels.count("Scores when the least confident are left undecided") == 2


def test_what_noise_costs_is_drawn_and_told(project, pages):
    found = files.read_json(paths.robustness(finished_project.TASK))
    page = ReportPage(pages["unjudged"])
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
    page = ReportPage(pages["unjudged"])
    first = next(a for tag, a in page.tags if tag == "audio")
    assert worst["unit_id"] in first["aria-label"]
    kind, content = first["src"].split(";base64,")
    played, rate_hz = soundfile.read(io.BytesIO(__import__("base64").b64decode(content)))
    assert kind == "data:audio/flac" and rate_hz == 8000 and 2 < len(played) / rate_hz < 9


def test_the_colours_of_the_bars_are_told_and_are_those_of_the_bars(pages):
    legend = re.search(r'aria-label="Colours of the bars">(.*?)</ul>', pages["unjudged"])[1]
    assert re.findall(r'class="(\w+)">([\w ]+)<', legend) == [
        ("decided", "decided"), ("truth", "truth"), ("rest", "other classes")]
    for kind in ("decided", "truth"):
        assert pages["unjudged"].count(f'class="bar {kind}"') == pages["unjudged"].count("instead of")
        assert re.search(rf"\.{kind} {{ --c: ", pages["unjudged"]) and f".bar.{kind} i" in pages["unjudged"]


def test_held_out_errors_stand_before_out_of_fold_ones_and_fill_up():
    table = pd.DataFrame({
        "unit_id": list("abcd"), "part": ["0", "test", "test", "1"], "label": "Absent",
        "decision": ["Present", "Present", "Absent", "Present"], "c_Absent": [0.01, 0.4, 0.9, 0.001], "c_Present": 0.5,
    })
    assert list(worst_errors.worst(table, 3)["unit_id"]) == ["b", "d", "a"]
    assert list(worst_errors.worst(table, 1)["unit_id"]) == ["b"]


def test_the_page_explains_the_eight_terms_it_needs_most_and_names_the_glossary(pages):
    text = " ".join(" ".join(ReportPage(pages["unjudged"]).words).split())
    words = text[text.rindex("Words The terms that this page needs most"):]
    assert "docs/glossary.md" in words
    for term in ("Group", "Held-out part", "Out of fold", "Baseline", "Interval", "Confounded", "top class",
                 "Stacking view"):
        assert term in words


def test_every_metric_has_a_title_and_a_meaning(project):
    for name in METRICS:
        found = project | {"official": [name], "metric": name}
        assert dict(headline.meanings(found))[headline.TITLES[name]]


def test_a_task_that_is_none_is_refused_as_elsewhere() -> None:
    with pytest.raises(TaskError, match="no task 'nope'"):
        report.run("nope")
