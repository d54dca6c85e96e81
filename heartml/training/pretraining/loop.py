"""The loop of every pre-training, which can be killed at any moment and goes on to the same bytes.

In: a network, and a function from the number of a step to its losses. Out: the trained network and its loss curves.
What a step draws must depend on the seed and the number of the step alone. So a checkpoint is the network, the
optimiser's moments, the step and the curves so far. It is written under a temporary name and renamed, as safetensors:
no pickle is written or read.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from heartml.core.system.files import replacing
from heartml.core.system.progress import track

CURVE_STEPS = 25                 # a point of a curve is the mean over so many steps
_CLIP = 5.0
_WARM_SHARE = 0.25


@dataclass
class Progress:
    """A training between two steps.

    Attributes:
        optimiser: of those parameters that are trained; others may be in the network too.
        step: number of steps done.
        curves: name of a loss -> its means over `CURVE_STEPS` steps each.
        sums: of the steps since the last point.
    """

    network: nn.Module
    optimiser: torch.optim.AdamW
    step: int
    curves: dict[str, list[float]]
    sums: dict[str, float]


@dataclass(frozen=True)
class Course:
    """How long and how fast is trained.

    Attributes:
        steps: number of steps.
        rate: the largest learning rate, see `rate_share`.
        losses: their names, in the order of the columns of the curves.
        checkpoint_s: seconds between checkpoints.
        bfloat16: whether losses are computed in mixed precision.
        snapshots: steps after which `Hooks.snapshot` is called.
    """

    steps: int
    rate: float
    losses: Sequence[str]
    checkpoint_s: float
    bfloat16: bool = False
    snapshots: Sequence[int] = ()


@dataclass(frozen=True)
class Hooks:
    """What is done besides the steps.

    Attributes:
        say: gets a line with the step and the time left whenever a checkpoint is written.
        after: gets the number of steps done, after each of them.
        snapshot: gets the number of steps done, after those of `Course.snapshots`. After a kill it may be called again
            for a step, with the same network.
    """

    say: Callable[[str], None] = lambda _: None
    after: Callable[[int], None] = lambda _: None
    snapshot: Callable[[int], None] = lambda _: None


def begin(network: nn.Module, rate: float, decay: float) -> Progress:
    """A training before its first step; what of the network needs no gradient is not trained."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return Progress(network.train(), torch.optim.AdamW(trained, rate, weight_decay=decay), 0, {}, {})


def run(state: Progress, losses_of: Callable[[int], Mapping[str, Tensor]], course: Course, checkpoint: Path,
        hooks: Hooks, stop_at: int | None = None) -> None:
    """Train `state` for `course.steps` steps in all; a `checkpoint` that is there is continued.

    Args:
        losses_of: number of a step -> name of a loss -> its value; they are added up.
        checkpoint: must be the file of a training with the same network, data and course. It is written every
            `course.checkpoint_s` seconds, and at the end.
        stop_at: end after this step, as if killed there.
    """
    if checkpoint.exists():
        _restore(state, checkpoint)
    written = started = time.monotonic()
    last = min(course.steps, stop_at or course.steps)
    first = state.step
    for step in track(range(first, last), "pretrain", last - first):
        _step(state, losses_of, course, step)
        hooks.after(state.step)
        if state.step in course.snapshots:
            hooks.snapshot(state.step)
        if time.monotonic() - written > course.checkpoint_s or state.step == last:
            _save(state, checkpoint)
            written = time.monotonic()
            left_s = (written - started) / (state.step - first) * (course.steps - state.step)
            hooks.say(f"pretrain: step {state.step} of {course.steps}, about {math.ceil(left_s / 60)} min left")


def _step(state: Progress, losses_of: Callable[[int], Mapping[str, Tensor]], course: Course, step: int) -> None:
    for group in state.optimiser.param_groups:
        group["lr"] = course.rate * rate_share(step, course.steps)
    with torch.autocast(device_of(state.network).type, torch.bfloat16, enabled=course.bfloat16):
        losses = losses_of(step)
        total = torch.stack(list(losses.values())).sum()
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _CLIP)
    state.optimiser.step()
    _record(state, losses, course.losses)


def _record(state: Progress, losses: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for name, loss in losses.items():
        state.sums[name] = state.sums.get(name, 0.0) + float(loss.detach())
    state.step += 1
    if state.step % CURVE_STEPS == 0:
        for name in names:
            state.curves.setdefault(name, []).append(state.sums.get(name, 0.0) / CURVE_STEPS)
        state.sums = {}


def device_of(network: nn.Module) -> torch.device:
    """Where the weights of a network are."""
    return next(network.parameters()).device


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

    tensors = {f"network.{name}": _plain(tensor) for name, tensor in state.network.state_dict().items()}
    for name, parameter in state.network.named_parameters():
        if parameter in state.optimiser.state:
            for key, value in state.optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = _plain(value)
    words = {"step": state.step, "curves": state.curves, "sums": state.sums}
    with replacing(checkpoint) as temporary:
        temporary.write_bytes(save(tensors, {"progress": json.dumps(words)}))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()


def _restore(state: Progress, checkpoint: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = load_file(checkpoint)
    with safe_open(checkpoint, "pt") as opened:
        words = json.loads(opened.metadata()["progress"])
    state.network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()
                                   if name.startswith("network.")})
    for name, parameter in state.network.named_parameters():
        moments = {key: tensors[f"optimiser.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
                   if f"optimiser.{key}.{name}" in tensors}
        if moments:
            state.optimiser.state[parameter] = {key: value if key == "step" else value.to(parameter.device)
                                                for key, value in moments.items()}
    state.step, state.curves, state.sums = words["step"], words["curves"], words["sums"]
