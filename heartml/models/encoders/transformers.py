"""Audio networks of the library `transformers`: `[batch, time] -> [batch, frames, bands x channels]`.

A local folder with `config.json`, `model.safetensors` and `preprocessor_config.json`, as the library writes it: AST,
wav2vec2, HuBERT, WavLM, Whisper's encoder, CLAP's audio tower, Qwen2-Audio's tower. The library's own feature extractor
makes the input. Nothing is downloaded, pickled weights are not read, and no code from the folder is run.

Networks on the waveform take a recording as a whole. The others take windows of one length (AST about 10 s, CLAP 10 s,
Whisper 30 s); a longer recording is encoded window by window, and of the last one those frames are kept that the sound
reaches. Where the network has patches (AST) or bands (CLAP), these are stacked, so frequency is kept. Layer `input` is
what the feature extractor of AST, wav2vec2, HuBERT, WavLM and Qwen2-Audio makes: log-mel bands, or the samples of a
waveform. Of Qwen2-Audio no weight is read for that: the head `describe` trains it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from heartml.core.config import AudioParams, Count
from heartml.models.encoders import weight_files
from heartml.models.encoders.pretrained import PretrainedEncoder, at_least, library, pinned, stacked
from heartml.models.encoders.pretrained_params import Layer, PretrainedParams
from heartml.models.encoders.weight_files import WeightsError

_NEEDED = ("config.json", "preprocessor_config.json")
_UNUSED = ("masked_spec_embed",)      # weights of training alone, which some folders do not have
_LEAST_S = 0.025                      # a window of the feature extractors
_AST_FRAMES_HZ = 100                  # of its spectrogram
WAVES = ("wav2vec2", "hubert", "wavlm")
SPEAKING = "qwen2_audio"              # a whole language model that hears
_WITH_INPUT = ("audio-spectrogram-transformer", *WAVES, SPEAKING)


class TransformersParams(PretrainedParams):
    """The section of an encoder of kind `transformers`; `weights` is a folder.

    Attributes:
        sample_rate_hz: `None`: as `preprocessor_config.json` says.
    """

    KIND: ClassVar[str] = "transformers"
    LIBRARIES: ClassVar[tuple[str, ...]] = ("transformers",)
    TUNABLE: ClassVar[bool] = True

    sample_rate_hz: Count | None = None

    def rate_hz(self) -> int:
        """That of the feature extractor."""
        assert self.sample_rate_hz is not None
        return self.sample_rate_hz

    def resolved(self, stated: Mapping[str, Any]) -> Self:
        """See `PretrainedParams.resolved`; the sample rate is that of the folder."""
        found = super().resolved(stated)
        if found.sample_rate_hz is not None:
            return found
        folder = weight_files.place_of(self.path, self.sha256)
        rate_hz = read_json(folder, "preprocessor_config.json").get("sampling_rate")
        if not isinstance(rate_hz, int):
            raise ValueError("sample_rate_hz: preprocessor_config.json does not say it")
        return found.model_copy(update={"sample_rate_hz": rate_hz})


PARAMS = TransformersParams
NEEDS: tuple[str, ...] = ()


@dataclass
class _Windows:
    """How a network takes a recording.

    Attributes:
        samples: of a window; `None`: the whole recording.
        frames: of a window.
        bands: frequency bands in a frame.
        special: tokens before the patches.
        layers: number of blocks whose outputs can be read; 0: only the last.
    """

    samples: int | None
    frames: int
    bands: int
    special: int
    layers: int


class Transformers(PretrainedEncoder):
    """The encoder, see the module.

    Raises:
        WeightsError: the folder lacks something, or holds no network of a kind that is known here.
    """

    name = "transformers"

    def __init__(self, folder: Path, params: TransformersParams) -> None:
        library("transformers")
        self.folder, self.params = folder, params
        self.config = read_json(folder, "config.json")
        self.type = str(self.config.get("model_type"))
        if self.type not in _NETWORKS:
            raise WeightsError(f"{folder}: a network of type {self.type!r}; there are {', '.join(_NETWORKS)}")
        if not list(folder.glob("*.safetensors")):
            raise WeightsError(f"{folder}: no model.safetensors. Other formats are not read: save the model with "
                               "`save_pretrained`, which writes it")
        self.sample_rate_hz = params.rate_hz()
        self.extractor = _extractor(folder)
        self.network: Any = None
        self.device = "cpu"
        if params.takes_input and self.type == SPEAKING:
            self._give_mel()
        else:
            self.network = _NETWORKS[self.type](folder).eval()
            self.windows = self._windows()
            self.bands = self.windows.bands
            if params.takes_input:
                self._give_input()
        if max([layer for layer in params.layers if isinstance(layer, int)], default=-1) >= self.windows.layers:
            raise WeightsError(f"{folder}: layers: there is `last`" + (f" and 0 to {self.windows.layers - 1}"
                                                                       if self.windows.layers else " alone"))
        self.dim = int(self._window(torch.zeros(self._least_samples)).shape[1])

    @classmethod
    def from_pretrained(
        cls, path: Path, sha256: str | None = None, layers: Sequence[Layer] = ("last",)
    ) -> "Transformers":
        """The encoder of a local folder; the hash is `hashing.sha256_folder`.

        Raises:
            WeightsError: the folder is missing, has another hash, or holds no network of this kind.
        """
        params = pinned(TransformersParams, path, sha256, layers).resolved({})
        return cls(path, params)

    def _windows(self) -> _Windows:
        config: Any = self.network.config
        depth = int(getattr(config, "num_hidden_layers", 0) or getattr(config, "encoder_layers", 0))
        if self.type == "audio-spectrogram-transformer":
            bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
            frames = (config.max_length - config.patch_size) // config.time_stride + 1
            samples = config.max_length * self.sample_rate_hz // _AST_FRAMES_HZ
            found = _Windows(samples, frames, bands, 2, depth)
            self.frame_rate_hz = _AST_FRAMES_HZ / config.time_stride
            return found
        if self.type in WAVES:
            self.frame_rate_hz = self.sample_rate_hz / float(torch.tensor(config.conv_stride).prod())
            return _Windows(None, 0, 1, 0, depth)
        samples = int(self.extractor.nb_max_samples if self.type.startswith("clap") else self.extractor.n_samples)
        maps = self._run(torch.zeros(samples))[0]
        bands, frames = (maps.shape[2], maps.shape[3]) if maps.ndim == 4 else (1, maps.shape[1])
        self.frame_rate_hz = frames * self.sample_rate_hz / samples
        return _Windows(samples, frames, bands, 0, depth if self.type == "whisper" else 0)

    def _give_input(self) -> None:
        """Make a frame what the network takes.

        Raises:
            WeightsError: what it takes cannot be cut into parts of a recording.
        """
        if self.type not in _WITH_INPUT:
            raise WeightsError(f"{self.folder}: a network of type {self.type!r} has no layer `input`; "
                               f"{', '.join(_WITH_INPUT)} have")
        wave = self.type in WAVES
        self.frame_rate_hz = float(self.sample_rate_hz if wave else _AST_FRAMES_HZ)
        self.bands = 1 if wave else int(self.network.config.num_mel_bins)
        self.windows = _Windows(self.windows.samples, 0 if wave else int(self.network.config.max_length), self.bands,
                                0, self.windows.layers)

    def _give_mel(self) -> None:
        """Make a frame what Whisper's feature extractor gives; the network is not there."""
        samples, hop = int(self.extractor.n_samples), int(self.extractor.hop_length)
        self.frame_rate_hz, self.bands = self.sample_rate_hz / hop, int(self.extractor.feature_size)
        self.windows = _Windows(samples, samples // hop, self.bands, 0, 0)

    def to(self, device: str) -> "Transformers":
        """The same encoder on another device; the feature extractor stays on the CPU."""
        if self.network is not None:
            self.network.to(device)
        self.device = device
        return self

    @property
    def _least_samples(self) -> int:
        return round(_LEAST_S * self.sample_rate_hz)

    def frames_in(self, samples: int) -> int:
        """What the network gives for so many samples; at least one."""
        samples = max(samples, self._least_samples)
        if self.windows.samples is None and self.params.takes_input:
            return samples
        if self.windows.samples is None:
            return int(self.network._get_feat_extract_output_lengths(samples))
        whole, rest = divmod(samples, self.windows.samples)
        return whole * self.windows.frames + -(-rest * self.windows.frames // self.windows.samples)

    def forward(self, batch: Tensor) -> Tensor:
        """float32 `[batch, time] -> [batch, frames, bands x channels]`; one recording and one window at a time."""
        rows = at_least(batch, self._least_samples).cpu()
        size = self.windows.samples or rows.shape[1]
        return torch.stack([torch.cat([self._window(part) for part in row.split(size)]) for row in rows])

    def _window(self, wave: Tensor) -> Tensor:
        """`[time] -> [frames, bands x channels]`: the frames that the sound reaches, of the chosen layers."""
        if self.params.takes_input:
            taken = self._taken(wave)
            values = taken["input_values"][0] if "input_values" in taken else taken["input_features"][0].T
            return values.reshape(len(values), -1)[: self.frames_in(len(wave))]
        last, hidden = self._run(wave)
        chosen = [last if layer == "last" else hidden[int(layer) + 1] for layer in self.params.layers]
        maps = torch.cat([self._bands(one) for one in chosen], dim=1)
        return stacked(maps)[0, : self.frames_in(len(wave))]

    def _bands(self, values: Tensor) -> Tensor:
        """Tokens `[1, tokens, channels]` or maps `[1, channels, bands, frames]` as maps."""
        if values.ndim == 4:
            return values
        tokens = values[:, self.windows.special :]
        return tokens.reshape(1, self.windows.bands, -1, tokens.shape[2]).permute(0, 3, 1, 2)

    def _run(self, wave: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The network's own output, and the outputs of all layers, for one window `[time]`."""
        taken = self._taken(wave)
        if self.type.startswith("qwen2_audio"):
            taken["attention_mask"] = self._reach(len(wave), taken["input_features"])
        with torch.inference_mode():
            found = self.network(**taken, output_hidden_states=self.params.layers != ("last",))
        return found.last_hidden_state, found.hidden_states or ()

    def _taken(self, wave: Tensor) -> dict[str, Tensor]:
        """What the feature extractor makes of `[time]`."""
        made = self.extractor(wave.numpy(), sampling_rate=self.sample_rate_hz, return_tensors="pt")
        keys = ("input_values", "input_features", "is_longer")
        return {key: made[key].to(self.device) for key in keys if key in made}

    def _reach(self, samples: int, features: Tensor) -> Tensor:
        """Where Qwen2-Audio may look: `[1, 1, tokens, tokens]`, minus infinity behind the end of the sound."""
        tokens = (features.shape[2] - 1) // 2 + 1
        reached = max(1, -(-samples * tokens // int(self.extractor.n_samples)))
        mask = features.new_zeros(1, 1, tokens, tokens)
        mask[..., reached:] = float("-inf")
        return mask


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of the folder's files.

    Raises:
        WeightsError: it is missing or no JSON.
    """
    try:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise WeightsError(f"{folder}: {name} is missing or damaged; a folder that `save_pretrained` wrote has "
                           f"{', '.join(_NEEDED)} and model.safetensors") from None


def _extractor(folder: Path) -> Any:
    from transformers import AutoFeatureExtractor

    try:
        found: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{folder}: no feature extractor: {' '.join(str(error).split())[:200]}") from None
    return found


def _loaded(folder: Path, name: str) -> Any:
    """The network of the library's class `name`, all of whose weights are in the folder.

    Raises:
        WeightsError: some are missing or have another shape, or a file is damaged.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        network, told = getattr(transformers, name).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True)
    except Exception as error:  # noqa: BLE001 - whatever the library raises for damaged or foreign files
        raise WeightsError(f"{folder}: cannot be read as {name}: {' '.join(str(error).split())[:200]}") from None
    missing = sorted(key for key in told["missing_keys"] if not key.endswith(_UNUSED))
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} weights of {name} are missing, {missing[0]} among them")
    return network


def _qwen_tower(folder: Path) -> Any:
    """The audio tower alone of a folder that has the whole of Qwen2-Audio."""
    from safetensors import safe_open
    from transformers import AutoConfig, Qwen2AudioEncoder

    network = Qwen2AudioEncoder(AutoConfig.from_pretrained(folder, local_files_only=True).audio_config)
    own: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            own |= {key.partition("audio_tower.")[2]: opened.get_tensor(key).float()
                    for key in opened.keys() if "audio_tower." in key}      # noqa: SIM118 - it is no mapping
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise WeightsError(f"{folder}: no audio tower of Qwen2-Audio: {' '.join(str(error).split())[:200]}") from None
    return network


_NETWORKS: dict[str, Callable[[Path], Any]] = {      # model_type -> folder -> the audio network
    "audio-spectrogram-transformer": lambda folder: _loaded(folder, "ASTModel"),
    "wav2vec2": lambda folder: _loaded(folder, "Wav2Vec2Model"),
    "hubert": lambda folder: _loaded(folder, "HubertModel"),
    "wavlm": lambda folder: _loaded(folder, "WavLMModel"),
    "whisper": lambda folder: _loaded(folder, "WhisperModel").get_encoder(),
    "clap": lambda folder: _loaded(folder, "ClapModel").audio_model,
    "clap_audio_model": lambda folder: _loaded(folder, "ClapAudioModel"),
    "qwen2_audio": _qwen_tower,
    "qwen2_audio_encoder": lambda folder: _loaded(folder, "Qwen2AudioEncoder"),
}


def make(audio: AudioParams, sections: Mapping[str, Any]) -> Transformers:
    """The encoder, see `EncoderModule.make`."""
    params: TransformersParams = sections["transformers"]
    return Transformers(weight_files.place_of(params.path, params.sha256), params)
