"""The frame cache after packing: one copy on the disk, the same frames, and only the work of what is damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartml.core.frame_store import FRAMES, Frames, FramesError
from heartml.models import frame_packs
from heartml.models.frame_cache import Store

GIVEN = {f"{n:02}" * 32: np.random.default_rng(n).normal(size=(20 + n, 5)).astype(np.float16) for n in range(9)}
IDS = list(GIVEN)
WORK = {"name": "logspec"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def packed(store: Store, folder: Path, ids: list[str]) -> list[str]:
    """Do what the stage `features` does; the recordings that had to be encoded."""
    frames = store.view(ids)
    missing = frames.missing()
    for recording_id in missing:
        store.put(recording_id, GIVEN[recording_id])
    shutil.rmtree(folder, ignore_errors=True)      # as DVC does with the outputs of a stage before it runs
    frames.pack(folder, 50.0, WORK)
    store.keep(folder, ids)
    found = Frames.open(folder)
    assert all(np.array_equal(found[i], GIVEN[i].astype(np.float32)) for i in ids)
    assert all(np.array_equal(store.view(ids)[i], GIVEN[i]) for i in ids)
    return missing


def on_disk(*folders: Path) -> int:
    """Bytes of arrays, those of one inode once."""
    files = [file for folder in folders for file in folder.rglob("*.npy")]
    return sum({file.stat().st_ino: file.stat().st_size for file in files}.values())


def packs(store: Store) -> list[Path]:
    return list((store.folder / frame_packs.FOLDER).iterdir())


def test_frames_are_on_the_disk_once(store: Store, tmp_path: Path) -> None:
    assert packed(store, tmp_path / "a", IDS) == IDS
    assert on_disk(tmp_path) == (tmp_path / "a" / FRAMES).stat().st_size
    assert packed(store, tmp_path / "b", IDS) == [], "a second task with these recordings"
    assert on_disk(tmp_path) == (tmp_path / "a" / FRAMES).stat().st_size
    assert len(packs(store)) == 1, "the other has nothing of its own"


def test_one_more_recording_costs_one_recording_and_another_pack_that_takes_the_place(
    store: Store, tmp_path: Path
) -> None:
    packed(store, tmp_path / "a", IDS[:-1])
    shutil.rmtree(tmp_path / "a")
    assert packed(store, tmp_path / "a", IDS) == IDS[-1:]
    assert len(packs(store)) == 1
    assert on_disk(tmp_path) == (tmp_path / "a" / FRAMES).stat().st_size


def test_the_bytes_do_not_tell_where_frames_came_from(store: Store, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", IDS[:4])
    packed(store, tmp_path / "b", IDS[2:6])
    packed(store, tmp_path / "c", IDS[::-1])
    packed(Store(tmp_path / "other"), tmp_path / "d", IDS)
    for name in (FRAMES, "index.parquet", "encoder.json"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()


def test_a_damaged_recording_is_found_and_it_alone_is_made_again(store: Store, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", IDS)
    whole = (tmp_path / "a" / FRAMES).read_bytes()
    (tmp_path / "a" / FRAMES).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))      # in place, so in the cache too
    damaged = store.missing(IDS)
    assert damaged == [IDS[-1]]
    store.put(IDS[-1], GIVEN[IDS[-1]])      # and the run is killed here
    assert packed(store, tmp_path / "b", IDS) == []
    assert Store(store.folder).missing(IDS) == []


def _drop(pack: Path) -> None:
    shutil.rmtree(pack)


def _cut(pack: Path) -> None:
    whole = (pack / FRAMES).read_bytes()
    (pack / FRAMES).unlink()
    (pack / FRAMES).write_bytes(whole[:-100])


def _overwrite(pack: Path) -> None:
    (pack / "spans.parquet").write_bytes(b"no table")


def _lose(pack: Path) -> None:
    (pack / "spans.parquet").unlink()


@pytest.mark.parametrize("harm", [_drop, _cut, _overwrite, _lose])
def test_a_pack_that_cannot_be_read_costs_its_work(store: Store, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    packed(store, tmp_path / "a", IDS)
    harm(packs(store)[0])
    frame_packs.look_again()
    assert packed(store, tmp_path / "a", IDS) == IDS
    packed(store, tmp_path / "b", IDS[:3])
    assert all((pack / "spans.parquet").exists() for pack in packs(store))


def test_where_files_cannot_be_linked_the_recordings_keep_their_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(frame_packs.os, "link", another_disk)
    packed(store, tmp_path / "a", IDS)
    assert packed(store, tmp_path / "b", IDS) == []
    assert not packs(store)


def test_an_output_has_one_pack_and_another_one_keeps_what_it_alone_has(store: Store, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", IDS[:4])
    packed(store, tmp_path / "b", IDS[2:])
    assert len(packs(store)) == 2
    assert packed(store, tmp_path / "b", IDS[3:7]) == []      # two were withdrawn
    assert len(packs(store)) == 2
    assert store.missing(IDS) == IDS[7:]


def test_a_view_reads_what_was_packed_when_it_was_made(store: Store, tmp_path: Path) -> None:
    packed(store, tmp_path / "a", IDS)
    early = store.view(IDS)
    assert early.missing() == []
    packed(store, tmp_path / "a", IDS[:2])
    assert store.missing(IDS) == IDS[2:]
    early.pack(tmp_path / "b", 50.0, WORK)      # and links no file that has taken the place of its own
    found = Frames.open(tmp_path / "b")
    assert all(np.array_equal(found[i], GIVEN[i].astype(np.float32)) for i in IDS)


def test_a_reader_finds_frames_that_another_process_packs_meanwhile(store: Store, tmp_path: Path) -> None:
    for recording_id in IDS:
        store.put(recording_id, GIVEN[recording_id])
    view = Store(store.folder).view(IDS)
    assert np.array_equal(view[IDS[0]], GIVEN[IDS[0]])
    packed(store, tmp_path / "a", IDS)
    assert np.array_equal(view[IDS[0]], GIVEN[IDS[0]])
    shutil.rmtree(store.folder)
    with pytest.raises(FramesError, match=IDS[0][:12]):
        view[IDS[0]]
