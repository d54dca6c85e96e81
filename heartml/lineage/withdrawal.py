"""A patient withdraws consent: out of the next data version, and marked on every registered version that heard them.

History is never rewritten: git, former data versions, runs and models stay as they are, so that what was done can still
be explained. `remains` says where the recordings still are, and what erases them. Killed at any moment: run it again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from heartml.core.system.errors import HeartMLError
from heartml.data.ingest import version, withdrawn
from heartml.lineage import capture, trace
from heartml.lineage.capture import LineageError
from heartml.lineage.trace import NearDuplicate, Trace, Use, many
from heartml.pipeline import graph
from heartml.registry import consent, versions
from heartml.registry.mlflow_store import alone
from heartml.registry.tracking import Client

if TYPE_CHECKING:
    import pandas as pd

WHO = "heartml withdraw"


class NoPatient(HeartMLError):  # noqa: N818 - reads as what is the case
    """What was named is no patient; the message says what it is."""


@dataclass(frozen=True)
class Withdrawal:
    """What was done.

    Attributes:
        recordings: taken out of the data version now; empty where that was done before.
        before, after: hashes of the data version.
        affected: registered versions that were trained on the patient or held them out, each marked.
        twins: other ids in the same group: perhaps the same person, who stays in the data under them.
        remains: where the patient's recordings still are, in words.
        missing: data versions and folds that could not be read: what used these is not among `affected`.
    """

    patient: str
    reason: str
    recordings: tuple[str, ...]
    before: str
    after: str
    affected: tuple[Use, ...]
    twins: tuple[NearDuplicate, ...]
    remains: tuple[str, ...]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "affected": [{**asdict(use), "roles": use.roles} for use in self.affected]}


def preview(client: Client, patient: str) -> Trace:
    """What is known of a patient, before anything is done.

    Raises:
        Unknown: nobody is called so.
        NoPatient: it is a recording or a file.
    """
    found = trace.find(client, patient)
    if found.kind != trace.PATIENT:
        owners = sorted({one.patient_id for one in found.recordings if one.patient_id})
        raise NoPatient(f"{patient} is a {found.kind}; consent is a patient's"
                        + (f": `{WHO} {owners[0]}`" if len(owners) == 1 else ""))
    if len(_ids(found)) > 1:
        raise NoPatient(f"{patient} is several patients: {', '.join(_ids(found))}")
    return found


def _ids(found: Trace) -> list[str]:
    named = {one.patient_id for one in found.recordings} | {row.patient_id for row in found.refused}
    return sorted(name for name in named if name)


def run(client: Client, found: Trace, reason: str) -> Withdrawal:
    """Make the next data version and mark the registered ones; waits while a retraining or an ingest is at work.

    Args:
        found: what `look` has found; it looks again once it has waited, for what was registered meanwhile.

    Raises:
        VersionError: `data/` is not the version that `data.dvc` names.
    """
    patient = _ids(found)[0]
    with graph.alone(who=WHO):
        version.restore()
        found = preview(client, patient)
        tables = version.read()
        before = _data_hash()
        own = tables.recordings.loc[tables.recordings["patient_id"] == patient, "recording_id"]
        following = withdrawn.without(tables, patient, reason, _known(found))
        version.publish(version.build(following, version.BUILD / "audio", {}))
    affected = tuple(use for use in found.uses if use.version)
    for use in affected:
        _mark(client, use, patient)
    said = following.withdrawn.loc[following.withdrawn["patient_id"] == patient, "reason"]
    return Withdrawal(patient, str(said.iloc[0]), tuple(own), before, capture.data_hash(), affected, found.twins,
                      tuple(remains(found)), found.missing)


def _data_hash() -> str:
    """Of the version in place; empty where a kill has cut data.dvc short, and it is being written again."""
    try:
        return capture.data_hash()
    except LineageError:
        return ""


def _known(found: Trace) -> "pd.DataFrame":
    """The patient's recordings in all data versions, and files that were refused."""
    import pandas as pd

    rows = [(one.source_file, one.dataset, one.patient_id, one.recording_id) for one in found.recordings]
    return pd.DataFrame(rows, columns=["source_file", "dataset", "patient_id", "recording_id"], dtype="string")


def _mark(client: Client, use: Use, patient: str) -> None:
    """Add the patient to the tag of one version: patient -> how many recordings, and in what part.

    Alone: of two that read the tag before either writes it, one would lose its patient.
    """
    with alone("consent"):
        marked = versions.get(client, f"{use.task}/{use.version}")
        count = sum(len(ids) for ids in use.parts.values())
        told = {**consent.withdrawn(marked), patient: {"recordings": count, "in": list(use.roles)}}
        versions.mark(client, marked, consent.TAG, json.dumps(told, sort_keys=True))


def remains(found: Trace) -> list[str]:
    """Where the recordings still are after `run`, and what a controller does about it."""
    runs = many(len(found.uses), "run")
    holding = {md5 for one in found.recordings for md5 in one.data}
    return [
        f"DVC's cache and remotes: the audio, in {many(len(holding), 'former data version')}; git names these by "
        "hash and holds no recording",
        f"MLflow: {runs} with the patient's id, part and probabilities (folds.parquet, evaluation/, report.html, which "
        "may have a recording to listen to); models whose weights were fitted on them",
        "this folder: artifacts/ and reports/ until the next `heartml retrain`, .heartml/cache, and the publisher's "
        "files wherever they were ingested from",
        "to erase, after a retraining is committed: `dvc gc --workspace --cloud` (once for each remote, with "
        "--remote NAME) deletes what data.dvc and dvc.lock of this folder do not name, `mlflow gc` deleted runs, and "
        "`rm -r .heartml/cache`. Former versions can then be neither reproduced nor audited",
    ]


def lines(done: Withdrawal) -> list[str]:
    """For people."""
    count = len(done.recordings)
    first = f"{many(count)} taken out" if count else "was taken out before; no recording is in data/"
    said = [f"{done.patient}: {first} ({done.reason})"]
    if done.after != done.before:
        said.append(f"data version {done.before[:12]} -> {done.after[:12]}: commit data.dvc, then `heartml retrain` "
                    "makes models without them")
    said += ["registered versions affected, marked in the registry"] + (_uses(done.affected) or ["  none"])
    said += [f"could not be read, perhaps affected too: {words}" for words in done.missing]
    said += [f"also in group {twin.group_id}: {twin.patient_id} ({many(twin.recordings)} stay). The same person? "
             f"`{WHO} {twin.patient_id}`" for twin in done.twins]
    return [*said, "what remains", *(f"  {words}" for words in done.remains)]


def _uses(affected: Iterable[Use]) -> list[str]:
    return [f"  {use.task} version {use.version}{''.join(f', {alias}' for alias in use.aliases)}: "
            f"{many(sum(map(len, use.parts.values())))}, {' and '.join(use.roles)}" for use in affected]
