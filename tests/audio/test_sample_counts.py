"""FLAC and MP3 state samples, or nothing: held against the frames that are there."""

from pathlib import Path

import numpy as np
import pytest
from support.publisher_files import beating_noise
from support.sound_bytes import encoded, extent, read

from heartml.audio import containers, sound_files
from heartml.audio.containers import flac, mpeg
from heartml.audio.containers.extent import Extent

PCM = beating_noise(3, seconds=8)


def reason(folder: Path, data: bytes) -> str:
    with pytest.raises(sound_files.AudioError) as refused:
        read(folder, data)
    return refused.value.reason


def flac_stating(samples: int, subtype: str = "PCM_16") -> bytes:
    data = bytearray(encoded(PCM, "FLAC", subtype, 16000))
    fields = int.from_bytes(data[18:26], "big")
    data[18:26] = (fields >> 36 << 36 | samples).to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_flac_frames_are_counted(subtype: str, tmp_path: Path) -> None:
    assert extent(tmp_path, flac_stating(len(PCM), subtype)) == Extent()
    assert extent(tmp_path, flac_stating(len(PCM) - 5000, subtype)) == Extent(unstated=5000, unit="samples")
    assert extent(tmp_path, flac_stating(len(PCM) - 5000, subtype) + b"TAG" + bytes(125)).unstated == 5000
    assert extent(tmp_path, flac_stating(1, subtype)).unstated == len(PCM) - 1


def test_flac_that_states_less_is_refused_and_a_stream_is_read(tmp_path: Path) -> None:
    assert reason(tmp_path, flac_stating(len(PCM) - 5000)) == "longer"
    assert reason(tmp_path, flac_stating(len(PCM) + 5000)) in {"truncated", "unreadable"}
    assert read(tmp_path, flac_stating(0)).pcm.tolist() == PCM.tolist()
    assert reason(tmp_path, flac_stating(0)[:-50]) == "truncated"
    assert extent(tmp_path, encoded(PCM, "FLAC", "PCM_16", 16000)[:-50]) == Extent(), "the decoder tells"


@pytest.mark.parametrize("reader", [flac.extent, mpeg.extent])
def test_bytes_that_are_no_frames_say_nothing(reader: containers.Reader, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for data in (b"", b"fLaC", b"\xff\xfb\x90\x00", rng.bytes(70_000), b"\xff\xf8\xff\xf9" * 9000):
        (tmp_path / "x").write_bytes(data)
        with (tmp_path / "x").open("rb", buffering=0) as file:
            assert reader(file, 0, len(data)).correction is None


def loud_then_quiet() -> np.ndarray:
    values = PCM.astype(np.float64) / 2**15
    values[len(values) // 2 :] *= 1e-3
    return values


def mp3(*, tag: bool) -> bytes:
    """An MP3 file with variable bit rates; the first frame has the tag with the number of frames."""
    data = encoded(loud_then_quiet(), "MP3", "MPEG_LAYER_III", 16000, bitrate_mode="VARIABLE", compression_level=0.3)
    at = data.index(b"Xing")
    start = data.rindex(b"\xff\xf3", 0, at)
    return data if tag else data[data.index(b"\xff\xf3", at + 4) :] if start == 0 else data


def test_mp3_without_a_number_of_frames_is_read_to_its_end(tmp_path: Path) -> None:
    whole, bare = read(tmp_path, mp3(tag=True)), read(tmp_path, mp3(tag=False))
    assert len(mp3(tag=False)) < len(mp3(tag=True))
    assert len(whole.pcm) == len(PCM)
    assert 0 <= len(bare.pcm) - len(PCM) < 4000, "the encoder's silence around it is not cut off without the tag"


def test_mp3_is_held_against_its_frames(tmp_path: Path) -> None:
    for tag in (True, False):
        data = mp3(tag=tag)
        assert not extent(tmp_path, data).missing
        assert reason(tmp_path, data[:-30]) == "truncated", "a part of the last frame"
        assert not extent(tmp_path, data + b"TAG" + bytes(125)).missing
        assert not extent(tmp_path, data + b"TAG" + bytes(125)).unstated
    tagged, ends = mp3(tag=True), [0]
    while (frame := mpeg._frame(tagged, ends[-1])) is not None:
        ends.append(ends[-1] + frame.size)
    assert ends[-1] == len(tagged)
    assert extent(tmp_path, tagged[: ends[-9]]) == Extent(missing=7, unit="frames"), "8, and the tag may count itself"
    assert [reason(tmp_path, tagged[:end]) for end in ends[-9:-1]] == ["truncated"] * 8, "cut between two frames"
    assert reason(tmp_path, mp3(tag=True)[: len(mp3(tag=True)) // 2]) == "truncated"
    assert reason(tmp_path, mp3(tag=True) + mp3(tag=False)) == "longer", "two recordings in one file"
    assert reason(tmp_path, mp3(tag=False) + b"x" * 5000) == "longer"
