"""What earlier ingests found out, addressed by content, so that only new files are decoded and compared.

Everything here may be deleted at any time: it is found out again. It is kept apart for every version of the code that
found it out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from heartml.audio import near_duplicates as duplicates
from heartml.audio import sound_files
from heartml.audio.entry_checks import Fault, FileFacts
from heartml.core import paths
from heartml.core.system import code_hash, files
from heartml.core.system.lazy import LazySequence

_DIGITS = 16
PAIR_COLUMNS = ("recording_id_a", "recording_id_b", "correlation")
Sources = Mapping[str, Path]     # recording_id -> file with its samples


def _facts_file() -> Path:
    own = code_hash.fingerprint("audio/entry_checks.py", "audio/sound_files.py", "audio/containers.py")[:_DIGITS]
    return paths.cache() / "ingest" / f"facts-{own}.json"


def facts() -> dict[str, FileFacts]:
    """SHA-256 of a source file -> what decoding it showed."""
    path = _facts_file()
    rows = files.read_json(path) if path.exists() else {}
    return {
        sha256: FileFacts(recording_id, rate, samples, peak, sha256, Fault(*fault) if fault else None)
        for sha256, (recording_id, rate, samples, peak, fault) in rows.items()
    }


def remember(known: Iterable[FileFacts]) -> None:
    """Keep these facts, and those kept before."""
    merged = facts() | {fact.source_sha256: fact for fact in known if fact.source_sha256}
    rows = {k: [f.recording_id, f.sample_rate_hz, f.samples, f.peak, f.fault] for k, f in merged.items()}
    with files.replacing(_facts_file()) as temporary:
        temporary.write_text(json.dumps(rows, sort_keys=True), encoding="utf-8")


def _waveforms(sources: Sequence[Path]) -> LazySequence[duplicates.Waveform]:
    """Waveform and rate of each file, read when it is asked for."""
    def read(position: int) -> duplicates.Waveform:
        samples = sound_files.read(sources[position])
        return samples.floats, samples.sample_rate_hz

    return LazySequence(read, len(sources))


def near_duplicates(name: str, sources: Sources, threshold: float, threads: int) -> pd.DataFrame:
    """Pairs of nearly the same audio among `sources`, each pair compared once in the life of the cache.

    Args:
        name: of the collection that is compared within itself.
        threshold: of the absolute correlation.

    Returns:
        Columns `PAIR_COLUMNS`, sorted.
    """
    own = code_hash.fingerprint("audio/sound_files.py", "audio/near_duplicates.py")[:_DIGITS]
    path = paths.cache() / "ingest" / f"pairs-{name}-{threshold:g}-{own}.json"
    kept = files.read_json(path) if path.exists() else {"compared": [], "pairs": []}
    old = [recording_id for recording_id in kept["compared"] if recording_id in sources]
    new = sorted(set(sources) - set(old))
    found = _compare(new, old, sources, threshold, threads) if new else []
    pairs = sorted([*(row for row in kept["pairs"] if row[0] in sources and row[1] in sources), *found])
    files.write_json(path, {"compared": sorted(sources), "pairs": pairs})
    return pd.DataFrame(pairs, columns=list(PAIR_COLUMNS)).astype({"correlation": "float64"})


def _compare(new: list[str], old: list[str], sources: Sources, threshold: float, threads: int) -> list[list[object]]:
    order = [*new, *old]
    waveforms = [_waveforms([sources[recording_id] for recording_id in part]) for part in (new, old)]
    table = duplicates.near_duplicates(waveforms[0], threshold, waveforms[1], threads=threads)
    columns = zip(table["i"], table["j"], table["correlation"], strict=True)
    return [[*sorted((order[i], order[j])), round(float(correlation), 6)] for i, j, correlation in columns]
