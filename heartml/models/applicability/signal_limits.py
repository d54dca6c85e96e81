"""Limits of a signal's measures: can a recording be judged at all? `Quality` in, findings out. Pure.

A limit is the milder of two: the one at which validation warns (`validate` in `params.yaml`; for loudness a tenth of
it, because models do not hear the gain of a recording), and the one that leaves all but a hundredth of the training
recordings inside. So a model of short recordings accepts short recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from heartml.audio.quality import Quality
from heartml.core.config import ValidateParams

_SHARE = 0.01     # of the training recordings may lie outside each limit
_QUIET = 0.1      # of the warning's limit: a heart with a peak of 65 steps of 16 bits still sounds as it should


@dataclass(frozen=True)
class SignalLimits:
    """Limits, in the units of `heartml.audio.quality.Quality`.

    Attributes:
        seconds, peak: smallest value that is inside.
        clipped_share, silent_share: largest value that is inside.
    """

    seconds: float
    peak: float
    clipped_share: float
    silent_share: float

    @classmethod
    def fit(cls, known: Sequence[Quality], params: ValidateParams) -> Self:
        """The limits for a model that was trained on recordings with these qualities `[r]`.

        Args:
            params: the limits of the warnings.
        """
        def least(limit: float, values: list[float]) -> float:
            return min(limit, float(np.quantile(values, _SHARE)))

        def most(limit: float, values: list[float]) -> float:
            return max(limit, float(np.quantile(values, 1 - _SHARE)))

        return cls(least(params.short_seconds, [q.seconds for q in known]),
                   least(_QUIET * params.quiet_peak, [q.peak for q in known]),
                   most(params.clipped_share, [q.clipped_share for q in known]),
                   most(0.5, [q.silent_share for q in known]))

    def findings(self, quality: Quality) -> list[tuple[str, str, float, float]]:
        """What cannot be judged: check, words, value and limit; empty where all measures are inside.

        >>> limits = SignalLimits(seconds=1.5, peak=0.02, clipped_share=0.01, silent_share=0.5)
        >>> click = Quality(1.0, 0.5, -20.0, 0.0, 0.0, 400.0, 0.0, 9.0, 400.0)
        >>> limits.findings(click)
        [('short', 'too short to judge: 1.00 s, at least 1.50 s', 1.0, 1.5)]
        """
        rules = [
            (quality.seconds < self.seconds, "short", f"too short to judge: {quality.seconds:.2f} s, at least "
             f"{self.seconds:.2f} s", quality.seconds, self.seconds),
            (quality.peak < self.peak, "quiet", f"too quiet to judge: the peak is {quality.peak:.3f} of full scale, at "
             f"least {self.peak:.3f}", quality.peak, self.peak),
            (quality.clipped_share > self.clipped_share, "clipped", f"too much is clipped to judge: "
             f"{quality.clipped_share:.1%} of the samples, at most {self.clipped_share:.1%}", quality.clipped_share,
             self.clipped_share),
            (quality.silent_share > self.silent_share, "silent", f"too much is silent to judge: "
             f"{quality.silent_share:.0%} of it, at most {self.silent_share:.0%}", quality.silent_share,
             self.silent_share),
        ]
        return [(check, words, value, limit) for outside, check, words, value, limit in rules if outside]
