"""The head `describe`: it asks the library's own Qwen2-Audio, learns the answer alone, and hears the cleanest beats."""

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="left out: the extra `encoders` is not installed")
pytest.importorskip("peft", reason="left out: the extra `encoders` is not installed")

from support import tiny_checkpoints, tiny_qwen

from heartml.core import config
from heartml.core.system.parallel import single_thread
from heartml.core.tasks import TASKS
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec, weight_files
from heartml.models.heads import (
    HeadState,
    Targets,
    describe,
    describe_beats,
    describe_memory,
    describe_network,
    describe_text,
)
from heartml.models.heads.describe import FittedDescribe
from heartml.models.heads.describe_network import Answering, pattern, shared
from heartml.models.heads.describe_params import DescribeError
from heartml.models.heads.finetune_memory import MemoryRefused
from heartml.models.heads.log_probabilities import SMALLEST
from heartml.models.heads.network_training import learning_curve
from heartml.models.segmentation import Segmentation
from heartml.models.trunks import TrunkError
from heartml.models.trunks import transformers as transformers_trunk
from heartml.training import search_space

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
TASK = TASKS["systolic_timing"]
CASES = 16
QUICK: dict[str, Any] = {
    **search_space.fixed_hyperparameters(PARAMS.search, "describe"), "steps": 20, "batch": 4, "accumulation": 1,
    "rate": 2e-2, "lora_rank": 4, "lora_alpha": 8, "cycles": 2, "segmenter_steps": 6, "segmenter_channels": 8,
    "segmenter_batch": 8, "chunk_s": 2.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    single_thread()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    folder = tiny_qwen.write(tmp_path_factory.mktemp("qwen") / "tiny")
    section = {"kind": "transformers", "weights": str(folder), "sha256": weight_files.hash_of(folder),
               "layers": ["input"]}
    return encoders.spec("qwen_input", tiny_checkpoints.with_sections(PARAMS, {"qwen_input": section}))


def data(spec: EncoderSpec, classes: int = 4, cases: int = CASES) -> tuple[list[np.ndarray], Targets]:
    """Log-mel frames in which each class is loud in bands of its own; the heart beats once in .6 s."""
    rng, labels = np.random.default_rng(0), np.arange(cases) % classes
    frames = [rng.normal(-0.5, 0.2, (int(rng.integers(180, 400)), 80)).astype(np.float32) for _ in range(cases)]
    states = [np.resize(np.repeat(np.arange(4), [12, 12, 10, 26]), len(one)).astype(np.int8) for one in frames]
    for one, state, label in zip(frames, states, labels, strict=True):
        one[state == 0, :8] += 1.0
        one[state == 2, 8:16] += 1.0
        one[:, 20 * label : 20 * label + 20] += 0.8
    return frames, Targets(labels, 4, np.arange(cases) // 2, states, 100.0, spec.to_json(), task=TASK)


def network(spec: EncoderSpec, *, adapt_audio: bool = False) -> Answering:
    return shared(describe.section_of(spec.to_json()), 4, 8, adapt_audio)


@pytest.fixture(scope="module")
def fitted_once(spec: EncoderSpec) -> tuple[FittedDescribe, list[np.ndarray], Targets, list[float]]:
    frames, targets = data(spec)
    with learning_curve() as curve:
        fitted = describe.fit(frames, targets, {**QUICK, "steps": 110, "batch": 8, "rate": 1e-2}, 1)
    assert isinstance(fitted, FittedDescribe)
    return fitted, frames, targets, curve.loss


def test_what_is_asked_is_what_the_library_s_processor_makes_of_the_sound(spec: EncoderSpec) -> None:
    import transformers

    processor = transformers.Qwen2AudioProcessor.from_pretrained(spec.pretrained.path)
    asked = describe_text.prompt(TASK, TASK.classes)
    content = [{"type": "audio", "audio_url": "x"},
               {"type": "text", "text": describe_text.question(TASK, TASK.classes)}]
    assert asked == processor.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=processor.default_chat_template,
        add_generation_prompt=True, tokenize=False)
    wave = np.random.default_rng(0).normal(size=16000).astype(np.float32) * 0.1
    expected = processor(text=asked, audio=wave, sampling_rate=16000, return_tensors="pt")
    sound = encoders.load(spec).encode(torch.from_numpy(wave)[None])[0].numpy()
    assert sound.shape == (100, 80)
    given = network(spec).inputs([sound], asked, ["Mid-systolic"])
    count = expected["input_ids"].shape[1]
    assert given["input_ids"][:, :count].equal(expected["input_ids"])
    assert given["feature_attention_mask"].equal(expected["feature_attention_mask"])
    apart = (given["input_features"] - expected["input_features"]).abs().amax(dim=(0, 1))
    assert apart[:100].max() == 0
    assert apart[102:].max() < 1e-6, "silence behind it; the windows of two frames in between reach the sound"


def test_a_likelihood_is_minus_the_library_s_own_loss_of_the_answer_and_nothing_else(spec: EncoderSpec) -> None:
    frames, _ = data(spec)
    asked = describe_text.prompt(TASK, TASK.classes)
    answering = network(spec)
    with torch.inference_mode():
        together = answering([one[:150] for one in frames[:4]], asked, list(TASK.classes))
        for number, word in enumerate(TASK.classes):
            given = answering.inputs([frames[number][:150]], asked, [word])
            tokens = given["labels"][given["labels"] >= 0]
            assert answering.tokenizer.decode(tokens) == f"{word}<|im_end|>"
            expected = -answering.network(**given).loss * len(tokens)
            torch.testing.assert_close(together[number], expected, atol=1e-4, rtol=1e-5)


def test_training_lowers_the_loss_and_the_sound_decides(fitted_once: Any) -> None:
    fitted, frames, targets, loss = fitted_once
    assert loss[-1] < 0.2 * loss[0]
    p = np.exp(fitted.predict_proba(frames).log_p)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-9)
    assert (p > 0).all()
    assert (p.argmax(1) == targets.labels).mean() > 0.9
    of_others = np.exp(fitted.predict_proba([*frames[1:], frames[0]]).log_p)
    assert (of_others.argmax(1) == targets.labels).mean() < 0.2, "the words alone cannot tell"


def as_bytes(state: HeadState) -> bytes:
    arrays = [(name, array.shape, np.asarray(array).tobytes()) for name, array in sorted(state.arrays.items())]
    return repr((arrays, json.dumps(dict(state.scalars), sort_keys=True))).encode()


def test_saved_is_loaded_also_after_another_head_used_the_network(fitted_once: Any, spec: EncoderSpec) -> None:
    fitted, frames, targets, _ = fitted_once
    state = fitted.state()
    expected = fitted.predict_proba(frames[:3]).log_p
    loaded = describe.load(replace(state, scalars=json.loads(json.dumps(dict(state.scalars)))))
    other = describe.fit(frames, targets, {**QUICK, "steps": 1}, 2)
    assert not np.array_equal(other.predict_proba(frames[:3]).log_p, expected)
    np.testing.assert_array_equal(loaded.predict_proba(frames[:3]).log_p, expected)
    assert as_bytes(loaded.state()) == as_bytes(state)
    np.testing.assert_array_equal(loaded.predict_proba(frames[2:3]).log_p[0], expected[2])
    assert all("lora_" in name or name.startswith("segmenter.") for name in state.arrays)
    with pytest.raises(DescribeError, match="do not fit its language model"):
        describe.load(replace(state, scalars={**state.scalars, "adapt_audio": True})).predict_proba(frames[:1])


def test_the_same_seed_gives_the_same_bytes_and_no_global_generator_is_touched(spec: EncoderSpec) -> None:
    frames, targets = data(spec)
    few = {**QUICK, "steps": 2}
    first = as_bytes(describe.fit(frames, targets, few, 3).state())
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert as_bytes(describe.fit(frames, targets, few, 3).state()) == first
    assert torch.equal(before, torch.get_rng_state())
    assert as_bytes(describe.fit(frames, targets, few, 4).state()) != first


def test_a_class_that_training_lacks_is_no_word_and_stays_possible(spec: EncoderSpec) -> None:
    frames, targets = data(spec, classes=3)
    fitted = describe.fit(frames, targets, {**QUICK, "steps": 1}, 0)
    assert isinstance(fitted, FittedDescribe)
    assert fitted.shape["words"] == list(TASK.classes[:3]) and "Holosystolic" not in fitted.shape["prompt"]
    p = np.exp(fitted.predict_proba(frames[:2]).log_p)
    np.testing.assert_allclose(p[:, 3], SMALLEST, rtol=1e-3)


def test_the_pattern_says_whether_what_hears_learns_too(spec: EncoderSpec) -> None:
    for adapt_audio in (False, True):
        names = set(network(spec, adapt_audio=adapt_audio).stored())
        assert any("audio_tower" in name for name in names) == adapt_audio
        assert any("language_model" in name for name in names)
    assert pattern(adapt_audio=False) != pattern(adapt_audio=True)


def test_adapters_learn_in_single_precision_beside_weights_of_half_of_it(spec: EncoderSpec, monkeypatch: Any) -> None:
    """As on a GPU."""
    monkeypatch.setattr(describe_network, "numbers", lambda: torch.bfloat16)
    frames, targets = data(spec)
    with learning_curve() as curve:
        fitted = describe.fit(frames, targets, {**QUICK, "steps": 30}, 1)
    assert curve.loss[-1] < 0.7 * curve.loss[0]
    answering = network(spec)
    assert {weight.dtype for weight in answering.learning()} == {torch.float32}
    assert {weight.dtype for weight in answering.parameters()} == {torch.float32, torch.bfloat16}
    np.testing.assert_allclose(np.exp(fitted.predict_proba(frames[:2]).log_p).sum(1), 1, atol=1e-9)


def test_the_surest_whole_cycles_are_taken() -> None:
    onsets = np.arange(0.5, 9.0, 0.8)
    starts = np.sort(np.concatenate([onsets, onsets + 0.1, onsets + 0.3, onsets + 0.4]))
    found = Segmentation(starts, np.arange(len(starts)) % 4, 9.5)
    sure = np.full(238, -1.0)
    sure[round(3.7 * 25) : round(5.3 * 25)] = -0.1
    assert describe_beats.surest(found, sure, 25.0, 2, 9.5, 30.0) == pytest.approx((3.7, 5.3))
    assert describe_beats.surest(found, np.zeros(238), 25.0, 2, 9.5, 30.0) == pytest.approx((3.7, 5.3)), "the middle"
    assert describe_beats.surest(found, sure, 25.0, 2, 9.5, 1.0) == pytest.approx((3.7, 4.5)), "no longer than heard"
    nothing = Segmentation(np.array([0.0]), np.array([1]), 9.5)
    assert describe_beats.surest(nothing, sure, 25.0, 2, 9.5, 2.0) == pytest.approx((3.75, 5.75))


def test_beats_are_those_of_the_segmenter_or_without_annotations_of_the_loudness(fitted_once: Any) -> None:
    fitted, frames, targets, _ = fitted_once
    assert fitted.beats.segmenter is not None
    for one in frames[:4]:
        start, end = fitted.beats.place(one)
        assert 0 <= start < end <= len(one) and end - start <= fitted.beats.longest == 200
    unknown = describe_beats.fit(frames, replace(targets, states=None), QUICK, 200, 0)
    assert unknown.segmenter is None and 0 < len(unknown.of(frames[0])) <= 200
    assert describe_beats.load(unknown.state(), 100.0, 2, 200) == unknown
    assert len(unknown.of(frames[0][:1])) == 1


def test_certainty_is_that_of_the_path() -> None:
    posteriors = np.array([[0.7, 0.1, 0.1, 0.0, 0.05, 0.05], [0.7, 0.1, 0.1, 0.0, 0.05, 0.05]])
    np.testing.assert_allclose(np.exp(describe_beats.certainty(posteriors, np.array([0, 1]))), [0.7, 0.1], atol=1e-3)


def test_what_is_no_language_model_is_refused_with_the_way_out(spec: EncoderSpec, tmp_path: Path) -> None:
    frames, targets = data(spec, cases=4)
    for encoder in (None, encoders.spec("logspec", PARAMS).to_json()):
        with pytest.raises(DescribeError, match=r"layers: \[input\]"):
            describe.fit(frames, replace(targets, encoder=encoder), QUICK, 0)
    with pytest.raises(DescribeError, match="needs a task"):
        describe.fit(frames, replace(targets, task=None), QUICK, 0)
    ast, _ = tiny_checkpoints.transformers(tmp_path / "ast", "ast")
    with pytest.raises(DescribeError, match="network of type 'audio-spectrogram-transformer'"):
        shared({"weights": str(ast), "sha256": weight_files.hash_of(ast)}, 4, 8, False)
    with pytest.raises(TrunkError, match="the head `describe` trains"):
        transformers_trunk.make(encoders.load(spec))
    tokenizer = network(spec).tokenizer
    with pytest.raises(DescribeError, match="has no token"):
        describe_text.prompt_tokens(lambda text, **_more: tokenizer(text[1:]), "<|AUDIO|>", 1)


def test_memory_is_counted_on_the_network_and_told_in_advance(spec: EncoderSpec, monkeypatch: Any) -> None:
    from heartml.models.heads import finetune_memory

    answering = network(spec)
    every = sum(weight.numel() for weight in answering.network.parameters())
    own = sum(weight.numel() for weight in answering.learning())
    assert describe_memory.parameters(answering.network.config, QUICK) == (every - own, own)
    assert describe.told_in_advance(spec.to_json(), 4, QUICK, 1).startswith("describe on qwen_input: 0.0 GB of memory")
    monkeypatch.setattr(finetune_memory, "free", lambda: 0.0)
    with pytest.raises(MemoryRefused, match=r"describe: 2 trainings at once need .* `check_memory: false`"):
        describe.told_in_advance(spec.to_json(), 4, QUICK, 2)
    assert "0.0 GB are free" in describe.told_in_advance(spec.to_json(), 4, {**QUICK, "check_memory": False}, 2)


def test_without_the_libraries_the_search_says_which_extra(monkeypatch: Any) -> None:
    from heartml.models.heads import describe_params

    monkeypatch.setattr(describe_params.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DescribeError, match=r"pip install '\.\[encoders\]'"):
        describe_params.check_libraries()
    assert functools.reduce(bool.__and__, (name in sys.modules for name in ("peft", "transformers")))
