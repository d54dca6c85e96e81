"""A language model that hears describes a sound: a list of `[frames, mels]` -> log-probabilities `[cases, classes]`.

The frames are those of Qwen2-Audio's layer `input`. Heart states are learnt first, and the cleanest beats of each
recording are heard (`describe_beats`). Then the model is taught by instruction: it is asked for the task's label with
the words that are allowed (`describe_text`), and learns to answer the right one. The loss is that of the answer's
tokens alone. Only adapters learn (`describe_network`).

A class's probability is the likelihood of its word among all allowed words. It is the sum over the word's tokens and
the one that ends it, which is what training maximises; divided by the number of tokens it would be no probability, and
would favour long words. So what follows is as for every other head. A class without a case in training is no word.
Each task is taught by itself, because a training set holds the labels of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartml.models.heads import (
    FittedHead,
    HeadPrediction,
    HeadState,
    Hyperparameters,
    Inputs,
    Suggester,
    Targets,
    describe_beats,
    describe_memory,
    describe_text,
)
from heartml.models.heads.describe_beats import Beats, Frames
from heartml.models.heads.describe_network import IN_USE, Answering, shared
from heartml.models.heads.describe_params import DescribeError, DescribeParams
from heartml.models.heads.log_probabilities import SMALLEST, normalise
from heartml.models.heads.network_training import Recipe, Tuning, train

NAME = "describe"
TAKES: Literal["vectors", "frames"] = "frames"
PARAMS = DescribeParams

_SEGMENTER = "segmenter."
_KIND = "transformers"
told_in_advance = describe_memory.told_in_advance


@dataclass(frozen=True)
class FittedDescribe:
    """Adapters, and what is asked.

    Attributes:
        adapters: see `Answering.stored`.
        shape: `section` of the language model, `lora_rank`, `lora_alpha`, `adapt_audio`, `prompt`, `words`, `present`
            (the class of each word), `classes`, `rate_hz`, `cycles`, `longest`.
    """

    adapters: Mapping[str, NDArray[Any]]
    shape: Mapping[str, Any]
    beats: Beats

    def predict_proba(self, inputs: Inputs) -> HeadPrediction:
        """List of `[frames, mels]` -> log-probabilities `[cases, classes]`; one recording at a time."""
        recordings = cast(Sequence[Frames], inputs)
        with IN_USE, torch.inference_mode():
            network = _network(self.shape)
            network.restore(self.adapters)
            found = np.stack([self._likelihoods(network, one) for one in recordings])
        scores = np.full((len(found), int(self.shape["classes"])), -np.inf)
        scores[:, list(self.shape["present"])] = found
        return HeadPrediction(normalise(scores, SMALLEST))

    def _likelihoods(self, network: Answering, recording: Frames) -> NDArray[np.float64]:
        """Natural logarithm of the likelihood of each word `[words]`."""
        words = list(self.shape["words"])
        found: Tensor = network([self.beats.of(recording)] * len(words), str(self.shape["prompt"]), words)
        return np.asarray(found.double().cpu().numpy())

    def state(self) -> HeadState:
        """Adapters, the segmenter, and the shape; the language model is named by its hash."""
        beats = self.beats.state()
        arrays = {**self.adapters, **{f"{_SEGMENTER}{name}": array for name, array in beats.arrays.items()}}
        return HeadState(arrays, {**self.shape, "segmenter": dict(beats.scalars)})


def space(trial: Suggester) -> Hyperparameters:
    """The learning rate of the adapters."""
    return {"rate": trial.suggest_float("rate", 1e-5, 1e-3, log=True)}


def fit(inputs: Inputs, targets: Targets, hyperparameters: Hyperparameters, seed: int) -> FittedHead:
    """Hyperparameters: those of `DescribeParams` and of a `Recipe`; see `Head.fit`.

    Raises:
        DescribeError: the frames are not those of a language model, or it is not known what is predicted.
        WeightsError: its weights are not here.
    """
    frames = [np.asarray(one, np.float32) for one in inputs]
    shape = shape_of(targets, hyperparameters)
    with IN_USE:
        network = _network(shape)
        shape["longest"] = network.frames
        beats = describe_beats.fit(frames, targets, hyperparameters, network.frames, seed)
        sounds = [beats.of(one) for one in frames]
        train(lambda: _redrawn(network), None, targets, Recipe.of(hyperparameters), seed, tuning=Tuning(
            lambda _network: [(network.learning(), 1.0)], loss=_loss_of(sounds, targets, shape)))
        return FittedDescribe(network.stored(), shape, beats)


def load(state: HeadState) -> FittedHead:
    """The head that `state` describes; the language model is read when it is first asked."""
    shape = dict(state.scalars)
    segmenter: Any = shape.pop("segmenter")
    own = {name.removeprefix(_SEGMENTER): np.array(array)
           for name, array in state.arrays.items() if name.startswith(_SEGMENTER)}
    adapters = {name: np.array(array) for name, array in state.arrays.items() if not name.startswith(_SEGMENTER)}
    numbers: Any = shape
    beats = describe_beats.load(HeadState(own, segmenter), float(numbers["rate_hz"]), int(numbers["cycles"]),
                                int(numbers["longest"]))
    return FittedDescribe(adapters, shape, beats)


def shape_of(targets: Targets, hyperparameters: Hyperparameters) -> dict[str, Any]:
    """What is asked and of which network, see `FittedDescribe`; without `longest`.

    Raises:
        DescribeError: the frames are not those of a language model, or it is not known what is predicted.
    """
    if targets.task is None:
        raise DescribeError("the head describe needs a task, whose classes are the words of its answers")
    present = np.unique(targets.labels).tolist()
    words = [targets.task.classes[number] for number in present]
    return {"section": section_of(targets.encoder), "prompt": describe_text.prompt(targets.task, words),
            "words": words, "present": present, "classes": targets.classes, "rate_hz": targets.frame_rate_hz,
            **{name: hyperparameters[name] for name in ("lora_rank", "lora_alpha", "adapt_audio", "cycles")}}


def section_of(encoder: Mapping[str, Any] | None) -> dict[str, str]:
    """`weights` and `sha256` of an encoder whose frames are what a language model takes.

    Raises:
        DescribeError: its frames are others.
    """
    kind = encoder.get("kind", encoder["name"]) if encoder else None
    section = encoder["sections"].get(kind, {}) if encoder and kind == _KIND else {}
    if list(section.get("layers", ())) != ["input"]:
        named = encoder["name"] if encoder else "an encoder"
        raise DescribeError(f"the head describe needs frames that are the input of a Qwen2-Audio, and those of {named} "
                            f"are none. Declare a name for that: encoder_parameters.NAME: {{kind: {_KIND}, weights: "
                            "..., sha256: ..., layers: [input]}, and write it in "
                            "search.network_parameters.describe.encoders")
    return {"weights": str(section["weights"]), "sha256": str(section["sha256"])}


def _network(shape: Mapping[str, Any]) -> Answering:
    network = shared(shape["section"], int(shape["lora_rank"]), int(shape["lora_alpha"]), bool(shape["adapt_audio"]))
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def _redrawn(network: Answering) -> Answering:
    network.redraw()
    return network


def _loss_of(sounds: Sequence[Frames], targets: Targets, shape: Mapping[str, Any]) -> Any:
    """The loss of a batch: minus the weighted mean of the log-likelihoods of the right answers, see `Tuning.loss`."""
    assert targets.task is not None
    right = [targets.task.classes[label] for label in targets.labels]

    def loss(network: nn.Module, rows: NDArray[np.int64], weights: Tensor) -> Tensor:
        found: Tensor = network([sounds[row] for row in rows], shape["prompt"], [right[row] for row in rows])
        own = weights[torch.from_numpy(targets.labels[rows]).to(weights.device)]
        return -(own * found).sum() / own.sum()

    return loss
