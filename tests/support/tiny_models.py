"""Models that fit in a second: real encoder, real head, real files; trained on beats with and without a murmur."""

from pathlib import Path

import numpy as np
from support.finished_project import RATE_HZ, draw_heart_sound

from heartml.audio.sound_files import Samples
from heartml.core import config, tasks
from heartml.core.config import Params
from heartml.models import encoders, pooling
from heartml.models.ensemble.calibration import Calibration
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.ensemble.selection import FittedEnsemble
from heartml.models.ensemble.stacking import Stacker, StackingFeatures, StackingView
from heartml.models.fitted_model import Model
from heartml.models.heads import HEADS, Targets

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


CLASS_OF_SOUND = {
    "murmur": {"murmur": "Present", "noise": "Unknown", "clean": "Absent"},
    "sounds": {"murmur": "murmur", "noise": "artifact", "clean": "normal"},
}


def draw_sound(kind: str, seed: int, seconds: float = 3.0) -> Samples:
    """`murmur`, `clean`, or `noise` without any beat."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return Samples(rng.normal(0, 2000, int(seconds * RATE_HZ)).astype(np.int16), RATE_HZ)
    return Samples(draw_heart_sound(rng, seconds, kind == "murmur")[0], RATE_HZ)


def fit(folder: Path, name: str = "simulated-murmur", encoder: str = "logspec", params: Params = PARAMS) -> Path:
    """Fit a model for `name` to the sounds of `CLASS_OF_SOUND`; of any other task, to its first three classes."""
    task = tasks.resolve(name).task
    class_of = CLASS_OF_SOUND.get(task.name) or dict(zip(("murmur", "noise", "clean"), task.classes, strict=False))
    spec, member = encoders.spec(encoder, params), CandidateSpec(encoder, "logistic", "recording", "statistics", {})
    loaded = encoders.load(spec)
    kinds = [kind for kind in class_of for _ in range(12)]
    frames = [encoders.frames_of(loaded, spec, draw_sound(kind, seed).floats, RATE_HZ).astype(np.float32)
             for seed, kind in enumerate(kinds)]
    labels = np.array([task.classes.index(class_of[kind]) for kind in kinds])
    described = {**encoders.describe(spec, loaded), "frame_rate_hz": loaded.frame_rate_hz, "dim": loaded.dim}
    vectors = pooling.pool("statistics", frames, loaded.frame_rate_hz, pooling.Grid.of(described))
    targets = Targets(labels, len(task.classes), np.arange(len(labels)))
    fitted = HEADS["logistic"]().fit(vectors, targets, {"c": 0.1, "balance": 1.0}, 0)
    kind = "stack" if task.unit == "patient" else "direct"
    flat = np.zeros(len(task.classes))
    seen = StackingFeatures(np.tile(fitted.predict_proba(vectors).log_p, (1, 4)))
    reader = Stacker.fit(kind, seen, labels, flat + 1, PARAMS.stacking)
    view = StackingView((0,), kind)
    combination = FittedEnsemble({view: 1.0}, {view: reader}, Rule(flat), Calibration(1.0, flat))
    folder.mkdir(parents=True)
    Model.assemble(name, {0: member}, {0: [fitted.state()]}, combination, {encoder: described}).save(folder)
    return folder
