"""The CSVs of `dvc plots`: one a plot, the rows of every part, numbers that can be read back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score
from support.scored_units import TASK, draw_scored_units

from heartml.evaluation.plot_tables import write_plots

PARTS = {"held_out": draw_scored_units(90, 45, seed=1), "out_of_fold": draw_scored_units(150, 75, seed=2)}


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("plots") / "plots"
    write_plots(folder, PARTS, TASK, 10)
    return {path.stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in folder.iterdir()}


def test_there_is_a_table_for_each_plot_with_both_parts(plots: dict[str, pd.DataFrame]) -> None:
    assert set(plots) == {"confusion", "roc", "precision_recall", "calibration", "abstention"}
    for name, table in plots.items():
        assert list(table["part"].unique()) == list(PARTS), name


def test_each_part_has_the_rows_of_its_own_units(plots: dict[str, pd.DataFrame]) -> None:
    classes = np.array(TASK.classes)
    for name, part in PARTS.items():
        confusion = plots["confusion"][plots["confusion"]["part"] == name]
        assert confusion["actual"].tolist() == classes[part.labels].tolist()
        assert confusion["predicted"].tolist() == classes[part.decisions].tolist()
        whole = plots["abstention"][plots["abstention"]["part"] == name].iloc[-1]
        assert (whole["coverage"], whole["units"]) == (1, len(part.labels))
        roc = plots["roc"][plots["roc"]["part"] == name]
        for c, label in enumerate(TASK.classes):
            curve = roc[roc["class"] == label]
            area = auc(curve["false_positive_rate"], curve["true_positive_rate"])
            assert area == pytest.approx(roc_auc_score(part.labels == c, part.probabilities[:, c]), abs=1e-3)


def test_the_same_numbers_give_the_same_bytes_with_unix_line_ends(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    changed = {**PARTS, "held_out": replace(PARTS["held_out"], decisions=PARTS["held_out"].labels)}
    for folder, parts in ((first, PARTS), (again, PARTS), (other, changed)):
        write_plots(folder, parts, TASK, 10)
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
        assert b"\r" not in path.read_bytes()
    assert (first / "confusion.csv").read_bytes() != (other / "confusion.csv").read_bytes()
