"""Recordings of telephones: read where ffmpeg is installed, named where it is not, never shortened."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.heart_sounds import RATE_HZ, heart_sound

from heartml.audio import entry_checks, phone_formats, sound_files
from heartml.audio.containers import mp4
from heartml.audio.entry_checks import DecodingJob, Fault, FileFacts
from heartml.audio.phone_formats import NotDecodedError
from heartml.data import cache

needs_ffmpeg = pytest.mark.skipif(not phone_formats.is_installed(), reason="needs ffmpeg: apt-get install ffmpeg")
HEADS = {"mov": b"\0\0\0\x20ftypM4A \0\0\0\0", "amr": b"#!AMR\n" + b"\x3c" * 10, "aac": b"\xff\xf1" + b"\x50" * 14,
         "matroska": bytes.fromhex("1a45dfa3") + bytes(12)}
SECONDS = 3
_WINDOWS_A_SECOND = 50


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one recording as WAV and in formats of telephones."""
    folder = tmp_path_factory.mktemp("phone")
    soundfile.write(folder / "a.wav", heart_sound(1, seconds=SECONDS), RATE_HZ, subtype="PCM_16")
    for name, options in (("a.m4a", ["-movflags", "+faststart"]), ("a.3gp", ["-c:a", "aac"]), ("a.aac", []),
                          ("a.webm", [])):
        subprocess.run(["ffmpeg", "-v", "error", "-i", folder / "a.wav", *options, folder / name], check=True)
    return folder


def loudness(path: Path) -> np.ndarray:
    """Mean size of the samples in windows of 20 ms: [windows]."""
    samples = sound_files.read(path)
    size = samples.sample_rate_hz // _WINDOWS_A_SECOND
    windows = np.abs(samples.floats)[: len(samples.pcm) // size * size].reshape(-1, size)
    return np.asarray(windows.mean(axis=1))


def refusal(path: Path) -> sound_files.AudioError:
    with pytest.raises(sound_files.AudioError) as refused:
        sound_files.read(path)
    return refused.value


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without ffmpeg."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)


@pytest.mark.parametrize(("form", "head"), HEADS.items())
def test_the_content_says_the_format(form: str, head: bytes) -> None:
    assert phone_formats.demuxer(head) == form


@pytest.mark.parametrize("head", [b"RIFF\0\0\0\0WAVEfmt ", b"fLaC" + bytes(12), b"\xff\xfb\x90\0" + bytes(12), b"",
                                  b"#EXTM3U\n#EXTINF:", b"ffconcat version", b"ID3\x03" + bytes(12)])
def test_other_sound_and_lists_of_files_are_not_for_ffmpeg(head: bytes) -> None:
    assert phone_formats.demuxer(head) is None


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("head", HEADS.values(), ids=list(HEADS))
def test_without_ffmpeg_the_file_is_refused_with_the_way_out(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "visit.wav").write_bytes(head + bytes(200))
    refused = refusal(tmp_path / "visit.wav")
    assert refused.reason == "no_decoder"
    assert "which is read where ffmpeg is installed: install it, or export the recording as WAV" in str(refused)


def test_a_missing_decoder_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: None) -> None:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "visit.m4a").write_bytes(HEADS["mov"])
    facts = entry_checks.examine(DecodingJob(tmp_path / "visit.m4a", tmp_path / "flac"))
    assert facts.fault is not None
    assert facts.fault.reason in sound_files.NOT_ABOUT_THE_FILE
    lasting = FileFacts.refused(Fault("stereo", "2 channels"), "0" * 64)
    cache.add_facts([facts, lasting])
    assert cache.read_facts() == {lasting.source_sha256: lasting}


def test_ffmpeg_opens_one_file_in_one_format_within_limits(tmp_path: Path) -> None:
    options = phone_formats._options(Path("-i http:"), "mov", 3601, 1000)
    said = dict(itertools.pairwise(options))
    assert said["-protocol_whitelist"] == "file"
    assert (said["-f"], said["-enable_drefs"], said["-t"], said["-fs"]) == ("wav", "0", "3601", "1000")
    assert options.index("-f") < options.index("-i") and options[options.index("-f") + 1] == "mov"
    assert said["-i"].startswith("file:/"), "a name is never an option or an address"


def test_ffmpeg_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "ffmpeg"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    slow.chmod(0o755)
    monkeypatch.setattr(phone_formats, "TIME_LIMIT_S", 0.1)
    monkeypatch.setattr(shutil, "which", lambda _name: str(slow))
    with pytest.raises(NotDecodedError) as refused:
        phone_formats.decode(tmp_path / "a.m4a", "mov", 1, 1000)
    assert refused.value.reason == "slow"


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.3gp", "a.aac", "a.webm"])
def test_the_whole_recording_is_read(recordings: Path, name: str) -> None:
    expected, found = loudness(recordings / "a.wav"), loudness(recordings / name)
    delay = len(found) - len(expected)
    assert 0 <= delay < 0.3 * _WINDOWS_A_SECOND, "not shorter, and at most the encoder's silence in front longer"
    shifted = [np.corrcoef(expected, found[lag : lag + len(expected)])[0, 1] for lag in range(delay + 1)]
    assert max(shifted) > 0.95, "the same beats"


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a.webm"])
def test_a_damaged_recording_is_refused_and_not_shortened(recordings: Path, name: str, tmp_path: Path) -> None:
    whole = (recordings / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 3 // 5])
    refused = refusal(tmp_path / name)
    assert refused.reason == "unreadable"
    assert "ffmpeg cannot decode all of it (" in str(refused)
    assert "0x" not in refused.detail and str(tmp_path) not in refused.detail, "the same words on every machine"


@needs_ffmpeg
def test_a_recording_in_fragments_that_was_cut_in_one_is_not_shortened(recordings: Path, tmp_path: Path) -> None:
    file = tmp_path / "f.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", recordings / "a.wav", "-movflags", "frag_keyframe+empty_moov",
                    "-frag_duration", "1000000", file], check=True)
    whole, seconds = file.read_bytes(), sound_files.read(file).seconds
    second = whole.index(b"moof", whole.index(b"moof") + 4) - 4
    for cut, words in ((second + 100, "its container promises more"), (second + 6, "its container promises more"),
                       (len(whole) - 100, "its container promises more")):
        file.write_bytes(whole[:cut])
        refused = refusal(file)
        assert (refused.reason, words in refused.detail) == ("truncated", True), cut
    file.write_bytes(whole + b"\0" * 20)
    assert sound_files.read(file).seconds == seconds, "what is appended and no box costs nothing"


@pytest.mark.parametrize(("boxes", "missing"), [
    (b"", 0), (b"\0\0\0\x08free", 0), (b"\0\0\0\x09free", 1), (b"\0\0\0\x08free\0\0", 6),
    (b"\0\0\0\x01mdat" + (24).to_bytes(8, "big") + bytes(8), 0),
    (b"\0\0\0\x01mdat" + (30).to_bytes(8, "big") + bytes(8), 6), (b"\0\0\0\0mdat" + bytes(9), 0),
    (b"\0\0\0\x08free" + b"\xff" * 9, 0)])
def test_a_box_says_how_long_it_is(boxes: bytes, missing: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(boxes)
    with (tmp_path / "x").open("rb", buffering=0) as file:
        assert mp4.extent(file).missing == missing


@needs_ffmpeg
def test_what_is_longer_than_the_limit_is_refused_not_cut(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_files, "MAX_SECONDS", SECONDS - 2)
    assert refusal(recordings / "a.m4a").reason == "too_long"
