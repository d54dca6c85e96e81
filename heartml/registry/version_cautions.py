"""What people must know about a registered version before they trust a prediction of it: its cautions, one line each.

In: a version, and the journal of champions of its model. Out: sentences. There is one for each of these: consent for
its data was withdrawn; the gate refused it or never judged it, and whether a person promoted it nevertheless; it was
retired. A version without any of them has no cautions. Nothing here talks to the registry.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from heartml.core import paths
from heartml.core.config import PredictParams
from heartml.core.system import untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import write_json
from heartml.core.system.text import one_line
from heartml.registry import champions, consent
from heartml.registry.champions import PERSON, ROLLBACK, Entry
from heartml.registry.versions import ABANDONED, PROMOTED, REFUSED, Version

RETIRED = "retired"      # the gate's criterion that fails while the last champion is retired
_GATE_TAG, _MAX_LENGTH = "heartml.gate.", 240
_JUDGED = {REFUSED: "the gate refused it", ABANDONED: "the gate never judged it, its run was killed"}
_HOW = {PERSON: "promoted by", ROLLBACK: "rolled back to by"}


class CautionedModel(HeartMLError):  # noqa: N818 - names what is the case
    """There is a caution about the model, and `params.yaml` forbids predictions with such a model."""


def of(version: Version, history: Sequence[Entry], *, named: bool = True) -> tuple[str, ...]:
    """The cautions of a version, each with its name and number; empty if there are none.

    Args:
        history: the journal of champions of the model, `champions.read`.
        named: whether the people who decided are named; not in what leaves the project.
    """
    retired = champions.retired(history, version.number)
    found = (
        f"consent for data in it was withdrawn: {gone}" if (gone := consent.describe(version)) else "",
        _gate(version, champions.newest(history, version.number), named=named),
        f"retired on {retired.when} by {_who(retired, named)}: {retired.decision.reason}" if retired else "",
    )
    return tuple(f"{version.name} version {version.number}: {one_line(words)}" for words in found if words)


def unregistered(folder: object, *, retrained: bool = True) -> str:
    """The caution of a model that stands in no registry: nobody has judged it.

    Args:
        retrained: whether it is the model in `artifacts/`, which a retraining registers.
    """
    way_out = "`heartml retrain` registers and judges it" if retrained else "`heartml models` lists those that it has"
    return f"{folder}: not registered, so the gate has not judged it; {way_out}"


def unknown(folder: object, why: object) -> str:
    """The caution of a model about which the registry cannot be asked."""
    return f"{folder}: nothing is known about it, because the registry cannot be asked: {one_line(why)}"


def check(found: Sequence[str], params: PredictParams) -> None:
    """Raise `CautionedModel` if there are cautions, and `predict.cautioned_model` of params.yaml is `refuse`."""
    if found and params.cautioned_model == "refuse":
        raise CautionedModel(f"{'; '.join(found)}. `predict.cautioned_model: refuse` in {paths.PARAMS} forbids "
                             "predictions with it: name another version with --model, or write `warn` there")


def write_beside(folder: Path, found: Sequence[str]) -> Path:
    """Write the cautions of the copied model in `folder` into `FOLDER.cautions.json`; returns that path.

    They are not in the folder, because the signature allows no other file there.
    """
    place = _beside(folder)
    write_json(place, {"cautions": list(found)})
    return place


def read_beside(folder: Path) -> tuple[str, ...]:
    """The cautions that `write_beside` wrote; none if there is no such file, one that says so if it is damaged."""
    place = _beside(folder)
    if not place.exists():
        return ()
    try:
        return tuple(map(str, json.loads(untrusted.read_text(place))["cautions"]))
    except (untrusted.DocumentError, ValueError, KeyError, TypeError):
        return (f"{place}: damaged, so nothing is known about this model; `heartml verify NAME --to FOLDER` writes it",)


def are_beside(folder: Path) -> bool:
    """Whether `write_beside` wrote cautions for this copy, be it that there are none."""
    return _beside(folder).exists()


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.cautions.json")


def _who(entry: Entry, named: bool) -> str:
    return entry.decision.who if named else "a person"


def _gate(version: Version, entry: Entry | None, *, named: bool) -> str:
    if version.verdict == PROMOTED:
        return ""
    chosen = entry if entry and entry.decision.kind in _HOW else None
    if chosen and _left_to_a_person(version):
        return ""
    judged = _JUDGED.get(version.verdict or "", "the gate has not judged it")
    reason = version.tags.get("heartml.reason", "").removeprefix("refused: ") if version.verdict == REFUSED else ""
    words = f"{judged} ({_shortened(reason)})" if reason else judged
    if chosen is None:
        return words
    decision, who = chosen.decision, _who(chosen, named)
    return f"{words}; {_HOW[decision.kind]} {who} on {chosen.when} all the same: {_shortened(decision.reason)}"


def _left_to_a_person(version: Version) -> bool:
    """Whether the gate refused it only because the last champion was retired. Promoting it then overrides nothing."""
    failed = {tag.removeprefix(_GATE_TAG) for tag, result in version.tags.items()
              if tag.startswith(_GATE_TAG) and result.startswith("failed")}
    return version.verdict == REFUSED and failed == {RETIRED}


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _MAX_LENGTH, placeholder=" ...")
