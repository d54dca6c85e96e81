"""The header says how long a file is: held against the file in both directions, whatever the decoder makes of it."""

import struct
from pathlib import Path

import numpy as np
import pytest
from support.publisher_files import beating_noise, list_chunk, wav_bytes
from support.sound_bytes import encoded, extent, read

from heartml.audio import containers, sound_files
from heartml.audio.containers.extent import Extent

PCM = beating_noise(5)
STATED_IN_BYTES = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"),
                   ("W64", "PCM_24"), ("RF64", "PCM_16")]
OPEN_LENGTHS = [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF]


def is_truncated(folder: Path, data: bytes) -> bool:
    return extent(folder, data).missing > 0


def wav_stating(length: int, pcm: np.ndarray = PCM, behind: bytes = b"") -> bytes:
    """A WAV file whose chunk of samples states another length than it has."""
    data = bytearray(wav_bytes(pcm, behind=behind))
    data[40:44] = struct.pack("<I", length)
    return bytes(data)


@pytest.mark.parametrize(("form", "subtype"), STATED_IN_BYTES)
def test_a_file_without_its_end_is_truncated_and_a_whole_one_is_not(form: str, subtype: str, tmp_path: Path) -> None:
    whole = encoded(PCM, form, subtype)
    assert extent(tmp_path, whole) == Extent()
    for lost in (len(whole) // 2, 100):
        assert is_truncated(tmp_path, whole[:-lost]), f"without its last {lost} bytes"


@pytest.mark.parametrize(("form", "subtype"), STATED_IN_BYTES)
def test_more_sound_than_the_header_states_is_counted(form: str, subtype: str, tmp_path: Path) -> None:
    more = PCM.astype("<i2").tobytes()
    assert extent(tmp_path, encoded(PCM, form, subtype) + more).unstated >= len(more) - 1


def test_a_stream_without_its_last_page_is_truncated(tmp_path: Path) -> None:
    whole = encoded(PCM, "OGG", "VORBIS")
    last = whole.rindex(b"OggS")
    assert extent(tmp_path, whole) == Extent()
    for kept in (last, last + 3, last + 20, len(whole) - 200, len(whole) - 1):
        assert is_truncated(tmp_path, whole[:kept]), f"{kept - last} bytes of the last page"


def test_chunks_around_the_samples_do_not_count(tmp_path: Path) -> None:
    whole = wav_bytes(PCM, before=list_chunk(), behind=list_chunk())
    assert extent(tmp_path, whole) == Extent()
    assert not is_truncated(tmp_path, whole[: -len(list_chunk())]), "the samples are all there"
    assert is_truncated(tmp_path, whole[: -len(list_chunk()) - 2])


@pytest.mark.parametrize("behind", [
    list_chunk() * 2, list_chunk()[:-4], b"own " + struct.pack("<I", 3) + b"abc\0", b"TAG" + b"x" * 125,
    b"ID3\x03" + b"\xff" * 50, bytes(4096), b"\0\0\xff"],
    ids=["two", "without its end", "unknown", "ID3v1", "ID3v2", "zeros of a memory card", "less than a head"])
def test_what_is_no_sound_may_follow(behind: bytes, tmp_path: Path) -> None:
    for pcm in (PCM, PCM[:-1]):
        assert extent(tmp_path, wav_bytes(pcm, behind=behind)) == Extent()
        assert read(tmp_path, wav_bytes(pcm, behind=behind)).pcm.tolist() == pcm.tolist()


@pytest.mark.parametrize("length", OPEN_LENGTHS)
def test_a_recorder_that_did_not_know_the_length_yet_is_believed(length: int, tmp_path: Path) -> None:
    for riff in (struct.pack("<I", 0), struct.pack("<I", 0xFFFFFFFF)):
        data = bytearray(wav_stating(length))
        data[4:8] = riff
        assert read(tmp_path, bytes(data)).pcm.tolist() == PCM.tolist()


def test_an_open_length_of_the_other_containers_too(tmp_path: Path) -> None:
    au, w64, caf = (bytearray(encoded(PCM, form, "PCM_16")) for form in ("AU", "W64", "CAF"))
    au[8:12] = b"\xff" * 4
    at = w64.index(b"data") + 16
    w64[at : at + 8] = b"\xff" * 8
    at = caf.index(b"data", 8) + 4
    caf[at : at + 8] = b"\xff" * 8
    for data in (au, w64, caf):
        assert read(tmp_path, bytes(data)).pcm.tolist() == PCM.tolist()


def test_a_chunk_of_no_samples_is_empty_and_a_second_one_is_not_forgotten(tmp_path: Path) -> None:
    for behind in (b"", list_chunk()):
        with pytest.raises(sound_files.AudioError, match="0 samples"):
            read(tmp_path, wav_bytes(PCM[:0], behind=behind))
    second = b"data" + struct.pack("<I", 200) + bytes(range(200))
    for pcm in (PCM, PCM[:0]):
        assert extent(tmp_path, wav_bytes(pcm, behind=second)).unstated == 208


@pytest.mark.parametrize("stated", [2000, 2002, len(PCM), 2 * len(PCM) - 8])
def test_a_header_that_states_less_than_the_file_holds_is_refused(stated: int, tmp_path: Path) -> None:
    with pytest.raises(sound_files.AudioError) as refused:
        read(tmp_path, wav_stating(stated, behind=list_chunk()))
    assert refused.value.reason == "longer"
    assert f"the last {2 * len(PCM) - stated + len(list_chunk())} bytes would be lost" in str(refused.value)


def test_a_tag_in_front_hides_no_truncation(tmp_path: Path) -> None:
    tag = b"ID3\x03\0\0\0\0\x01\x0a" + bytes(128 + 10)
    assert read(tmp_path, tag + wav_bytes(PCM)).pcm.tolist() == PCM.tolist()
    assert is_truncated(tmp_path, tag + wav_bytes(PCM)[:-100])


@pytest.mark.parametrize("start", [b"", b"RIFF", b"RIFF....AVI ", b"patient 9 did not come", b"\x7fELF"])
def test_what_is_no_container_is_called_so(start: bytes, tmp_path: Path) -> None:
    with pytest.raises(containers.UnknownContainerError):
        extent(tmp_path, start)
