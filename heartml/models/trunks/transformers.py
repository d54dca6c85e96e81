"""Trunks of the library `transformers`: AST on log-mel bands; wav2vec2, HuBERT and WavLM on the samples of a waveform.

AST has an input of one length. A shorter one is filled up as its feature extractor does, and the patches that the sound
reaches are averaged over time, bands one after the other. A longer one is divided. What these networks do at random
besides dropout (masks, layers left out) is switched off, because it does not come from torch's generator.
"""

import copy
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from heartml.models.encoders import Encoder
from heartml.models.encoders.transformers import SPEAKING, WAVES, Transformers
from heartml.models.trunks import Trunk, TrunkError

_SPECIAL = 2        # tokens before the patches of AST


class _OfLibrary(Trunk):
    ADAPTED: ClassVar[str] = r".*\.(q_proj|k_proj|v_proj)"

    def __init__(self, encoder: Transformers) -> None:
        super().__init__()
        self.network = copy.deepcopy(encoder.network).requires_grad_(True)
        self.config: Any = self.network.config
        self.config.apply_spec_augment, self.config.layerdrop = False, 0.0

    def parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """What embeds the input; blocks; a norm that follows them."""
        blocks = next(one for one in self.network.modules()
                      if isinstance(one, nn.ModuleList) and len(one) == self.config.num_hidden_layers)
        last = getattr(self.network, "layernorm", None)
        later = {id(weight) for one in [*blocks, *([last] if last else [])] for weight in one.parameters()}
        first = [weight for weight in self.network.parameters() if id(weight) not in later]
        return [list(first), *([block] for block in blocks), *([[last]] if last else [])]


class WaveTrunk(_OfLibrary):
    """wav2vec2, HuBERT, WavLM: `[batch, samples, 1] -> [batch, width]`."""

    def __init__(self, encoder: Transformers) -> None:
        super().__init__(encoder)
        self.width = int(self.config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        found: Tensor = self.network(x[..., 0]).last_hidden_state
        return found.mean(1)


class AstTrunk(_OfLibrary):
    """AST: `[batch, frames, mels] -> [batch, bands x width]`."""

    def __init__(self, encoder: Transformers) -> None:
        super().__init__(encoder)
        extractor: Any = encoder.extractor
        self.size = int(self.config.max_length)
        self.bands = (self.config.num_mel_bins - self.config.patch_size) // self.config.frequency_stride + 1
        self.silence = -extractor.mean / (2 * extractor.std) if extractor.do_normalize else 0.0
        self.width = self.bands * int(self.config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """See `Trunk.forward`."""
        return torch.cat([self._window(part) for part in torch.split(x, self.size, dim=1)], dim=1).mean(1)

    def _window(self, x: Tensor) -> Tensor:
        """`[batch, frames, mels] -> [batch, patches in time, bands x width]`, of at most one input."""
        filled = functional.pad(x, (0, 0, 0, self.size - x.shape[1]), value=self.silence)
        tokens: Tensor = self.network(input_values=filled).last_hidden_state[:, _SPECIAL:]
        grid = tokens.reshape(len(x), self.bands, -1, tokens.shape[2]).transpose(1, 2).flatten(2)
        return grid[:, : max(1, -(-x.shape[1] * grid.shape[1] // self.size))]


def make(encoder: Encoder) -> Trunk:
    """See `TrunkModule.make`."""
    own = cast(Transformers, encoder)
    if own.type == SPEAKING:
        raise TrunkError("finetune: Qwen2-Audio is a language model, which the head `describe` trains")
    return WaveTrunk(own) if own.type in WAVES else AstTrunk(own)
