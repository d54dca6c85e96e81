"""A tiny transformer and a corpus of a few simulated hearts, for tests of pre-training without labels."""

from pathlib import Path

import pandas as pd

from heartml.core import config
from heartml.core.config import PretrainParams, VitParams
from heartml.training.pretraining import corpus
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.vit import start as starts

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
ANNOTATIONS = pd.DataFrame({"recording_id": pd.Series(dtype="string"), "start_s": pd.Series(dtype=float),
                            "end_s": pd.Series(dtype=float), "state": pd.Series(dtype="string")})
NOTHING = pd.DataFrame({"recording_id": [], "seconds": []})


def vit(**changed: object) -> VitParams:
    """Eight channels, one block, 3 x 8 patches; 30 steps of each method."""
    assert PARAMS.pretrain and PARAMS.pretrain.vit
    own = PARAMS.pretrain.vit
    return own.model_copy(update={
        "input_size": (24, 64), "patch_size": (8, 8), "width": 8, "depth": 1, "heads": 2, "batch": 4, "rate": 0.01,
        "snapshots": (0.5,), "masked": own.masked.model_copy(update={"steps": 30, "predictor_depth": 1}),
        "contrastive": own.contrastive.model_copy(update={"steps": 30, "batch": 4, "window_s": 0.6, "crop_s": 0.3}),
        "supervised_steps": 30, **changed})


def pretraining(**changed: object) -> PretrainParams:
    """The section `pretrain`, with no checkpoint before the end."""
    assert PARAMS.pretrain
    return PARAMS.pretrain.model_copy(update={"checkpoint_s": 1e9, "vit": vit(), **changed})


def hearts() -> Corpus:
    """The recordings of two simulated children."""
    picture = starts.LogMelPicture(starts.fresh(vit(), 1), PARAMS.audio)
    return corpus.build(NOTHING, [], ANNOTATIONS, picture, simulated_children=2, seed=5)
