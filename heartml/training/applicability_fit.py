"""Fit a model's applicability domain: the training recordings of a task in, `Applicability` and findings out.

The forest learns the task's own recordings, some through random equalisers, and hearts (or lungs) of the simulator,
against made-up sounds that are none and against the own recordings made worse. Forest and distance are fitted again
without each fold, and the limits leave all but a share of the recordings of that fold inside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.audio.quality import Quality
from heartml.core import paths
from heartml.core.config import Params
from heartml.core.system.progress import track
from heartml.core.task_definition import HEART, Organ
from heartml.data.simulation import children, lungs, other_sounds, visits
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ
from heartml.models import applicability, encoders, frame_cache
from heartml.models.applicability import CONDITION_COUNT, TRAINING, Applicability, Finding, Reference
from heartml.models.applicability.heart_evidence import evidence
from heartml.models.applicability.signal_limits import SignalLimits
from heartml.models.encoders import EncoderSpec
from heartml.models.heads import FittedHead, Targets, extra_trees
from heartml.models.pooling import rows_of
from heartml.training import degraded_frames
from heartml.training.degraded_frames import Bands
from heartml.training.fold_fits import TrainingData

MOST_CHANGED = 400            # recordings that are equalised and made worse
_SECONDS = (2.0, 12.0)        # length of made-up sounds
_FOREST = {"least_leaf": 5, "columns": 0.2, "balance": 1.0}

Vectors = NDArray[np.float64]
Ints = NDArray[np.int64]
Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """The training recordings `[r]` as the checks hear them.

    Attributes:
        evidences, descriptions: `[r, f]`, `[r, v]`.
        parts: fold of each `[r]`.
        changed: which recordings were changed `[c]`.
        equalised, noisy, narrow: evidence of these, changed `[c, f]`.
    """

    evidences: Vectors
    descriptions: Vectors
    parts: Ints
    changed: Ints
    equalised: Vectors
    noisy: Vectors
    narrow: Vectors


def fit(
    frames: Sequence[Frames], parts: Ints, qualities: Sequence[Quality], encoder: Mapping[str, Any], params: Params,
    organ: Organ = HEART,
) -> tuple[Applicability, list[tuple[Finding, ...]]]:
    """Fit the checks to recordings `[r]`.

    Args:
        frames: `r` arrays `[frames, bands]` of the encoder `applicability.ENCODER`.
        parts: fold of each recording `[r]`; a group lies in one fold.
        qualities: of their signals `[r]`.
        encoder: that encoder's spec as JSON, with `frame_rate_hz`.
        params: for this organ, see `Params.for_organ`.
        organ: what the task is about.

    Returns:
        The fitted checks, and what they find in each recording when they were fitted without its fold.
    """
    own = params.applicability
    assert own is not None
    bands = _bands(encoder, params, organ)
    known = _hear(frames, parts, bands, np.random.default_rng([params.seed, 11]))
    made_up = _made_up(encoder, params, organ)
    signal = SignalLimits.fit(qualities, params.validate_)
    probabilities = np.zeros((len(parts), CONDITION_COUNT))
    distances = np.zeros(len(parts))
    for part in track(np.unique(parts), "applicability", len(np.unique(parts))):
        here = parts == part
        forest, reference = _fit(known, ~here, made_up, own.trees, params.seed)
        probabilities[here] = np.exp(forest.predict_proba(known.evidences[here]).log_p)
        distances[here] = reference.distances(known.descriptions[here])
    forest, reference = _fit(known, np.ones(len(parts), bool), made_up, own.trees, params.seed)
    farthest, most_unusual = (float(np.quantile(values, 1 - own.referred_share))
                              for values in (distances, 1 - probabilities[:, 0]))
    fitted = Applicability(forest, (reference.within(farthest, most_unusual),), signal, organ)
    return fitted, list(fitted.findings(probabilities, distances[:, None], qualities))


@dataclass(frozen=True)
class FittedChecks:
    """The checks of a task's model.

    Attributes:
        applicability: fitted to all training recordings.
        findings: in each training recording `[r]`, by checks that were fitted without its fold.
        encoder_specs: the encoder that the checks hear, see `Model.encoder_specs`.
    """

    applicability: Applicability
    findings: Sequence[Sequence[Finding]]
    encoder_specs: Mapping[str, Mapping[str, Any]]

    def unit_reasons(self, unit: Ints) -> list[tuple[Finding, ...]]:
        """Why each unit `[u]` is referred, from the unit of each recording `[r]`."""
        return [applicability.reasons([self.findings[row] for row in rows]) for rows in rows_of(unit)]


def fit_checks(data: TrainingData, params: Params) -> FittedChecks:
    """Fit the checks to the training recordings of a task."""
    train_set, organ = data.train_set, data.train_set.task.organ
    params = params.for_organ(organ)
    spec = encoders.spec(applicability.ENCODER, params)
    loaded = encoders.load(spec)
    encoder = {**spec.to_json(), "frame_rate_hz": loaded.frame_rate_hz, "dim": loaded.dim}
    measured = pd.read_parquet(paths.VALIDATION / "signal.parquet").set_index("recording_id")
    qualities = Quality.from_table(measured.loc[list(train_set.recording_ids)])
    frames = frame_cache.open_frames(train_set.name, spec, train_set.recording_ids)
    fitted, findings = fit(frames, train_set.parts[train_set.unit], qualities, encoder, params, organ)
    return FittedChecks(fitted, findings, {applicability.ENCODER: encoder})


def _bands(encoder: Mapping[str, Any], params: Params, organ: Organ) -> Bands:
    own, limits = encoder["sections"][applicability.ENCODER], params.organ(organ)
    return Bands(np.linspace(own["low_hz"], own["high_hz"], own["bands"]), float(encoder["frame_rate_hz"]),
                 limits.muffled_hz, limits.thin_hz)


def _hear(frames: Sequence[Frames], parts: Ints, bands: Bands, rng: np.random.Generator) -> Known:
    heard = [(evidence(one, bands.frame_rate_hz), applicability.description(one)) for one in frames]
    changed = np.sort(rng.permutation(len(frames))[:MOST_CHANGED])

    def after(change: Callable[[Frames], Frames]) -> Vectors:
        return np.stack([evidence(change(np.asarray(frames[row])), bands.frame_rate_hz) for row in changed])

    return Known(
        np.stack([vector for vector, _ in heard]), np.stack([vector for _, vector in heard]), parts, changed,
        after(lambda one: degraded_frames.equalised(one, rng)),
        after(lambda one: degraded_frames.noisy(one, bands, rng)),
        after(lambda one: degraded_frames.narrow(one, bands, rng)))


def _fit(
    known: Known, rows: NDArray[np.bool_], made_up: tuple[Vectors, Vectors], trees: int, seed: int
) -> tuple[FittedHead, Reference]:
    """Forest and reference from the recordings where `rows` `[r]` holds.

    Args:
        made_up: evidence of simulated recordings of the organ, and of what is none.
    """
    of_organ, others = made_up
    changed = rows[known.changed]
    of_class = [
        np.concatenate([known.evidences[rows], known.equalised[changed], of_organ]), others, known.noisy[changed],
        known.narrow[changed],
    ]
    labels = np.repeat(np.arange(len(of_class)), [len(vectors) for vectors in of_class])
    targets = Targets(labels, CONDITION_COUNT, np.arange(len(labels)))
    forest = extra_trees.fit(np.concatenate(of_class), targets, {"trees": trees, **_FOREST}, seed)
    return forest, Reference.fit(TRAINING, known.descriptions[rows])


def _made_up(encoder: Mapping[str, Any], params: Params, organ: Organ) -> tuple[Vectors, Vectors]:
    """Evidence of simulated recordings of the organ `[h, f]`, and of made-up sounds that are none `[o, f]`."""
    spec = EncoderSpec.from_json(encoder)
    made, own = encoders.load(spec), params.applicability
    assert own is not None

    def heard(waveform: NDArray[np.float32]) -> Vectors:
        frames = encoders.frames_of(made, spec, waveform, SAMPLE_RATE_HZ)
        return evidence(frames.astype(np.float32), made.frame_rate_hz)

    rng = np.random.default_rng([params.seed, 12])
    others = [other_sounds.make(kind, float(rng.uniform(*_SECONDS)), rng)
              for kind in other_sounds.of_no(organ) for _ in range(own.made_up_sounds)]
    simulated = {HEART: _hearts, "lung": _lungs}
    if organ != HEART:
        others += _hearts(params.seed, own.simulated_children, rng)
    of_organ = simulated[organ](params.seed, own.simulated_children, rng)
    return np.stack([heard(one) for one in of_organ]), np.stack([heard(one) for one in others])


def _hearts(seed: int, count: int, rng: np.random.Generator) -> list[Frames]:
    """Waveforms `[time]` of the hearts of `count` simulated children."""
    return [np.asarray(recording.pcm / 32768, np.float32)
            for number in range(count)
            for visit in visits.draw_visits(seed, children.draw_child(seed, number))[:1]
            for recording in visits.record(visit, float(rng.uniform(*_SECONDS)))]


def _lungs(seed: int, count: int, rng: np.random.Generator) -> list[Frames]:
    """Waveforms `[time]` of the lungs of `count` simulated people."""
    return [np.asarray(recording.pcm / 32768, np.float32)
            for number in range(count)
            for recording in lungs.record(seed, lungs.draw_patient(seed, number), float(rng.uniform(*_SECONDS)))]
