"""A model with a member of every head and encoder that can be exported: real classes, fitted in a few seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from support import tiny_models
from support.input_checks import checks
from support.small_heads import HYPERPARAMETERS

from heartml.audio.sound_files import Samples
from heartml.core import tasks
from heartml.models import encoders, pooling
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import FittedEnsemble
from heartml.models.ensemble.stacking import Stacker, StackingFeatures, StackingView, feature_columns
from heartml.models.fitted_model import Model
from heartml.models.heads import HEADS, Targets

NAME = "simulated-murmur"
MEMBERS = (
    ("logspec", "sequence", "recording", None, "stack"), ("logspec", "sequence", "recording", None, "segments"),
    ("logspec", "resnet", "recording", None, "stack"), ("logspec", "related", "recording", None, "segments"),
    ("logspec", "logistic", "unit", "modulation", "direct"), ("logspec", "svm_rbf", "recording", "everything", "stack"),
    ("random_conv", "lightgbm", "recording", "moments", "stack"),
    ("random_conv", "extra_trees", "unit", "average", "direct"), ("logspec", "lightgbm", "unit", "mean", "direct"),
)


def sound(seed: int, seconds: float, rate_hz: int = 4000) -> Samples:
    """A sound of any kind; at another rate it is slower or quicker, which makes no difference here."""
    kind = ("murmur", "noise", "clean")[seed % 3]
    return Samples(tiny_models.draw_sound(kind, seed, max(0.6, seconds * rate_hz / 4000)).pcm, rate_hz)


def fit(farthest: float = 11.0, refer_below: float = 0.4, *, networks: bool = True) -> Model:
    """Fit the model; about half of the recordings lie farther from its training than `farthest`."""
    members = [one for one in MEMBERS if networks or one[3] is not None]
    task = tasks.resolve(NAME).task
    labels = np.repeat(np.arange(3), 6)
    made = {name: encoders.load(encoders.spec(name, tiny_models.PARAMS)) for name in ("logspec", "random_conv")}
    specs = {name: {**encoders.describe(encoders.spec(name, tiny_models.PARAMS), one),
                    "frame_rate_hz": one.frame_rate_hz, "dim": one.dim} for name, one in made.items()}
    sounds = [sound(3 * number + label, 2.5) for number, label in enumerate(labels)]
    frames = {name: [encoders.frames_of(one, encoders.spec(name, tiny_models.PARAMS), s.floats, s.sample_rate_hz)
                     .astype(np.float32) for s in sounds] for name, one in made.items()}
    states = [np.tile(np.repeat([0, 1, 2, 3], 6), 20)[: len(one)].astype(np.int8) for one in frames["logspec"]]
    candidates, heads, weights, stackers = {}, {}, {}, {}
    known: dict[tuple[object, ...], int] = {}
    for encoder, head, level, pooled, kind in members:
        trial = known.setdefault((encoder, head, level, pooled), len(known))
        view = StackingView((trial,), kind)
        if trial not in heads:
            candidates[trial] = CandidateSpec(encoder, head, level, pooled, {})
            hears = head in ("sequence", "related")
            targets = Targets(labels, 3, np.arange(18), states if hears else None, specs[encoder]["frame_rate_hz"])
            if head == "related":        # of a task with two classes
                targets = replace(targets, labels=labels % 2, classes=2, described=3)
            inputs = frames[encoder] if pooled is None else pooling.pool(
                pooled, frames[encoder], specs[encoder]["frame_rate_hz"], pooling.Grid.of(specs[encoder]))
            if level == "unit":
                inputs = pooling.per_unit(inputs, np.arange(18))
            count = 2 if hears else 1          # heads of several folds are averaged
            numbers = {**HYPERPARAMETERS[head], **({"steps": 6} if pooled is None else {})}
            fitted = [HEADS[head]().fit(inputs, targets, numbers, seed) for seed in range(count)]
            heads[trial] = [(one.state(), one.predict_proba(inputs)) for one in fitted]
        prediction = heads[trial][0][1]
        columns = StackingFeatures(feature_columns(kind, prediction, np.arange(18)))
        stackers[view] = Stacker.fit(kind, columns, labels, np.ones(3), tiny_models.PARAMS.stacking)
        weights[view] = 1 / len(members)
    ensemble = FittedEnsemble(weights, stackers, Rule(np.array([0.1, 0.0, -0.1])),
                              Calibration(1.3, np.array([0.2, -0.1, -0.1]), 18))
    assert task.classes == ("Present", "Unknown", "Absent")
    states_of = {trial: [state for state, _ in fitted] for trial, fitted in heads.items()}
    return Model.assemble(NAME, candidates, states_of, ensemble, specs, refer_below, checks(farthest))


def without_networks(model: Model) -> Model:
    """The same model with the heads of pooled vectors alone: it is exported in a third of the time."""
    members = {trial: one for trial, one in model.members.items() if one.spec.pooling is not None}
    weights = {view: weight for view, weight in model.ensemble.weights.items() if set(view.trials) <= set(members)}
    stackers = {view: model.ensemble.stackers[view] for view in weights}
    return replace(model, members=members, ensemble=replace(model.ensemble, weights=weights, stackers=stackers))


def save(folder: Path, model: Model) -> Path:
    """Save a model into a new folder."""
    folder.mkdir(parents=True)
    model.save(folder)
    return folder
