"""The loop that all network heads share: what each of its settings promises, and what a recording's parts are."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.workspaces import Workspace
from torch import Tensor, nn

from flows.support import check_parameters
from flows.support.check_parameters import check_families
from heartml.core import config
from heartml.core.config import ParamsError, SearchParams
from heartml.core.system.parallel import single_thread
from heartml.models.heads import HEADS, Targets
from heartml.models.heads.network_params import network_params, training_params
from heartml.models.heads.network_training import (
    CURVE_STEPS,
    Recipe,
    classification_loss,
    learning_curve,
    rate_share,
    split_chunks,
    train,
)
from heartml.models.heads.resnet import ResnetError, ResnetParams
from heartml.models.heads.resnet import check as check_resnet
from heartml.training import search_space

FILE = Path(__file__).parents[2] / "params.yaml"
SEARCH = config.load(FILE).search
BASE = {**search_space.fixed_hyperparameters(SEARCH, "sequence"), "steps": 8, "batch": 6, "rate": 0.05}
BY_SIZE = {"optimiser": "sgd", "gradient_clip": None}      # Adam does not care how large a gradient is
CASES = 24


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    single_thread()


class Tiny(nn.Module):
    """One layer on the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.classify(x.mean(-1)), None


@dataclass
class Given:
    """The same pictures each time; notes which rows were asked for."""

    pictures: NDArray[np.float32]
    asked: list[NDArray[np.int64]]

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.float32], None]:
        self.asked.append(rows)
        return self.pictures[rows], None


def given(seed: int = 0) -> tuple[Given, Targets]:
    rng = np.random.default_rng(seed)
    labels = np.arange(CASES) % 2
    pictures = rng.normal(size=(CASES, 5, 3)).astype(np.float32)
    pictures[labels == 1, :, 0] += 1.5
    return Given(pictures, []), Targets(labels, 2, np.arange(CASES))


def trained(**changed: object) -> NDArray[np.float32]:
    source, targets = given()
    network = train(Tiny, source, targets, Recipe.of({**BASE, **changed}), 3)
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in network.parameters()])


SETTINGS = {"mixup": 0.4, "loss": "focal", "label_smoothing": 0.3, "class_weight_power": 0.0, "optimiser": "sgd",
            "weight_decay": 0.5, "schedule": "cosine", "warmup_share": 0.6, "gradient_clip": 0.01, "accumulation": 3}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_changes_what_is_learnt(name: str) -> None:
    uneven = np.array([0] * 18 + [1] * 6)      # or class weights would all be one
    source, targets = given()
    targets = Targets(uneven, 2, targets.groups)

    def run(**changed: object) -> NDArray[np.float32]:
        network = train(Tiny, source, targets, Recipe.of({**BASE, **changed}), 3)
        return network.classify.weight.detach().cpu().numpy()

    assert not np.allclose(run(), run(**{name: SETTINGS[name]}), atol=1e-6)


def test_the_learning_curve_says_loss_and_rate_and_changes_nothing() -> None:
    plain = trained(steps=35)
    with learning_curve() as curve:
        assert np.array_equal(trained(steps=35), plain)
    assert len(curve.loss) == len(curve.rate) == 35 // CURVE_STEPS
    assert curve.loss[-1] < curve.loss[0] and all(rate > 0 for rate in curve.rate)
    with learning_curve() as empty:
        pass
    assert empty.loss == [] and np.array_equal(trained(steps=35), plain), "outside of the block none is kept"
    assert len(curve.loss) == 35 // CURVE_STEPS


def test_a_score_of_other_cases_is_taken_five_times_and_changes_nothing() -> None:
    source, targets = given()
    seen: list[bool] = []

    def measure(fitted: nn.Module) -> float:
        seen.append(fitted.training)
        return float(fitted.classify.weight.detach().abs().sum())

    with learning_curve(measure) as curve:      # type: ignore[arg-type]
        network = train(Tiny, source, targets, Recipe.of({**BASE, "steps": 35}), 3, fitted=lambda one: one)   # type: ignore[arg-type,return-value]
    plain = trained(steps=35)
    assert np.array_equal(np.concatenate([p.detach().cpu().numpy().ravel() for p in network.parameters()]), plain)
    assert (curve.validation_step, seen) == ([7, 14, 21, 28, 35], [False] * 5)
    assert len(set(curve.validation)) == 5 and set(curve.points()) == {"loss", "rate", "validation", "validation_step"}


def test_three_accumulated_batches_are_one_batch_three_times_as_long() -> None:
    plain = {**BY_SIZE, "class_weight_power": 0.0, "steps": 4}
    together = trained(**plain, batch=12)
    np.testing.assert_allclose(trained(**plain, batch=4, accumulation=3), together, atol=1e-5)


def test_every_case_is_heard_once_before_any_comes_again() -> None:
    source, targets = given()
    train(Tiny, source, targets, Recipe.of({**BASE, "steps": 8, "batch": 6}), 0)
    rows = np.concatenate(source.asked)
    assert sorted(rows[:CASES]) == sorted(rows[CASES:]) == list(range(CASES))


def test_focal_loss_without_focus_is_cross_entropy_and_with_it_looks_at_what_is_missed() -> None:
    logits = torch.tensor([[4.0, 0.0, -1.0], [0.2, 0.1, 0.0], [-1.0, 2.0, 0.5], [0.0, 0.0, 3.0]], requires_grad=True)
    labels, weights = torch.tensor([0, 1, 2, 2]), torch.tensor([0.5, 1.0, 2.0])
    flat = Recipe.of({**BASE, "loss": "focal", "focal_gamma": 0.0})
    entropy = classification_loss(logits, labels, weights, Recipe.of(BASE))
    assert classification_loss(logits, labels, weights, flat).item() == pytest.approx(entropy.item(), rel=1e-6)
    share = []
    for recipe in (flat, Recipe.of({**BASE, "loss": "focal", "label_smoothing": 0.0})):
        (gradient,) = torch.autograd.grad(classification_loss(logits, labels, weights, recipe), logits)
        size = gradient.norm(dim=1)
        share.append(float(size[0] / size.sum()))      # the first is surely right already
    assert share[1] < 0.2 * share[0]


def test_mixing_a_recording_with_itself_changes_nothing() -> None:
    same = Given(np.ones((CASES, 5, 3), np.float32), [])
    targets = Targets(np.zeros(CASES, int), 2, np.arange(CASES))
    recipes = [Recipe.of({**BASE, **BY_SIZE, "mixup": alpha}) for alpha in (0.0, 0.5)]
    plain, mixed = (train(Tiny, same, targets, recipe, 3) for recipe in recipes)
    np.testing.assert_allclose(mixed.classify.weight.detach().cpu(), plain.classify.weight.detach().cpu(), atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_rise_while_warm_and_never_again(schedule: str) -> None:
    recipe = Recipe.of({**BASE, "schedule": schedule, "warmup_share": 0.2, "steps": 50})
    shares = np.array([rate_share(step, recipe) for step in range(50)])
    assert 0 < shares[0] < shares[9] < 1
    assert shares[10] == 1
    assert (np.diff(shares[10:]) <= 0).all()
    assert shares[-1] == (1 if schedule == "constant" else pytest.approx(0, abs=0.01))


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_any_number_of_steps_can_be_taken(schedule: str, steps: int) -> None:
    for warm in (0.0, 0.25, 0.9):
        assert np.isfinite(trained(schedule=schedule, steps=steps, warmup_share=warm)).all()


def test_parts_are_the_recording_in_order_and_nearly_of_one_length() -> None:
    for frames in (1, 7, 99, 100, 149, 151, 730, 1001):
        recording = np.arange(frames * 2, dtype=np.float32).reshape(frames, 2)
        assert len(split_chunks(recording, None)) == 1
        cut = split_chunks(recording, 100)
        np.testing.assert_array_equal(np.concatenate(cut), recording)
        assert len(cut) == max(1, round(frames / 100))
        assert all(len(piece) % 2 == 0 for piece in cut[:-1])
        assert max(len(piece) for piece in cut) - min(len(piece) for piece in cut) <= 4
        assert max(len(piece) for piece in cut) <= 152


@pytest.mark.parametrize("name", ["sequence", "resnet", "fcnn"])
def test_a_recording_heard_in_parts_has_the_mean_of_their_logits(name: str) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(400, 4)).astype(np.float32) for _ in range(12)]
    states = [np.resize(np.repeat(np.arange(4), 8), 400).astype(np.int8)] * 12
    targets = Targets(np.arange(12) % 3, 3, np.arange(12), states)
    numbers = {**search_space.fixed_hyperparameters(SEARCH, name), "steps": 4, "batch": 6, "dropout": 0.1, "rate": 1e-3,
               "frame_weight": 1.0, "strength": 0.5, "channels": 8, "backbone": "test_resnet"}
    whole = HEADS[name]().fit(frames, targets, numbers, 0)
    cut = HEADS[name]().fit(frames, targets, {**numbers, "inference_chunk_s": 4.0}, 0)      # 200 frames
    halves = [half - half.mean() for half in np.split(frames[0], 2)]     # what a head takes away is then the same
    apart = np.mean([cut.predict_proba([half]).log_p for half in halves], axis=0)
    expected = apart - np.logaddexp.reduce(apart, axis=1, keepdims=True)
    both = np.concatenate(halves)
    np.testing.assert_allclose(cut.predict_proba([both]).log_p, expected, atol=1e-5)
    assert not np.allclose(whole.predict_proba([both]).log_p, expected, atol=1e-4)
    loaded = HEADS[name]().load(cut.state())
    np.testing.assert_array_equal(loaded.predict_proba([both]).log_p, cut.predict_proba([both]).log_p)
    if name == "sequence":
        assert cut.predict_recording(both)[1].shape == whole.predict_recording(both)[1].shape == (200, 4 + 3)


def with_network(head: str, **changed: object) -> SearchParams:
    """The project's search, keys of one network's section replaced."""
    sections = SEARCH.network_parameters
    return SEARCH.model_copy(update={"network_parameters": {**sections, head: {**sections[head], **changed}}})


def test_a_head_replaces_only_the_training_keys_it_names() -> None:
    own = with_network("resnet", training={"mixup": 0.3})
    trained = {head: training_params(network_params(head, own), own) for head in ("resnet", "sequence")}
    assert trained["resnet"] == SEARCH.training.model_copy(update={"mixup": 0.3})
    assert trained["sequence"] == SEARCH.training
    assert search_space.fixed_hyperparameters(own, "resnet")["mixup"] == 0.3


@pytest.mark.parametrize(("old", "new", "words"), [
    ("optimiser: adam, weight", "optimiser: lion, weight", "optimiser"),
    ("training: {chunk_s: 28.0,", "training: {chunk: 28.0,", "chunk"),
    ("mixed_precision: never", "mixed_precision: always", "mixed_precision"),
    ("weights: null ", "weights: some.safetensors ", "weights_sha256"),
    ("sequence: {encoders: [logspec]", "sequence: {encoders: [random_conv]", "noise_share"),
    ("noise_snr_high_db: ", "noise_snr_high_db: -", "noise_snr_low_db lies above"),
    ("bands: 48", "bands: 1", "logspec.bands"),
    ("low_hz: 25", "low_hz: 800", "low_hz does not lie below"),
    ("high_hz: 800", "high_hz: 2001", "above half of audio.sample_rate_hz"),
    ("window_s: 0.05\n    hop_s: 0.02", "window_s: 0.05\n    hop_s: 0.0001", "logspec: hop_s or window_s is too short"),
    ("backbone: resnet10t ", "backbones: resnet10t ", "search.network_parameters.resnet.backbones"),
])
def test_a_setting_that_means_nothing_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = FILE.read_text()
    assert text.count(old) == 1
    (tmp_path / "params.yaml").write_text(text.replace(old, new))
    with pytest.raises(ParamsError, match=words):
        check_families(config.load(tmp_path / "params.yaml"))


def test_a_family_member_that_there_is_not_is_refused_by_name(workspace: Workspace, monkeypatch) -> None:
    monkeypatch.chdir(workspace.root)
    text = FILE.read_text()
    for old, new, words in (("  amplitude:  ", "  amplitud:  ", "encoder_parameters: 'amplitud' is none of logspec"),
                            ("    fcnn:  ", "    fcn:  ", "search.network_parameters: 'fcn' is none of logistic")):
        assert text.count(old) == 1
        (workspace.root / "params.yaml").write_text(text.replace(old, new))
        with pytest.raises(ParamsError, match=words):
            check_parameters.read()


def resnet(**changed: object) -> ResnetParams:
    params = network_params("resnet", with_network("resnet", backbone="test_resnet"))
    return cast(ResnetParams, params).model_copy(update=changed)


def test_a_backbone_that_is_not_there_or_gives_no_map_is_refused() -> None:
    with pytest.raises(ResnetError, match=r"timm has no 'resnet11t'; it has .*resnet1"):
        check_resnet(resnet(backbone="resnet11t"))
    with pytest.raises(ResnetError, match="test_vit gives no feature map"):
        check_resnet(resnet(backbone="test_vit"))
    check_resnet(resnet())


def test_weights_come_from_a_local_file_that_is_the_one_meant(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    from heartml.core.system.files import canonical_json
    from heartml.core.system.hashing import sha256_file

    torch.manual_seed(5)
    theirs = timm.create_model("test_resnet", num_classes=7)      # three channels and a classifier, as they are given
    file = tmp_path / "backbone.safetensors"
    save_file(theirs.state_dict(), file)
    good = {"weights": str(file), "weights_sha256": sha256_file(file)}
    check_resnet(resnet(**good))
    assert sha256_file(file) in canonical_json(resnet(**good).model_dump())      # so another file is another search
    own = with_network("resnet", backbone="test_resnet", **good)
    hyperparameters = {**search_space.fixed_hyperparameters(own, "resnet"), "steps": 1, "dropout": 0.0, "rate": 1e-8,
                       "strength": 0.5}
    frames = [np.random.default_rng(n).normal(size=(120, 8)).astype(np.float32) for n in range(40)]
    fitted = HEADS["resnet"]().fit(frames, Targets(np.arange(40) % 2, 2, np.arange(40)), hyperparameters, 0)
    state = fitted.state().arrays
    first = theirs.pretrained_cfg["first_conv"]
    expected = theirs.state_dict()[f"{first}.weight"].sum(1, keepdim=True)
    np.testing.assert_allclose(state[f"backbone.{first}.weight"], expected, atol=1e-5)
    name = next(k for k in theirs.state_dict() if k.startswith("layer2") and k.endswith("conv1.weight"))
    np.testing.assert_allclose(state[f"backbone.{name}"], theirs.state_dict()[name], atol=1e-5)
    for changed, words in (({"weights": str(tmp_path / "none")}, "does not exist"),
                           ({"weights_sha256": "0" * 64}, "has "),
                           ({"backbone": "resnet10t"}, "does not fit the backbone")):
        with pytest.raises(ResnetError, match=words):
            check_resnet(resnet(**{**good, **changed}))


def test_the_fully_connected_baseline_puts_a_recording_where_it_fits_best() -> None:
    from heartml.models.heads.fcnn import Placing, place

    rng = np.random.default_rng(0)
    reference = rng.normal(size=(90, 2)).astype(np.float32)
    for start in (0, 17, 50):
        placed = place(reference[start : start + 40], reference)
        np.testing.assert_allclose(placed[start : start + 40], reference[start : start + 40])
        assert not placed[:start].any()
        assert not placed[start + 40 :].any()
    np.testing.assert_array_equal(place(np.concatenate([reference, reference]), reference), reference)
    placing = Placing.fit([reference[:60], reference, reference[30:]], 70)
    assert placing(reference[:5]).shape == (70, 2)
