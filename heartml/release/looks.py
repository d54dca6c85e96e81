"""How often models of a task were judged on the same units, and how much confidence the next judgement therefore needs.

If ten models that are no better are each tested at 95 %, one of them often passes by chance. So the chance of an error,
alpha = 1 - `gate.confidence`, is spent over all judgements of a task: judgement number k gets alpha times 6 / (pi k)^2,
and these shares sum to alpha over any number of judgements (the series of Euler). No plan of how many will come is
needed, and the first ones get most: 61 %, 15 %, 7 %.

Rule: every version of the task that was judged against a champion is one look, whichever champion and units it was, and
however long ago. New units, a new held-out part or a new champion do not start afresh. Versions that HeartML judged
before it counted are counted. Judgements without a champion, against baselines, are counted by themselves in the same
way. A version that is judged again, because the champion changed meanwhile, is one look.

Sources: alpha spending without a horizon: Foster & Stine, Alpha-investing, J. R. Stat. Soc. B 70 (2008); Tian & Ramdas,
Online control of the familywise error rate, Stat. Methods Med. Res. 30 (2021). Why a gate for medical models needs it:
Feng, Emerson & Simon, Approval policies for modifications to machine learning-based software as a medical device,
Biometrics 77 (2021).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from heartml.registry.versions import NONE, Version

COMPARED_WITH = "heartml.compared_with"


@dataclass(frozen=True)
class Look:
    """One judgement.

    Attributes:
        number: from 1.
        confidence: that its intervals need.
    """

    number: int
    confidence: float


def take(number: int, confidence: float) -> Look:
    """The look with this number.

    Args:
        confidence: one minus the chance of an error that all looks share.

    >>> [round(take(k, 0.95).confidence, 4) for k in (1, 2, 3, 10)]
    [0.9696, 0.9924, 0.9966, 0.9997]
    """
    return Look(number, 1 - (1 - confidence) * 6 / (math.pi * number) ** 2)


def next_look(versions: Iterable[Version], own: str, confidence: float, *, first: bool) -> Look:
    """The look that judging version `own` is, after those that the other versions had.

    Args:
        versions: all versions of the model, with their tags.
        own: number of the version that is judged now.
        first: there is no champion; then judgements against baselines alone are counted.
    """
    against = [version.tags[COMPARED_WITH] for version in versions
               if version.number != own and version.tags.get(COMPARED_WITH)]
    return take(1 + sum((champion == NONE) == first for champion in against), confidence)
