"""What pre-training leaves: the file of weights, and what is said of it. The same training gives the same bytes."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from heartml.core.config import PretrainParams
from heartml.core.system import files
from heartml.models import heard
from heartml.models.encoders import heart
from heartml.models.encoders.logspec import LogspecParams
from heartml.training.pretraining.loop import CURVE_STEPS

WEIGHTS, CURVES, FACTS = "heart.safetensors", "curves.csv", "pretraining.json"
NOT_LEARNT_FROM = {"enabled", "checkpoint_s", "vit"}      # keys of `pretrain` on which these weights do not depend


def write(folder: Path, trunk: nn.Module, spectrogram: LogspecParams, recordings: pd.DataFrame,
          curves: Mapping[str, list[float]], facts: Mapping[str, Any]) -> None:
    """Write the three files into `folder`.

    Args:
        trunk: a `heart.HeartTrunk`.
        spectrogram: what the network was trained on.
        recordings: those that were heard: recording_id, group_id, dataset.
        curves: of `fit.train`.
        facts: of `describe`.
    """
    from safetensors.torch import save

    tensors = {name: tensor.clone().contiguous() for name, tensor in trunk.state_dict().items()}
    tensors[heart.SPECTROGRAM] = heart.spectrogram_tensor(spectrogram)
    tensors |= {name: torch.from_numpy(array) for name, array in heard.arrays(recordings).items()}
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors))
    with files.replacing(folder / CURVES) as temporary:
        temporary.write_text(curves_text(curves), encoding="utf-8")
    files.write_json(folder / FACTS, facts)


def curves_text(curves: Mapping[str, list[float]]) -> str:
    """Curves as CSV, a row for each point."""
    table = pd.DataFrame(curves)
    table.insert(0, "step", [CURVE_STEPS * (number + 1) for number in range(len(table))])
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.6g", lineterminator="\n")
    return text.getvalue()


def describe(recordings: pd.DataFrame, left_out: int, targets: Mapping[str, int], params: PretrainParams
             ) -> dict[str, Any]:
    """What the encoder heard, for its card: counts and licences by data set, targets, parameters.

    Args:
        recordings: those that were heard: dataset, group_id, seconds, licence.
        left_out: number of groups that were left out, because a task is scored on them.
        targets: target -> number of recordings with a label, simulated ones among them.
    """
    datasets = {
        str(name): {"recordings": len(rows), "groups": int(rows["group_id"].nunique()),
                    "hours": round(float(rows["seconds"].sum()) / 3600, 2),
                    "licences": sorted(set(rows["licence"].dropna()))}
        for name, rows in recordings.groupby("dataset")
    }
    return {"heard": datasets, "groups_left_out": left_out, "targets": dict(targets),
            "parameters": params.model_dump(mode="json", exclude=NOT_LEARNT_FROM)}
