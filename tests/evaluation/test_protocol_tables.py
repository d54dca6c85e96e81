"""A published split becomes folds of the cohort; its results become the columns of the paper."""

from pathlib import Path

import pandas as pd
import pytest

from heartml.core import config
from heartml.evaluation.protocols import splits, table
from heartml.evaluation.protocols.cohort import Cohort, ProtocolError

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
INNER = PARAMS.protocol.inner_folds


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Forty patients with two recordings each; 38 and 39 are one child, and 37 has no label."""
    rows = [{"recording_id": f"{patient:02}{place}", "patient_id": f"circor-{patient}",
             "group_id": f"circor-{min(patient, 38)}", "seconds": 10.0, "location": place,
             "label_murmur": None if patient == 37 else ("Present", "Absent")[patient % 2]}
            for patient in range(40) for place in ("AV", "MV")]
    return Cohort(Path(), pd.DataFrame(rows), pd.DataFrame())


def published(test: range, last: int = 40) -> "pd.Series[str]":
    return pd.Series({str(n): "test" if n in test else ("train", "validation")[n % 5 == 0] for n in range(last)})


def test_every_patient_of_the_split_is_in_its_part_and_inner_folds_divide_children(cohort: Cohort) -> None:
    found = splits.read_split(Path("split.csv"), published(range(30, 40)), cohort, PARAMS, seed=1)
    part = found.folds.set_index("recording_id")["part"]
    assert part.index.is_monotonic_increasing
    assert set(part[part == str(INNER)].index.str[:2].astype(int)) == set(range(30, 40)) - {37}
    assert set(part) == {str(n) for n in range(INNER + 1)}
    assert found.folds.groupby("group_id")["part"].nunique().max() == 1
    assert found.patients == {"train": 24, "validation": 6, "test": 9}
    assert found.unknown == 0
    assert found.twins == frozenset(), "both ids of the child are in the test part"


def test_a_test_patient_whose_child_develops_under_another_id_is_called_a_twin(cohort: Cohort) -> None:
    found = splits.read_split(Path("split.csv"), published(range(30, 39), last=45), cohort, PARAMS, seed=1)
    assert found.twins == {"circor-38"}
    assert found.unknown == 5


@pytest.mark.parametrize("test", [range(0), range(40)])
def test_a_split_of_other_patients_is_refused_with_counts(cohort: Cohort, test: range) -> None:
    with pytest.raises(ProtocolError, match=r"^split\.csv: \d+ test and \d+ other patients of it are in this folder"):
        splits.read_split(Path("split.csv"), published(test), cohort, PARAMS, seed=1)


def results(tests: int = 236) -> dict[str, object]:
    """What a run of two splits leaves, with a number of its own in every place."""
    def system(first: float) -> dict[str, object]:
        return {"w_acc": first, "uar": first + 0.01, "w_acc_twin_free": first + 0.02, "uar_twin_free": None,
                "recall": {"Present": first + 0.03, "Unknown": first + 0.04, "Absent": first + 0.05},
                "outcome_cost": 12345.6,
                "sd": {"w_acc": 0.001, "uar": 0.002, "w_acc_twin_free": 0.003,
                       "recall": {"Present": 0.004, "Unknown": 0.005, "Absent": 0.006}}}

    one = {"split": "s1.csv", "seed": 3, "twins": 2, "not_here": 4,
           "patients": {"train": 500, "validation": 100, "test": tests}}
    return {"single": system(0.7), "ensemble": system(0.8), "splits": [one, {**one, "not_here": 0}], "pooled": {},
            "data": {"patients": 942, "children": 870, "recordings": 3163, "refused": {"silent": 2}}}


def test_both_systems_stand_below_the_paper_with_every_number_in_its_column(
    capsys: pytest.CaptureFixture[str]
) -> None:
    table.show(results())
    lines = capsys.readouterr().out.splitlines()
    for title, first in (("one network", 0.7), ("ensemble, stacked", 0.8)):
        [line] = [line for line in lines if title in line]
        cells = [cell.strip() for cell in line.replace("┃", "│").strip("│ ").split("│")]
        deviations = (0.001, 0.002, 0.004, 0.005, 0.006, 0.003)
        values = (first, first + 0.01, first + 0.03, first + 0.04, first + 0.05, first + 0.02)
        assert cells[1:] == [f"{v:.3f} ({sd:.3f})" for v, sd in zip(values, deviations, strict=True)] + [
            "not defined", "12,346"]
    assert [line.index(".832") for line in lines if ".832" in line]


def test_remarks_count_data_and_splits_and_warn_of_other_test_parts() -> None:
    found = table.remarks(results())
    assert found[0] == "942 ids of 870 children, 3163 recordings; files refused: 2 silent"
    assert found[1].startswith("s1.csv, seed 3: 500 / 100 / 236 patients, 2 test patients are children")
    assert "4 of its patients are not in this folder" in found[1] and "not in this folder" not in found[2]
    assert len(found) == 3
    assert "not the paper's test parts" in table.remarks(results(tests=200))[-1]
    pooled = {"patients": 300, **{name: {"w_acc": (0.75, 0.7, 0.8)} for name in ("single", "ensemble")}}
    lines = table.remarks({**results(), "pooled": pooled})
    assert lines[-1] == f"all 300 test patients together, {table.TITLES['ensemble']}: w_acc 0.750 [0.700, 0.800]"
