"""A patient withdraws consent: make the next data version without them, and mark every version that used them.

In: a patient id and a reason. Out: a `Withdrawal`; a new data version, and a tag on each registered version that was
trained on the patient's recordings or held them out.

Git, former data versions, runs and models stay as they are, so that what was done can still be explained. `remains`
says where the recordings still are, and what erases them. If the command is killed, run it again.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from heartml.core.system.errors import HeartMLError
from heartml.data.ingest import version, withdrawn
from heartml.lineage import capture, trace
from heartml.lineage.capture import LineageError
from heartml.lineage.trace import NearDuplicate, Trace, Use, count_of
from heartml.pipeline import graph
from heartml.registry import consent
from heartml.registry.tracking import Client

if TYPE_CHECKING:
    import pandas as pd

WHO = "heartml withdraw"


class NotAPatient(HeartMLError):  # noqa: N818 - reads as what is the case
    """The name is not that of one patient. The message says what it is."""


@dataclass(frozen=True)
class Withdrawal:
    """What was done.

    Attributes:
        recordings: taken out of the data version now; empty if that was done before.
        before, after: hashes of the data version.
        affected: registered versions that were trained on the patient or held them out; each is marked.
        twins: other ids in the same group, which stay in the data. They may be the same person.
        remains: where the patient's recordings still are, in words.
        missing: data versions and folds that could not be read. Versions that used these are not among `affected`.
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
    """What is known about a patient, before anything is done.

    Raises:
        UnknownName: no patient, recording or file has this name.
        NotAPatient: it is a recording or a file, or the name of several patients.
    """
    found = trace.find(client, patient)
    if found.kind != trace.PATIENT:
        owners = sorted({one.patient_id for one in found.recordings if one.patient_id})
        raise NotAPatient(f"{patient} is a {found.kind}; consent is a patient's"
                          + (f": `{WHO} {owners[0]}`" if len(owners) == 1 else ""))
    if len(_ids(found)) > 1:
        raise NotAPatient(f"{patient} is several patients: {', '.join(_ids(found))}")
    return found


def _ids(found: Trace) -> list[str]:
    named = {one.patient_id for one in found.recordings} | {row.patient_id for row in found.refused}
    return sorted(name for name in named if name)


def run(client: Client, found: Trace, reason: str) -> Withdrawal:
    """Make the next data version and mark the registered versions. Waits while a retraining or an ingest runs.

    Args:
        found: from `preview`. The patient is traced once more after the wait, for versions registered meanwhile.

    Raises:
        VersionError: `data/` is not the version that `data.dvc` names.
    """
    patient = _ids(found)[0]
    with graph.hold_pipeline(command=WHO):
        version.restore()
        found = preview(client, patient)
        tables = version.read()
        before = _data_hash()
        own = tables.recordings.loc[tables.recordings["patient_id"] == patient, "recording_id"]
        following = withdrawn.without_patient(tables, patient, reason, _known(found))
        version.publish(version.build(following, version.BUILD / "audio", {}))
    affected = tuple(use for use in found.uses if use.version)
    for use in affected:
        _mark(client, use, patient)
    noted = withdrawn.reason_of(following.withdrawn, patient) or reason
    return Withdrawal(patient, noted, tuple(own), before, capture.data_hash(), affected, found.twins,
                      tuple(remains(found)), found.missing)


def plan(found: Trace) -> Withdrawal:
    """What `run` would do now; nothing is written.

    Args:
        found: from `preview`.

    Returns:
        The recordings that `data/` has now, and the registered versions that would be marked. `after` and `reason` are
        empty.
    """
    patient, recordings = _ids(found)[0], version.read().recordings
    own = recordings.loc[recordings["patient_id"] == patient, "recording_id"]
    return Withdrawal(patient, "", tuple(own), _data_hash(), "", tuple(use for use in found.uses if use.version),
                      found.twins, tuple(remains(found)), found.missing)


def _data_hash() -> str:
    """Hash of the data version in place; empty if a killed process left data.dvc incomplete (it is written again)."""
    try:
        return capture.data_hash()
    except LineageError:
        return ""


def _known(found: Trace) -> "pd.DataFrame":
    """The patient's recordings in all data versions, as a table."""
    import pandas as pd

    rows = [(one.source_file, one.dataset, one.patient_id, one.recording_id) for one in found.recordings]
    return pd.DataFrame(rows, columns=["source_file", "dataset", "patient_id", "recording_id"], dtype="string")


def _mark(client: Client, use: Use, patient: str) -> None:
    """Mark the registered version of one use as one that used the patient's recordings."""
    count = sum(len(ids) for ids in use.parts.values())
    consent.add_patient(client, f"{use.task}/{use.version}", patient, count, use.roles)


def remains(found: Trace) -> list[str]:
    """Where the recordings still are after `run`, and how to erase them; for whoever is responsible for the data."""
    runs = count_of(len(found.uses), "run")
    holding = {md5 for one in found.recordings for md5 in one.data}
    return [
        f"DVC's cache and remotes: the audio, in {count_of(len(holding), 'former data version')}; git names these by "
        "hash and holds no recording",
        f"MLflow: {runs} with the patient's id, part and probabilities (folds.parquet, evaluation/, report.html, which "
        "may have a recording to listen to); models whose weights were fitted on them",
        "this folder: artifacts/ and reports/ until the next `heartml retrain`, .heartml/cache, and the publisher's "
        "files wherever they were ingested from",
        "to erase, after a retraining is committed: `dvc gc --workspace --cloud` (once for each remote, with "
        "--remote NAME) deletes what data.dvc and dvc.lock of this folder do not name, `mlflow gc` deleted runs, and "
        "`rm -r .heartml/cache`. Former versions can then be neither reproduced nor audited",
    ]


def planned_lines(planned: Withdrawal) -> list[str]:
    """What a withdrawal would do, for people, one fact a line."""
    count = len(planned.recordings)
    first = f"{count_of(count)} would be taken out of data version {planned.before[:12]}" if count else (
        "no recording is in data/ now; a later ingest would be refused")
    return [f"{planned.patient}: {first}", *_affected("registered versions that would be marked", planned),
            *_remaining(planned), "nothing was changed (--dry-run)"]


def lines(done: Withdrawal) -> list[str]:
    """The withdrawal for people, one fact a line."""
    count = len(done.recordings)
    first = f"{count_of(count)} taken out" if count else "was taken out before; no recording is in data/"
    found = [f"{done.patient}: {first} ({done.reason})"]
    if done.after != done.before:
        found.append(f"data version {done.before[:12]} -> {done.after[:12]}: commit data.dvc, then `heartml retrain` "
                     "makes models without them")
    return [*found, *_affected("registered versions affected, marked in the registry", done), *_remaining(done)]


def _affected(title: str, found: Withdrawal) -> list[str]:
    return [title, *(_uses(found.affected) or ["  none"]),
            *(f"could not be read, perhaps affected too: {words}" for words in found.missing)]


def _remaining(found: Withdrawal) -> list[str]:
    twins = [f"also in group {other.group_id}: {other.patient_id} ({count_of(other.recordings)} stay). The same "
             f"person? `{WHO} {other.patient_id}`" for other in found.twins]
    return [*twins, "what remains", *(f"  {words}" for words in found.remains)]


def _uses(affected: Iterable[Use]) -> list[str]:
    return [f"  {use.task} version {use.version}{''.join(f', {alias}' for alias in use.aliases)}: "
            f"{count_of(sum(map(len, use.parts.values())))}, {' and '.join(use.roles)}" for use in affected]
