"""Outputs that were made again are compared by their numbers; what is no number has to be the same."""

from pathlib import Path

import pandas as pd
import pytest

from heartml.audit import compare_outputs


@pytest.mark.parametrize("name, before, after, most", [
    ("a.json", b'{"x": 1.0, "y": ["b"]}', b'{"x": 1.0005, "y": ["b"]}', 0.0005),
    ("a.csv", b"p,q\n0.25,a\n", b"p,q\n0.26,a\n", 0.01),
    ("a.html", b"<td>100</td>", b"<td>101</td>", 0.01),
    ("a.json", b"[Infinity, -Infinity, NaN, 4.0]", b"[Infinity, -Infinity, NaN, 5.0]", 0.25),
    ("a.json", b"NaN", b"NaN ", 0.0),
])
def test_numbers_are_compared_by_how_far_they_are_apart(name: str, before: bytes, after: bytes, most: float) -> None:
    assert compare_outputs.largest_difference(name, before, before) == 0
    assert compare_outputs.largest_difference(name, before, after) == pytest.approx(most)


@pytest.mark.parametrize("name, before, after", [
    ("a.json", b'{"x": 1}', b'{"y": 1}'), ("a.json", b'{"x": null}', b'{"x": 1}'), ("a.json", b"[1]", b"[1, 2]"),
    ("a.csv", b"Present,1\n", b"Absent,1\n"), ("a.txt", b"1 2", b"1 2 3"),
    ("a.json", b"[Infinity]", b"[3.0]"), ("a.json", b"[3.0]", b"[Infinity]"), ("a.json", b"Infinity", b"-Infinity"),
    ("a.json", b"[Infinity]", b"[NaN]"), ("a.json", b"[1, NaN]", b"[1, 2]"),
])
def test_what_is_no_number_has_to_be_the_same(name: str, before: bytes, after: bytes) -> None:
    with pytest.raises(compare_outputs.OutputsDiffer):
        compare_outputs.largest_difference(name, before, after)


def test_tables_are_compared_by_their_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame({"unit": ["a", "b"], "p": [0.1, None]})
    others = {"same": (table, 0.0), "near": (table.assign(p=[0.1001, None]), 1e-4)}
    for name, (other, most) in others.items():
        for file, content in (("before", table), (name, other)):
            content.to_parquet(tmp_path / file)
        before, after = ((tmp_path / file).read_bytes() for file in ("before", name))
        assert compare_outputs.largest_difference("t.parquet", before, after) == pytest.approx(most)
    for other in (table.assign(p=[None, 0.1]), table.assign(unit=["a", "c"]), table[:1]):
        other.to_parquet(tmp_path / "other")
        with pytest.raises(compare_outputs.OutputsDiffer):
            compare_outputs.largest_difference("t.parquet", before, (tmp_path / "other").read_bytes())
