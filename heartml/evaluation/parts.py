"""A part of the data as it is assessed: its predictions, the baselines beside them, and the settings of both."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from heartml.core.config import EvaluateParams
from heartml.metrics.scores import LabelledPredictions


@dataclass(frozen=True)
class AssessmentRules:
    """The settings of an evaluation.

    Attributes:
        params: number of resamples, confidence of the intervals, names of the baselines.
        min_groups: with fewer groups a class or a subgroup has no score.
        seed: of the resamples.
        refer_below: a decision with a lower confidence is referred to a human; 0: nothing is referred.
    """

    params: EvaluateParams
    min_groups: int
    seed: int
    refer_below: float = 0.0


@dataclass(frozen=True)
class AssessedPart:
    """One part of the data.

    Attributes:
        scored: the model's predictions.
        baselines: name -> the predictions of a baseline for the same units.
        units: what is known of each unit, indexed by unit_id, see `describe_units`.
    """

    scored: LabelledPredictions
    baselines: Mapping[str, LabelledPredictions]
    units: pd.DataFrame
