"""Whether a challenger is a refresh of the champion: the same recipe, trained on more recordings.

In: both versions' parameters and folds. Out: the `Policy` that applies. Pure: no file, no registry.

A refresh need not be shown to be better. It is expected to be, and a few more recordings seldom show it. It must be
shown not to be worse by more than two margins. The recipe is parameters: code may differ between the two, as every
repaired fault does; `heartml compare` lists the files.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from heartml.core.schema import TEST
from heartml.release.champion_criteria import PLAIN, Policy
from heartml.release.gate import BETTER, NOT_WORSE

RECIPE = ("encoders", "audio", "encoder_parameters", "search", "stacking", "ensemble", "decision")


def policy(
    asked: str, own: Mapping[str, Any], others: Mapping[str, Any] | None, folds: pd.DataFrame, other_folds: pd.DataFrame
) -> Policy:
    """What the challenger has to show.

    Args:
        asked: `gate.policy`.
        own: the challenger's parameters, as `params.yaml` has them.
        others: the champion's; `None` if its run does not keep them.
        folds: recording_id and part, of the challenger.
        other_folds: of the champion.

    >>> few = pd.DataFrame({"recording_id": ["a", "b"], "part": ["0", "test"]})
    >>> more = pd.DataFrame({"recording_id": ["a", "b", "c"], "part": ["0", "test", "1"]})
    >>> policy("not_worse", {"search": {"trials": 4}}, {"search": {"trials": 4}}, more, few)
    Policy(kind='not_worse', why='the same recipe and 1 more recordings to train on')
    >>> policy("not_worse", {"search": {"trials": 4}}, {"search": {"trials": 8}}, more, few)
    Policy(kind='better', why='no refresh: other parameters in `search`')
    >>> policy("not_worse", {}, {}, few, few)
    Policy(kind='better', why='no refresh: not more recordings to train on')
    """
    if asked != NOT_WORSE:
        return PLAIN
    if others is None:
        return Policy(BETTER, "no refresh: the champion's run keeps no parameters")
    other = [f"`{section}`" for section in RECIPE if own.get(section) != others.get(section)]
    both = [params.get("organs") for params in (own, others)]
    if all(both) and both[0] != both[1]:      # versions from before there were organs have heard hearts as they are now
        other.append("`organs`")
    if other:
        return Policy(BETTER, f"no refresh: other parameters in {', '.join(other)}")
    more = int((folds["part"] != TEST).sum()) - int((other_folds["part"] != TEST).sum())
    if more <= 0:
        return Policy(BETTER, "no refresh: not more recordings to train on")
    return Policy(NOT_WORSE, f"the same recipe and {more} more recordings to train on")
