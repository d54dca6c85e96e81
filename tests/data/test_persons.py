"""Where nobody names the persons, every place that shows a number of groups says so, and numbered runs are reported."""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
from support.workspaces import ROOT

from heartml.cli import tables as printed
from heartml.core import config
from heartml.core.tasks import resolve
from heartml.data import persons
from heartml.data.ingest import IngestOutcome
from heartml.data.validation import expectations, result, run_suites
from heartml.metrics import METRICS
from heartml.metrics.bootstrap import Difference
from heartml.release import gate, gate_inputs, outcome
from heartml.release.gate import Evidence
from heartml.release.looks import Look
from heartml.release.publish import ReleaseOutcome
from heartml.reporting import model_card
from heartml.reporting.task_report import cautions

PARAMS = config.load(ROOT / "params.yaml")
ALONE = {"recordings": 1000, "unknown": 1000, "groups": 1000, "alone": 1000}
KNOWN = {"recordings": 1000, "unknown": 0, "groups": 0, "alone": 0}
EFFECT = "one person may be in training and test, the score may then be too high, and its interval is too narrow."


def collection(files: list[str], labels: list[str], patients: list[str | None] | None = None) -> pd.DataFrame:
    """Recordings as ingest stores them; without a person each is a group of its own."""
    table = pd.DataFrame({"recording_id": [f"r{k}" for k in range(len(files))], "dataset": "clinic",
                          "source_file": files, "patient_id": patients or [None] * len(files), "label_valve": labels})
    return table.assign(group_id=table["patient_id"].fillna("clinic-" + table["source_file"])).astype("string")


@pytest.mark.parametrize(("counts", "begins"), [
    (ALONE, "None of the 1,000 recordings names its person, so each counts as a group of its own: "),
    ({**ALONE, "groups": 900, "alone": 850},
     "None of the 1,000 recordings names its person, so they count as 900 groups (850 of a single recording): "),
    ({**ALONE, "unknown": 300, "groups": 300, "alone": 300},
     "300 of 1,000 recordings name no person, so each counts as a group of its own: "),
])
def test_the_sentence_says_who_is_a_group_and_what_that_does_to_the_interval(counts, begins) -> None:
    assert persons.unknown_in_words(counts) == begins + EFFECT


@pytest.mark.parametrize("counts", [None, {}, KNOWN, {**ALONE, "groups": 30, "alone": 0}])
def test_nothing_is_said_of_persons_that_are_known_or_of_groups_that_somebody_named(counts) -> None:
    assert persons.unknown_in_words(counts) == ""


def test_counts_are_of_recordings_without_a_person() -> None:
    table = collection(["a.wav", "b.wav", "c.wav", "d.wav"], ["AS"] * 4, ["p", None, None, None])
    assert persons.count_unknown(table) == {"recordings": 4, "unknown": 3, "groups": 3, "alone": 3}
    joined = table.assign(group_id=table["group_id"].replace("clinic-c.wav", "clinic-b.wav"))
    assert persons.count_unknown(joined) == {"recordings": 4, "unknown": 3, "groups": 2, "alone": 1}


# Each place that shows a number over groups


def test_the_first_screen_says_it_first(found: Callable[..., dict[str, object]]) -> None:
    assert cautions.warnings(found(ALONE))[0].endswith(EFFECT)
    assert not any("person" in words for words in [*cautions.warnings(found(KNOWN)), *cautions.warnings(found(None))])


@pytest.fixture
def found() -> Callable[..., dict[str, object]]:
    """What cautions read of an evaluation, with the given counts of persons."""
    number = {"held_out": {"uar": {"value": 0.9}}, "out_of_fold": {"uar": {"value": 0.9}}}

    def of(counts: dict[str, int] | None) -> dict[str, object]:
        return {"metric": "uar", "unit": "recording", "classes": ["AS", "N"], "left_out": {}, "min_groups": 10,
                "floor_order": [], "against_floors": {"held_out": {}, "out_of_fold": {}}, "confounded": [], **number,
                "per_source": {"held_out": {}, "out_of_fold": {}}, "per_class": {"held_out": {}, "out_of_fold": {}},
                "counts": {"held_out": {"classes": {}}}, **({"persons": counts} if counts else {})}
    return of


@pytest.mark.parametrize(("counts", "said"), [(ALONE, True), (KNOWN, False), (None, False)])
def test_the_gate_says_it_in_its_reason_and_decides_as_before(counts, said) -> None:
    on = Evidence(20, 80, Look(1, 0.97), certain=True, first=True)
    beaten = gate.beats_baselines(METRICS["uar"], 0.99, {"source": Difference(0.3, 0.1, 0.5, 0.01)},
                                  {"source": "Data source alone"}, on)
    verdict = gate.decide([beaten, *gate.groups_are_persons(counts)], None, first=True)
    assert verdict.promote
    assert ("interval is too narrow" in verdict.reason) == said
    assert ("groups" in {criterion.name for criterion in verdict.criteria}) == said


def test_the_gate_reads_the_counts_of_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_inputs.capture, "validation", lambda: (True, {}))
    monkeypatch.setattr(gate_inputs.capture, "gather", lambda _: {"missing": []})
    monkeypatch.setattr(gate_inputs, "_beats_baselines", lambda *_: gate.no_problems("floors", [], "beaten"))
    evaluation = {"held_out": {"ece": dict.fromkeys(("value", "low", "high"), 0.1)},
                  "counts": {"held_out": {"groups": 40}}}
    for counts, said in ((ALONE, True), (KNOWN, False), (None, False)):
        challenger = SimpleNamespace(evaluation={**evaluation, **({"persons": counts} if counts else {})},
                                     predictions=None)
        criteria = gate_inputs._on_its_own(resolve("yaseen-valves"), challenger, None, Look(1, 0.97), PARAMS)
        assert any(criterion.words.endswith(EFFECT.rstrip(".")) for criterion in criteria) == said


def test_the_terminal_says_it_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    number = {"value": 0.99, "low": 0.98, "high": 1.0}
    evaluation = {"official": ["uar"], "metric": "uar", "floors": {}, "held_out": {"uar": number},
                  "counts": {"held_out": {"units": 200, "groups": 200}}, "best_floor": {"held_out": None}}
    for counts, said in ((ALONE, True), (KNOWN, False)):
        of = ReleaseOutcome("yaseen-valves", "promoted", "promoted", "1", None, None,
                            {**evaluation, "persons": counts}, {})
        outcome.show([of])
        assert (f"group of its own: {EFFECT}" in capsys.readouterr().out) == said
        assert (EFFECT in outcome.markdown([of])) == said
        assert outcome.as_json([of])[0]["evaluation"]["persons"] == counts


def test_ingest_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = persons.unknown_in_words(ALONE)
    for told in (words, ""):
        printed.ingest(IngestOutcome("clinic", 1000, 1000, 0, 1000, 1000, {}, True, (), False, persons=told))
        assert (words in capsys.readouterr().out) == bool(told)


def test_the_card_does_not_call_a_recording_a_person() -> None:
    source = model_card.environment().loader.get_source(model_card.environment(), "card.md.jinja")[0]
    line = next(line for line in source.splitlines() if line.startswith("How they were split."))
    template = model_card.environment().from_string(line)
    for counts, said in ((ALONE, True), (KNOWN, False), (None, False)):
        text = template.render(found={"persons": counts} if counts else {})
        assert ("else a day or a single recording" in text) == said


# Neighbouring file numbers


def runs(table: pd.DataFrame) -> list[list[object]]:
    groups = table[["recording_id", "group_id"]]
    return persons.numbered_runs(table, groups).drop(columns=["dataset", "labels"]).to_numpy().tolist()


def test_a_run_ends_where_the_number_the_class_or_the_folder_changes() -> None:
    files = ["AS/1.wav", "AS/2.wav", "AS/3.wav", "AS/5.wav", "N/6.wav", "N/7.wav", "N/8.wav", "N/odd.wav"]
    table = collection(files, ["AS"] * 4 + ["N", "N", "AS", "N"])
    assert runs(table) == [["AS/1.wav", "AS/3.wav", 3, 3], ["N/6.wav", "N/7.wav", 2, 2]]
    assert runs(table.sample(frac=1, random_state=0)) == runs(table)


def test_numbers_are_counted_not_spelt() -> None:
    assert runs(collection(["r9.wav", "r10.wav", "r011.wav"], ["AS"] * 3)) == [["r9.wav", "r011.wav", 3, 3]]


def test_known_persons_and_recordings_without_a_label_are_no_suspicion() -> None:
    files = ["r1.wav", "r2.wav"]
    assert runs(collection(files, ["AS", "AS"], ["p1", "p2"])) == []
    assert runs(collection(files, ["AS", "AS"]).assign(label_valve=pd.NA)) == []


def test_validation_warns_of_runs_that_are_several_groups_and_names_their_ends() -> None:
    table = collection([f"AS/New_AS_{k:03}.wav" for k in range(1, 6)] + ["N/1.wav", "N/2.wav"], ["AS"] * 5 + ["N"] * 2)
    joined = table[["recording_id", "group_id"]].replace("clinic-N/2.wav", "clinic-N/1.wav")
    suites = expectations.suites(PARAMS.ingest, PARAMS.validate_, ["label_valve"])
    [check] = run_suites.check({"numbered": persons.numbered_runs(table, joined)}, {"numbered": suites["numbered"]})
    assert (check["severity"], check["success"], check["checked"], check["unexpected"]) == ("warning", False, 2, 1)
    assert "not so for 1 of 2 (AS/New_AS_001.wav to AS/New_AS_005.wav)" in result.check_line(check)
    assert "numbered" not in expectations.suites(PARAMS.ingest, PARAMS.validate_, ["label_valve"], numbered=False)
