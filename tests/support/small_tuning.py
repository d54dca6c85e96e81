"""Encoders that a test may fine-tune: tiny checkpoints with frames of the layer `input`, in a temporary folder."""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from support import tiny_checkpoints

from heartml.core import config
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec, weight_files
from heartml.models.heads import Targets

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


@functools.lru_cache(maxsize=1)
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="tuning-")      # goes with the process


@functools.lru_cache
def spec(kind: str, bands: int = 12, network: str = "ast") -> EncoderSpec:
    """A tiny encoder of a kind whose frames are its input.

    Args:
        bands: of the kind `heart`.
        network: of the kind `transformers`.
    """
    root = Path(_folder().name)
    if kind == "heart":
        file: Path = tiny_checkpoints.heart(root / f"heart{bands}.safetensors", bands=bands)[0]
    elif kind == "m2d":
        file = tiny_checkpoints.m2d(root)[0]
    else:
        file = tiny_checkpoints.transformers(root / network, network)[0]
    section = {"kind": kind, "weights": str(file), "sha256": weight_files.hash_of(file), "layers": ["input"]}
    return encoders.spec("tuned", tiny_checkpoints.with_sections(PARAMS, {"tuned": section}))


def with_encoder(name: str, targets: Targets, bands: int = 12) -> Targets:
    """Targets for the head `name`: with an encoder, where it trains one."""
    return replace(targets, encoder=spec("heart", bands).to_json()) if name == "finetune" else targets


def described(found: EncoderSpec) -> dict[str, Any]:
    """What `encoder.json` says of an encoder."""
    made = encoders.load_once(found)
    return {**encoders.describe(found, made), "frame_rate_hz": made.frame_rate_hz, "dim": made.dim}
