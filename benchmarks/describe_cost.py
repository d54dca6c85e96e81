"""What the head `describe` needs with the published Qwen2-Audio-7B-Instruct: weights, memory, and estimated hours.

No weights are needed: they are counted on a network without numbers. Nothing was measured on a GPU; hours follow from
the number of operations and a speed that you state.

    python benchmarks/describe_cost.py [OPERATIONS A SECOND, 1e14] [RECORDINGS, 600]
"""

import sys
from pathlib import Path

from heartml.core import config
from heartml.models.heads import describe_memory
from heartml.training import search_space

WORDS, FOLDS = 4, 5          # of CirCor's systolic timing and shape; of `split` in params.yaml


def main(speed: float, recordings: int) -> None:
    """Print it for the parameters of params.yaml, with and without adapters in the part that hears."""
    from transformers import Qwen2AudioConfig, Qwen2Config

    # the sizes in the published config.json
    real = Qwen2AudioConfig(text_config=Qwen2Config(
        vocab_size=156032, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32))
    own = dict(search_space.fixed_hyperparameters(config.load(Path("params.yaml")).search, "describe"))
    for own["adapt_audio"] in (False, True):
        every, adapters = describe_memory.parameters(real, own)
        fit_s, score_s = (operations / speed for operations in describe_memory.operations(real, own, WORDS))
        hours = FOLDS * (fit_s + recordings / FOLDS * score_s) / 3600
        print(f"adapt_audio {own['adapt_audio']}: {every:,} weights, {adapters:,} in adapters "
              f"({adapters * 4 / 1e6:.0f} MB a fitted head)")
        print(f"  in bfloat16 {describe_memory.needed(real, own, 2).words}; in single precision "
              f"{describe_memory.needed(real, own, 4).total:.1f} GB")
        print(f"  estimate at {speed:.0e} operations a second: {fit_s / 60:.1f} minutes a fit, {score_s:.2f} s a "
              f"recording, {hours:.1f} hours for {FOLDS} folds of {recordings} recordings")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e14, int(sys.argv[2]) if len(sys.argv) > 2 else 600)
