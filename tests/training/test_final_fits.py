"""The ensemble in words, and its out-of-fold predictions as a table."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from heartml.core.tasks import TASKS
from heartml.metrics import METRICS
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import EnsemblePrediction, FittedEnsemble
from heartml.models.ensemble.stacking import Stacker, StackingView
from heartml.training import final_fits
from heartml.training.training_set import TrainingSet

TASK = TASKS["murmur"]
SPECS = {0: CandidateSpec("logspec", "sequence", "recording", None, {}),
         3: CandidateSpec("random_conv", "logistic", "unit", "moments", {})}
P = np.array([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
DECISIONS = np.array([0, 2, 1, 0])


def training_set() -> TrainingSet:
    """Four units; the last one is decided wrongly."""
    numbers = np.arange(4)
    return TrainingSet("simulated-murmur", TASK, tuple("abcd"), ("u1", "u2", "u3", "u4"), ("g1", "g2", "g3", "g3"),
                       numbers, np.array([0, 2, 1, 2]), np.array([0, 2, 1, 2]), np.array([0, 1, 2, 2]),
                       np.array([0, 1, 0, 1]))


def prediction() -> EnsemblePrediction:
    return EnsemblePrediction(np.log(P), DECISIONS, P[:, ::-1])


def test_each_unit_is_a_row_with_its_fold_decision_and_both_kinds_of_probabilities() -> None:
    table = final_fits.out_of_fold_table(training_set(), prediction())
    assert list(table) == ["unit_id", "group_id", "label", "part", "decision", "p_Present", "p_Unknown", "p_Absent",
                           "c_Present", "c_Unknown", "c_Absent"]
    assert table["part"].tolist() == ["0", "1", "0", "1"]
    assert table["label"].tolist() == ["Present", "Absent", "Unknown", "Absent"]
    assert table["decision"].tolist() == ["Present", "Absent", "Unknown", "Present"]
    np.testing.assert_allclose(table[["p_Present", "p_Unknown", "p_Absent"]], P)
    np.testing.assert_allclose(table[["c_Present", "c_Unknown", "c_Absent"]], P[:, ::-1])


def test_a_member_is_named_by_weight_head_encoder_trials_and_view() -> None:
    assert final_fits.describe_member(StackingView((0,), "stack"), 0.25, SPECS) == \
        "0.25 x sequence on logspec (trial 0, stack)"
    assert final_fits.describe_member(StackingView((3, 0), "direct"), 0.5, SPECS) == \
        "0.5 x logistic on random_conv (trials 3, 0, direct)"


def test_the_line_counts_trials_and_has_the_score_of_the_decisions() -> None:
    views = {StackingView((0,), "stack"): 0.75, StackingView((3,), "direct"): 0.25}
    stackers = dict.fromkeys(views, Stacker(None))
    ensemble = FittedEnsemble(views, stackers, Rule(np.zeros(3)), Calibration(1.0, np.zeros(3)))
    line = final_fits.summary_line(training_set(), SPECS, ensemble, prediction())
    assert line.startswith("2 trials in, 0.75 x sequence on logspec (trial 0, stack), 0.25 x logistic")
    metric = METRICS[TASK.metric]
    expected = metric.function(np.array([0, 2, 1, 2]), P, DECISIONS, TASK.classes)
    assert line.endswith(f"out, {TASK.metric} {expected:.3f} out of fold")
    right = replace(prediction(), decisions=np.array([0, 2, 1, 2]))
    assert final_fits.summary_line(training_set(), SPECS, ensemble, right).endswith(f"{TASK.metric} 1.000 out of fold")


def test_a_model_keeps_the_specs_of_the_encoders_that_it_needs() -> None:
    specs = {name: SimpleNamespace(encoder={"name": name, "dim": dim})
             for name, dim in (("logspec", 32), ("random_conv", 12))}
    data = SimpleNamespace(encoders=specs)
    found = final_fits.encoder_specs(data, {0: SPECS[0]})
    assert found == {"logspec": {"name": "logspec", "dim": 32}}
    assert list(final_fits.encoder_specs(data, SPECS)) == ["logspec", "random_conv"]
    with pytest.raises(KeyError):
        final_fits.encoder_specs(data, {0: replace(SPECS[0], encoder="unknown")})
