"""Qwen2-Audio with adapters: sounds and answers in, the log-likelihood of each answer out.

The network is `Qwen2AudioForConditionalGeneration` of the library `transformers`, the adapters are LoRA of the library
`peft`. This process keeps one network. Every fitted head has its own adapters, which are put in before it answers, so
the heads of all folds share the large weights. Nothing is downloaded and no pickle is read.
"""

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartml.models.encoders import weight_files
from heartml.models.encoders.transformers import SPEAKING, read_json
from heartml.models.encoders.weight_files import WeightsError
from heartml.models.heads import describe_text as text
from heartml.models.heads.describe_params import DescribeError, check_libraries

Frames = NDArray[np.float32]
IN_USE = threading.RLock()      # the adapters of one head at a time
_SPEAKS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj)"
_HEARS = r".*audio_tower\..*\.(q_proj|k_proj|v_proj|out_proj)"
_LOUDEST_DECADES, _LEAST = 2.0, -1.5      # how far Whisper's bands reach below the loudest, and their least value
_IGNORED = -100


def pattern(adapt_audio: bool) -> str:
    """Names of the layers beside which adapters stand: attention of the language model, or also of what hears.

    >>> import re
    >>> hears = "model.audio_tower.layers.0.self_attn.q_proj"
    >>> [bool(re.fullmatch(pattern(adapt_audio), hears)) for adapt_audio in (False, True)]
    [False, True]
    """
    return f"({_SPEAKS}|{_HEARS})" if adapt_audio else f"({_SPEAKS})"


class Answering(nn.Module):
    """The network and its tokenizer.

    Attributes:
        frames: log-mel frames that it takes, of which the sound's own come first.
    """

    def __init__(self, network: Any, tokenizer: Any) -> None:
        super().__init__()
        self.network: Any = network
        self.tokenizer = tokenizer
        self.frames = 2 * int(network.config.audio_config.max_source_positions)

    def forward(self, sounds: Sequence[Frames], prompt: str, words: Sequence[str]) -> Tensor:
        """The natural logarithm of the probability of an answer to each sound `[n]`.

        Args:
            sounds: `n` arrays `[frames, mels]`.
            words: the answer to each sound `[n]`.
        """
        given = self.inputs(sounds, prompt, words)
        labels = given.pop("labels")[:, 1:]
        logits = self.network(**given, use_cache=False).logits[:, :-1]
        told = torch.log_softmax(logits.float(), dim=-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return torch.where(labels == _IGNORED, torch.zeros_like(told), told).sum(1)

    def inputs(self, sounds: Sequence[Frames], prompt: str, words: Sequence[str]) -> dict[str, Tensor]:
        """What the library's network takes, with `labels` that are the tokens of the answers and nothing else."""
        rows = []
        for sound, word in zip(sounds, words, strict=True):
            asked = text.prompt_tokens(self.tokenizer, prompt, self.heard(len(sound)))
            answer = text.answer_tokens(self.tokenizer, word)
            rows.append((asked + answer, [_IGNORED] * len(asked) + answer))
        longest = max(len(ids) for ids, _ in rows)
        whole = [(ids + [0] * (longest - len(ids)), labels + [_IGNORED] * (longest - len(labels)),
                  [1] * len(ids) + [0] * (longest - len(ids))) for ids, labels in rows]
        ids, labels, mask = (torch.tensor(column, device=self.device) for column in zip(*whole, strict=True))
        lengths = torch.tensor([len(sound) for sound in sounds], device=self.device)
        heard = (torch.arange(self.frames, device=self.device) < lengths[:, None]).long()
        features = np.stack([filled(sound, self.frames).T for sound in sounds])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "feature_attention_mask": heard,
                "input_features": torch.from_numpy(features).to(self.device)}

    def heard(self, frames: int) -> int:
        """Tokens that stand for so many frames of sound."""
        tower = self.network.model.audio_tower
        return max(1, int(tower._get_feat_extract_output_lengths(torch.tensor(frames))[1]))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def learning(self) -> list[nn.Parameter]:
        """The weights of the adapters."""
        return [weight for weight in self.network.parameters() if weight.requires_grad]

    def redraw(self) -> None:
        """Begin anew: the adapters change nothing, and their first half is drawn from torch's generator."""
        for module in self.network.modules():
            if hasattr(module, "reset_lora_parameters"):
                module.reset_lora_parameters("default", True)

    def stored(self) -> dict[str, NDArray[np.float32]]:
        """The adapters, by name."""
        return {name: weight.detach().float().cpu().numpy().copy()
                for name, weight in self.network.named_parameters() if weight.requires_grad}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Put in what `stored` gave.

        Raises:
            DescribeError: it is of another network.
        """
        own = {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}
        if {name: tuple(weight.shape) for name, weight in own.items()} != {n: a.shape for n, a in arrays.items()}:
            raise DescribeError("the adapters of a head describe do not fit its language model; train it again")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(torch.from_numpy(np.array(arrays[name])))


def filled(sound: Frames, size: int) -> Frames:
    """`[frames, mels] -> [size, mels]`: silence follows, as Whisper's feature extractor writes it."""
    silence = max(float(sound.max()) - _LOUDEST_DECADES, _LEAST)
    return np.pad(sound, ((0, size - len(sound)), (0, 0)), constant_values=silence).astype(np.float32)


def shared(section: Mapping[str, Any], rank: int, alpha: int, adapt_audio: bool) -> Answering:
    """The network of a section of kind `transformers`, with adapters. This process keeps the last one.

    Raises:
        WeightsError: its weights are not here, or cannot be read.
        DescribeError: it is no Qwen2-Audio, or a library is missing.
    """
    place = weight_files.place_of(Path(section["weights"]), str(section["sha256"]))
    return _shared(place.absolute(), str(section["sha256"]), rank, alpha, adapt_audio, numbers())


def numbers() -> torch.dtype:
    """Of the weights that do not learn: half as long on a GPU."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


@functools.lru_cache(maxsize=1)
def _shared(folder: Path, _sha256: str, rank: int, alpha: int, adapt_audio: bool, kind: torch.dtype) -> Answering:
    check_libraries()
    if (found := read_json(folder, "config.json").get("model_type")) != SPEAKING:
        raise DescribeError(f"{folder}: the head describe needs a Qwen2-Audio, and this is a network of type {found!r}")
    import transformers
    from peft import LoraConfig, inject_adapter_in_model

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        try:
            tokenizer = transformers.Qwen2AudioProcessor.from_pretrained(folder, local_files_only=True).tokenizer
            network = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=kind)
        except Exception as error:  # noqa: BLE001 - whatever the library raises for damaged or foreign files
            raise WeightsError(f"{folder}: no Qwen2-Audio with its processor: {' '.join(str(error).split())[:200]}"
                               ) from None
        network.requires_grad_(False)
        adapters = LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern(adapt_audio))
        inject_adapter_in_model(adapters, network)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()      # small steps are lost in bfloat16
    return Answering(network.eval(), tokenizer)
