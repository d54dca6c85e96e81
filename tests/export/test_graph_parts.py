"""The parts of the graph, each beside the function that it writes down: evidence, frames, probabilities of heads."""

import numpy as np
import pytest
from support import many_heads, small_tuning, tiny_checkpoints, tiny_models
from support.input_checks import checks as made_checks

from heartml.audio import preprocessing, quality
from heartml.core.config import Params
from heartml.core.system.hashing import sha256_file
from heartml.models import encoders as own_encoders
from heartml.models.applicability import heart_evidence
from heartml.models.ensemble import stacking
from heartml.models.heads.softmax import Softmax

pytest.importorskip("spox", reason="left out: the extra `export` is not installed")

import onnxruntime
from spox import Tensor, argument, build

from heartml.export.graph import checks, encoders, heads, ops


def run(inputs: dict[str, object], outputs: dict[str, object], given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(build(inputs, outputs).SerializeToString())
    names = list(outputs)
    return dict(zip(names, session.run(names, given), strict=True))


@pytest.mark.parametrize("frames", [8, 31, 33, 150, 151, 700])
def test_evidence_of_a_heart(frames: int) -> None:
    given = np.random.default_rng(frames).normal(size=(frames, 48)).astype(np.float32)
    given[::40, :20] += 4
    with ops.operators():
        x = argument(Tensor(np.float64, ("frames", 48)))
        found = run({"x": x}, {"y": checks.evidence(x, 50.0, 48)}, {"x": given.astype(np.float64)})["y"]
    np.testing.assert_allclose(found, heart_evidence.evidence(given, 50.0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("farthest", [0.1, 9.0, 11.0, 1e6])
def test_findings_of_a_recording(farthest: float) -> None:
    domain = made_checks(farthest)
    frames = np.random.default_rng(3).normal(size=(200, 48)).astype(np.float32)
    measured = quality.Quality(1.0, 0.001, -20.0, 0.0, 0.5, 400.0, 0.9, 9.0, 400.0)
    given = {name: ops.f64(getattr(measured, name)) for name in ("seconds", "peak", "clipped_share", "silent_share")}
    with ops.operators():
        x = argument(Tensor(np.float32, ("frames", 48)))
        made = checks.findings(domain, x, 50.0, 48, given)
        found = run({"x": x}, {"marks": made.marks, "distances": made.distances}, {"x": frames})
    named = [name for name, mark in zip(checks.names(), found["marks"], strict=True) if mark]
    assert named == [one.check for one in domain.judge([frames], 50.0, [measured])[0]]
    assert named[:4] == ["short", "quiet", "clipped", "silent"]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    file = tiny_checkpoints.heart(tmp_path_factory.mktemp("heart") / "heart.safetensors")[0]
    own = {"weights": str(file), "sha256": sha256_file(file), "layers": ["last", 1]}
    parameters = {**tiny_models.PARAMS.encoder_parameters, "heart": own}
    return tiny_models.PARAMS.model_copy(update={"encoder_parameters": parameters})


@pytest.mark.parametrize("name", sorted(encoders.GRAPHS))
@pytest.mark.parametrize("seconds", [0.6, 3.1])
def test_frames_of_an_encoder(name: str, seconds: float, params: Params) -> None:
    spec = own_encoders.spec(name, params)
    one = many_heads.sound(1, seconds)
    expected = own_encoders.frames_of(own_encoders.load(spec), spec, one.floats, one.sample_rate_hz).astype(np.float32)
    assert encoders.can(spec)
    with ops.operators():
        x, rate = argument(Tensor(np.float64, ("time",))), argument(Tensor(np.int64, ()))
        given = {"x": one.floats.astype(np.float64), "rate": np.array(one.sample_rate_hz)}
        found = run({"x": x, "rate": rate}, {"y": encoders.frames(x, rate, spec, {})}, given)["y"]
    assert found.shape == expected.shape
    step = np.maximum(np.spacing(np.abs(expected).astype(np.float16)).astype(float), 2e-4)
    assert (np.abs(found - expected) / step).max() <= 2.0, "more than a rounding step of half precision apart"
    assert np.mean(found == expected) > 0.9
    assert preprocessing.prepare(one.floats, one.sample_rate_hz, spec.audio).shape == one.floats.shape


@pytest.mark.parametrize("kind", stacking.STACKER_KINDS)
def test_a_stacker_of_any_kind_is_the_same_graph(kind: stacking.StackerKind) -> None:
    rng = np.random.default_rng(0)
    columns, labels = rng.normal(size=(90, 12)), np.arange(90) % 3
    fitted = stacking.Stacker.fit("stack", stacking.StackingFeatures(columns), labels, np.ones(3),
                                  tiny_models.PARAMS.stacking, kind)
    assert fitted.kind == kind
    with ops.operators():
        x = argument(Tensor(np.float64, ("cases", 12)))
        found = run({"x": x}, {"y": heads.stacker(x, fitted)}, {"x": columns})["y"]
    np.testing.assert_allclose(found, fitted.predict_log_proba(columns), atol=1e-5)


@pytest.mark.parametrize("kind", ["heart", "m2d"])
def test_an_encoder_whose_frames_are_its_input_is_not_exported(kind: str) -> None:
    assert not encoders.can(small_tuning.spec(kind))


def test_a_class_that_training_lacked_has_the_smallest_probability() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(40, 5)), np.array([0, 2] * 20)
    fitted = Softmax.fit(vectors, labels, 4, np.ones(40), 1.0)
    with ops.operators():
        x = argument(Tensor(np.float64, ("cases", 5)))
        found = run({"x": x}, {"y": heads.softmax(x, fitted)}, {"x": vectors})["y"]
    np.testing.assert_allclose(found, fitted.predict_log_proba(vectors), atol=1e-5)
    assert np.exp(found[:, [1, 3]]).max() < 1e-5
