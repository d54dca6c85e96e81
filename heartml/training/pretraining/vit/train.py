"""Pre-training of the transformer by one of the methods, which a kill does not change.

In: a start, a corpus, parameters. Out: the trained encoder, its scale, its loss curves; on the way snapshots of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartml.core.config import PretrainParams, VitParams
from heartml.models.encoders.m2d import Transformer
from heartml.training.pretraining import loop
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.loop import Course, Hooks
from heartml.training.pretraining.vit.contrastive import ContrastiveLearner
from heartml.training.pretraining.vit.learner import Learner
from heartml.training.pretraining.vit.masked import MaskedLearner
from heartml.training.pretraining.vit.start import Start, Stats, stats_of
from heartml.training.pretraining.vit.supervised import SupervisedLearner

Method = Literal["masked", "contrastive", "supervised"]


@dataclass(frozen=True)
class Trained:
    """A trained encoder, on the CPU.

    Attributes:
        stats: mean and deviation of its pictures.
        curves: name of a loss -> points of its curve, one for each `loop.CURVE_STEPS` steps.
    """

    transformer: Transformer
    stats: Stats
    curves: dict[str, list[float]]


def train(
    method: Method, start: Start, corpus: Corpus, params: PretrainParams, vit: VitParams, checkpoint: Path, *,
    snapshot: Callable[[int, Transformer, Stats], None] = lambda *_: None, say: Callable[[str], None] = lambda _: None,
    stop_at: int | None = None, device: str = "cpu",
) -> Trained:
    """Train; a `checkpoint` that is there is continued, see `loop.run`.

    Args:
        snapshot: gets the step, the encoder and its scale at each of `vit.snapshots`.
        stop_at: end after this step, as if killed there.
        device: `cpu` or `cuda`. On a GPU neither the same bytes nor anything else has been tried.
    """
    stats = start.stats or stats_of(corpus.frames)
    steps = steps_of(method, vit)
    learner = _learner(method, start, corpus, stats, params, vit)
    learner.network.to(device)
    state = loop.begin(learner.network, vit.rate, vit.weight_decay)
    course = Course(steps, vit.rate, learner.names, params.checkpoint_s,
                    device == "cuda" and vit.mixed_precision == "auto", snapshot_steps(vit.snapshots, steps))
    hooks = Hooks(say, learner.after, lambda step: snapshot(step, learner.encoder, stats))
    loop.run(state, learner.losses_of, course, checkpoint, hooks, stop_at)
    return Trained(learner.encoder.eval().cpu(), stats, state.curves)


def steps_of(method: Method, vit: VitParams) -> int:
    """How many steps a method is trained for."""
    of = {"masked": vit.masked.steps, "contrastive": vit.contrastive.steps, "supervised": vit.supervised_steps}
    return of[method]


def snapshot_steps(shares: tuple[float, ...], steps: int) -> tuple[int, ...]:
    """The steps at which the encoder is kept, in order.

    >>> snapshot_steps((0.5, 0.25, 0.001), 10)
    (1, 2, 5)
    """
    return tuple(sorted({max(1, round(share * steps)) for share in shares}))


def _learner(method: Method, start: Start, corpus: Corpus, stats: Stats, params: PretrainParams, vit: VitParams
             ) -> Learner:
    pools = Pools.of(corpus, params.simulated_share, vit.general_share)
    if method == "masked":
        return MaskedLearner(start, corpus, stats, vit, pools, params.seed)
    if method == "contrastive":
        return ContrastiveLearner(start, corpus, stats, vit, pools, params.seed)
    own = params.model_copy(update={"batch": vit.batch})
    return SupervisedLearner(start, corpus, stats, own, pools)
