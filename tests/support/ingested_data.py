"""What an ingest leaves in `data/`, read back for comparison; PASCAL with a row for one more file."""

from pathlib import Path

import pandas as pd
from support import publisher_files

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.system import hashing


def read_recordings() -> pd.DataFrame:
    return pd.read_parquet(paths.RECORDINGS)


def quarantine_reasons() -> dict[str, str]:
    """Source file -> reason."""
    table = pd.read_parquet(paths.QUARANTINE)
    return dict(zip(table["source_file"], table["reason"], strict=True))


def data_checksums(root: Path = Path()) -> dict[str, str]:
    """Name -> checksum of everything in `data/`, and of what names its version."""
    found = {p.relative_to(root).as_posix(): hashing.sha256_file(p) for p in (root / "data").rglob("*") if p.is_file()}
    return {**found, "data.dvc": hashing.sha256_file(root / "data.dvc")}


def assert_data_is_whole(root: Path = Path()) -> None:
    """`data/` is one version: its tables agree, its audio is there and is what the tables say."""
    table = pd.read_parquet(root / "data" / "recordings.parquet")
    on_disk = {p.stem for p in (root / "data" / "audio").rglob("*.flac")}
    assert on_disk == set(table["recording_id"])
    annotations = pd.read_parquet(root / "data" / "annotations.parquet")
    assert set(annotations["recording_id"]) <= on_disk
    for recording_id in sorted(on_disk)[:5]:
        assert sound_files.read(root / paths.audio(recording_id)).recording_id == recording_id


ADDED_FILE = "set_a/normal__201201010000.wav"


def write_pascal_with_one_more(folder: Path, row: bool = True, label: str = "normal") -> Path:
    """PASCAL with a row for one more file, `ADDED_FILE`; returns where it belongs."""
    publisher_files.pascal(folder)
    if row:
        with (folder / "set_a.csv").open("a") as file:
            file.write(f"a,{ADDED_FILE},{label},\n")
    return folder / ADDED_FILE
