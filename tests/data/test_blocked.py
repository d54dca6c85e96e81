"""Which data sets an error of validation concerns."""

import pandas as pd
import pytest

from heartml.data.validation import blocked
from heartml.data.validation.blocked import NotFit

OWNED = {"a": frozenset({"circor"}), "b": frozenset({"pascal"}), "both": frozenset({"circor", "pascal"})}


@pytest.mark.parametrize(("rows", "concerned"), [
    ({"dataset": ["pascal", "pascal"], "recording_id": ["a", "b"]}, ["pascal"]),
    ({"recording_id": ["a", "a"]}, ["circor"]),
    ({"recording_id": ["a"], "other_recording_id": ["b"]}, ["circor", "pascal"]),
    ({"recording_id": ["both"]}, ["circor", "pascal"]),
    ({"dataset": ["pascal", None]}, None),          # a row without a data set may be anybody's
    ({"recording_id": ["a", "of nobody"]}, None),
    ({"reason": ["x"]}, None),
])
def test_rows_belong_to_the_data_sets_that_they_name(rows: dict[str, list[str]], concerned: list[str] | None) -> None:
    assert blocked.datasets_of(pd.DataFrame(rows), OWNED) == concerned


def test_a_task_of_several_data_sets_stops_with_any_of_them_and_says_each_error_once() -> None:
    result = {"blocked": {"bmdhs": ["one", "two"], "pascal": ["two"]}}
    blocked.refuse_blocked("circor-murmur", ["circor"], result, "index.html")
    with pytest.raises(NotFit) as caught:
        blocked.refuse_blocked("circor+pascal-murmur", ["circor", "pascal"], result, "index.html")
    assert "the data of pascal is not fit for training:\n  two\nAll of it: index.html" in str(caught.value)
    with pytest.raises(NotFit) as caught:
        blocked.refuse_blocked("bmdhs+pascal-murmur", ["bmdhs", "pascal"], result, "index.html")
    assert str(caught.value).count("two") == 1


def test_results_of_older_code_block_nobody() -> None:
    blocked.refuse_blocked("circor-murmur", ["circor"], {"success": True}, "index.html")
