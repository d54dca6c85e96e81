"""Copies, contradictions and groups of source files, on tables whose answer is known."""

from itertools import permutations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from heartml.data.ingest import grouping

NO_PAIRS = pd.DataFrame(columns=["recording_id_a", "recording_id_b", "correlation"])


def candidates(*rows: tuple[str, str, str | None, str]) -> pd.DataFrame:
    """Rows of (source file, recording id, label, group)."""
    return pd.DataFrame(rows, columns=["source_file", "recording_id", "label", "group"])


def pairs(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=NO_PAIRS.columns)


def test_the_same_audio_under_two_labels_contradicts_on_both_sides_and_names_the_other() -> None:
    table = candidates(("a.wav", "1", "normal", "g"), ("b.wav", "1", "murmur", "g"), ("c.wav", "2", None, "g"),
                       ("d.wav", "3", "murmur", "g"), ("e.wav", "4", "murmur", "g"))
    found = grouping.contradictions(table, pairs(("1", "2", 0.99), ("1", "3", -0.987), ("3", "4", 0.99)), ["label"])
    assert {row: fault.reason for row, fault in found.items()} == dict.fromkeys((0, 1, 3), "contradiction")
    assert found[0].detail == "the same audio as b.wav, which is labelled murmur"
    assert found[3].detail == "the same audio (correlation 0.987) as a.wav, which is labelled normal"


def test_of_copies_the_one_with_the_most_labels_stays_then_the_first_by_name() -> None:
    table = candidates(("b.wav", "1", None, "g"), ("c.wav", "1", "normal", "g"), ("a.wav", "2", "normal", "g"),
                       ("A.wav", "2", "normal", "g"), ("d.wav", "3", "normal", "g"))
    others = pd.DataFrame({"recording_id": ["3"], "dataset": ["clinic"], "source_file": ["x/1.wav"]})
    found = grouping.copies(table, ["label"], others)
    assert {table["source_file"][row]: fault.detail for row, fault in found.items()} == {
        "b.wav": "the same samples as c.wav", "a.wav": "the same samples as A.wav",
        "d.wav": "the same samples as x/1.wav of the data set clinic"}


def test_the_same_audio_and_ids_of_one_person_join_groups_under_the_smallest_name() -> None:
    table = candidates(("a", "1", None, "p9"), ("b", "2", None, "p5"), ("c", "3", None, "p7"), ("d", "4", None, "p1"))
    assert grouping.groups(table, NO_PAIRS, []) == ["p9", "p5", "p7", "p1"]
    assert grouping.groups(table, pairs(("1", "3", 0.99)), []) == ["p7", "p5", "p7", "p1"]
    assert grouping.groups(table, pairs(("1", "3", 0.99)), [("p5", "p7")]) == ["p5", "p5", "p5", "p1"]
    assert grouping.groups(table, NO_PAIRS, [("p9", "p8"), ("p8", "p7")]) == ["p7", "p5", "p7", "p1"], "by way of p8"


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.sampled_from("1234"), st.sampled_from("1234")), max_size=4))
def test_the_order_of_arrival_does_not_show_in_the_groups(alike: list[tuple[str, str]]) -> None:
    rows = [("a", "1", None, "p1"), ("b", "2", None, "p2"), ("c", "3", None, "p3"), ("d", "4", None, "p3")]
    near = pairs(*((a, b, 0.99) for a, b in alike))
    found = {tuple(sorted(zip((row[0] for row in order), grouping.groups(candidates(*order), near, []), strict=True)))
             for order in permutations(rows)}
    assert len(found) == 1


def test_a_patient_with_two_answers_is_refused_with_all_recordings_and_nobody_else() -> None:
    table = pd.DataFrame({
        "source_file": ["a", "b", "c", "d", "e"], "patient_id": ["x-1", "x-1", "x-1", "x-2", None],
        "label_murmur": ["Present", "Absent", None, "Present", "Absent"],
    }).astype("string")
    found = grouping.patient_contradictions(table, ["label_murmur"], table.head(0))
    assert {row: fault.reason for row, fault in found.items()} == dict.fromkeys((0, 1, 2), "contradiction")
    assert found[2].detail == "murmur of x-1 is Present in a, Absent in b: correct the table"


def test_what_a_refused_row_says_of_the_patient_counts() -> None:
    table = pd.DataFrame({
        "source_file": ["a", "b"], "patient_id": ["x-1", "x-2"], "label_murmur": ["Present", "Absent"]})
    refused = pd.DataFrame({"source_file": ["c", "d"], "patient_id": ["x-1", "x-2"], "label_murmur": ["Absent", None]})
    found = grouping.patient_contradictions(table, ["label_murmur"], refused)
    assert {row: fault.detail for row, fault in found.items()} == {
        0: "murmur of x-1 is Present in a, Absent in c: correct the table"}


def test_a_patient_whom_an_earlier_ingest_wrote_in_another_way_is_refused() -> None:
    fresh = pd.DataFrame({"source_file": ["a", "b", "c"], "patient_id": ["x-12.0", "x-13", None]}).astype("string")
    before = pd.DataFrame({"source_file": ["o", "p"], "patient_id": ["x-12", "x-13"]}).astype("string")
    found = grouping.spelling_faults(fresh, before)
    assert {file: fault.reason for file, fault in found.items()} == {"a": "ambiguous_id"}
    assert "'x-12' at o, ingested earlier" in found["a"].detail
