"""What a student loses: the same units for both, and a difference that says which of the two is worse."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import tiny_models

from heartml.core import tasks
from heartml.core.folds import TEST
from heartml.export import student
from heartml.inference.model_lookup import LocatedModel
from heartml.models.fitted_model import Model
from heartml.training.distillation import CannotDistil

TASK = tasks.resolve("simulated-murmur").task


def predictions(right: float, seed: int) -> pd.DataFrame:
    """Predictions for 60 patients, a third of them held out, of which a share is right."""
    rng, n = np.random.default_rng(seed), 60
    labels = np.arange(n) % 3
    decided = np.where(rng.random(n) < right, labels, (labels + 1) % 3)
    p = np.full((n, 3), 0.1)
    p[np.arange(n), decided] = 0.8
    table = pd.DataFrame({"unit_id": [f"u{k:02}" for k in range(n)], "group_id": [f"g{k:02}" for k in range(n)],
                          "label": [TASK.classes[k] for k in labels],
                          "part": [TEST if k % 9 < 3 else str(k % 5) for k in range(n)],
                          "decision": [TASK.classes[k] for k in decided]})
    for kind in "pc":
        table[[f"{kind}_{label}" for label in TASK.classes]] = p
    return table


def test_a_worse_student_loses_and_an_equal_one_nothing() -> None:
    ensemble, worse = predictions(1.0, 0), predictions(0.4, 1)
    found = student.lost(worse.sample(frac=1, random_state=0), ensemble, TASK, tiny_models.PARAMS)
    assert {part: one.units for part, one in found.items()} == {"held_out": 21, "out_of_fold": 39}
    assert all(one.ensemble == 1.0 > one.student for one in found.values())
    assert all(one.difference.high < 0 < one.log_loss.low for one in found.values())
    assert found["held_out"].decided_alike == (worse["decision"] == worse["label"])[worse["part"] == TEST].sum()
    same = student.lost(ensemble, ensemble, TASK, tiny_models.PARAMS)
    assert all(one.difference.value == one.log_loss.value == 0 for one in same.values())


def test_without_what_the_ensemble_learnt_from_there_is_no_student(
    fitted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fitted["simulated-murmur"]
    located = LocatedModel(folder, "simulated-murmur version 3", "simulated-murmur", "3")
    with pytest.raises(CannotDistil, match="simulated-murmur version 3: a student learns from what it was trained on"):
        student.make(located, Model.load(folder), tiny_models.PARAMS)
