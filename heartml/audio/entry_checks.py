"""Entry checks of one source file: a file's path and what its publisher says of it arrive, facts leave.

`examine` decodes a file once, in a worker process, and writes its samples as FLAC. `judge` holds the facts against the
parameters: pure, so that a file which was examined before need not be decoded again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.config import IngestParams
from heartml.core.system import hashing


class Fault(NamedTuple):
    """Why a file is refused: one word, and a sentence with what was seen."""

    reason: str
    detail: str


@dataclass(frozen=True)
class DecodingJob:
    """One file to be examined; `flac_folder` takes its samples as `<x>/<recording_id>.flac`."""

    path: Path
    flac_folder: Path


@dataclass(frozen=True)
class FileFacts:
    """What decoding one file showed. The first four say nothing where `fault` is set.

    Attributes:
        recording_id: SHA-256 of the decoded samples.
        samples: how many.
        peak: the largest distance from the mean, full scale is 1.
        source_sha256: of the file; empty where it could not be read at all.
    """

    recording_id: str
    sample_rate_hz: int
    samples: int
    peak: float
    source_sha256: str
    fault: Fault | None = None

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate_hz

    @classmethod
    def refused(cls, fault: Fault, sha256: str = "") -> "FileFacts":
        """Facts of a file that gave no samples."""
        return cls("", 0, 0, 0.0, sha256, fault)


@dataclass(frozen=True)
class PublishedFacts:
    """What the publisher says of one file; `None` where nothing is said."""

    file_sha256: str | None
    pcm_sha256: str | None
    samples: int | None


def path_fault(root: Path, path: Path) -> Fault | None:
    """A fault where `path` is no file inside `root`: a link that leads out, a folder, a pipe."""
    if not path.resolve().is_relative_to(root.resolve()):
        return Fault("outside", "a link that leads out of the folder: put the file itself there")
    return None if path.is_file() else Fault("not_audio", "not a file")


def source_sha256(path: Path) -> str:
    """SHA-256 of a file; empty where it may not be read."""
    try:
        return hashing.sha256_file(path)
    except PermissionError:
        return ""


def examine(job: DecodingJob) -> FileFacts:
    """Decode one file and keep its samples; a file that gives none comes back with the fault."""
    sha256 = source_sha256(job.path)
    if not sha256:
        return FileFacts.refused(Fault("unreadable", "no permission to read it"))
    try:
        samples = sound_files.read(job.path)
    except sound_files.AudioError as error:
        return FileFacts.refused(Fault(error.reason, error.detail), sha256)
    target = paths.audio(samples.recording_id, job.flac_folder)
    if not target.exists():
        sound_files.write_flac(target, samples)
    return FileFacts(samples.recording_id, samples.sample_rate_hz, len(samples.pcm), peak(samples.floats), sha256)


def peak(waveform: sound_files.Waveform) -> float:
    """The largest distance of samples [time] from their mean; one sample at least."""
    return float(np.abs(waveform - waveform.mean(dtype=np.float64)).max())


def waveform_fault(waveform: sound_files.Waveform, sample_rate_hz: int, params: IngestParams) -> Fault | None:
    """`judge` for samples [time] that no file and no publisher says anything of."""
    facts = FileFacts("", sample_rate_hz, len(waveform), peak(waveform), "")
    return first_fault(facts, PublishedFacts(None, None, None), params)


def first_fault(facts: FileFacts, stated: PublishedFacts, params: IngestParams) -> Fault | None:
    """Why this file does not become a recording, or `None`."""
    if facts.fault:
        return facts.fault
    if stated.file_sha256 not in (None, facts.source_sha256) or stated.pcm_sha256 not in (None, facts.recording_id):
        return Fault("checksum", "not what the publisher's checksums list: copy or download it again")
    if stated.samples is not None and facts.samples < stated.samples:
        return Fault("truncated", f"{facts.samples} of the {stated.samples} samples that its header file states")
    if facts.peak < params.silence_peak:
        return Fault("silent", f"peak {facts.peak:.6f} of full scale, below {params.silence_peak:g}")
    if facts.seconds < params.min_seconds:
        return Fault("short", f"{facts.seconds:.3f} s, less than {params.min_seconds:g} s")
    return None
