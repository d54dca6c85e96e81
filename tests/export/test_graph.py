"""The graphs answer as the model does: every head, encoder and pooling, at any rate and length, alone and together."""

from dataclasses import replace

import numpy as np
import pytest
from support import many_heads

from heartml.audio import preprocessing, quality
from heartml.core.config import AudioParams
from heartml.models import pooling, segmentation
from heartml.models.fitted_model import Model
from heartml.models.shared_inputs import SharedInputs

pytest.importorskip("spox", reason="left out: the extra `export` is not installed")

import onnx
import onnxruntime
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, argument, build

from heartml.export import graph
from heartml.export.graph import CannotExport, int8, networks, ops, signal, trees
from heartml.export.graph import pooling as pooling_graph
from heartml.export.graph.folding import LARGE_BYTES, folded

RATES_HZ = (4000, 2000, 8000, 11025, 16000, 44100, 48000, 11127)
RECORDINGS = 200


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def run(of: onnxruntime.InferenceSession, **inputs: object) -> dict[str, np.ndarray]:
    names = [one.name for one in of.get_outputs()]
    return dict(zip(names, of.run(names, inputs), strict=True))


@pytest.fixture(scope="module")
def model() -> Model:
    return many_heads.fit()


@pytest.fixture(scope="module")
def graphs(model: Model) -> graph.Graphs:
    return graph.of_model(model)


@pytest.fixture(scope="module")
def answers(model: Model, graphs: graph.Graphs):
    """The model's prediction and heart states, and the outputs of the graph, for each of the recordings."""
    of_recording, found = session(folded(graphs.recording)), []      # as it is written
    for number in range(RECORDINGS):
        rate = RATES_HZ[number % len(RATES_HZ)] if number % 2 else 4000
        one = many_heads.sound(number, 0.6 + 2.4 * (number % 17) / 16, rate)
        shared = SharedInputs([(one.floats, rate)], ["one"])
        own, heart = model.predict_shared(shared), model.heart_states_of(shared, [one.seconds])[0]
        found.append((own, heart, run(of_recording, samples=one.floats, sample_rate_hz=np.array(rate))))
    return found


def test_every_probability_of_two_hundred_recordings_is_the_models(answers) -> None:
    for own, _, out in answers:
        np.testing.assert_allclose(out["probabilities"], own.probabilities[0], atol=1e-4)
        np.testing.assert_allclose(out["calibrated"], own.calibrated[0], atol=1e-4)
        np.testing.assert_allclose(out["recording_probabilities"], own.recording_probabilities[0], atol=1e-4)
        np.testing.assert_allclose(out["confidence"], own.confidence[0], atol=1e-4)


def test_every_decision_and_every_reason_to_refer_is_the_models(answers) -> None:
    for own, _, out in answers:
        assert out["decision"] == own.decisions[0]
        named = {name for name, yes in zip(graph.check_names("heart"), out["reasons"], strict=True) if yes}
        unsure = {graph.UNSURE} if own.confidence[0] < own.refer_below else set()
        assert named == {one.check for one in own.reasons[0]} | unsure
        assert bool(out["refer"]) == (own.verdicts[0] == "refer")
    checks = [{one.check for one in own.reasons[0]} for own, _, _ in answers]
    assert {"unlike", "short"} <= set.union(*checks) and set() in checks


def test_heart_states_are_the_models(answers) -> None:
    for _, heart, out in answers:
        np.testing.assert_array_equal(out["states"], heart.states)
        np.testing.assert_allclose(out["state_starts_s"], heart.starts_s, atol=1e-3)


@pytest.mark.parametrize("seconds", [0.8, 2.5, 11.0])
def test_states_onsets_and_heart_rate_of_posteriors_are_those_of_the_segmentation(seconds: float) -> None:
    frames = round(seconds * 50)
    time = np.arange(-(-frames // 2)) / 25
    phase, rng = time % 0.8, np.random.default_rng(1)
    state = np.select([phase < 0.12, phase < 0.3, phase < 0.4], [0, 4, 2], 1)     # columns of segment_features
    posteriors = (np.eye(6)[state] * 0.8 + rng.uniform(0.0, 0.2, (len(time), 6))).astype(np.float32)
    posteriors /= posteriors.sum(1, keepdims=True)
    with ops.operators():
        p, x = argument(Tensor(np.float32, ("t", 6))), argument(Tensor(np.float32, ("frames", 2)))
        proto = build({"p": p, "x": x}, networks.segmentation(p, x, ops.f64(seconds), 50.0))
    found = run(session(proto), p=posteriors, x=np.zeros((frames, 2), np.float32))
    own = segmentation.decode(posteriors, 25.0, (seconds - (frames - 1) / 50) / 2)
    np.testing.assert_array_equal(found["states"], own.states)
    np.testing.assert_allclose(found["state_starts_s"], own.starts_s, atol=1e-6)
    np.testing.assert_allclose(found["heart_rate_per_min"], own.heart_rate_per_min or np.nan)
    assert (own.heart_rate_per_min is not None) == (seconds > 1.0)


def test_recordings_of_one_patient_are_answered_together(model: Model, graphs: graph.Graphs) -> None:
    of_recording, of_unit = session(graphs.recording), session(graphs.unit)
    for count in (1, 2, 3, 5):
        sounds = [many_heads.sound(7 * count + k, 1.5 + k / 3) for k in range(count)]
        own = model.predict_audio([(one.floats, 4000) for one in sounds], ["patient"] * count)
        features = [run(of_recording, samples=one.floats, sample_rate_hz=np.array(4000))["features"] for one in sounds]
        out = run(of_unit, features=np.stack(features))
        np.testing.assert_allclose(out["probabilities"], own.probabilities[0], atol=1e-4)
        np.testing.assert_allclose(out["calibrated"], own.calibrated[0], atol=1e-4)
        named = {name for name, yes in zip(graph.check_names("heart"), out["reasons"], strict=True) if yes}
        assert named - {graph.UNSURE} == {one.check for one in own.reasons[0]}


def test_a_model_without_checks_refers_nothing_but_what_it_is_unsure_of(model: Model) -> None:
    without = many_heads.without_networks(replace(model, applicability=None, refer_below=0.0))
    out = run(session(graph.of_model(without).recording), samples=many_heads.sound(1, 1.0).floats,
              sample_rate_hz=np.array(4000))
    assert not out["reasons"].any() and not out["refer"] and len(out["distances"]) == 0


def test_only_standard_operators_of_a_stated_opset(graphs: graph.Graphs) -> None:
    for proto in (graphs.recording, graphs.unit):
        onnx.checker.check_model(proto)
        assert {one.domain or "ai.onnx": one.version for one in proto.opset_import} == {"ai.onnx": 18}
        assert not proto.functions


def test_eight_bits_are_smaller_and_nearly_the_same(graphs: graph.Graphs) -> None:
    small = int8.with_eight_bits(graphs.recording)
    onnx.checker.check_model(small)
    assert small.ByteSize() < graphs.recording.ByteSize()
    one = many_heads.sound(5, 2.0)
    given = {"samples": one.floats, "sample_rate_hz": np.array(4000)}
    exact, near = (run(session(proto), **given)["probabilities"] for proto in (graphs.recording, small))
    assert 0 < np.abs(exact - near).max() < 0.02


def test_a_head_that_cannot_be_written_is_named(model: Model) -> None:
    [first, *_] = model.members
    spec = replace(model.members[first].spec, head="fcnn")
    changed = replace(model, members={**model.members, first: replace(model.members[first], spec=spec)})
    with pytest.raises(CannotExport, match="head fcnn"):
        graph.check(changed)


def test_an_encoder_that_cannot_be_written_is_named(model: Model) -> None:
    renamed = {**model.encoder_specs, "amplitude": {**model.encoder_specs["logspec"], "name": "amplitude"}}
    with pytest.raises(CannotExport, match="encoder amplitude"):
        graph.check(replace(model, encoder_specs=renamed))


@pytest.mark.parametrize("frames", [2, 90, 200, 417])
def test_every_pooling_is_the_models(frames: int) -> None:
    given = np.abs(np.random.default_rng(frames).normal(size=(frames, 12))).astype(np.float32) + 0.1
    grid, with_states = pooling.Grid(6, 2), pooling.Grid(1, 12, states=pooling.STATES)
    with ops.operators():
        x = argument(Tensor(np.float32, ("frames", 12)))
        outputs = {name: pooling_graph.pooled(name, x, 50.0, grid) for name in pooling.POOLINGS}
        proto = build({"x": x}, {**outputs, "own states": pooling_graph.pooled("states", x, 50.0, with_states)})
    found = run(session(proto), x=given)
    expected = pooling.pool("states", [given], 50.0, with_states)[0]
    np.testing.assert_allclose(found["own states"], expected, rtol=1e-5, atol=1e-5)
    for name in pooling.POOLINGS:
        np.testing.assert_allclose(found[name], pooling.pool(name, [given], 50.0, grid)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_prepared_samples_and_quality_are_those_of_the_pipeline(rate_hz: int) -> None:
    audio = AudioParams(sample_rate_hz=4000, highpass_hz=20.0, resample_filter_width=6)
    one = many_heads.sound(rate_hz, 1.3, rate_hz)
    given = one.floats * 0.5 + np.float32(0.1)
    given[::97] = 0.95
    with ops.operators():
        samples, rate = argument(Tensor(np.float32, ("time",))), argument(Tensor(np.int64, ()))
        wave = ops.double(samples)
        outputs = {"prepared": signal.prepared(wave, rate, audio), **signal.measured(wave, rate)}
        proto = build({"samples": samples, "rate": rate}, outputs)
    found = run(session(proto), samples=given, rate=np.array(rate_hz))
    expected = preprocessing.prepare(given, rate_hz, audio)
    assert found["prepared"].shape == expected.shape
    np.testing.assert_allclose(found["prepared"], expected, atol=5e-5 * np.abs(expected).max())
    measured = quality.measure(given, rate_hz)
    step_hz = 2 * rate_hz / len(given)
    for name in graph.QUALITY:
        np.testing.assert_allclose(found[name], getattr(measured, name), rtol=1e-4,
                                   atol=2 * step_hz if name.endswith("_hz") else 1e-4, err_msg=name)


def test_what_is_constant_is_worked_out_and_large_weights_stay_as_they_are_stored(graphs: graph.Graphs) -> None:
    for whole in (graphs.recording, int8.with_eight_bits(graphs.recording)):
        found = folded(whole)
        onnx.checker.check_model(found)
        assert len(found.graph.node) < len(whole.graph.node) / 2
        assert [one.name for one in found.graph.input] == [one.name for one in whole.graph.input]
        assert [one.name for one in found.graph.output] == [one.name for one in whole.graph.output]
        assert found.opset_import == whole.opset_import
        assert _large(found) == _large(whole)
        assert folded(whole).SerializeToString(deterministic=True) == found.SerializeToString(deterministic=True)


def _large(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of each large constant that is stored in half precision or in eight bits, sorted."""
    constants = [one.attribute[0].t for one in model.graph.node
                 if one.op_type == "Constant" and one.attribute[0].name == "value"]
    arrays = [onnx.numpy_helper.to_array(one) for one in (*constants, *model.graph.initializer)]
    return sorted((str(one.dtype), one.shape) for one in arrays
                  if one.nbytes >= LARGE_BYTES and one.dtype in (np.float16, np.int8))


def test_a_value_at_a_threshold_goes_left_as_in_the_forest() -> None:
    """In single precision a threshold between two numbers must not be rounded past the value that it separates."""
    below = np.float32(0.1)
    above = np.nextafter(below, np.float32(1))
    threshold = (float(below) + float(above)) / 2
    flat = np.zeros(3, np.int64)
    whole = trees.Trees(flat, np.arange(3), flat, np.array([threshold, 0, 0]), np.array([1, 1, 2]),
                        np.array([2, 1, 2]), np.array([False, True, True]), np.array([[0.0], [1.0], [2.0]]))
    with ops.operators():
        x = argument(Tensor(np.float64, ("cases", 1)))
        proto = build({"x": x}, {"y": trees.summed(x, whole, average=False)})
    found = run(session(proto), x=np.array([[below], [above]], np.float64))["y"]
    assert found.ravel().tolist() == [1.0, 2.0]


def test_the_median_of_nothing_is_no_number() -> None:
    with ops.operators():
        x = argument(Tensor(np.float64, ("n",)))
        proto = build({"x": x}, {"y": op.reshape(ops.median(x), ops.i64([1]))})
    of = session(proto)
    assert np.isnan(run(of, x=np.zeros(0))["y"][0])
    assert [float(run(of, x=np.array(v))["y"][0]) for v in ([3.0], [1.0, 2.0], [9.0, 1.0, 5.0])] == [3.0, 1.5, 5.0]
