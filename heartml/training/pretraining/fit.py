"""Supervised pre-training: labels of recordings and classes of frames teach a network.

In: a `Corpus`. Out: the trained network and its loss curves. The loop that can be killed is `loop`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from heartml.core.config import PretrainParams
from heartml.models.encoders.heart import FRAME_CLASSES, HeartTrunk
from heartml.models.heads.augmentation import Crops
from heartml.models.heads.network_training import centred
from heartml.models.heads.noise import Noise
from heartml.training.pretraining import loop
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.loop import Course, Hooks
from heartml.training.pretraining.network import PretrainingNetwork
from heartml.training.pretraining.targets import UNKNOWN

NOISE = Noise(0.5, 0.0, 30.0)    # as `search.training`
_CHUNK_S = 5.1
_BALANCE = 0.75                  # class weights: inverse frequency to this power
_SMOOTHING = 0.05
_DECAY = 0.03
FRAMES = "frames"                # name of the frame loss in the curves


@dataclass(frozen=True)
class Teacher:
    """What is drawn in a step, and the losses.

    Attributes:
        crops: of the corpus, with classes of frames.
        weights: target -> weight of each class.
        params: batch, seed, and weights of the losses.
        key: tells the draws of several methods with one seed apart.
    """

    network: PretrainingNetwork
    crops: Crops
    labels: Mapping[str, NDArray[np.int64]]
    weights: Mapping[str, Tensor]
    pools: Pools
    params: PretrainParams
    key: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the losses."""
        return (FRAMES, *self.network.outputs)

    def losses_of(self, step: int) -> dict[str, Tensor]:
        """The losses of one batch: of the frames, and of every target of which a recording of it has a label."""
        rng, device = np.random.default_rng([self.params.seed, self.key, step]), loop.device_of(self.network)
        rows = self.pools.draw(self.params.batch, rng)
        crops, classes = self.crops.draw(rows, rng)
        assert classes is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            outputs, frames = self.network(torch.from_numpy(crops).transpose(1, 2).to(device))
        found = {FRAMES: self.params.frame_weight * frame_loss(frames, classes)}
        for name, logits in outputs.items():
            labels = torch.from_numpy(self.labels[name][rows])
            if bool((labels != UNKNOWN).any()):
                found[name] = (1.0 if name == "murmur" else self.params.other_weight) * functional.cross_entropy(
                    logits, labels.to(device), self.weights[name].to(device), ignore_index=UNKNOWN,
                    label_smoothing=_SMOOTHING)
        return found


def train(
    corpus: Corpus, params: PretrainParams, checkpoint: Path, stop_at: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[PretrainingNetwork, dict[str, list[float]]]:
    """Train the heart encoder for `params.steps` steps; a `checkpoint` that is there is continued.

    Args:
        checkpoint: must be the file of a training with the same corpus and parameters, see `loop.run`.
        stop_at: end after this step, as if killed there.
        say: gets a line with the step and the time left whenever a checkpoint is written.

    Returns:
        The network, and name of a loss -> points of its curve, one for each `loop.CURVE_STEPS` steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        network = PretrainingNetwork(HeartTrunk(corpus.frames[0].shape[1], params.channels, params.dropout),
                                     params.channels, params.dropout, classes_of(corpus))
    crops = Crops.of((centred(one) for one in corpus.frames), corpus.targets, 1.0, _CHUNK_S, NOISE)
    teacher = Teacher(network, crops, corpus.labels, class_weights(corpus), Pools.of(corpus, params.simulated_share),
                      params, 1)
    state = loop.begin(network, params.rate, _DECAY)
    loop.run(state, teacher.losses_of, Course(params.steps, params.rate, teacher.names, params.checkpoint_s),
             checkpoint, Hooks(say=say), stop_at)
    return network.eval(), state.curves


def classes_of(corpus: Corpus) -> dict[str, int]:
    """Target -> number of its classes."""
    return {name: int(found.max()) + 1 for name, found in sorted(corpus.labels.items())}


def class_weights(corpus: Corpus) -> dict[str, Tensor]:
    """Target -> weight of each of its classes, by its inverse frequency."""
    found = {}
    for name, labels in corpus.labels.items():
        counts = np.bincount(labels[labels != UNKNOWN])
        share = (counts.sum() / (len(counts) * np.maximum(counts, 1))) ** _BALANCE
        found[name] = torch.from_numpy(share).float()
    return found


def frame_loss(logits: Tensor, classes: NDArray[np.int8]) -> Tensor:
    """Cross-entropy of `[batch, 6, n]` for classes `[batch, frames]`, where they are known; else zero.

    Args:
        logits: of every second, third, ... frame.
    """
    every = round(classes.shape[1] / logits.shape[2])
    known = torch.from_numpy(classes[:, ::every].astype(np.int64)).flatten().to(logits.device)
    if bool((known == UNKNOWN).all()):
        return logits.sum() * 0.0
    flat = logits.transpose(1, 2).reshape(-1, FRAME_CLASSES)
    return functional.cross_entropy(flat, known, ignore_index=UNKNOWN)
