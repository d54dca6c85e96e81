"""The applicability domain of a model: frames and signal quality of recordings in, reasons to refer them out.

A classifier answers every input, also a mains hum. So a model carries three questions of its own:

- Is it the organ that the task is about, and can it be judged? A forest tells recordings as the model knows them from
  sounds that are no heart (or no lung), from noise in which it drowns, and from a sensor that passes too few
  frequencies. It hears `heart_evidence`, whatever the organ.
- Is it like what was learnt? The Mahalanobis distance to the training recordings, or to those of a source that was
  validated since, in the space of the bands' means and deviations.
- Is the signal long, loud and clean enough? Limits of the signal's measures, see `signal_limits`.

Limits come from recordings that the forest and the distance were not fitted to. A recording that is like one reference
in both respects is inside. A unit is referred where at least half of its recordings are outside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from heartml.audio.quality import Quality
from heartml.core.task_definition import HEART, Organ
from heartml.models.applicability.heart_evidence import evidence
from heartml.models.applicability.signal_limits import SignalLimits
from heartml.models.heads import FittedHead, HeadState, extra_trees

ENCODER = "logspec"                 # the checks hear its frames, whatever the model's members hear
UNLIKE = "unlike"
TRAINING = "training"
CONDITION_COUNT = 4

Vector = NDArray[np.float64]
Frames = Sequence[NDArray[np.float32]]


def conditions(organ: Organ = HEART) -> tuple[str, ...]:
    """The classes of the forest `[CONDITION_COUNT]`: as the model knows recordings, and why it cannot judge one.

    >>> conditions(), conditions("lung")[1]
    (('as_recorded', 'no_heart', 'noisy', 'narrow'), 'no_lung')
    """
    return "as_recorded", f"no_{organ}", "noisy", "narrow"


def words(organ: Organ = HEART) -> dict[str, str]:
    """Check -> the sentence for people, for all of `conditions` but the first, and `unlike`."""
    return {
        f"no_{organ}": f"no {organ} sounds found",
        "noisy": "too noisy to judge",
        "narrow": "muffled or thin: too few frequencies to judge",
        UNLIKE: "recorded unlike anything the model was trained or validated on",
    }


@dataclass(frozen=True)
class Finding:
    """One reason why a recording cannot be judged.

    Attributes:
        check: one of `conditions`, `unlike`, or a measure of the signal, see `signal_limits`.
        words: the sentence for people.
        value, limit: what was measured, and where it would have passed.
    """

    check: str
    words: str
    value: float
    limit: float


@dataclass(frozen=True)
class Reference:
    """Recordings on which a model was trained or validated, `v` numbers each, see `description`.

    Attributes:
        name: `training`, or the validated source.
        centre: their mean `[v]`.
        precision: the inverse of their covariance `[v, v]`, shrunk (Ledoit and Wolf 2004, J Multivar Anal 88:365).
        farthest: largest Mahalanobis distance that is inside.
        most_unusual: largest probability of any condition but `as_recorded` that is inside.
    """

    name: str
    centre: Vector
    precision: NDArray[np.float64]
    farthest: float
    most_unusual: float

    @classmethod
    def fit(cls, name: str, descriptions: NDArray[np.float64]) -> Self:
        """Centre and precision of descriptions `[n, v]`; the limits are infinite and 1, until `within` sets them."""
        from sklearn.covariance import LedoitWolf

        fitted = LedoitWolf().fit(descriptions)
        return cls(name, np.asarray(fitted.location_), np.asarray(fitted.precision_), float("inf"), 1.0)

    def distances(self, descriptions: NDArray[np.float64]) -> Vector:
        """Mahalanobis distances `[n]` of descriptions `[n, v]` from the centre."""
        away = descriptions - self.centre
        return np.asarray(np.sqrt(np.maximum(np.einsum("nv,vw,nw->n", away, self.precision, away), 0.0)))

    def within(self, farthest: float, most_unusual: float) -> Self:
        """The same reference with these limits."""
        return type(self)(self.name, self.centre, self.precision, farthest, most_unusual)


def description(frames: NDArray[np.float32]) -> Vector:
    """Where a recording lies beside others: mean and deviation of every band, `[frames, bands] -> [2 * bands]`."""
    exact = frames.astype(np.float64)
    return np.concatenate([exact.mean(axis=0), exact.std(axis=0)])


@dataclass(frozen=True)
class Applicability:
    """What a model accepts.

    Attributes:
        conditions: the forest over `conditions(organ)`.
        references: what the model was trained or validated on.
        signal: limits of the signal's measures.
        organ: what the task is about.
    """

    conditions: FittedHead
    references: tuple[Reference, ...]
    signal: SignalLimits
    organ: Organ = HEART

    def probabilities(self, evidences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of the conditions `[n, 4]` from vectors of evidence `[n, f]`."""
        return np.exp(self.conditions.predict_proba(evidences).log_p)

    def judge(
        self, frames: Frames, frame_rate_hz: float, qualities: Sequence[Quality] | None = None
    ) -> tuple[tuple[Finding, ...], ...]:
        """The findings of each recording `[r]`; none where it is inside.

        Args:
            frames: under the encoder `ENCODER`, `r` arrays `[frames, bands]`.
            qualities: of the signals `[r]`; without them the signal's measures are not checked.
        """
        probabilities = self.probabilities(np.stack([evidence(one, frame_rate_hz) for one in frames]))
        descriptions = np.stack([description(one) for one in frames])
        distances = np.stack([reference.distances(descriptions) for reference in self.references], axis=1)
        return self.findings(probabilities, distances, qualities)

    def findings(
        self, probabilities: NDArray[np.float64], distances: NDArray[np.float64], qualities: Sequence[Quality] | None
    ) -> tuple[tuple[Finding, ...], ...]:
        """As `judge`, from the probabilities of the conditions `[r, 4]` and the distances `[r, references]`."""
        signals = [self.signal.findings(one) for one in qualities] if qualities else [[] for _ in probabilities]
        return tuple(
            (*(Finding(*found) for found in of_signal), *self._of_sound(p, d))
            for of_signal, p, d in zip(signals, probabilities, distances, strict=True))

    def _of_sound(self, probabilities: Vector, distances: Vector) -> list[Finding]:
        """What the forest and the distances say of one recording: `[4]` probabilities, `[references]` distances."""
        unusual = float(1 - probabilities[0])
        inside = [d <= r.farthest and unusual <= r.most_unusual
                  for r, d in zip(self.references, distances, strict=True)]
        if any(inside):
            return []
        nearest = int(np.argmin([d / r.farthest for r, d in zip(self.references, distances, strict=True)]))
        reference = self.references[nearest]
        if unusual > reference.most_unusual:
            check = conditions(self.organ)[1 + int(probabilities[1:].argmax())]
            return [Finding(check, words(self.organ)[check], unusual, reference.most_unusual)]
        return [Finding(UNLIKE, words(self.organ)[UNLIKE], float(distances[nearest]), reference.farthest)]

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON values; an organ that is not named is the heart."""
        found = {
            "encoder": ENCODER, "conditions": dict(self.conditions.state().scalars), "signal": asdict(self.signal),
            "references": [{"name": r.name, "farthest": r.farthest, "most_unusual": r.most_unusual}
                           for r in self.references],
        }
        return found if self.organ == HEART else {**found, "organ": self.organ}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays by name."""
        found = {f"conditions.{key}": array for key, array in self.conditions.state().arrays.items()}
        for reference in self.references:
            found |= {f"reference.{reference.name}.centre": reference.centre,
                      f"reference.{reference.name}.precision": reference.precision}
        return found

    @classmethod
    def load(cls, saved: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """What `to_json` and `arrays` gave."""
        own = {key.removeprefix("conditions."): array for key, array in arrays.items() if key.startswith("conditions.")}
        references = tuple(
            Reference(r["name"], np.asarray(arrays[f"reference.{r['name']}.centre"], np.float64),
                      np.asarray(arrays[f"reference.{r['name']}.precision"], np.float64), float(r["farthest"]),
                      float(r["most_unusual"]))
            for r in saved["references"])
        return cls(extra_trees.load(HeadState(own, saved["conditions"])), references, SignalLimits(**saved["signal"]),
                   saved.get("organ", HEART))


def reasons(findings: Sequence[Sequence[Finding]]) -> tuple[Finding, ...]:
    """Why a unit with these findings of its recordings `[r]` is referred; empty where it is not.

    Each check stands there once, with the recording that is farthest from its limit.

    It is referred where at least half of its recordings are outside.

    >>> outside = (Finding("noisy", "too noisy", 1.0, 0.5),)
    >>> [one.words for one in reasons([(), outside])], reasons([(), (), outside])
    (['too noisy'], ())
    """
    if 2 * sum(bool(one) for one in findings) < len(findings):
        return ()
    worst: dict[str, Finding] = {}
    for one in (one for of_recording in findings for one in of_recording):
        known = worst.get(one.check)
        if known is None or abs(one.value - one.limit) > abs(known.value - known.limit):
            worst[one.check] = one
    return tuple(worst.values())


def checks_column(reasons: Sequence[Sequence[Finding]]) -> NDArray[np.object_]:
    """The checks for which each unit `[n]` is referred, as a column of a table: `no_heart; short`, or nothing."""
    return np.array(["; ".join(one.check for one in of_unit) for of_unit in reasons], object)
