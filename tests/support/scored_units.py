"""Units with labels, predictions and recordings of which it is known what gives a label away."""

import numpy as np
import pandas as pd
from support import finished_project

from heartml.core.config import EvaluateParams
from heartml.core.tasks import TASKS
from heartml.metrics.scores import LabelledPredictions

TASK = TASKS["murmur"]
FAST = EvaluateParams(bootstrap=100, confidence=0.9, baselines=("majority", "source", "metadata", "nuisance"),
                      confounded_auc=0.7)


def draw_scored_units(n=60, groups=30, seed=0, classes=TASK.classes):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    three = len(classes) == 3
    p = finished_project.draw_probabilities(labels, rng, 1.0) if three else rng.dirichlet([1] * len(classes), n)
    units = np.array([f"u{i}" for i in range(n)])
    group = np.array([f"g{i % groups}" for i in range(n)])
    return LabelledPredictions(units, group, np.array(["0"] * n), labels, p.argmax(1), p, p, classes)


def draw_labelled_recordings(n=200, seed=0):
    """One recording a unit; the source and the level know the label, age and sex do not."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.3, 0.2, 0.5])
    table = pd.DataFrame({
        "unit_id": [f"u{i}" for i in range(n)], "group_id": [f"g{i // 2}" for i in range(n)],
        "part": [["test", "0", "1", "2"][i // 2 % 4] for i in range(n)],
        "source": np.where(labels == 0, "clinic", "school"), "location": "MV",
        "age_group": rng.choice(["Infant", "Child"], n), "sex": rng.choice(["Female", "Male"], n),
        "level_db": -30.0 + 10 * (labels == 1) + rng.normal(0, 1, n), "dc": 0.0,
        "seconds": rng.uniform(5, 20, n), "bandwidth_hz": 300.0, "heard_bandwidth_hz": 500.0, "clipped_share": 0.0,
    })
    return table, pd.DataFrame({"unit_id": table["unit_id"], "label": labels, "part": table["part"]})
