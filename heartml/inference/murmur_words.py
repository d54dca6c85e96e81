"""A murmur in a clinician's words: predictions of the descriptor models in, one phrase out. Pure.

`systolic, holosystolic, plateau, grade II/VI, high, harsh; loudest at TV` is the usual order of a clinician. A feature
without a model, or of which the model is not sure, is not mentioned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from heartml.core.config import PredictParams


@dataclass(frozen=True)
class MurmurFeature:
    """The prediction of one descriptor model for one murmur.

    Attributes:
        name: the task, `systolic_timing`.
        decision: the class it decides for.
        confidence: calibrated probability of that class.
        calibrated: class -> calibrated probability.
        model: where the model comes from, in words.
    """

    name: str
    decision: str
    confidence: float
    calibrated: Mapping[str, float]
    model: str

    @property
    def words(self) -> str:
        """The decision in words: `holosystolic`, `early systolic`, `grade II/VI`, `harsh`."""
        if self.name.endswith("_grading"):
            return f"grade {self.decision}"
        return self.decision.replace("-", " ").lower()


@dataclass(frozen=True)
class MurmurDescription:
    """What is known of one murmur.

    Attributes:
        features: one for each descriptor model, in the order of the tasks.
        reported: those that are confident enough to be in the phrase.
        loudest_at: location, or `None` where it is not clear.
    """

    features: tuple[MurmurFeature, ...]
    reported: tuple[MurmurFeature, ...]
    loudest_at: str | None

    @property
    def phrase(self) -> str:
        """The murmur in words; empty where nothing is known."""
        return self._phrase([feature.words for feature in self.reported])

    @property
    def phrase_with_confidence(self) -> str:
        """The same, with the confidence after each feature."""
        return self._phrase([f"{feature.words} ({feature.confidence:.0%})" for feature in self.reported])

    def _phrase(self, words: Sequence[str]) -> str:
        named = list(zip(self.reported, words, strict=True))
        phases = dict.fromkeys(feature.name.split("_")[0] for feature in self.reported)
        features = ", ".join(
            word for phase in phases
            for word in (phase, *(w for feature, w in named if feature.name.startswith(f"{phase}_")))
        )
        place = f"loudest at {self.loudest_at}" if self.loudest_at else ""
        return "; ".join(part for part in (features, place) if part)


def describe(
    features: Sequence[MurmurFeature], murmur_at: Iterable[tuple[str | None, float]], params: PredictParams
) -> MurmurDescription:
    """Describe one murmur.

    Args:
        features: the predictions of the descriptor models.
        murmur_at: of each recording its location (`None` where unknown) and the probability of a murmur in it alone.
        params: which features are confident enough, and by how much a location must lead.
    """
    reported = tuple(feature for feature in features if feature.confidence >= params.least_confidence)
    return MurmurDescription(tuple(features), reported, loudest_location(murmur_at, params.loudest_lead))


def loudest_location(murmur_at: Iterable[tuple[str | None, float]], lead: float) -> str | None:
    """The location with the highest probability of a murmur, if it leads the next location by at least `lead`.

    Several recordings at one location are averaged. `None` where the lead is smaller, or there is only one location.

    >>> loudest_location([("MV", 0.9), ("TV", 0.5), (None, 1.0)], lead=0.1)
    'MV'
    >>> loudest_location([("MV", 0.9), ("TV", 0.85)], lead=0.1) is None
    True
    """
    by_location: dict[str, list[float]] = {}
    for location, probability in murmur_at:
        if location is not None:
            by_location.setdefault(location, []).append(probability)
    ranked = sorted(((mean(values), location) for location, values in by_location.items()), reverse=True)
    if len(ranked) < 2 or ranked[0][0] - ranked[1][0] < lead:
        return None
    return ranked[0][1]
