"""What the head `describe` needs, told before it starts, from the sizes in `config.json`: memory in GB, operations.

The weights are counted on a network without numbers. Activations are an estimate: what a transformer keeps of every
token for the way back, 16 values of its width and 4 of its inner layer, and twice the logits. The part that hears keeps
nothing unless it has adapters.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from heartml.models.encoders import weight_files
from heartml.models.heads import Hyperparameters, finetune_memory
from heartml.models.heads.describe_params import check_libraries
from heartml.models.heads.finetune_memory import Memory, MemoryRefused

NAME = "describe"
_GB = 1e9
_OF_WIDTH, _OF_INNER = 16, 4
_PROMPT_TOKENS = 100               # question, words and answer
_CYCLE_FRAMES = 100                # a heart cycle of a second; four frames are a token
_LEARNING_BYTES = 4 * 4            # an adapter's weight, its gradient and two moments


def needed(config: Any, hyperparameters: Hyperparameters, bytes_each: int) -> Memory:
    """What one training needs.

    Args:
        config: the library's `Qwen2AudioConfig`.
        bytes_each: of a number: 2 on a GPU, 4 elsewhere.
    """
    count, adapted = parameters(config, hyperparameters)
    own, tower = config.text_config, config.audio_config
    batch = int(hyperparameters["batch"])
    tokens = _tokens(config, hyperparameters)
    kept = tokens * own.num_hidden_layers * (_OF_WIDTH * own.hidden_size + _OF_INNER * own.intermediate_size)
    kept += 2 * tokens * own.vocab_size * (4 // bytes_each)
    if hyperparameters["adapt_audio"]:
        kept += tower.max_source_positions * tower.encoder_layers * (
            _OF_WIDTH * tower.d_model + _OF_INNER * tower.encoder_ffn_dim)
    return Memory(count * bytes_each / _GB, adapted * _LEARNING_BYTES / _GB, batch * kept * bytes_each / _GB)


def _tokens(config: Any, hyperparameters: Hyperparameters) -> int:
    heard = int(hyperparameters["cycles"]) * _CYCLE_FRAMES // 4
    return _PROMPT_TOKENS + min(heard, int(config.audio_config.max_source_positions) // 2)


def operations(config: Any, hyperparameters: Hyperparameters, words: int) -> tuple[float, float]:
    """Operations of one training, and of one recording that is described by so many words.

    A weight costs two for each token forward, and two more on the way back to an adapter. The part that hears takes
    its whole window however short the sound is.
    """
    every, adapted = parameters(config, hyperparameters)
    tower = config.audio_config
    hears = tower.encoder_layers * (4 * tower.d_model**2 + 2 * tower.d_model * tower.encoder_ffn_dim)
    heard = 2.0 * hears * tower.max_source_positions
    spoken = 2.0 * (every + adapted - hears) * _tokens(config, hyperparameters)
    cases = int(hyperparameters["steps"]) * int(hyperparameters["batch"]) * int(hyperparameters["accumulation"])
    return cases * (2 * spoken + (2 if hyperparameters["adapt_audio"] else 1) * heard), words * (spoken + heard)


def parameters(config: Any, hyperparameters: Hyperparameters) -> tuple[int, int]:
    """How many weights the language model has, and how many the adapters beside it."""
    check_libraries()
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import Qwen2AudioForConditionalGeneration

    from heartml.models.heads.describe_network import pattern

    with torch.device("meta"):
        network = Qwen2AudioForConditionalGeneration(config)
        count = sum(weight.numel() for weight in network.parameters())
        rank, alpha = int(hyperparameters["lora_rank"]), int(hyperparameters["lora_alpha"])
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=pattern(
            bool(hyperparameters["adapt_audio"]))), network, low_cpu_mem_usage=True)
    return count, sum(weight.numel() for weight in network.parameters()) - count


def told_in_advance(encoder: Mapping[str, Any], classes: int, hyperparameters: Hyperparameters, at_once: int) -> str:
    """One line on the memory of so many trainings at once; the number of classes does not matter.

    Raises:
        MemoryRefused: they do not fit, and that is checked.
    """
    from transformers import AutoConfig

    from heartml.models.heads.describe import section_of

    section = section_of(encoder)
    folder = weight_files.place_of(Path(section["weights"]), section["sha256"])
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    memory = needed(config, hyperparameters, 2 if torch.cuda.is_available() else 4)
    available = finetune_memory.free()
    if hyperparameters["check_memory"] and memory.total * at_once > available:
        raise MemoryRefused(
            f"{NAME}: {at_once} trainings at once need {memory.words} each, and {available:.1f} GB are free. Set "
            "search.workers to 1, lower `batch` and raise `training: {accumulation: ...}`, or set "
            "`check_memory: false`")
    return (f"{NAME} on {encoder['name']}: {memory.words} for each of {at_once} trainings at once; "
            f"{available:.1f} GB are free")
