"""The header says how long a file is: one that ends earlier is cut short, whatever the decoder makes of it."""

import io
import struct
from pathlib import Path

import pytest
import soundfile
from support.publisher_files import beating_noise, list_chunk, wav_bytes

from heartml.audio import containers

PCM = beating_noise(5)
STATED_IN_BYTES = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"),
                   ("W64", "PCM_24"), ("RF64", "PCM_16")]


def encoded(form: str, subtype: str) -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, PCM, 8000, format=form, subtype=subtype)
    return memory.getvalue()


def is_truncated(folder: Path, data: bytes) -> bool:
    path = folder / "sound"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        return containers.is_truncated(file)


@pytest.mark.parametrize(("form", "subtype"), STATED_IN_BYTES)
def test_a_file_without_its_end_is_truncated_and_a_whole_one_is_not(form: str, subtype: str, tmp_path: Path) -> None:
    whole = encoded(form, subtype)
    assert not is_truncated(tmp_path, whole)
    for lost in (len(whole) // 2, 100):
        assert is_truncated(tmp_path, whole[:-lost]), f"without its last {lost} bytes"


def test_a_stream_without_its_last_page_is_truncated(tmp_path: Path) -> None:
    whole = encoded("OGG", "VORBIS")
    assert not is_truncated(tmp_path, whole)
    assert is_truncated(tmp_path, whole[: whole.rindex(b"OggS")])
    assert is_truncated(tmp_path, whole[: whole.rindex(b"OggS") + 3])


@pytest.mark.parametrize("form", ["FLAC", "MP3"])
def test_where_the_header_states_samples_only_decoding_tells(form: str, tmp_path: Path) -> None:
    whole = encoded(form, {"FLAC": "PCM_16", "MP3": "MPEG_LAYER_III"}[form])
    assert not is_truncated(tmp_path, whole)
    assert not is_truncated(tmp_path, whole[: len(whole) // 2])


def test_chunks_around_the_samples_do_not_count(tmp_path: Path) -> None:
    whole = wav_bytes(PCM, before=list_chunk(), behind=list_chunk())
    assert not is_truncated(tmp_path, whole)
    assert not is_truncated(tmp_path, whole[: -len(list_chunk())]), "the samples are all there"
    assert is_truncated(tmp_path, whole[: -len(list_chunk()) - 2])


def test_a_recorder_that_did_not_know_the_length_yet_is_believed(tmp_path: Path) -> None:
    data = bytearray(wav_bytes(PCM))
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert not is_truncated(tmp_path, bytes(data))


@pytest.mark.parametrize("start", [b"", b"RIFF", b"RIFF....AVI ", b"patient 9 did not come", b"\x7fELF"])
def test_what_is_no_container_is_called_so(start: bytes, tmp_path: Path) -> None:
    with pytest.raises(containers.UnknownContainerError):
        is_truncated(tmp_path, start)
