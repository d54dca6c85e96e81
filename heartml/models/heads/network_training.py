"""How every network head is trained, and how it hears a recording: one loop, one set of numbers.

A network maps `[batch, dim, frames]` to logits `[batch, classes]` and, where it has something to say about frames, to
logits `[batch, k, frames']`. Its numbers: `search.training` in `params.yaml`, its own section there, and Optuna's.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import Count, Positive, TrainingParams
from heartml.models.heads import Hyperparameters, Targets
from heartml.models.heads.noise import Noise

SHORTEST_FRAMES = 100     # shorter recordings are repeated to this: the receptive field of `sequence` is 130

Network = TypeVar("Network", bound=nn.Module)
FrameLoss = Callable[[Tensor, NDArray[np.int8], NDArray[np.int64]], Tensor]


class Recipe(TrainingParams):
    """The numbers of one training; one that is missing among a head's numbers is null in `params.yaml`."""

    steps: Count
    batch: Count
    rate: Positive

    @classmethod
    def of(cls, hyperparameters: Hyperparameters) -> Self:
        """The recipe among a head's numbers."""
        return cls.model_validate({key: hyperparameters.get(key) for key in cls.model_fields})

    def noise(self) -> Noise | None:
        """What is added to crops, if anything."""
        return Noise(self.noise_share, self.noise_snr_low_db, self.noise_snr_high_db) if self.noise_share else None

    def inference_frames(self, frame_rate_hz: float) -> int | None:
        """`inference_chunk_s` in frames."""
        return None if self.inference_chunk_s is None else max(1, round(self.inference_chunk_s * frame_rate_hz))


class Source(Protocol):
    """Where batches come from."""

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
        """One picture of each recording, `[rows, frames, dim]`, and heart states `[rows, frames]` where known."""
        ...


def train(
    build: Callable[[], Network], source: Source, targets: Targets, recipe: Recipe, seed: int,
    frame_loss: FrameLoss | None = None,
) -> Network:
    """A network trained `recipe.steps` steps, on the GPU where there is one.

    Torch's global generator is left as it was; the same arguments give the same bytes.

    Args:
        frame_loss: logits of frames, states and labels -> loss, added to the one of the recordings.
    """
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.manual_seed(seed)
        network = build().to("cuda" if torch.cuda.is_available() else "cpu")
        task = _Task(source, targets.labels, _weights(network, targets, recipe), recipe, frame_loss)
        _loop(network.train(), task, np.random.default_rng(seed))
    return network.eval()


@dataclass(frozen=True)
class _Task:
    source: Source
    labels: NDArray[np.int64]
    weights: Tensor
    recipe: Recipe
    frame_loss: FrameLoss | None


def _weights(network: nn.Module, targets: Targets, recipe: Recipe) -> Tensor:
    weights = torch.from_numpy(class_weights(targets, recipe.class_weight_power)).float()
    return weights.to(next(network.parameters()).device)


def _loop(network: nn.Module, task: _Task, rng: np.random.Generator) -> None:
    recipe = task.recipe
    optimiser = _optimiser(network, recipe)
    schedule = _schedule(optimiser, recipe)
    batches = _batches(len(task.labels), recipe.batch, recipe.steps * recipe.accumulation, rng)
    for _ in range(recipe.steps):
        optimiser.zero_grad(set_to_none=True)
        for rows in islice(batches, recipe.accumulation):
            loss = _loss(network, task, rows, rng) / recipe.accumulation
            loss.backward()  # type: ignore[no-untyped-call]
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
        optimiser.step()
        schedule.step()


def _loss(network: nn.Module, task: _Task, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Of one batch; with mix-up the two recordings' losses are weighed as their frames are (Zhang et al., 2018)."""
    device = next(network.parameters()).device
    x, states = task.source.draw(rows, rng)
    share, partner = 1.0, np.arange(len(rows))
    if task.recipe.mixup:
        share, partner = float(rng.beta(task.recipe.mixup, task.recipe.mixup)), rng.permutation(len(rows))
        x = (share * x + (1 - share) * x[partner]).astype(np.float32)
    labels = task.labels[rows]
    half = task.recipe.mixed_precision == "auto" and device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        said = network(torch.from_numpy(x).to(device).transpose(1, 2))
        own = _one_loss(said, labels, states, task)
        if share == 1.0:
            return own
        other = _one_loss(said, labels[partner], None if states is None else states[partner], task)
        return share * own + (1 - share) * other


def _one_loss(
    said: tuple[Tensor, Tensor | None], labels: NDArray[np.int64], states: NDArray[np.int8] | None, task: _Task
) -> Tensor:
    logits, frame_logits = said
    loss = classification_loss(logits, torch.from_numpy(labels).to(logits.device), task.weights, task.recipe)
    if states is None or task.frame_loss is None or frame_logits is None:
        return loss
    return loss + task.frame_loss(frame_logits, states, labels)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor, recipe: TrainingParams) -> Tensor:
    """Weighted mean over `[batch, classes]`: cross-entropy, or focal (Lin et al., 2017), the same at gamma 0."""
    if recipe.loss == "cross_entropy":
        return functional.cross_entropy(logits, labels, weights, label_smoothing=recipe.label_smoothing)
    each = functional.cross_entropy(logits, labels, weights, label_smoothing=recipe.label_smoothing, reduction="none")
    missed = 1 - torch.softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    return (missed**recipe.focal_gamma * each).sum() / weights[labels].sum()


def class_weights(targets: Targets, power: float) -> NDArray[np.float64]:
    """Inverse class frequency to `power`: `[classes]`."""
    counts = np.bincount(targets.labels, minlength=targets.classes)
    return np.asarray((len(targets.labels) / (targets.classes * np.maximum(counts, 1))) ** power)


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights, decay = network.parameters(), recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, recipe.rate, momentum=recipe.sgd_momentum, weight_decay=decay)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, recipe.rate, weight_decay=decay)
    return torch.optim.AdamW(weights, recipe.rate, weight_decay=decay)


def _schedule(optimiser: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.LRScheduler:
    """One cycle (Smith and Topin, 2019), or a linear warm-up before a half cosine or a constant rate."""
    if recipe.schedule == "one_cycle":
        total = recipe.steps + 1
        warm = recipe.warmup_share if recipe.warmup_share * total > 1 else 0.0     # torch divides by what is less
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=total, pct_start=warm)
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, recipe))


def rate_share(step: int, recipe: Recipe) -> float:
    """Share of the rate at a step that counts from zero, for the schedules `cosine` and `constant`."""
    warm = recipe.warmup_share * recipe.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / (recipe.steps - warm))))


def _batches(cases: int, batch: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`count` batches of rows; every case once before any comes again."""
    passes = -(-count * batch // cases)
    order = np.concatenate([rng.permutation(cases) for _ in range(passes)])
    return iter([order[i * batch : (i + 1) * batch] for i in range(count)])


def centred(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the recording's mean over time and bands."""
    return np.asarray(frames - frames.mean(), np.float32)


def parts(frames: NDArray[np.float32], size: int | None) -> list[NDArray[np.float32]]:
    """`[frames, dim]` cut into parts of nearly `size` frames, nearly equal; each begins at an even frame."""
    count = 1 if size is None else max(1, round(len(frames) / size))
    bounds = [2 * round(len(frames) * part / count / 2) for part in range(count)]
    return [part for part in np.split(frames, bounds[1:]) if len(part)]


def repeated(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gone round until it is long enough for a network."""
    return np.tile(frames, (-(-SHORTEST_FRAMES // len(frames)), 1))


def ask(
    network: nn.Module, pictures: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
    """A recording's parts `[frames, dim]` -> log-probabilities `[classes]` of their mean logits.

    And posteriors of each part's frames, `[frames', k]`, of a network that speaks of frames.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        said = [network(torch.from_numpy(one.T[None].copy()).to(device)) for one in pictures]
        logits = torch.stack([logits[0].double() for logits, _ in said]).mean(0)
        log_p = torch.log_softmax(logits, dim=-1).cpu().numpy()
        frames = [torch.softmax(of_frames[0], dim=0).T.cpu().numpy() for _, of_frames in said if of_frames is not None]
    return cast(NDArray[np.float64], log_p), frames
