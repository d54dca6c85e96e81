"""Pre-training of the transformer: that a stop changes nothing, what each method sees, and that it learns."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_vit

from heartml.models.encoders.m2d import Transformer
from heartml.training.pretraining import loop
from heartml.training.pretraining.corpus import Corpus
from heartml.training.pretraining.draw import Pools
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit import train
from heartml.training.pretraining.vit.contrastive import ContrastiveLearner
from heartml.training.pretraining.vit.learner import Learner
from heartml.training.pretraining.vit.masked import MaskedLearner, MaskedNetwork, permutations, visible_patches
from heartml.training.pretraining.vit.supervised import VitTrunk
from heartml.training.pretraining.vit.train import Method, Trained

STATS = (-6.0, 2.0)


@pytest.fixture(scope="module")
def hearts() -> Corpus:
    return tiny_vit.hearts()


def trained(method: Method, hearts: Corpus, file: Path, stop_at: int | None = None, device: str = "cpu",
            **changed: object) -> tuple[Trained, dict[int, bytes]]:
    """A training, and the bytes of its snapshots."""
    vit, own = tiny_vit.vit(**changed), tiny_vit.pretraining()
    kept: dict[int, bytes] = {}
    done = train.train(method, starts.fresh(vit, own.seed), hearts, own, vit, file, stop_at=stop_at, device=device,
                       snapshot=lambda step, network, _: kept.update({step: bytes_of(network)}))
    return done, kept


def bytes_of(network: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


@pytest.mark.parametrize("method", ["masked", "contrastive", "supervised"])
def test_a_stopped_training_ends_in_the_same_bytes(method: Method, hearts: Corpus, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    whole, kept = trained(method, hearts, tmp_path / "whole")
    trained(method, hearts, tmp_path / "stopped", stop_at=11)
    assert (tmp_path / "stopped").read_bytes() != (tmp_path / "whole").read_bytes()
    again, kept_again = trained(method, hearts, tmp_path / "stopped")
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "whole").read_bytes()
    assert bytes_of(again.transformer) == bytes_of(whole.transformer)
    assert again.curves == whole.curves
    assert kept == kept_again
    assert list(kept) == [15]
    assert kept[15] != bytes_of(whole.transformer)
    assert torch.equal(before, torch.random.get_rng_state())


KILLED = """
import time
from pathlib import Path
from support import tiny_vit
from heartml.training.pretraining import loop
from heartml.training.pretraining.vit import start as starts, train
save = loop._save
loop._save = lambda *given: (save(*given), time.sleep(0.3))
vit, own = tiny_vit.vit(), tiny_vit.pretraining(checkpoint_s=1e-9)
train.train("masked", starts.fresh(vit, own.seed), tiny_vit.hearts(), own, vit, Path({file!r}))
"""


def test_kill_9_and_the_same_bytes(hearts: Corpus, tmp_path: Path) -> None:
    tests, file = Path(__file__).parents[1], tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", KILLED.format(file=str(file))],
                          env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"}) as process:
        until = time.monotonic() + 100
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "killed while it trained"
    again, _ = trained("masked", hearts, file)
    whole, _ = trained("masked", hearts, tmp_path / "whole")
    assert bytes_of(again.transformer) == bytes_of(whole.transformer)
    assert file.read_bytes() == (tmp_path / "whole").read_bytes()


def test_it_learns_without_labels(hearts: Corpus, tmp_path: Path) -> None:
    own = tiny_vit.vit().masked
    done, _ = trained("masked", hearts, tmp_path / "masked", masked=own.model_copy(update={"steps": 150}))
    points = done.curves["masked"]
    assert len(points) == 6
    assert points[-1] < 0.75 * points[0]


def learner(kind: type[MaskedLearner] | type[ContrastiveLearner], hearts: Corpus) -> Learner:
    vit = tiny_vit.vit()
    return kind(starts.fresh(vit, 1), hearts, STATS, vit, Pools.of(hearts, 0.25), 1)


@pytest.mark.parametrize("kind", [MaskedLearner, ContrastiveLearner])
def test_a_step_depends_on_its_number_alone(kind: type[MaskedLearner] | type[ContrastiveLearner], hearts: Corpus
                                            ) -> None:
    one, other = learner(kind, hearts), learner(kind, hearts)
    one.losses_of(3)
    values = [float(own.losses_of(7)[own.names[0]].detach()) for own in (one, other)]
    assert values[0] == values[1]
    assert float(one.losses_of(8)[one.names[0]].detach()) != values[0]


def test_what_is_masked_is_not_seen_and_what_is_seen_is_not_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    vit, rng, encode = tiny_vit.vit(), np.random.default_rng(0), Transformer.encode
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MaskedNetwork(starts.fresh(vit, 1), STATS, 1).eval()
    grid = network.grid
    order = torch.from_numpy(permutations(1, grid.rows * grid.columns, rng))
    visible = visible_patches(grid.rows * grid.columns, vit.masked)
    assert (visible, grid.rows * grid.columns) == (7, 24), "70 % are masked"
    picture = torch.randn(1, grid.mels, grid.frames, generator=torch.Generator().manual_seed(0))
    changed = {part: filled(picture, order[0, places], grid) for part, places in
               (("masked", slice(visible, None)), ("visible", slice(0, visible)))}
    wanted: dict[str, list[torch.Tensor]] = {}
    for name, one in {"as it is": picture, **changed}.items():
        with monkeypatch.context() as patch:
            seen = wanted[name] = []
            patch.setattr(Transformer, "encode",
                          lambda own, tokens, seen=seen: seen.append(tokens) or encode(own, tokens))
            network(one, order, visible)
    assert torch.equal(wanted["as it is"][0], wanted["masked"][0])
    assert not torch.equal(wanted["as it is"][1], wanted["masked"][1])
    assert torch.equal(wanted["as it is"][1], wanted["visible"][1])
    assert not torch.equal(wanted["as it is"][0], wanted["visible"][0])


def test_the_order_within_what_is_seen_and_within_what_is_masked_says_nothing() -> None:
    """So each mask stands at the place of the patch that is asked for."""
    vit, rng = tiny_vit.vit(), np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MaskedNetwork(starts.fresh(vit, 1), STATS, 1).eval()
    picture = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(0))
    order = permutations(1, 24, rng)
    mixed = np.concatenate([rng.permutation(order[:, :7], axis=1), rng.permutation(order[:, 7:], axis=1)], axis=1)
    losses = [float(network(picture, torch.from_numpy(one), 7).detach())
              for one in (order, mixed, mixed[:, ::-1].copy())]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0] != pytest.approx(losses[2], abs=1e-3)


def filled(picture: torch.Tensor, places: torch.Tensor, grid: starts.Grid) -> torch.Tensor:
    """The picture with other values in some of its patches."""
    found = picture.clone()
    for place in places.tolist():
        row, column = divmod(place, grid.columns)
        found[:, row * grid.high : (row + 1) * grid.high, column * grid.wide : (column + 1) * grid.wide] += 1
    return found


def test_the_target_encoder_only_follows_and_positions_stay(hearts: Corpus) -> None:
    own = learner(MaskedLearner, hearts)
    network = own.network
    assert isinstance(network, MaskedNetwork)
    state = loop.begin(network, 0.01, 0.05)
    first, table = bytes_of(network.target), network.online.pos_embed.clone()
    loop._step(state, own.losses_of, loop.Course(100, 0.01, own.names, 1e9), 30)
    assert bytes_of(network.target) == first
    assert torch.equal(network.online.pos_embed, table)
    weight, online = network.target.norm.weight.clone(), network.online.norm.weight
    own.after(15)      # of 30 steps: half way from .99 to 1
    torch.testing.assert_close(network.target.norm.weight, 0.995 * weight + 0.005 * online)
    assert not torch.equal(network.target.norm.weight, weight)
    own.after(30)
    last = bytes_of(network.target)
    own.after(31)
    assert bytes_of(network.target) == last, "at the end it stands still"


def test_two_views_of_a_recording_are_changed_crops_of_that_recording() -> None:
    levels = (-9.0, -6.0, -3.0, 0.0)
    frames = [np.full((90, 24), level, np.float16) for level in levels]
    nobody = np.zeros(4, np.bool_)
    plain = Corpus(frames, [np.zeros(90, np.int8)] * 4, {}, 100.0, nobody, nobody)
    own = learner(ContrastiveLearner, plain)
    seen: list[torch.Tensor] = []
    own.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    own.losses_of(0)
    assert [tuple(one.shape) for one in seen] == [(4, 24, 24), (4, 24, 24)], "0.3 s in whole patches"
    first, second = (one.mean((1, 2)).numpy() for one in seen)
    assert not torch.equal(*seen)
    assert len(np.unique(np.round(first / 3))) > 1
    np.testing.assert_array_equal(np.round(first / 3), np.round(second / 3))


def test_classes_of_frames_stand_under_their_patch(hearts: Corpus) -> None:
    start = starts.fresh(tiny_vit.vit(), 1)
    trunk = VitTrunk(start, STATS)
    picture = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(0))
    hidden, logits = trunk(picture)
    assert hidden.shape == (2, 3 * 8, 8)
    assert logits.shape == (2, 6, 16), "two for each patch of 80 ms"
    tokens = start.transformer((picture[:, None] - STATS[0]) / STATS[1], 8)[-1].unflatten(1, (3, 8))
    torch.testing.assert_close(hidden[:, 8:16], tokens[:, 1].transpose(1, 2))
    by_hand = torch.einsum("kc,bct->bkt", trunk.frame.weight[:, :, 0], hidden) + trunk.frame.bias[:, None]
    torch.testing.assert_close(logits[:, 3, 4:6], by_hand[:, 6:8, 2])


def test_labels_teach_it(hearts: Corpus, tmp_path: Path) -> None:
    done, _ = trained("supervised", hearts, tmp_path / "x", supervised_steps=100)
    assert done.curves["frames"][-1] < 0.95 * done.curves["frames"][0]
    assert set(done.curves) == {"frames", *hearts.labels}


def test_mixed_precision_gives_losses_of_single_precision(hearts: Corpus) -> None:
    """On a GPU it was never run; this is the same code on a CPU."""
    own = learner(MaskedLearner, hearts)
    values = {}
    for half in (False, True):
        state = loop.begin(learner(MaskedLearner, hearts).network, 0.01, 0.0)
        loop._step(state, own.losses_of, loop.Course(10, 0.01, own.names, 1e9, bfloat16=half), 0)
        values[half] = state.sums["masked"]
    assert values[True] != values[False]
    assert values[True] == pytest.approx(values[False], rel=0.02)


def test_batches_are_drawn_by_share() -> None:
    nobody = np.zeros(0, np.int64)
    draw = np.random.default_rng(0)
    without = Pools(np.arange(4), np.arange(4, 8), nobody, 0.25, 0.25).draw(8, draw)
    assert ((without >= 4).sum(), len(without)) == (2, 8), "without general sound real hearts have its share"
    alone = Pools(nobody, np.arange(4, 8), np.arange(8, 9), 0.25, 0.25).draw(8, draw)
    assert ((alone >= 8).sum(), ((alone >= 4) & (alone < 8)).sum()) == (2, 6)
