"""Results that are stored so that each file is decoded once and each pair of recordings is compared once.

In: facts of decoded files; recordings to compare. Out: the same facts by checksum; pairs of near-duplicates. Both are
addressed by content and by the version of the code that made them. They may be deleted at any time: they are made anew.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from heartml.audio import near_duplicates as duplicates
from heartml.audio import sound_files
from heartml.audio.entry_checks import Fault, FileFacts
from heartml.audio.fingerprints import Fingerprint
from heartml.core import paths
from heartml.core.config import IngestParams, ValidateParams
from heartml.core.system import code_hash, files, hashing
from heartml.core.system.lazy import LazySequence, select_rows

_DIGITS = 16
PAIR_COLUMNS = ("recording_id_a", "recording_id_b", "correlation")
Sources = Mapping[str, Path]     # recording_id -> file with its samples


def _facts_file() -> Path:
    code = code_hash.fingerprint("audio/entry_checks.py", "audio/sound_files.py", "audio/containers",
                                 "audio/phone_formats.py")[:_DIGITS]
    return paths.cache() / "ingest" / f"facts-{code}.json"


def read_facts() -> dict[str, FileFacts]:
    """SHA-256 of a source file -> facts of decoding it, from all earlier ingests."""
    path = _facts_file()
    rows = files.read_json(path) if path.exists() else {}
    return {
        sha256: FileFacts(recording_id, rate, samples, peak, sha256, Fault(*fault) if fault else None)
        for sha256, (recording_id, rate, samples, peak, fault) in rows.items()
    }


def add_facts(known: Iterable[FileFacts]) -> None:
    """Add these facts to those that are stored, except what is about this machine: a decoder may be installed later."""
    merged = read_facts() | {fact.source_sha256: fact for fact in known if fact.source_sha256 and not (
        fact.fault and fact.fault.reason in sound_files.NOT_ABOUT_THE_FILE)}
    rows = {k: [f.recording_id, f.sample_rate_hz, f.samples, f.peak, f.fault] for k, f in merged.items()}
    with files.replacing(_facts_file()) as temporary:
        temporary.write_text(json.dumps(rows, sort_keys=True), encoding="utf-8")


def thresholds(ingest: IngestParams, validate: ValidateParams) -> tuple[float, ...]:
    """The correlations for which the project searches near-duplicates, smallest first: of ingest and of validation."""
    return tuple(sorted({ingest.duplicate_correlation, validate.near_duplicate_correlation}))


def near_duplicates(sources: Sources, threshold: float, searched: Sequence[float], threads: int) -> pd.DataFrame:
    """Pairs of near-duplicates among recordings. Each pair is compared once for the whole project.

    Ingest and validation share one file, so that a pair that was compared in ingest is not compared again in
    validation. The file holds sets of recordings within which every pair has been compared, and for each threshold the
    pairs that were found.

    Args:
        sources: the recordings, which are read only where a pair has not been compared.
        threshold: of the absolute correlation; one of `searched`.
        searched: of `thresholds`: a pair that has not been compared is compared for all of them.
        threads: how many compare at the same time.

    Returns:
        Columns `PAIR_COLUMNS`, sorted. They are what a search for this threshold alone finds.
    """
    path = _pairs_file(searched)
    known: dict[str, Any] = files.read_json(path) if path.exists() else {"compared": [], "pairs": {}}
    if not any(sources.keys() <= {*compared} for compared in known["compared"]):
        known = _with_new_pairs(known, sources, searched, threads)
        files.write_json(path, known)
    pairs = sorted(row for row in known["pairs"][str(threshold)] if row[0] in sources and row[1] in sources)
    return pd.DataFrame(pairs, columns=list(PAIR_COLUMNS)).astype({"correlation": "float64"})


def _pairs_file(searched: Sequence[float]) -> Path:
    code = code_hash.fingerprint("audio/sound_files.py", "audio/near_duplicates.py", "audio/fingerprints.py",
                                 "audio/spectra.py")[:_DIGITS]
    return paths.cache() / "ingest" / f"pairs-{'-'.join(map(str, searched))}-{code}.json"


def _with_new_pairs(
    known: Mapping[str, Any], sources: Sources, searched: Sequence[float], threads: int
) -> dict[str, Any]:
    """The stored results after the missing pairs of `sources` have been compared: those in no set together."""
    order = sorted(sources)
    position = {recording_id: k for k, recording_id in enumerate(order)}
    compared = [[position[i] for i in ids if i in position] for ids in known["compared"]]
    waveforms = _waveforms([sources[recording_id] for recording_id in order])
    tables = duplicates.search(waveforms, searched, compared, threads=threads,
                               known=_fingerprints(order, waveforms, threads))
    pairs = {
        str(threshold): sorted([*known["pairs"].get(str(threshold), ()), *_rows(table, order)])
        for threshold, table in zip(searched, tables, strict=True)
    }
    other = [ids for ids in known["compared"] if not sources.keys() >= {*ids}]
    return {"compared": [*other, order], "pairs": pairs}


def _fingerprints(
    order: Sequence[str], waveforms: LazySequence[duplicates.Waveform], threads: int
) -> list[Fingerprint]:
    """The fingerprints of recordings; those that are not stored yet are computed, and stored in a new file."""
    code = code_hash.fingerprint("audio/sound_files.py", "audio/fingerprints.py", "audio/spectra.py")[:_DIGITS]
    folder = paths.cache() / "ingest" / f"fingerprints-{code}"
    wanted, found = set(order), dict[str, Fingerprint]()
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(SafetensorError):      # damaged: they are computed again
            found |= _stored_fingerprints(path, wanted)
    missing = np.array([k for k, recording_id in enumerate(order) if recording_id not in found], np.int64)
    if len(missing):
        with ThreadPoolExecutor(threads) as executor:
            made = duplicates.fingerprint_all(select_rows(waveforms, missing), executor)
        new = {order[k]: one for k, one in zip(missing, made, strict=True)}
        name = hashing.sha256("".join(sorted(new)).encode())[:_DIGITS]
        _store_fingerprints(folder / f"{name}.safetensors", new)
        found |= new
    return [found[recording_id] for recording_id in order]


def _store_fingerprints(path: Path, made: Mapping[str, Fingerprint]) -> None:
    arrays = {
        "ids": np.frombuffer("\n".join(made).encode(), np.uint8),
        "seconds": np.array([one.seconds for one in made.values()]),
        "anchors": np.array([len(one.codes) for one in made.values()], np.int64),
        "codes": np.concatenate([one.codes for one in made.values()]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        save_file(arrays, temporary)


def _stored_fingerprints(path: Path, wanted: Set[str]) -> dict[str, Fingerprint]:
    stored = load_file(path)
    ends = np.cumsum(stored["anchors"])
    ids = stored["ids"].tobytes().decode().split("\n")
    return {recording_id: Fingerprint(stored["codes"][end - count : end], float(seconds))
            for recording_id, end, count, seconds in zip(ids, ends, stored["anchors"], stored["seconds"], strict=True)
            if recording_id in wanted}


def _rows(table: pd.DataFrame, order: Sequence[str]) -> list[list[object]]:
    """Rows of `PAIR_COLUMNS` from positions in `order`, which is sorted."""
    columns = zip(table["i"], table["j"], table["correlation"], strict=True)
    return [[order[i], order[j], round(float(correlation), 6)] for i, j, correlation in columns]


def _waveforms(sources: Sequence[Path]) -> LazySequence[duplicates.Waveform]:
    """Waveform and rate of each file, read when it is asked for."""
    def read(position: int) -> duplicates.Waveform:
        samples = sound_files.read(sources[position])
        return samples.floats, samples.sample_rate_hz

    return LazySequence(read, len(sources))
