"""The contract that every encoder keeps, and what is particular to each."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_checkpoints

from heartml.audio import sound_files
from heartml.core import config
from heartml.core.config import ParamsError
from heartml.models import encoders
from heartml.models.encoders import ENCODERS, PRETRAINED, Encoder, EncoderError, EncoderSpec

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
RATE_HZ = PARAMS.audio.sample_rate_hz


def sound(seconds: float, seed: int = 0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Float32 [time]: bursts over noise that has no energy above 900 Hz; the same sound at every rate."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    tones_hz, phases = rng.uniform(20, 900, 60), rng.uniform(0, 6.3, 60)
    noise = sum(np.sin(2 * np.pi * f * time_s + p) for f, p in zip(tones_hz, phases, strict=True)) / 300
    burst = np.sin(2 * np.pi * 55 * time_s) * np.sin(2 * np.pi * 1.2 * time_s) ** 12
    return (noise + burst).astype(np.float32) * 0.3


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> config.Params:
    """The project's parameters, and a tiny checkpoint of each kind that is pre-trained."""
    return tiny_checkpoints.with_sections(PARAMS, tiny_checkpoints.sections(tmp_path_factory.mktemp("weights")))


@pytest.fixture(params=sorted(ENCODERS))
def spec(request: pytest.FixtureRequest, everything: config.Params, tmp_path: Path,
         monkeypatch: pytest.MonkeyPatch) -> EncoderSpec:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path))
    if request.param not in everything.encoder_parameters:
        pytest.skip(f"left out: the libraries of {request.param} are not here (`pip install '.[encoders]' onnx`)")
    return encoders.spec(request.param, everything)


@pytest.fixture
def encoder(spec: EncoderSpec) -> Encoder:
    return encoders.load(spec)


def alone(encoder: Encoder, waveform: np.ndarray) -> torch.Tensor:
    return encoder.encode(torch.from_numpy(waveform)[None])[0]


def test_frames_have_the_shape_that_is_stated(encoder: Encoder, spec: EncoderSpec) -> None:
    rate_hz = encoder.sample_rate_hz
    assert rate_hz == spec.audio.sample_rate_hz
    frames = encoder.encode(torch.stack([torch.from_numpy(sound(6, seed, rate_hz)) for seed in (0, 1)]))
    assert frames.dtype == torch.float32
    assert frames.shape == (2, encoder.frames_in(6 * rate_hz), encoder.dim)
    assert encoder.name == spec.kind == spec.name
    assert frames.shape[1] / 6 == pytest.approx(encoder.frame_rate_hz, rel=0.08)
    assert torch.isfinite(frames).all()


@pytest.mark.parametrize("samples", [1, 2, 79, 199, 200, 201, 279, 280, 281, 513, 1000, 1600, 9999])
def test_any_length_gives_frames(encoder: Encoder, samples: int) -> None:
    frames = alone(encoder, sound(3)[:samples])
    assert frames.shape == (encoder.frames_in(samples), encoder.dim)
    assert len(frames) >= 1
    assert torch.isfinite(frames).all()


def test_silence_gives_numbers(encoder: Encoder) -> None:
    assert torch.isfinite(alone(encoder, np.zeros(4000, np.float32))).all()


def test_the_same_sound_gives_the_same_bytes(encoder: Encoder, spec: EncoderSpec) -> None:
    waveform = sound(2)
    assert torch.equal(alone(encoder, waveform), alone(encoders.load(spec), waveform))
    assert torch.equal(alone(encoder, waveform), alone(encoder, waveform))


def test_padding_and_neighbours_are_not_heard(encoder: Encoder) -> None:
    lengths = torch.tensor([8000, 4777, 150, 12000, 8000])
    batch = torch.zeros(5, 12000)
    for row, length in enumerate(lengths.tolist()):
        batch[row, :length] = torch.from_numpy(sound(3, row)[:length])
    together = encoder.encode(batch, lengths)
    for row, length in enumerate(lengths.tolist()):
        own = alone(encoder, batch[row, :length].numpy())
        assert torch.allclose(together[row, : len(own)], own, atol=2e-4)


def test_what_comes_later_does_not_change_earlier_frames_of_a_spectrogram() -> None:
    encoder = encoders.load(encoders.spec("logspec", PARAMS))
    waveform = sound(2)
    assert torch.allclose(alone(encoder, waveform)[:40], alone(encoder, waveform[: 40 * 80 + 120])[:40], atol=1e-5)


@pytest.mark.parametrize("gain", [0.002, 0.6, 30.0])
def test_gain_and_dc_do_not_change_the_frames(encoder: Encoder, spec: EncoderSpec, gain: float) -> None:
    plain = encoders.frames_of(encoder, spec, sound(4), RATE_HZ)
    changed = encoders.frames_of(encoder, spec, sound(4) * np.float32(gain) + np.float32(0.1 * gain), RATE_HZ)
    assert plain.dtype == np.float16
    assert changed == pytest.approx(plain, abs=0.02)


def test_frames_do_not_depend_on_the_rate(encoder: Encoder, spec: EncoderSpec) -> None:
    slow = encoders.frames_of(encoder, spec, sound(4), RATE_HZ).astype(float)
    for rate_hz in (2000, 8000, 44100):
        other = encoders.frames_of(encoder, spec, sound(4, rate_hz=rate_hz), rate_hz).astype(float)
        assert other.shape == slow.shape
        if not spec.pretrained:     # these see what a resampler leaves above the sound, 100 dB below it
            assert np.corrcoef(other.ravel(), slow.ravel())[0, 1] > 0.995
            assert np.abs(other - slow).mean() < 0.1 * slow.std()


def test_a_spec_survives_json(spec: EncoderSpec) -> None:
    assert EncoderSpec.from_json({**spec.to_json(), "frame_rate_hz": 50}) == spec


def test_an_unknown_encoder_is_named_with_those_there_are() -> None:
    with pytest.raises(EncoderError, match="logspec, random_conv"):
        encoders.spec("wav2vec", PARAMS)


def changed(encoder: str, **change: object) -> config.Params:
    """The project's parameters, one section of `encoder_parameters` changed."""
    sections = PARAMS.encoder_parameters
    return PARAMS.model_copy(update={"encoder_parameters": {**sections, encoder: {**sections[encoder], **change}}})


@pytest.mark.parametrize(("encoder", "change", "words"), [
    ("logspec", {"bandz": 3}, "encoder_parameters.logspec.bandz: Extra inputs"),
    ("logspec", {"bands": 1}, "encoder_parameters.logspec.bands: Input should be greater than or equal to 2"),
    ("logspec", {"low_hz": 900}, "low_hz does not lie below high_hz"),
    ("logspec", {"high_hz": 2100}, "encoder_parameters.logspec.high_hz: 2100 lies above half of audio.sample_rate_hz"),
    ("random_conv", {"channels": 0}, "encoder_parameters.random_conv.channels"),
    ("amplitude", {"hop_s": 0.0001}, "encoder_parameters.amplitude: hop_s or window_s is too short"),
])
def test_a_parameter_that_cannot_be_is_named_with_its_place(encoder: str, change: dict, words: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(words)):
        encoders.spec(encoder, changed(encoder, **change))


def test_an_encoder_without_a_section_says_which_one_it_needs() -> None:
    with pytest.raises(EncoderError, match=r"needs a section `encoder_parameters\.logspec`"):
        encoders.spec("random_conv", PARAMS.model_copy(update={"encoder_parameters": {"random_conv": {}}}))


def test_the_fingerprint_changes_with_what_changes_the_frames() -> None:
    own = [name for name in ENCODERS if name in PARAMS.encoder_parameters and name not in PRETRAINED]
    seen = {encoders.fingerprint(encoders.spec(name, PARAMS)) for name in own}
    louder = PARAMS.model_copy(update={"audio": PARAMS.audio.model_copy(update={"highpass_hz": 25.0})})
    for params in (louder, changed("logspec", bands=40), changed("random_conv", seed=8),
                   changed("amplitude", hop_s=0.004)):
        seen |= {encoders.fingerprint(encoders.spec(name, params)) for name in own}
    assert len(seen) == 3 + 3 + 2 + 1 + 1      # the seed of random_conv is none of logspec's business
    assert encoders.fingerprint(encoders.spec("logspec", PARAMS)) in seen


def test_the_fingerprint_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = encoders.fingerprint(encoders.spec("logspec", PARAMS))
    other = tmp_path / "audio.py"
    other.write_bytes(Path(sound_files.__file__).read_bytes() + b"\n# another thought\n")
    monkeypatch.setattr(sound_files, "__file__", str(other))
    assert encoders.fingerprint(encoders.spec("logspec", PARAMS)) != before


def test_a_tone_is_found_in_its_band() -> None:
    encoder = encoders.load(encoders.spec("logspec", PARAMS))
    own = PARAMS.encoder_parameters["logspec"]
    centres_hz = np.linspace(own["low_hz"], own["high_hz"], encoder.dim)
    for tone_hz in (70, 130, 400, 740):
        frames = alone(encoder, np.sin(2 * np.pi * tone_hz * np.arange(8000) / RATE_HZ).astype(np.float32))
        power = frames.exp().mean(0).numpy()
        assert (power * centres_hz).sum() / power.sum() == pytest.approx(tone_hz, abs=3)


def test_white_noise_is_flat_and_power_counts_in_nepers() -> None:
    encoder = encoders.load(encoders.spec("logspec", PARAMS))
    noise = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    once, tenfold = alone(encoder, noise).exp().mean(0).log(), alone(encoder, 10 * noise).exp().mean(0).log()
    assert once.numpy() == pytest.approx(np.zeros(48), abs=0.15)
    assert (tenfold - once).numpy() == pytest.approx(np.full(48, np.log(100)), abs=0.01)


def test_a_sine_has_its_frequency_and_its_amplitude_in_every_frame() -> None:
    encoder = encoders.load(encoders.spec("amplitude", PARAMS))
    for tone_hz, amplitude in ((250, 1.0), (500, 0.2), (875, 3.0)):
        sine = amplitude * np.sin(2 * np.pi * tone_hz * np.arange(4000) / RATE_HZ + 0.4)
        khz, loud = alone(encoder, sine.astype(np.float32)).numpy().T
        assert khz == pytest.approx(np.full(len(khz), tone_hz / 1000))
        assert loud == pytest.approx(np.full(len(loud), amplitude), rel=1e-3)


def test_random_filters_come_from_the_seed_alone() -> None:
    first = alone(encoders.load(encoders.spec("random_conv", PARAMS)), sound(2))
    torch.manual_seed(99)
    torch.rand(5)
    assert torch.equal(first, alone(encoders.load(encoders.spec("random_conv", PARAMS)), sound(2)))
    other = encoders.load(encoders.spec("random_conv", changed("random_conv", seed=8)))
    assert not torch.allclose(first, alone(other, sound(2)))


def test_random_convolutions_keep_frequency_apart() -> None:
    encoder = encoders.load(encoders.spec("random_conv", PARAMS))
    channels = PARAMS.encoder_parameters["random_conv"]["channels"]
    time_s = np.arange(16000) / RATE_HZ
    beat = np.sin(2 * np.pi * 1.5 * time_s) ** 4
    for group, tone_hz in ((0, 70), (3, 480), (5, 740)):
        maps = alone(encoder, (beat * np.sin(2 * np.pi * tone_hz * time_s)).astype(np.float32))
        movement = maps.std(0).reshape(channels, -1).mean(0)     # [groups of bands]
        assert int(movement.argmax()) == group
