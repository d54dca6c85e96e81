"""Fine-tuning: the trunk is the encoder, what is frozen stays, the best epoch is kept, and a recipe is its paper's."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny_checkpoints
from support.small_heads import HYPERPARAMETERS
from support.small_tuning import PARAMS, described, spec

from heartml.core.config import ParamsError
from heartml.core.system.parallel import single_thread
from heartml.models import encoders, trunks
from heartml.models.encoders import EncoderSpec
from heartml.models.encoders.pretrained_params import INPUT
from heartml.models.heads import Targets, finetune, finetune_memory
from heartml.models.heads.finetune_chunks import Chunks
from heartml.models.heads.finetune_memory import Memory, MemoryRefused
from heartml.models.heads.finetune_network import build, groups, stored
from heartml.models.heads.finetune_params import RECIPES, FinetuneParams
from heartml.models.heads.network_params import network_params, training_params
from heartml.models.heads.network_training import Recipe, Tuning, train
from heartml.models.trunks import TRUNKS, TrunkError
from heartml.models.trunks import heart as heart_trunk
from heartml.models.trunks import m2d as m2d_trunk
from heartml.training import search_space
from heartml.training.search_run import SearchRun

SEARCH = PARAMS.search
CASES = 18
QUICK: dict[str, Any] = {**HYPERPARAMETERS["finetune"], "epochs": 2, "batch": 6, "chunk_s": 0.7,
                         "inference_chunk_s": 0.7, "mask_bands": 0, "mask_frames": 0, "rate": 1e-3}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    single_thread()


def network_spec(kind: str) -> EncoderSpec:
    """A tiny encoder of a kind, or the network of the library `transformers` of that name."""
    if kind in TRUNKS:
        return spec(kind)
    pytest.importorskip("transformers", reason="left out: the extra `encoders` is not installed")
    return spec("transformers", network=kind)


def cases(kind: str = "m2d", seed: int = 0) -> tuple[list[np.ndarray], Targets]:
    """Frames of recordings of .6 to 2 seconds that no class can be told from, two for each group."""
    rng, told = np.random.default_rng(seed), described(network_spec(kind))
    frames = [rng.normal(size=(round(told["frame_rate_hz"] * rng.uniform(0.6, 2)), told["dim"])).astype(np.float32)
              for _ in range(CASES)]
    return frames, Targets(np.arange(CASES) % 3, 3, np.arange(CASES) // 2, None, told["frame_rate_hz"], told)


def shape(kind: str = "m2d", **changed: object) -> dict[str, Any]:
    return finetune.shape_of(cases(kind)[1], {**QUICK, **changed})


@pytest.mark.parametrize("kind", ["m2d", "heart", "ast", "wav2vec2"])
def test_a_trunk_gives_the_mean_of_its_encoder_s_own_frames(kind: str) -> None:
    """So what is fine-tuned begins where the frozen encoder stands."""
    own = network_spec(kind)
    made = encoders.load_once(own)
    section = own.sections[own.kind].model_copy(update={"layers": ("last",)})
    frozen = encoders.load(replace(own, sections={**own.sections, own.kind: section}))
    wave = torch.from_numpy(np.random.default_rng(1).normal(size=round(2.56 * made.sample_rate_hz)) * 0.1).float()
    with torch.inference_mode():
        found = trunks.of(own.kind, made).eval()(made.encode(wave[None]))[0]
        expected = frozen.encode(wave[None])[0].mean(0)
    torch.testing.assert_close(found, expected[: len(found)], atol=2e-4, rtol=2e-4)     # of heart without its states
    assert made.frames_in(len(wave)) == made.encode(wave[None]).shape[1]


def test_kinds_without_a_trunk_have_no_input_and_say_so() -> None:
    assert set(TRUNKS) == {kind for kind in encoders.PRETRAINED if encoders.member(kind).PARAMS.TUNABLE}
    with pytest.raises(TrunkError, match="kind logspec cannot be fine-tuned; those of kind m2d, heart, transformers"):
        trunks.of("logspec", encoders.load(encoders.spec("logspec", PARAMS)))
    section = {"weights": "a.pt", "sha256": "0" * 64}
    with pytest.raises(ParamsError, match="kind efficientat has no layer `input`"):
        encoders.section("ear", tiny_checkpoints.with_sections(PARAMS, {"ear": {
            "kind": "efficientat", **section, "layers": ["input"]}}))
    with pytest.raises(ParamsError, match="`input` stands alone"):
        encoders.section("ear", tiny_checkpoints.with_sections(PARAMS, {"ear": {
            "kind": "m2d", **section, "layers": ["input", 0]}}))


def test_frames_that_are_no_input_are_refused_with_the_way_out() -> None:
    frames, targets = cases()
    for encoder in (None, encoders.spec("logspec", PARAMS).to_json()):
        with pytest.raises(TrunkError, match=r"layers: \[input\]"):
            finetune.fit(frames, replace(targets, encoder=encoder), QUICK, 0)


def changed_by_training(**changed: object) -> set[str]:
    """The tensors of the trunk that training changed."""
    frames, targets = cases()
    numbers = {**QUICK, **changed}
    before = build(finetune.shape_of(targets, numbers)).state_dict()
    after = finetune.fit(frames, targets, numbers, 0).network.state_dict()
    return {name for name, tensor in after.items() if name.startswith("trunk.") and not tensor.equal(before[name])}


def test_frozen_layers_stay_and_the_others_learn() -> None:
    everything = changed_by_training()
    assert "trunk.network.pos_embed" not in everything, "the table of positions is not learnt"
    assert {"trunk.network.patch_embed.proj.weight", "trunk.network.cls_token",
            "trunk.network.blocks.0.attn.qkv.weight"} <= everything
    later = changed_by_training(frozen_layers=2)
    assert later == {name for name in everything if name.startswith(("trunk.network.blocks.1.", "trunk.network.norm."))}
    assert not changed_by_training(frozen_layers=4)
    with pytest.raises(TrunkError, match="has 4 layers, 5 cannot be frozen"):
        build(shape(frozen_layers=5))


def test_a_layer_learns_slower_than_the_next_one_and_the_head_at_the_full_rate() -> None:
    found = groups(build(shape()), 0.5)
    assert [share for _, share in found] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
    assert [share for _, share in groups(build(shape(frozen_layers=1)), 0.5)] == [1 / 8, 1 / 4, 1 / 2, 1.0]
    learnt = sum(one.numel() for layer, _ in found for one in layer)
    assert learnt == sum(one.numel() for one in build(shape()).parameters() if one.requires_grad)


class _Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.first(x.mean(-1)) + self.second(x.mean(-1)), None


def test_rates_follow_their_shares_end_at_the_least_and_each_epoch_is_looked_at() -> None:
    """Both layers have the same gradient, so plain descent moves the one four times as far as the other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _Two()
    start = [one.weight.detach().clone() for one in (network.first, network.second)]
    chunks = Chunks.of(cases("heart")[0], 30)
    seen: list[bool] = []
    numbers = {**QUICK, "optimiser": "sgd", "sgd_momentum": 0.0, "weight_decay": 0.0, "gradient_clip": None, "steps": 6}
    recipe = Recipe.of({**numbers, "rate": 0.05})
    tuning = Tuning(lambda net: [(list(net.first.parameters()), 0.25), (list(net.second.parameters()), 1.0)],
                    1e-3, 2, lambda net: seen.append(net.training))
    chunks = replace(chunks, frames=chunks.frames[:, :3])
    train(lambda: network, chunks, cases("heart")[1], recipe, 0, tuning=tuning)
    moved = [(one.weight.detach() - first) for one, first in
             zip((network.first, network.second), start, strict=True)]
    torch.testing.assert_close(moved[0] * 4, moved[1], atol=1e-6, rtol=1e-4)
    assert moved[1].abs().max() > 1e-4
    assert seen == [False] * 3 and not network.training


def test_only_adapters_learn_and_only_they_are_kept() -> None:
    pytest.importorskip("peft", reason="left out: the extra `encoders` is not installed")
    frames, targets = cases()
    fitted = finetune.fit(frames, targets, {**QUICK, "lora_rank": 2}, 0)
    state = fitted.state()
    learnt = {name for name in state.arrays if name.startswith("trunk.")}
    assert len(learnt) == 2 * 2 * 2 and all(".lora_" in name for name in learnt)     # A and B of qkv and proj, 2 blocks
    assert state.scalars["encoder"]["sections"]["m2d"]["sha256"] == targets.encoder["sections"]["m2d"]["sha256"]
    loaded = finetune.load(replace(state, scalars=json.loads(json.dumps(dict(state.scalars)))))
    np.testing.assert_array_equal(loaded.predict_proba(frames).log_p, fitted.predict_proba(frames).log_p)
    with pytest.raises(TrunkError, match="kind heart has no linear layers for adapters"):
        build(shape("heart", lora_rank=2))


def test_without_the_library_adapters_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from heartml.models.heads import finetune_network

    monkeypatch.setattr(finetune_network.importlib.util, "find_spec", lambda _name: None)
    own = SEARCH.model_copy(update={"network_parameters": {"finetune": {
        "encoders": ["x"], "recipe": "m2d_circor", "lora_rank": 4}}})
    with pytest.raises(TrunkError, match=r"need the package peft.*\.\[encoders\]"):
        network_params("finetune", own).check()


def test_what_a_model_keeps_is_what_can_differ_from_the_encoder_s_file() -> None:
    network = build(shape(frozen_layers=1))
    assert set(stored(network, whole=False)) == {
        name for name in network.state_dict() if "patch_embed" not in name and not name.endswith(("_token", "_embed"))}
    assert set(stored(network, whole=True)) == set(network.state_dict())


@pytest.mark.parametrize("kind", ["m2d", "heart", "ast", "wav2vec2"])
def test_from_scratch_nothing_learnable_is_left_of_the_weights(kind: str) -> None:
    before, after = (dict(build(shape(kind, from_scratch=random)).named_parameters()) for random in (False, True))
    flat = {name for name, one in after.items() if one.unique().numel() == 1}      # norms and biases that do nothing
    same = {name for name, one in after.items() if one.equal(before[name]) and not name.startswith("classify")}
    assert same - flat <= {"trunk.network.pos_embed"}


def test_the_best_epoch_by_cases_that_are_not_trained_on_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[int] = set()
    draw = Chunks.draw
    monkeypatch.setattr(Chunks, "draw", lambda self, rows, rng: (drawn.update(rows.tolist()), draw(self, rows, rng))[1])
    scores = iter([0.2, 0.7, 0.1, 0.7])
    monkeypatch.setattr(finetune, "_score", lambda *_given: next(scores))
    frames, targets = cases()
    held = np.isin(targets.groups, [0, 3])
    numbers = {**QUICK, "choose_by": "log_loss", "epochs": 4}
    fitted = finetune.fit(frames, replace(targets, validation=held), numbers, 0)
    assert drawn == set(np.flatnonzero(~held))
    assert (fitted.shape["epoch"], fitted.shape["score"]) == (2, 0.7), "the first of equals"
    monkeypatch.setattr(finetune, "_score", lambda *_given: 0.0)
    first = finetune.fit(frames, replace(targets, validation=held), numbers, 0)
    weight = "trunk.network.blocks.1.mlp.fc1.weight"
    assert not first.network.state_dict()[weight].equal(fitted.network.state_dict()[weight])


def test_without_given_cases_whole_groups_are_held_back_and_the_last_epoch_needs_none() -> None:
    _, targets = cases()
    for by, count in (("accuracy", 1), ("last", 0)):
        held = finetune._validation(targets, {**QUICK, "choose_by": by, "validation_share": 0.15}, 3)
        assert len(set(targets.groups[held])) == count
        assert not set(targets.groups[held]) & set(targets.groups[~held])


def test_chunks_are_of_one_recording_repeated_where_it_is_short_and_masked_only_when_asked() -> None:
    frames = [np.full((n, 5), value, np.float32) + np.arange(n)[:, None] / 64 for n, value in ((20, 0), (90, 4))]
    rows, rng = np.array([0, 1, 1]), np.random.default_rng(0)
    found, states = Chunks.of(frames, 40).draw(rows, rng)
    assert found.shape == (3, 40, 5) and states is None
    np.testing.assert_array_equal(found[0, :20, 0], np.roll(found[0, 20:, 0], 0))
    assert (np.diff(found[1, :, 0]) == 1 / 64).all() and found[1, 0, 0] != found[2, 0, 0]
    np.testing.assert_array_equal(Chunks.of(frames, 40).middle(rows)[1], frames[1][25:65])
    masked, _ = Chunks.of(frames, 40, 3, 20).draw(np.ones(20, np.int64), rng)
    columns = masked.transpose(0, 2, 1).reshape(-1, 40)
    assert (np.diff(columns) == 0).mean() > 0.05


def own_params(**section: object) -> FinetuneParams:
    found = network_params("finetune", SEARCH.model_copy(update={
        "network_parameters": {"finetune": {"encoders": ["ear"], **section}}}))
    assert isinstance(found, FinetuneParams)
    return found


def test_the_recipe_of_m2d_is_that_of_the_paper() -> None:
    """arXiv 2404.17107: 5 s, SGD .9, no decay, 50 epochs, 5 to warm up, a cosine to 1e-7, 2.5e-4 for batches of 32."""
    params = own_params(recipe="m2d_circor")
    training = training_params(params, SEARCH)
    assert (params.epochs, params.batch, params.rate, params.least_rate, params.frozen_layers, params.choose_by) == (
        50, 32, 2.5e-4, 1e-7, 1, "accuracy")
    assert (training.optimiser, training.sgd_momentum, training.weight_decay, training.schedule) == (
        "sgd", 0.9, 0.0, "cosine")
    assert training.warmup_share * 50 == 5
    assert (training.chunk_s, training.inference_chunk_s, training.mixup, training.noise_share) == (5.0, 5.0, 0.0, 0.0)
    ast = own_params(recipe="ast_circor")
    assert (ast.rate, ast.batch, ast.mask_bands, ast.mask_frames, ast.frozen_layers) == (3e-5, 64, 40, 100, 0)


def test_own_numbers_replace_those_of_a_recipe_and_what_contradicts_is_refused() -> None:
    changed = own_params(recipe="m2d_circor", rate=1e-4, training={"accumulation": 4})
    assert (changed.rate, changed.batch) == (1e-4, 32)
    assert training_params(changed, SEARCH) == training_params(own_params(recipe="m2d_circor"), SEARCH).model_copy(
        update={"accumulation": 4})
    stepped = own_params(recipe="small_vit", steps=7)
    assert (stepped.steps, stepped.epochs) == (7, None)
    for section, words in (({"recipe": "m2d"}, "'m2d' is none of m2d_circor, ast_circor, small_vit"),
                           ({"recipe": "small_vit", "epochs": 3, "steps": 7}, "write one of them"),
                           ({"recipe": "small_vit", "from_scratch": True, "lora_rank": 2}, "adapters beside random"),
                           ({"recipe": "m2d_circor", "validation_share": 0.0}, "validation_share"),
                           ({"recipe": ["m2d_circor"]}, "is none of m2d_circor"),
                           ({"recipe": "m2d_circor", "training": None}, "training: write keys"),
                           ({"recipe": "small_vit", "rate": 1e-7}, "is above the rate 1e-07"),
                           ({"recipe": "m2d_circor", "batch": 1}, "batch"),
                           ({"recipe": "m2d_circor", "frozen": 1}, "frozen")):
        with pytest.raises(ParamsError, match=words):
            own_params(**section)
    assert all("epochs" in recipe for recipe in RECIPES.values())


def test_passes_become_steps_and_the_search_draws_only_the_rate() -> None:
    recipe, every = finetune._recipe({**QUICK, "epochs": 3, "batch": 6, "accumulation": 2}, 40)
    assert (every, recipe.steps) == (3, 9)
    assert finetune._recipe({**QUICK, "steps": 5}, 40)[0].steps == 5
    assert set(search_space.hyperparameter_ranges("finetune")) == {"rate"}


def test_memory_grows_with_the_batch_and_shrinks_with_what_is_frozen() -> None:
    network = build(shape())
    one, four = (finetune_memory.needed(network, 70, 32, batch, "adamw") for batch in (1, 4))
    assert four.activations == pytest.approx(4 * one.activations) and one.activations > 0
    learnt = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    assert one.learning == pytest.approx(12 * learnt / 1e9)      # gradient and two moments, four bytes each
    frozen = finetune_memory.needed(build(shape(frozen_layers=3)), 70, 32, 1, "sgd")
    assert frozen.learning < one.learning / 3 and frozen.activations < one.activations


def test_a_training_that_does_not_fit_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Memory(0.4, 1.2, 2.5)
    assert large.words == "4.1 GB of memory (weights 0.4, gradients and optimiser 1.2, activations of a batch 2.5)"
    finetune_memory.check(large, 2, 8.3)
    with pytest.raises(MemoryRefused, match=r"2 trainings at once need 4\.1 GB .*each, and 8\.1 GB are free. Lower"):
        finetune_memory.check(large, 2, 8.1)
    monkeypatch.setattr(finetune_memory, "free", lambda: 0.0)
    told = described(spec("m2d"))
    with pytest.raises(MemoryRefused):
        finetune.told_in_advance(told, 3, QUICK, 1)
    line = finetune.told_in_advance(told, 3, {**QUICK, "check_memory": False}, 2)
    assert line.startswith("finetune on tuned: 0.0 GB of memory") and "2 trainings at once; 0.0 GB are free" in line


def test_the_search_tells_the_memory_of_every_encoder_that_is_fine_tuned() -> None:
    own = SEARCH.model_copy(update={
        "heads": ("logistic", "sequence", "finetune"), "network_trials": {"sequence": 1, "finetune": 1}, "tasks": {},
        "network_parameters": {**SEARCH.network_parameters,
                               "finetune": {"encoders": ["tuned", "other"], "recipe": "m2d_circor"}}})
    train_set = SimpleNamespace(recording_ids=("a",), task=SimpleNamespace(classes=("Present", "Absent")))
    stored_frames = {"tuned": SimpleNamespace(encoder=described(spec("m2d")))}
    data: Any = SimpleNamespace(train_set=train_set, encoders=stored_frames)
    [line] = SearchRun(data, "some-task", PARAMS.model_copy(update={"search": own}), Path()).memory(3)
    assert line.startswith("finetune on tuned: ") and "for each of 3 trainings at once" in line
    without = own.model_copy(update={"network_trials": {"sequence": 1}})
    assert not SearchRun(data, "some-task", PARAMS.model_copy(update={"search": without}), Path()).memory(3)


def test_the_trunks_of_this_project_are_those_of_their_kinds() -> None:
    made = {kind: trunks.of(kind, encoders.load_once(spec(kind))) for kind in ("m2d", "heart")}
    assert isinstance(made["m2d"], m2d_trunk.M2dTrunk) and made["m2d"].width == 2 * 24
    assert isinstance(made["heart"], heart_trunk.HeartTrunk) and made["heart"].width == 8
    assert INPUT == ("input",)
