"""A murmur in a clinician's words: what the descriptor models say in, one phrase out. Pure.

`systolic, holosystolic, plateau, grade II/VI, high, harsh; loudest at TV`: the order of the bedside, and no word about
a feature that the model does not know.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from heartml.core.config import PredictParams


@dataclass(frozen=True)
class MurmurFeature:
    """What one descriptor model says of one murmur.

    Attributes:
        name: the task, `systolic_timing`.
        decision: the class it decides for.
        confidence: calibrated probability of that class.
        calibrated: class -> calibrated probability.
        model: which one it was, in words.
    """

    name: str
    decision: str
    confidence: float
    calibrated: Mapping[str, float]
    model: str

    @property
    def words(self) -> str:
        """The decision as it is said: `holosystolic`, `early systolic`, `grade II/VI`, `harsh`."""
        if self.name.endswith("_grading"):
            return f"grade {self.decision}"
        return self.decision.replace("-", " ").lower()


@dataclass(frozen=True)
class MurmurDescription:
    """What is known of one murmur.

    Attributes:
        features: of every model that was asked, in the order of the tasks.
        said: those of them that are sure enough to be said.
        loudest_at: location, or `None` where it is not clear.
    """

    features: tuple[MurmurFeature, ...]
    said: tuple[MurmurFeature, ...]
    loudest_at: str | None

    @property
    def phrase(self) -> str:
        """The phrase; empty where nothing is known."""
        return self._phrase([feature.words for feature in self.said])

    @property
    def phrase_with_confidence(self) -> str:
        """The same with the confidence behind each feature."""
        return self._phrase([f"{feature.words} ({feature.confidence:.0%})" for feature in self.said])

    def _phrase(self, words: Sequence[str]) -> str:
        phases = dict.fromkeys(feature.name.split("_")[0] for feature in self.said)
        heard = ", ".join(
            word for phase in phases
            for word in (phase, *(w for f, w in zip(self.said, words, strict=True) if f.name.startswith(f"{phase}_")))
        )
        place = f"loudest at {self.loudest_at}" if self.loudest_at else ""
        return "; ".join(part for part in (heard, place) if part)


def describe(
    features: Sequence[MurmurFeature], murmur_at: Iterable[tuple[str | None, float]], params: PredictParams
) -> MurmurDescription:
    """Put together what is known of one murmur.

    Args:
        murmur_at: location (`None` where unknown) and probability of a murmur of each recording alone.
    """
    said = tuple(feature for feature in features if feature.confidence >= params.least_confidence)
    return MurmurDescription(tuple(features), said, loudest(murmur_at, params.loudest_lead))


def loudest(murmur_at: Iterable[tuple[str | None, float]], lead: float) -> str | None:
    """The location whose recordings show the murmur most, if it leads the next one by `lead` in probability.

    Several recordings at one location are averaged; a single location leads nobody.
    """
    by_location: dict[str, list[float]] = {}
    for location, probability in murmur_at:
        if location is not None:
            by_location.setdefault(location, []).append(probability)
    ranked = sorted(((mean(values), location) for location, values in by_location.items()), reverse=True)
    if len(ranked) < 2 or ranked[0][0] - ranked[1][0] < lead:
        return None
    return ranked[0][1]
