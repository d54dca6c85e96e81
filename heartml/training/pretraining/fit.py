"""The training loop of the heart encoder, which can be killed at any moment and goes on to the same bytes.

In: a `Corpus`. Out: the trained network and its loss curves. What a step draws depends on the seed and the number of
the step alone. So a checkpoint is the network, the optimiser's moments, the step and the curves so far. It is written
under a temporary name and renamed, as safetensors: no pickle is written or read.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import PretrainParams
from heartml.core.system.files import replacing
from heartml.core.system.progress import track
from heartml.models.encoders.heart import FRAME_CLASSES
from heartml.models.heads import Targets
from heartml.models.heads.augmentation import Crops
from heartml.models.heads.network_training import centred
from heartml.models.heads.noise import Noise
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.network import PretrainingNetwork
from heartml.training.pretraining.targets import UNKNOWN

CURVE_STEPS = 25                 # a point of a curve is the mean over so many steps
_NOISE = Noise(0.5, 0.0, 30.0)   # as `search.training`
_BALANCE = 0.75                  # class weights: inverse frequency to this power
_SMOOTHING = 0.05
_CLIP = 5.0
_DECAY = 0.03
_WARM_SHARE = 0.25
FRAMES = "frames"                # name of the frame loss in the curves


@dataclass
class Progress:
    """A training between two steps.

    Attributes:
        step: number of steps done.
        curves: name of a loss -> its means over `CURVE_STEPS` steps each.
        sums: of the steps since the last point.
    """

    network: PretrainingNetwork
    optimiser: torch.optim.AdamW
    step: int
    curves: dict[str, list[float]]
    sums: dict[str, float]


def train(
    corpus: Corpus, params: PretrainParams, checkpoint: Path, stop_at: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[PretrainingNetwork, dict[str, list[float]]]:
    """Train for `params.steps` steps; a `checkpoint` that is there is continued.

    Args:
        checkpoint: must be the file of a training with the same corpus and parameters. It is written every
            `params.checkpoint_s` seconds, and at the end.
        stop_at: end after this step, as if killed there.
        say: gets a line with the step and the time left whenever a checkpoint is written.

    Returns:
        The network, and name of a loss -> points of its curve, one for each `CURVE_STEPS` steps.
    """
    state = _begin(corpus, params)
    if checkpoint.exists():
        _restore(state, checkpoint)
    source, weights = _crops(corpus), _class_weights(corpus)
    rows = np.flatnonzero(~corpus.simulated), np.flatnonzero(corpus.simulated)
    written = started = time.monotonic()
    last = min(params.steps, stop_at or params.steps)
    first = state.step
    for step in track(range(first, last), "pretrain", last - first):
        _step(state, source, corpus, weights, _draw(rows, params, np.random.default_rng([params.seed, 1, step])),
              params)
        if time.monotonic() - written > params.checkpoint_s or state.step == last:
            _save(state, checkpoint)
            written = time.monotonic()
            left_s = (written - started) / (state.step - first) * (params.steps - state.step)
            say(f"pretrain: step {state.step} of {params.steps}, about {math.ceil(left_s / 60)} min left")
    return state.network.eval(), state.curves


def _begin(corpus: Corpus, params: PretrainParams) -> Progress:
    classes = {name: int(found.max()) + 1 for name, found in sorted(corpus.labels.items())}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        network = PretrainingNetwork(corpus.frames[0].shape[1], params.channels, params.dropout, classes)
    optimiser = torch.optim.AdamW(network.parameters(), params.rate, weight_decay=_DECAY)
    return Progress(network.train(), optimiser, 0, {}, {})


def _crops(corpus: Corpus) -> Crops:
    count = len(corpus.frames)
    targets = Targets(np.zeros(count, np.int64), 1, np.arange(count), corpus.classes, corpus.frame_rate_hz)
    return Crops.of((centred(one) for one in corpus.frames), targets, 1.0, 5.1, _NOISE)


def _class_weights(corpus: Corpus) -> dict[str, Tensor]:
    found = {}
    for name, labels in corpus.labels.items():
        counts = np.bincount(labels[labels != UNKNOWN])
        share = (counts.sum() / (len(counts) * np.maximum(counts, 1))) ** _BALANCE
        found[name] = torch.from_numpy(share).float()
    return found


def _draw(rows: tuple[NDArray[np.int64], NDArray[np.int64]], params: PretrainParams, rng: np.random.Generator
          ) -> tuple[NDArray[np.int64], np.random.Generator]:
    """The recordings of one step: of the simulated ones their share, where there are any of both kinds."""
    real, made = rows
    share = params.simulated_share if len(real) and len(made) else float(len(made) > 0)
    count = round(params.batch * share)
    drawn = [rng.choice(of, size) for of, size in ((real, params.batch - count), (made, count)) if size]
    return np.concatenate(drawn), rng


def _step(state: Progress, source: Crops, corpus: Corpus, weights: Mapping[str, Tensor],
          drawn: tuple[NDArray[np.int64], np.random.Generator], params: PretrainParams) -> None:
    rows, rng = drawn
    for group in state.optimiser.param_groups:
        group["lr"] = params.rate * rate_share(state.step, params.steps)
    crops, classes = source.draw(rows, rng)
    assert classes is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        outputs, frames = state.network(torch.from_numpy(crops).transpose(1, 2))
    losses = {FRAMES: params.frame_weight * frame_loss(frames, classes)}
    for name, logits in outputs.items():
        labels = torch.from_numpy(corpus.labels[name][rows])
        if bool((labels != UNKNOWN).any()):
            losses[name] = (1.0 if name == "murmur" else params.other_weight) * functional.cross_entropy(
                logits, labels, weights[name], ignore_index=UNKNOWN, label_smoothing=_SMOOTHING)
    state.optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _CLIP)
    state.optimiser.step()
    _record(state, losses)


def _record(state: Progress, losses: Mapping[str, Tensor]) -> None:
    for name, loss in losses.items():
        state.sums[name] = state.sums.get(name, 0.0) + float(loss.detach())
    state.step += 1
    if state.step % CURVE_STEPS == 0:
        for name in (FRAMES, *state.network.outputs):
            state.curves.setdefault(name, []).append(state.sums.get(name, 0.0) / CURVE_STEPS)
        state.sums = {}


def frame_loss(logits: Tensor, classes: NDArray[np.int8]) -> Tensor:
    """Cross-entropy of `[batch, 6, frames / 2]` for classes `[batch, frames]`, where they are known; else zero."""
    known = torch.from_numpy(classes[:, ::2].astype(np.int64)).flatten()
    if bool((known == UNKNOWN).all()):
        return logits.sum() * 0.0
    flat = logits.transpose(1, 2).reshape(-1, FRAME_CLASSES)
    return functional.cross_entropy(flat, known, ignore_index=UNKNOWN)


def rate_share(step: int, steps: int) -> float:
    """Share of the learning rate at a step: up from a 25th and down to nothing, both as half a cosine.

    One cycle after Smith and Topin, Super-convergence, 2019.

    >>> [round(rate_share(step, 100), 2) for step in (0, 25, 100)]
    [0.04, 1.0, 0.0]
    """
    warm = _WARM_SHARE * steps
    if step < warm:
        return 1 - 0.96 * 0.5 * (1 + math.cos(math.pi * step / warm))
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))


def _save(state: Progress, checkpoint: Path) -> None:
    from safetensors.torch import save

    tensors = {f"network.{name}": tensor.clone().contiguous() for name, tensor in state.network.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        for key, value in state.optimiser.state[parameter].items():
            tensors[f"optimiser.{key}.{name}"] = value.clone().contiguous()
    words = {"step": state.step, "curves": state.curves, "sums": state.sums}
    with replacing(checkpoint) as temporary:
        temporary.write_bytes(save(tensors, {"progress": json.dumps(words)}))


def _restore(state: Progress, checkpoint: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = load_file(checkpoint)
    with safe_open(checkpoint, "pt") as opened:
        words = json.loads(opened.metadata()["progress"])
    state.network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()
                                   if name.startswith("network.")})
    for name, parameter in state.network.named_parameters():
        state.optimiser.state[parameter] = {key: tensors[f"optimiser.{key}.{name}"]
                                            for key in ("step", "exp_avg", "exp_avg_sq")
                                            if f"optimiser.{key}.{name}" in tensors}
    state.step, state.curves, state.sums = words["step"], words["curves"], words["sums"]
