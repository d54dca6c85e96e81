"""Checks of one source file at ingest: its path and the publisher's facts about it arrive, facts or a fault leave.

`examine` decodes a file once, in a worker process, and writes its samples as FLAC. `first_fault` compares the facts
with the parameters. It is pure, so a file that was examined before need not be decoded again.
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
    """Why a file is refused: one word, and a sentence with details."""

    reason: str
    detail: str


@dataclass(frozen=True)
class DecodingJob:
    """One file to examine; its samples are written to `flac_folder` as `<x>/<recording_id>.flac`."""

    path: Path
    flac_folder: Path


@dataclass(frozen=True)
class FileFacts:
    """What decoding one file showed. Where `fault` is set, only `source_sha256` has a meaning.

    Attributes:
        recording_id: SHA-256 of the decoded samples.
        samples: number of samples.
        peak: largest distance of a sample from the mean; full scale is 1.
        source_sha256: of the file; empty where it could not be read at all.
        fault: why the file gave no samples, or `None`.
    """

    recording_id: str
    sample_rate_hz: int
    samples: int
    peak: float
    source_sha256: str
    fault: Fault | None = None

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.samples / self.sample_rate_hz

    @classmethod
    def refused(cls, fault: Fault, sha256: str = "") -> "FileFacts":
        """Facts of a file that gave no samples."""
        return cls("", 0, 0, 0.0, sha256, fault)


@dataclass(frozen=True)
class PublishedFacts:
    """What the publisher states about one file; `None` where nothing is stated.

    Attributes:
        file_sha256: of the file.
        pcm_sha256: of the decoded samples.
        samples: number of samples.
    """

    file_sha256: str | None
    pcm_sha256: str | None
    samples: int | None


def path_fault(root: Path, path: Path) -> Fault | None:
    """A fault if `path` is not a file inside `root`, for instance a link that leads out, a folder or a pipe."""
    if not path.resolve().is_relative_to(root.resolve()):
        return Fault("outside", "a link that leads out of the folder: put the file itself there")
    return None if path.is_file() else Fault("not_audio", "not a file")


def source_sha256(path: Path) -> str:
    """Hex SHA-256 of a file; empty where there is no permission to read it."""
    try:
        return hashing.sha256_file(path)
    except PermissionError:
        return ""


def examine(job: DecodingJob) -> FileFacts:
    """Decode one file and write its samples as FLAC. The facts of a file that gives no samples have a fault."""
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
    """Largest distance of samples [time] from their mean; at least one sample.

    >>> round(peak(np.array([0.5, 0.5, 0.5, 0.9], np.float32)), 3)      # the mean is .6
    0.3
    """
    return float(np.abs(waveform - waveform.mean(dtype=np.float64)).max())


def waveform_fault(waveform: sound_files.Waveform, sample_rate_hz: int, params: IngestParams) -> Fault | None:
    """`first_fault` of samples [time] that did not come with a file or a publisher's facts."""
    facts = FileFacts("", sample_rate_hz, len(waveform), peak(waveform), "")
    return first_fault(facts, PublishedFacts(None, None, None), params)


def first_fault(facts: FileFacts, stated: PublishedFacts, params: IngestParams) -> Fault | None:
    """Why this file does not become a recording, or `None`.

    Args:
        facts: what decoding showed.
        stated: what the publisher states.
    """
    if facts.fault:
        return facts.fault
    if stated.file_sha256 not in (None, facts.source_sha256) or stated.pcm_sha256 not in (None, facts.recording_id):
        return Fault("checksum", "not what the publisher's checksums list: copy or download it again")
    if stated.samples is not None and facts.samples < stated.samples:
        return Fault("truncated", f"{facts.samples} of the {stated.samples} samples that its header file states")
    if facts.peak < params.silence_peak:
        return Fault("silent", f"no sample is further than {facts.peak:.6f} of full scale from their mean; a recording "
                               f"has at least {params.silence_peak:g}")
    if facts.seconds < params.min_seconds:
        return Fault("short", f"{facts.seconds:.3f} s, less than {params.min_seconds:g} s")
    return None
