"""Can a signal be judged: limits are the milder of the warning's and what the training recordings were like."""

import dataclasses

import pytest
from support.tiny_models import PARAMS

from heartml.audio.quality import Quality
from heartml.models.applicability.signal_limits import SignalLimits

GOOD = Quality(10.0, 0.5, -20.0, 0.0, 0.0, 400.0, 0.0, 12.0, 400.0)
LIMITS = PARAMS.validate_


def checks(limits: SignalLimits, **changed: float) -> list[str]:
    return [check for check, *_ in limits.findings(dataclasses.replace(GOOD, **changed))]


def test_recordings_as_in_training_are_inside_and_worse_ones_are_named() -> None:
    limits = SignalLimits.fit([GOOD] * 50, LIMITS)
    assert checks(limits) == []
    assert checks(limits, seconds=1.0) == ["short"]
    assert checks(limits, peak=0.001) == ["quiet"]
    assert checks(limits, clipped_share=0.2, silent_share=0.9) == ["clipped", "silent"]


@pytest.mark.parametrize(("measure", "usual", "worse", "check"), [
    ("seconds", 0.8, 0.5, "short"), ("peak", 0.001, 0.0002, "quiet"), ("clipped_share", 0.06, 0.2, "clipped"),
    ("silent_share", 0.8, 0.95, "silent"),
])
def test_what_a_model_was_trained_on_is_inside(measure: str, usual: float, worse: float, check: str) -> None:
    limits = SignalLimits.fit([dataclasses.replace(GOOD, **{measure: usual})] * 50, LIMITS)
    assert checks(limits, **{measure: usual}) == []
    assert checks(limits, **{measure: worse}) == [check]
    assert checks(SignalLimits.fit([GOOD] * 50, LIMITS), **{measure: usual}) == [check]
