"""Sound files: what may be read is read exactly, what may not says why; what encoders hear knows no gain and no DC."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from heartml.audio import preprocessing, sound_files
from heartml.audio.sound_files import AudioError, Samples
from heartml.core.config import AudioParams

PARAMS = AudioParams(sample_rate_hz=4000, highpass_hz=20, resample_filter_width=6)


def sound(seconds: float = 2.0, rate_hz: int = 4000, seed: int = 0) -> np.ndarray:
    """Float64 [time]: tones of 45 and 210 Hz that come and go, a little noise; the same sound at every rate."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    tones = np.sin(2 * np.pi * 45 * time_s) + 0.3 * np.sin(2 * np.pi * 210 * time_s) + 0.1 * np.cos(1500 * time_s)
    return 0.3 * tones * (0.2 + np.sin(2 * np.pi * 1.3 * time_s) ** 4)


def wav(path: Path, values: np.ndarray, subtype: str = "PCM_16", rate_hz: int = 4000) -> Path:
    soundfile.write(path, values, rate_hz, subtype=subtype, format="WAV")
    return path


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        sound_files.read(path)
    assert str(path) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value.reason


def test_16_bits_are_read_as_they_stand(tmp_path: Path) -> None:
    pcm = np.array([0, 1, -1, 32767, -32768], np.int16)
    read = sound_files.read(wav(tmp_path / "a.wav", pcm))
    assert read.pcm.dtype == np.int16
    assert read.pcm.tolist() == pcm.tolist()
    assert read.sample_rate_hz == 4000
    assert read.floats.min() == -1


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_depth_is_the_same_sound(tmp_path: Path, subtype: str) -> None:
    expected = sound()
    read = sound_files.read(wav(tmp_path / "a.wav", expected, subtype))
    tolerance = {"PCM_U8": 2**-6, "PCM_16": 2**-14, "ULAW": 0.03}.get(subtype, 2**-22)
    assert read.floats == pytest.approx(expected, abs=tolerance)
    assert read.pcm.dtype == (np.int16 if subtype in ("PCM_U8", "PCM_16", "ULAW") else np.int32)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_flac_keeps_every_sample(tmp_path: Path, subtype: str) -> None:
    samples = sound_files.read(wav(tmp_path / "a.wav", sound(), subtype, 44100))
    sound_files.write_flac(tmp_path / "b.flac", samples)
    again = sound_files.read(tmp_path / "b.flac")
    assert again.recording_id == samples.recording_id
    assert again.sample_rate_hz == 44100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=300), st.booleans())
def test_any_samples_survive_flac(tmp_path_factory: pytest.TempPathFactory, values: list[int], deep: bool) -> None:
    pcm = np.array(values, np.int32) << 8 if deep else (np.array(values) >> 8).astype(np.int16)
    path = tmp_path_factory.mktemp("flac") / "a.flac"
    sound_files.write_flac(path, Samples(pcm, 4000))
    assert sound_files.read(path).pcm.tolist() == pcm.tolist()


def test_a_chunk_before_or_behind_the_samples_is_no_sound(tmp_path: Path) -> None:
    plain = wav(tmp_path / "plain.wav", sound()).read_bytes()
    note = b"LIST" + struct.pack("<I", 14) + b"INFOIART" + struct.pack("<I", 2) + b"x\x00"
    for name, content in (("before", plain[:36] + note + plain[36:]), ("behind", plain + note)):
        (tmp_path / name).write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
        assert sound_files.read(tmp_path / name).recording_id == sound_files.read(tmp_path / "plain.wav").recording_id


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
@pytest.mark.parametrize("kept", [0.97, 0.5])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, kept: float) -> None:
    soundfile.write(tmp_path / "a", sound(20), 4000, subtype="PCM_16", format=form)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[: int(kept * len(content))])
    assert reason(tmp_path / "a") in ({"truncated"} if form == "WAV" else {"truncated", "unreadable"})


def test_a_recorder_that_streams_does_not_know_the_length(tmp_path: Path) -> None:
    content = wav(tmp_path / "a.wav", sound()).read_bytes()
    (tmp_path / "b.wav").write_bytes(content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:])
    assert sound_files.read(tmp_path / "b.wav").recording_id == sound_files.read(tmp_path / "a.wav").recording_id


def test_equal_channels_are_one_and_different_ones_are_refused(tmp_path: Path) -> None:
    one = sound()
    mono = sound_files.read(wav(tmp_path / "mono.wav", one))
    assert sound_files.read(wav(tmp_path / "same.wav", np.stack([one, one], 1))).recording_id == mono.recording_id
    assert reason(wav(tmp_path / "different.wav", np.stack([one, 0.9 * one], 1))) == "stereo"


def test_no_numbers_no_samples_no_sound(tmp_path: Path) -> None:
    for bad in (np.nan, np.inf):
        values = sound()
        values[7] = bad
        assert reason(wav(tmp_path / "a.wav", values, "FLOAT")) == "nan"
        assert reason(wav(tmp_path / "b.wav", np.stack([sound(), values], 1), "FLOAT")) == "nan"
    assert reason(wav(tmp_path / "none.wav", np.zeros(0))) == "empty"
    (tmp_path / "text.wav").write_text("patient,label\n1,normal\n")
    assert reason(tmp_path / "text.wav") == "not_audio"
    (tmp_path / "zero.wav").touch()
    assert reason(tmp_path / "zero.wav") == "empty"
    assert reason(tmp_path / "gone.wav") == "missing"
    assert reason(tmp_path) == "not_audio"


def test_the_name_does_not_say_what_a_file_is(tmp_path: Path) -> None:
    plain = wav(tmp_path / "a.wav", sound())
    for name in ("a.mp3", "a.txt", "no extension"):
        (tmp_path / name).write_bytes(plain.read_bytes())
        assert sound_files.read(tmp_path / name).recording_id == sound_files.read(plain).recording_id


def test_a_header_that_lies_does_not_fill_the_memory(tmp_path: Path) -> None:
    content = bytearray(soundfile_flac(tmp_path / "a.flac"))
    content[21] |= 0x0F          # STREAMINFO: upper bits of the number of samples
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(bytes(content))
    assert reason(tmp_path / "a.flac") == "too_long"
    assert reason(wav(tmp_path / "fast.wav", sound(), rate_hz=2_000_000)) == "rate"


def soundfile_flac(path: Path) -> bytes:
    soundfile.write(path, sound(), 4000, subtype="PCM_16", format="FLAC")
    return path.read_bytes()


def test_floats_beyond_full_scale_are_scaled_not_clipped(tmp_path: Path) -> None:
    read = sound_files.read(wav(tmp_path / "a.wav", sound() * 40000, "FLOAT"))
    assert np.corrcoef(read.floats, sound())[0, 1] > 1 - 1e-9
    assert np.abs(read.floats).max() < 1
    assert (np.abs(read.floats) == np.abs(read.floats).max()).sum() < 5


def test_a_recording_id_is_its_samples_and_nothing_else() -> None:
    pcm = (sound() * 30000).astype(np.int16)
    assert Samples(pcm, 4000).recording_id == Samples(pcm.astype(">i2").astype(np.int16), 4000).recording_id
    changed = pcm.copy()
    changed[-1] ^= 1
    assert Samples(changed, 4000).recording_id != Samples(pcm, 4000).recording_id
    empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Samples(pcm[:0], 4000).recording_id == empty_hash


@pytest.mark.parametrize("size", [1e30, 1e5, -1e30])
def test_one_sample_that_leaves_nothing_of_the_others_is_refused(tmp_path: Path, size: float) -> None:
    values = sound()
    values[4000] = size
    assert reason(wav(tmp_path / "a.wav", values, "FLOAT")) == "outlier"
    assert reason(wav(tmp_path / "b.wav", sound() * 1e20, "FLOAT")) == "outlier"
    values[4000:4100] = 1e4
    assert reason(wav(tmp_path / "burst.wav", values, "FLOAT")) == "outlier"
    values[4000:4100] = 0
    values[4000] = 20
    assert sound_files.read(wav(tmp_path / "knock.wav", values, "FLOAT")).seconds == 2


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM", "ALAW", "ULAW"])
def test_codecs_of_telephones_in_wav_are_read(tmp_path: Path, subtype: str) -> None:
    read = sound_files.read(wav(tmp_path / "a.wav", sound(), subtype))
    assert 2 <= read.seconds < 2.2
    assert np.corrcoef(read.floats[:8000], sound())[0, 1] > 0.9


@pytest.mark.parametrize("raised", [ValueError("no frames"), RuntimeError("broken"), TypeError(), AssertionError("x"),
                                    soundfile.LibsndfileError(2), OSError("disk"), ZeroDivisionError()])
def test_whatever_the_decoder_raises_is_one_refused_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise raised

    path = wav(tmp_path / "a.wav", sound())
    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    assert reason(path) == "unreadable"
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_a, **_o: bytearray(1 << 62))
    assert reason(path) == "too_long"


@pytest.mark.parametrize("gain", [1e-3, 0.37, 8.0])
def test_gain_does_not_change_what_is_heard(gain: float) -> None:
    plain = sound().astype(np.float32)
    heard = preprocessing.prepare(plain, 4000, PARAMS)
    assert preprocessing.prepare(plain * np.float32(gain), 4000, PARAMS) == pytest.approx(heard, abs=1e-4)


def test_dc_and_rumble_are_not_heard() -> None:
    plain = sound(4).astype(np.float32)
    rumble = 0.3 * np.sin(2 * np.pi * 4 * np.arange(len(plain)) / 4000).astype(np.float32)
    heard = preprocessing.prepare(plain, 4000, PARAMS)
    assert preprocessing.prepare(plain + np.float32(0.4), 4000, PARAMS) == pytest.approx(heard, abs=1e-4)
    middle = slice(4000, -4000)
    assert preprocessing.prepare(plain + rumble, 4000, PARAMS)[middle] == pytest.approx(heard[middle], abs=0.02)


def test_a_knock_does_not_change_the_level() -> None:
    plain = sound(8).astype(np.float32)
    knocked = plain.copy()
    knocked[16000:16200] += 20 * np.hanning(200).astype(np.float32)
    before = slice(1000, 12000)
    heard, unknocked = (preprocessing.prepare(x, 4000, PARAMS)[before] for x in (knocked, plain))
    assert heard.std() == pytest.approx(unknocked.std(), rel=0.1)
    assert np.corrcoef(heard, unknocked)[0, 1] > 0.999


def test_what_is_heard_does_not_depend_on_the_rate() -> None:
    slow = preprocessing.prepare(sound(3).astype(np.float32), 4000, PARAMS)
    fast = preprocessing.prepare(sound(3, 44100).astype(np.float32), 44100, PARAMS)
    middle = slice(200, -200)
    assert len(slow) == len(fast)
    assert fast[middle] == pytest.approx(slow[middle], abs=0.05)


@pytest.mark.parametrize("samples", [1, 2, 7, 199, 200, 1999])
def test_any_length_is_heard(samples: int) -> None:
    heard = preprocessing.prepare(sound()[:samples].astype(np.float32), 4000, PARAMS)
    assert heard.shape == (samples,)
    assert np.isfinite(heard).all()


def test_silence_stays_silence() -> None:
    assert not preprocessing.prepare(np.zeros(4000, np.float32), 4000, PARAMS).any()
    assert np.abs(preprocessing.prepare(np.full(4000, 0.25, np.float32), 4000, PARAMS)).max() < 1e-3


@pytest.mark.real
def test_every_real_recording_is_read(real_pascal: Path) -> None:
    seconds = [sound_files.read(path).seconds for path in sorted(real_pascal.rglob("*.wav"))]
    assert len(seconds) == 832
    assert sum(seconds) / 3600 == pytest.approx(1.587, abs=0.001)
