"""Predictions as tables for `artifacts/<task>/evaluation/`: one row a unit, or one row a recording."""

import pandas as pd

from heartml.models.applicability import checks_column
from heartml.models.fitted_model import Predictions


def predictions_table(predictions: Predictions, units: pd.DataFrame) -> pd.DataFrame:
    """One row a unit: unit_id, group_id, label, part, decision, p_<class>, c_<class> (calibrated), referred_for.

    The last column names the checks for which the unit is referred whatever the confidence, or nothing. A model without
    checks has no such column.

    Args:
        units: group_id, label and part of each unit, indexed by unit_id.
    """
    known = units.loc[list(predictions.unit_ids), ["group_id", "label", "part"]].reset_index()
    known["decision"] = pd.array([predictions.classes[d] for d in predictions.decisions], dtype="string")
    for kind, values in (("p", predictions.probabilities), ("c", predictions.calibrated)):
        known[[f"{kind}_{name}" for name in predictions.classes]] = values
    return known if predictions.unit is None else known.assign(referred_for=checks_column(predictions.reasons))


def recordings_table(predictions: Predictions, held_out: pd.DataFrame) -> pd.DataFrame:
    """One row a held-out recording: recording_id, unit_id, group_id, label (the unit's), part, location, p_<class>.

    Args:
        held_out: these recordings, in the order of `predictions.recording_probabilities` [r, k].
    """
    known = held_out[["recording_id", "unit_id", "group_id", "label", "part", "location"]].reset_index(drop=True)
    known[[f"p_{name}" for name in predictions.classes]] = predictions.recording_probabilities
    return known
