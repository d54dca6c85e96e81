"""Training and prediction of every network head: one loop, one set of hyperparameters.

A network maps `[batch, dim, frames]` to logits `[batch, classes]` and, where it also classifies frames, to logits
`[batch, k, frames']`. Its hyperparameters come from `search.training` in `params.yaml`, from its own section there, and
from Optuna.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heartml.core.config import Count, Positive, TrainingParams
from heartml.models.heads import FittedHead, Hyperparameters, Targets
from heartml.models.heads.noise import Noise

SHORTEST_FRAMES = 100     # shorter recordings are repeated; the receptive field of `sequence` is 130 frames

CURVE_STEPS = 10          # steps between two points of a learning curve
VALIDATIONS = 5           # looks at the cases that are left out, spread evenly over a training

Network = TypeVar("Network", bound=nn.Module)
FrameLoss = Callable[[Tensor, NDArray[np.int8], NDArray[np.int64]], Tensor]


class Recipe(TrainingParams):
    """Hyperparameters of one training; one that a head's hyperparameters lack is null in `params.yaml`."""

    steps: Count
    batch: Count
    rate: Positive

    @classmethod
    def of(cls, hyperparameters: Hyperparameters) -> Self:
        """The recipe in a head's hyperparameters."""
        return cls.model_validate({key: hyperparameters.get(key) for key in cls.model_fields})

    def noise(self) -> Noise | None:
        """The noise that is added to crops; `None` for none."""
        return _noise(self)

    def inference_frames(self, frame_rate_hz: float) -> int | None:
        """`inference_chunk_s` in frames; `None` where recordings are predicted whole."""
        return None if self.inference_chunk_s is None else max(1, round(self.inference_chunk_s * frame_rate_hz))


def _noise(params: TrainingParams) -> Noise | None:
    if not params.noise_share:
        return None
    return Noise(params.noise_share, params.noise_snr_low_db, params.noise_snr_high_db)


def noise_of(hyperparameters: Hyperparameters) -> Noise | None:
    """The noise in a head's hyperparameters; `None` for none."""
    return _noise(TrainingParams.model_validate({key: hyperparameters.get(key) for key in TrainingParams.model_fields}))


@dataclass
class LearningCurve:
    """How a training went: one point for each `CURVE_STEPS` steps.

    Attributes:
        loss: mean over these steps.
        rate: learning rate of the last of them.
        validation: what `measure` gave, after the steps `validation_step`. Nothing is chosen by it.
        measure: a score of the head that the network is so far, on cases that it is not trained on.
    """

    loss: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    validation_step: list[float] = field(default_factory=list)
    measure: Callable[[FittedHead], float] | None = None

    def points(self) -> dict[str, list[float]]:
        """Every list by name; empty ones are left out."""
        found = {"loss": self.loss, "rate": self.rate, "validation": self.validation,
                 "validation_step": self.validation_step}
        return {name: values for name, values in found.items() if values}


_curve: ContextVar[LearningCurve | None] = ContextVar("learning curve", default=None)


@contextmanager
def learning_curve(measure: Callable[[FittedHead], float] | None = None) -> Iterator[LearningCurve]:
    """Yield the curve of the network that is trained in the block; it stays empty where none is trained.

    Args:
        measure: see `LearningCurve`. It is called `VALIDATIONS` times.
    """
    found = LearningCurve(measure=measure)
    before = _curve.set(found)
    try:
        yield found
    finally:
        _curve.reset(before)


class Source(Protocol):
    """Gives the training batches."""

    def draw(
        self, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int8] | None]:
        """One input for each recording in `rows`: `[rows, frames, dim]`, and heart states `[rows, frames]` if known."""
        ...


@dataclass(frozen=True)
class Tuning:
    """What the training of a pre-trained network does besides.

    Attributes:
        groups: the network -> groups of weights that learn, each with its share of the learning rate.
        least_rate: the schedule ends at this rate and not at zero.
        after: called with the network, in evaluation mode, after every `every` steps.
        loss: the network, numbers of the batch's cases, and weights of all classes -> the loss of the batch, where it
            is none of classes; then there is no source.
    """

    groups: Callable[[nn.Module], Sequence[tuple[Sequence[nn.Parameter], float]]]
    least_rate: float = 0.0
    every: int = 1
    after: Callable[[nn.Module], None] | None = None
    loss: Callable[[nn.Module, NDArray[np.int64], Tensor], Tensor] | None = None


def train(
    build: Callable[[], Network], source: Source | None, targets: Targets, recipe: Recipe, seed: int,
    frame_loss: FrameLoss | None = None, tuning: Tuning | None = None,
    fitted: Callable[[Network], FittedHead] | None = None,
) -> Network:
    """Train a network for `recipe.steps` steps, on the GPU where there is one.

    Torch's global generator is left as it was. The same arguments give the same bytes.

    Args:
        build: makes the untrained network.
        frame_loss: logits of frames, heart states and labels -> a loss that is added to that of the recordings.
        tuning: of a network that is pre-trained; `None`: every weight learns, and at the same rate.
        fitted: the head that a network is, so that its learning curve has scores of other cases.
    """
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        torch.manual_seed(seed)
        network = build().to("cuda" if torch.cuda.is_available() else "cpu")
        setup = _Setup(source, targets.labels, _weights(network, targets, recipe), recipe, frame_loss, tuning,
                       targets.probabilities, fitted)
        _loop(network.train(), setup, np.random.default_rng(seed))
    return network.eval()


@dataclass(frozen=True)
class _Setup:
    source: Source | None
    labels: NDArray[np.int64]
    weights: Tensor
    recipe: Recipe
    frame_loss: FrameLoss | None
    tuning: Tuning | None
    probabilities: NDArray[np.float64] | None
    fitted: Callable[[Any], FittedHead] | None


def _weights(network: nn.Module, targets: Targets, recipe: Recipe) -> Tensor:
    weights = torch.from_numpy(class_weights(targets, recipe.class_weight_power)).float()
    return weights.to(next(network.parameters()).device)


def _loop(network: nn.Module, setup: _Setup, rng: np.random.Generator) -> None:
    recipe, tuning = setup.recipe, setup.tuning
    optimiser = _optimiser(network, recipe, tuning)
    schedule = _schedule(optimiser, recipe, 0.0 if tuning is None else tuning.least_rate)
    batches = _batches(len(setup.labels), recipe.batch, recipe.steps * recipe.accumulation, rng)
    curve, total = _curve.get(), torch.zeros((), device=setup.weights.device)
    for step in range(1, recipe.steps + 1):
        optimiser.zero_grad(set_to_none=True)
        for rows in islice(batches, recipe.accumulation):
            loss = _loss(network, setup, rows, rng) / recipe.accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
        optimiser.step()
        if curve is not None and step % CURVE_STEPS == 0:
            curve.loss.append(float(total) / CURVE_STEPS)
            curve.rate.append(float(optimiser.param_groups[-1]["lr"]))
            total.zero_()
        schedule.step()
        if tuning is not None and tuning.after is not None and step % tuning.every == 0:
            tuning.after(network.eval())
            network.train()
        if curve is not None and setup.fitted is not None and step in _validation_steps(recipe.steps):
            _validate(curve, setup.fitted, network, step)


def _validation_steps(steps: int) -> set[int]:
    return {round(steps * k / VALIDATIONS) for k in range(1, VALIDATIONS + 1)}


def _validate(curve: LearningCurve, fitted: Callable[[Any], FittedHead], network: nn.Module, step: int) -> None:
    if curve.measure is not None:
        curve.validation.append(curve.measure(fitted(network.eval())))
        curve.validation_step.append(step)
        network.train()


def _loss(network: nn.Module, setup: _Setup, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Loss of one batch. Mix-up weights the losses of two recordings as it mixes their frames (Zhang et al., 2018)."""
    device = next(network.parameters()).device
    half = setup.recipe.mixed_precision == "auto" and device.type == "cuda"
    if setup.source is None:
        assert setup.tuning is not None and setup.tuning.loss is not None
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return setup.tuning.loss(network, rows, setup.weights)
    x, states = setup.source.draw(rows, rng)
    share, partner = 1.0, np.arange(len(rows))
    if setup.recipe.mixup:
        share, partner = float(rng.beta(setup.recipe.mixup, setup.recipe.mixup)), rng.permutation(len(rows))
        x = (share * x + (1 - share) * x[partner]).astype(np.float32)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        outputs = network(torch.from_numpy(x).to(device).transpose(1, 2))
        own = _one_loss(outputs, rows, states, setup)
        if share == 1.0:
            return own
        other = _one_loss(outputs, rows[partner], None if states is None else states[partner], setup)
        return share * own + (1 - share) * other


def _one_loss(
    outputs: tuple[Tensor, Tensor | None], rows: NDArray[np.int64], states: NDArray[np.int8] | None, setup: _Setup
) -> Tensor:
    logits, frame_logits = outputs
    labels = setup.labels[rows]
    if setup.probabilities is None:
        loss = classification_loss(logits, torch.from_numpy(labels).to(logits.device), setup.weights, setup.recipe)
    else:
        loss = functional.cross_entropy(logits, torch.from_numpy(setup.probabilities[rows]).to(logits))
    if states is None or setup.frame_loss is None or frame_logits is None:
        return loss
    return loss + setup.frame_loss(frame_logits, states, labels)


def classification_loss(logits: Tensor, labels: Tensor, weights: Tensor, recipe: TrainingParams) -> Tensor:
    """Weighted mean loss of `[batch, classes]`: cross-entropy, or focal loss (Lin et al., 2017), equal at gamma 0."""
    if recipe.loss == "cross_entropy":
        return functional.cross_entropy(logits, labels, weights, label_smoothing=recipe.label_smoothing)
    each = functional.cross_entropy(logits, labels, weights, label_smoothing=recipe.label_smoothing, reduction="none")
    missed = 1 - torch.softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    return (missed**recipe.focal_gamma * each).sum() / weights[labels].sum()


def class_weights(targets: Targets, power: float) -> NDArray[np.float64]:
    """Weight of each class `[classes]`: its inverse frequency to the power `power`."""
    counts = np.bincount(targets.labels, minlength=targets.classes)
    return np.asarray((len(targets.labels) / (targets.classes * np.maximum(counts, 1))) ** power)


def _optimiser(network: nn.Module, recipe: Recipe, tuning: Tuning | None) -> torch.optim.Optimizer:
    weights: Any = network.parameters()
    if tuning is not None:
        weights = [{"params": list(own), "lr": recipe.rate * share} for own, share in tuning.groups(network)]
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(weights, recipe.rate, momentum=recipe.sgd_momentum, weight_decay=decay)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(weights, recipe.rate, weight_decay=decay)
    return torch.optim.AdamW(weights, recipe.rate, weight_decay=decay)


def _schedule(optimiser: torch.optim.Optimizer, recipe: Recipe, least_rate: float
              ) -> torch.optim.lr_scheduler.LRScheduler:
    """One cycle (Smith and Topin, 2019), or a linear warm-up before a half cosine or a constant rate."""
    if recipe.schedule == "one_cycle":
        total = recipe.steps + 1
        warm = recipe.warmup_share if recipe.warmup_share * total > 1 else 0.0     # torch divides by zero below that
        highest = [float(group["lr"]) for group in optimiser.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=total, pct_start=warm)
    least = least_rate / recipe.rate
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: least + (1 - least) * rate_share(step, recipe))


def rate_share(step: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step, counted from zero, of the schedules `cosine` and `constant`."""
    warm = recipe.warmup_share * recipe.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / (recipe.steps - warm))))


def _batches(cases: int, batch: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """`count` batches of rows; every case is used once before any is used again."""
    passes = -(-count * batch // cases)
    order = np.concatenate([rng.permutation(cases) for _ in range(passes)])
    return iter([order[i * batch : (i + 1) * batch] for i in range(count)])


def centred(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames `[frames, dim]` minus their mean over time and bands."""
    return np.asarray(frames - frames.mean(), np.float32)


def split_chunks(frames: NDArray[np.float32], size: int | None) -> list[NDArray[np.float32]]:
    """Cut `[frames, dim]` into nearly equal chunks of about `size` frames; each begins at an even frame."""
    count = 1 if size is None else max(1, round(len(frames) / size))
    bounds = [2 * round(len(frames) * number / count / 2) for number in range(count)]
    return [chunk for chunk in np.split(frames, bounds[1:]) if len(chunk)]


def repeated(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames `[frames, dim]`, repeated until there are at least `SHORTEST_FRAMES`."""
    return np.tile(frames, (-(-SHORTEST_FRAMES // len(frames)), 1))


def predict_chunks(
    network: nn.Module, chunks: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], list[NDArray[np.float32]]]:
    """Predict one recording from its chunks `[frames, dim]`.

    Returns:
        Log-probabilities `[classes]` of the mean logits; and posteriors `[frames', k]` of each chunk's frames, from a
        network that classifies frames.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        outputs = [network(torch.from_numpy(one.T[None].copy()).to(device)) for one in chunks]
        logits = torch.stack([logits[0].double() for logits, _ in outputs]).mean(0)
        log_p = torch.log_softmax(logits, dim=-1).cpu().numpy()
        posteriors = [torch.softmax(of_frames[0], dim=0).T.cpu().numpy()
                      for _, of_frames in outputs if of_frames is not None]
    return cast(NDArray[np.float64], log_p), posteriors
