"""Fine-tuning: a pre-trained encoder and a head learn together, a list of `[frames, dim]` -> log-probabilities.

The frames are those of the encoder's layer `input`, a spectrogram or the samples of a waveform, so that the network
that made other frames before now learns itself (`heartml.models.trunks`). It is trained on chunks and its logits are
averaged over the chunks of a recording. Which layers learn, and how fast, is in `finetune_params`.

A fitted head keeps the weights that learnt, and names its encoder. Weights that stayed as they were are read from the
encoder's file, as those of other pre-trained encoders.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from heartml.models.heads import (
    FittedHead,
    HeadPrediction,
    HeadState,
    Hyperparameters,
    Inputs,
    Suggester,
    Targets,
)
from heartml.models.heads import finetune_memory as memory
from heartml.models.heads.finetune_chunks import Chunks
from heartml.models.heads.finetune_memory import Memory
from heartml.models.heads.finetune_network import FinetuneNetwork, build, groups, logits_of, restore, stored
from heartml.models.heads.finetune_params import FinetuneParams
from heartml.models.heads.network_training import Recipe, Tuning, predict_chunks, split_chunks, train
from heartml.models.trunks import TrunkError

NAME = "finetune"
TAKES: Literal["vectors", "frames"] = "frames"
PARAMS = FinetuneParams

_SHAPE = ("frozen_layers", "lora_rank", "lora_alpha", "from_scratch")


@dataclass(frozen=True)
class FittedFinetune:
    """A trained network and the values that are needed to build it again.

    Attributes:
        shape: see `finetune_network.build`; and `size`, frames of a chunk; `inference_frames`, of a chunk that is
            predicted, where recordings are not predicted whole; `epoch` and `score`, which was chosen, and why.
    """

    network: FinetuneNetwork
    shape: Mapping[str, Any]

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, dim]` -> log-probabilities `[cases, classes]`."""
        recordings = cast(Sequence[NDArray[np.float32]], inputs)
        return HeadPrediction(np.stack([self._predict_recording(one) for one in recordings]))

    def _predict_recording(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        size = int(self.shape["size"])
        whole = np.tile(frames, (-(-size // len(frames)), 1))[: max(size, len(frames))]     # as in training
        return predict_chunks(self.network, split_chunks(whole, self.shape.get("inference_frames")))[0]

    def state(self) -> HeadState:
        """The weights that learnt, and the shape."""
        kept = stored(self.network, whole=bool(self.shape["from_scratch"]))
        return HeadState({name: tensor.cpu().numpy() for name, tensor in kept.items()}, dict(self.shape))


def space(trial: Suggester) -> Hyperparameters:
    """The learning rate; a recipe has its own, which is then used."""
    return {"rate": trial.suggest_float("rate", 1e-5, 3e-3, log=True)}


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: those of `FinetuneParams` and of a `Recipe`; see `Head.fit`.

    Raises:
        TrunkError: the encoder cannot be trained, or its frames are no input.
    """
    frames = cast(Sequence[NDArray[np.float32]], inputs)
    held = _validation(targets, hyperparameters, seed)
    learns = np.flatnonzero(~held)
    recipe, every = _recipe(hyperparameters, len(learns))
    shape = shape_of(targets, hyperparameters)
    chunks = Chunks.of(frames, shape["size"], int(hyperparameters["mask_bands"]), int(hyperparameters["mask_frames"]))
    choice = _Choice(chunks, np.flatnonzero(held), targets.labels, str(hyperparameters["choose_by"]), recipe.batch)
    tuning = Tuning(lambda network: groups(network, float(hyperparameters["layer_decay"])),
                    float(hyperparameters["least_rate"]), every, choice.look if held.any() else None)
    own = replace(targets, labels=targets.labels[learns], groups=targets.groups[learns])
    network = train(lambda: build(shape), _Some(chunks, learns), own, recipe, seed, tuning=tuning,
                    fitted=lambda network: FittedFinetune(network, shape))
    return FittedFinetune(network, {**shape, **choice.put_back(network)})


def load(state: HeadState) -> FittedHead:
    """The network that `state` describes; the weights of its encoder are needed."""
    shape = dict(state.scalars)
    with torch.random.fork_rng(devices=[]):
        network = build(shape)
    restore(network, {name: torch.from_numpy(np.array(array)) for name, array in state.arrays.items()})
    return FittedFinetune(network.eval(), shape)


def shape_of(targets: Targets, hyperparameters: Hyperparameters) -> dict[str, Any]:
    """What the network is built from, see `FittedFinetune`.

    Raises:
        TrunkError: the encoder is not known, or its frames are not its input.
    """
    spec: Any = targets.encoder
    section = spec["sections"].get(spec.get("kind", spec["name"]), {}) if spec else {}
    if list(section.get("layers", ())) != ["input"]:
        named = spec["name"] if spec else "an encoder"
        raise TrunkError(f"finetune needs frames that are the input of a network, and those of {named} are none. "
                         f"Declare a name for that: encoder_parameters.{named}_input: {{kind: ..., weights: ..., "
                         "sha256: ..., layers: [input]}, and write it in search.network_parameters.finetune.encoders")
    kept = ("name", "kind", "audio", "sections")
    rate_hz, seconds = targets.frame_rate_hz, hyperparameters.get("inference_chunk_s")
    return {"encoder": {key: spec[key] for key in kept if key in spec}, "classes": targets.classes,
            "size": max(1, round(float(hyperparameters["chunk_s"]) * rate_hz)),
            **({} if seconds is None else {"inference_frames": max(1, round(float(seconds) * rate_hz))}),
            **{key: hyperparameters[key] for key in _SHAPE}}


def memory_needed(encoder: Mapping[str, Any], classes: int, hyperparameters: Hyperparameters) -> Memory:
    """What one training needs, before it starts.

    Args:
        encoder: its spec as JSON, with `dim` and `frame_rate_hz`, as `encoder.json` has it.
    """
    nobody = np.zeros(0, np.int64)
    targets = Targets(nobody, classes, nobody, None, float(encoder["frame_rate_hz"]), encoder)
    shape = shape_of(targets, hyperparameters)
    with torch.random.fork_rng(devices=[]):
        network = build(shape)
    return memory.needed(network, shape["size"], int(encoder["dim"]), int(hyperparameters["batch"]),
                         str(hyperparameters["optimiser"]))


def told_in_advance(encoder: Mapping[str, Any], classes: int, hyperparameters: Hyperparameters, at_once: int) -> str:
    """One line on the memory of so many trainings at once.

    Raises:
        MemoryRefused: they do not fit, and that is checked.
    """
    needed, available = memory_needed(encoder, classes, hyperparameters), memory.free()
    if hyperparameters["check_memory"]:
        memory.check(needed, at_once, available)
    return (f"finetune on {encoder['name']}: {needed.words} for each of {at_once} trainings at once; "
            f"{available:.1f} GB are free")


def _recipe(hyperparameters: Hyperparameters, cases: int) -> tuple[Recipe, int]:
    """The recipe with its number of steps, and the number of steps in an epoch."""
    every = max(1, cases // (int(hyperparameters["batch"]) * int(hyperparameters["accumulation"])))
    steps = hyperparameters.get("steps") or int(hyperparameters["epochs"]) * every
    return Recipe.of({**hyperparameters, "steps": steps}), every


def _validation(targets: Targets, hyperparameters: Hyperparameters, seed: int) -> NDArray[np.bool_]:
    """Which cases `[cases]` are not trained on: whole groups. None where the last epoch is kept."""
    if hyperparameters["choose_by"] == "last":
        return np.zeros(len(targets.labels), bool)
    if targets.validation is not None and targets.validation.any() and not targets.validation.all():
        return targets.validation
    names = np.unique(targets.groups)
    count = min(len(names) - 1, max(1, round(float(hyperparameters["validation_share"]) * len(names))))
    return np.isin(targets.groups, np.random.default_rng([seed, 1]).permutation(names)[:count])


@dataclass(frozen=True)
class _Some:
    """The chunks of some cases, as a `Source`."""

    chunks: Chunks
    cases: NDArray[np.int64]

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.float32], None]:
        return self.chunks.draw(self.cases[rows], rng)


class _Choice:
    """Looks at the network after every epoch, and keeps the best one; the first of equals.

    Args:
        cases: numbers of the validation cases.
        labels: of all cases.
    """

    def __init__(self, chunks: Chunks, cases: NDArray[np.int64], labels: NDArray[np.int64], by: str, batch: int
                 ) -> None:
        self.chunks, self.cases, self.labels, self.by, self.batch = chunks, cases, labels, by, batch
        self.epoch, self.best, self.chosen = 0, -math.inf, 0
        self.kept: dict[str, torch.Tensor] = {}

    def look(self, network: torch.nn.Module) -> None:
        """See `Tuning.after`."""
        assert isinstance(network, FinetuneNetwork)
        self.epoch += 1
        logits = logits_of(network, torch.from_numpy(self.chunks.middle(self.cases)), self.batch)
        score = _score(logits, torch.from_numpy(self.labels[self.cases]), self.by)
        if score > self.best:
            self.best, self.chosen, self.kept = score, self.epoch, stored(network, whole=False)

    def put_back(self, network: FinetuneNetwork) -> dict[str, Any]:
        """Give the network the weights of the best epoch; what to say of the choice."""
        if not self.kept:
            return {}
        restore(network, self.kept)
        return {"epoch": self.chosen, "score": self.best}


def _score(logits: torch.Tensor, labels: torch.Tensor, by: str) -> float:
    """Accuracy, or the mean log-likelihood; more is better."""
    if by == "accuracy":
        return float((logits.argmax(1) == labels).double().mean())
    return float(torch.log_softmax(logits.double(), 1).gather(1, labels[:, None]).mean())
