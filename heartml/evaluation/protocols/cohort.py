"""The data of a protocol: a publisher's folder in; labels, children, heart states and frames as a folder on disk out.

A protocol takes the data as they were published. No near-duplicates are searched and no split is drawn. The folder is
addressed by content. So a second run finds it, and worker processes can open it by name.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heartml.audio import entry_checks, sound_files
from heartml.core import paths
from heartml.core.config import Params
from heartml.core.frame_store import Frames
from heartml.core.schema import ANNOTATIONS
from heartml.core.system import files, hashing, locks
from heartml.core.system.errors import HeartMLError
from heartml.core.system.parallel import available_workers, pool
from heartml.core.system.progress import track
from heartml.data.datasets import Layout, circor
from heartml.data.ingest import grouping
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec
from heartml.models.frame_cache import Store, encoder_from_text, spec_to_text

ENCODER = "logspec"
DEVICE = "cpu"       # the frames must not depend on whether the machine has a GPU
FOLDER = paths.STATE / "protocol"


class ProtocolError(HeartMLError):
    """The protocol cannot be run on these files; the message names the file and the way out."""


@dataclass(frozen=True)
class Cohort:
    """An opened cohort.

    Attributes:
        recordings: recording_id, patient_id, group_id, seconds and `label_<name>`, one row a recording.
        annotations: `schema.ANNOTATIONS`.
    """

    folder: Path
    recordings: pd.DataFrame
    annotations: pd.DataFrame

    @functools.cached_property
    def frames(self) -> Mapping[str, Frames]:
        """Encoder -> frames of every recording."""
        return {path.parent.name: Frames.open(path.parent) for path in sorted(self.folder.glob("*/encoder.json"))}


@dataclass(frozen=True)
class DecodedFile:
    """The result of decoding one file: recording id (hash of the samples) and length, or why it was refused."""

    recording_id: str
    seconds: float
    reason: str


def prepare(folder: Path, params: Params, more: Sequence[EncoderSpec] = ()) -> tuple[Cohort, dict[str, int]]:
    """Read CirCor's layout in `folder`.

    Args:
        more: encoders whose frames are needed besides those of `ENCODER`.

    Returns:
        The cohort, and how many files were refused for each reason.

    Raises:
        LayoutError: the folder does not have CirCor's layout.
        ProtocolError: none of its files can be used.
    """
    layout = circor.read(folder)
    specs = (encoders.spec(ENCODER, params), *more)
    decoded = _decode_all(layout, folder, specs)
    reasons = Counter(one.reason for one in decoded.values() if one.reason) + Counter(layout.refused["reason"])
    recordings = _recordings(layout, decoded)
    if not len(recordings):
        raise ProtocolError(f"{folder}: no recording can be used ({dict(reasons)})")
    annotations = _annotations(layout, recordings)
    key = hashing.sha256(recordings.to_csv(index=False).encode() + annotations.to_csv(index=False).encode())
    target = FOLDER / "-".join(["cohort", key[:16], *map(encoders.fingerprint, specs)])
    with locks.exclusive(FOLDER / f".{target.name}.lock", on_wait=f"{target}: waiting for another run that makes it"):
        if not target.exists():
            _write(target, recordings, annotations, specs)
    return open_cohort(target), dict(sorted(reasons.items()))


def _write(target: Path, recordings: pd.DataFrame, annotations: pd.DataFrame, specs: Sequence[EncoderSpec]) -> None:
    ids = list(recordings["recording_id"])
    with files.replacing_folder(target) as building:
        for spec in specs:
            encoder = encoders.load_once(spec)
            described = encoders.describe(spec, encoder)
            Store.of(spec, DEVICE).view(ids).pack(building / spec.name, encoder.frame_rate_hz, described)
        files.write_parquet(building / "recordings.parquet", recordings)
        files.write_parquet(building / "annotations.parquet", annotations)
    for spec in specs:
        Store.of(spec, DEVICE).keep(target / spec.name, ids)


@functools.lru_cache(maxsize=1)
def open_cohort(folder: Path) -> Cohort:
    """Open the cohort that `prepare` wrote; once in each process."""
    return Cohort(folder, pd.read_parquet(folder / "recordings.parquet"),
                  pd.read_parquet(folder / "annotations.parquet"))


def _decode_all(layout: Layout, folder: Path, specs: Sequence[EncoderSpec]) -> dict[str, DecodedFile]:
    """Decode and check every file and put its frames into the stores: source_file -> result."""
    stated = layout.recordings
    audio_files = [folder / str(file) for file in stated["source_file"]]
    checksums = [None if pd.isna(c) else str(c) for c in stated["file_sha256"]]
    work = functools.partial(_decode, [(spec_to_text(spec), Store.of(spec, DEVICE)) for spec in specs], folder)
    with pool(available_workers(0)) as workers:
        given = zip(audio_files, checksums, strict=True)
        found = list(track(workers.map(work, given), "reading recordings", len(audio_files)))
    return dict(zip(stated["source_file"], found, strict=True))


def _decode(stores: Sequence[tuple[str, Store]], root: Path, given: tuple[Path, str | None]) -> DecodedFile:
    path, checksum = given
    if fault := entry_checks.path_fault(root, path):
        return DecodedFile("", 0.0, fault.reason)
    if checksum is not None and entry_checks.source_sha256(path) != checksum:
        return DecodedFile("", 0.0, "checksum")
    try:
        samples = sound_files.read(path)
    except sound_files.AudioError as error:
        return DecodedFile("", 0.0, error.reason)
    for text, store in stores:
        if store.missing([samples.recording_id]):
            spec, encoder = encoder_from_text(text)
            store.put(samples.recording_id, encoders.frames_of(encoder, spec, samples.floats, samples.sample_rate_hz))
    return DecodedFile(samples.recording_id, samples.seconds, "")


def _recordings(layout: Layout, decoded: dict[str, DecodedFile]) -> pd.DataFrame:
    """Usable recordings, each once; patient ids that the publisher says are one child are in one group."""
    own = [decoded[file] for file in layout.recordings["source_file"]]
    table = layout.recordings.assign(recording_id=[one.recording_id for one in own],
                                     seconds=[one.seconds for one in own])
    table = table[[not one.reason for one in own]].drop_duplicates("recording_id").reset_index(drop=True)
    nothing = pd.DataFrame(columns=["recording_id_a", "recording_id_b", "correlation"])
    table["group_id"] = grouping.groups(table, nothing, layout.same_person)
    labels = [c for c in table if str(c).startswith("label_")]
    chosen = table[["recording_id", "source_file", "patient_id", "group_id", "seconds", *labels]]
    return chosen.sort_values("recording_id", ignore_index=True)


def _annotations(layout: Layout, recordings: pd.DataFrame) -> pd.DataFrame:
    of_file = recordings.set_index("source_file")["recording_id"]
    states = layout.annotations[layout.annotations["source_file"].isin(of_file.index)]
    table = states.assign(recording_id=states["source_file"].map(of_file))[list(ANNOTATIONS)]
    return table.sort_values(["recording_id", "start_s", "end_s"], ignore_index=True)
