"""A fitted model as two ONNX graphs: samples of one recording in, a decision out; and recordings of a patient together.

`recording` takes samples and their rate. `unit` takes the vectors `features` that `recording` gave for each recording
of one patient. `recording` holds the same as `unit` for a patient with this recording alone. Only standard operators
are used (opset 18), and every length is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from spox import Tensor, Var, argument, build

from heartml.core.system.errors import HeartMLError
from heartml.core.task_definition import Organ
from heartml.export.graph import checks, encoders, heads, networks, ops, pooling, signal
from heartml.export.graph.ops import double, f64, i64, part, single
from heartml.models.encoders import EncoderSpec
from heartml.models.ensemble.candidate import Member
from heartml.models.ensemble.stacking import StackingView
from heartml.models.fitted_model import Model
from heartml.models.heads import SegmentsHeartStates, learns_parent, segment_features
from heartml.models.heads.related import FittedRelated
from heartml.models.pooling import Grid, pool

UNSURE = "unsure"
QUALITY = ("seconds", "peak", "level_db", "dc", "clipped_share", "bandwidth_hz", "silent_share", "contrast_db",
           "heard_bandwidth_hz")


class CannotExport(HeartMLError):  # noqa: N818 - names what is the case
    """The model has a part that cannot be written as a graph; the message names it."""


def check_names(organ: Organ) -> tuple[str, ...]:
    """What the graphs may say against a decision, in their order."""
    return (*checks.names(organ), UNSURE)


@dataclass(frozen=True)
class Graphs:
    """The two models; see the module."""

    recording: onnx.ModelProto
    unit: onnx.ModelProto


@dataclass(frozen=True)
class _Slot:
    """Where something about a recording lies in its vector of features."""

    start: int
    stop: int


class _Layout:
    """The vector of features: what is appended to it, and where it lies."""

    def __init__(self) -> None:
        self.parts: list[Var] = []
        self.slots: dict[tuple[Any, ...], _Slot] = {}
        self.size = 0

    def add(self, key: tuple[Any, ...], vector: Var, size: int) -> None:
        """Append a vector `[size]` under a key."""
        self.parts.append(vector)
        self.slots[key] = _Slot(self.size, self.size + size)
        self.size += size

    def of(self, key: tuple[Any, ...], features: Var) -> Var:
        """The part under a key: `[r, features] -> [r, size]`."""
        slot = self.slots[key]
        return part(features, slot.start, slot.stop, 1)

    def has(self, key: tuple[Any, ...]) -> bool:
        """Whether there is something under a key."""
        return key in self.slots


def check(model: Model) -> None:
    """Check that every part of a model can be written as a graph.

    Raises:
        CannotExport: one cannot.
    """
    for name, saved in model.encoder_specs.items():
        if not encoders.can(EncoderSpec.from_json(saved)):
            raise CannotExport(f"the encoder {name} cannot be written as a graph yet; those that can: "
                               f"{', '.join(encoders.GRAPHS)}. Train without it, or `--distil`")
    for trial, member in model.members.items():
        head = member.spec.head
        if head not in heads.OF_VECTORS and head not in networks.EXPORTED:
            raise CannotExport(f"the head {head} (trial {trial}) cannot be written as a graph yet; those that can: "
                               f"{', '.join([*heads.OF_VECTORS, *networks.EXPORTED])}. Train without it, or `--distil`")
        if any(getattr(one, "shape", {}).get("inference_frames") for one in member.heads):
            raise CannotExport(f"trial {trial} predicts in chunks (inference: chunks), which a graph cannot yet; "
                               "`--distil` can")


def of_model(model: Model) -> Graphs:
    """The two graphs of a fitted model.

    Raises:
        CannotExport: see `check`.
    """
    check(model)
    with ops.operators():
        samples = argument(Tensor(np.float32, ("time",)))
        rate_hz = argument(Tensor(np.int64, ()))
        recording, layout = _recording(model, samples, rate_hz)
        features = argument(Tensor(np.float64, ("recordings", layout.size)))
        unit = _unit(model, layout, features)
        return Graphs(build({"samples": samples, "sample_rate_hz": rate_hz}, recording),
                      build({"features": features}, unit))


def _recording(model: Model, samples: Var, rate_hz: Var) -> tuple[dict[str, Var], _Layout]:
    wave = double(samples)
    specs = {name: EncoderSpec.from_json(saved) for name, saved in model.encoder_specs.items()}
    memory: encoders.Memory = {}
    frames = {name: encoders.frames(wave, rate_hz, spec, memory) for name, spec in specs.items()}
    measured = signal.measured(wave, rate_hz)
    layout, outputs = _Layout(), dict[str, Var]()
    states = _add_members(model, layout, frames)
    if states is not None:
        posteriors, encoder = states
        rate = float(model.encoder_specs[encoder]["frame_rate_hz"])
        outputs |= networks.segmentation(posteriors, frames[encoder], measured["seconds"], rate)
    if model.applicability:
        own = model.encoder_specs[checks._ENCODER]
        found = checks.findings(model.applicability, frames[checks._ENCODER], float(own["frame_rate_hz"]),
                                int(own["dim"]), measured)
    else:
        found = checks.nothing()
    layout.add(("checks",), found.marks, checks.COUNT)
    features = op.concat(layout.parts, axis=0)
    alone = _unit(model, layout, ops.row(features))
    alone["recording_probabilities"] = single(_of_recording(model, layout, ops.row(features), alone["probabilities"]))
    quality = op.concat([op.reshape(single(measured[name]), i64([1])) for name in QUALITY], axis=0)
    timed = {name: single(one) if name != "states" else one for name, one in outputs.items()}
    return {**alone, "quality": quality, "recording_checks": op.greater(found.marks, f64(0.0)),
            "unusual": single(op.reshape(found.unusual, i64(np.zeros(0)))), "distances": single(found.distances),
            **timed, "features": features}, layout


def _add_members(model: Model, layout: _Layout, frames: Mapping[str, Var]) -> tuple[Var, str] | None:
    """Append what the members need to know of a recording; returns the posteriors of heart states, and their encoder.

    A member of level `recording` has its log-probabilities there, one of level `unit` the pooled vector.
    """
    states: tuple[Var, str] | None = None
    vectors: dict[tuple[str, str], Var] = {}
    classes = len(model.task.classes)
    for trial, member in model.members.items():
        spec, encoder = member.spec, model.encoder_specs[member.spec.encoder]
        if spec.pooling is None:
            log_p, details, posteriors = _of_frames(member, frames[spec.encoder], int(encoder["dim"]), classes)
            layout.add(("log_p", trial), log_p, classes)
            if details is not None:
                layout.add(("details", trial), details, _details_size(member, int(encoder["dim"]), classes))
            if states is None and posteriors is not None and isinstance(member.heads[0], SegmentsHeartStates):
                states = posteriors, spec.encoder
            continue
        key = (spec.encoder, spec.pooling)
        if key not in vectors:
            grid, rate = Grid.of(encoder), float(encoder["frame_rate_hz"])
            vectors[key] = pooling.pooled(spec.pooling, frames[spec.encoder], rate, grid)
        if spec.level == "recording":
            layout.add(("log_p", trial), op.squeeze(_heads(member, ops.row(vectors[key])), i64([0])), classes)
        elif not layout.has(("vector", *key)):
            silent = np.zeros((8, int(encoder["dim"])), np.float32)
            size = pool(spec.pooling, [silent], float(encoder["frame_rate_hz"]), Grid.of(encoder)).shape[1]
            layout.add(("vector", *key), vectors[key], size)
    return states


def _heads(member: Member, vectors: Var) -> Var:
    """Mean of a member's heads: `[cases, columns] -> [cases, classes]`, log-probabilities."""
    return ops.normalised(_average([heads.OF_VECTORS[member.spec.head](vectors, head) for head in member.heads]))


def _details_size(member: Member, dim: int, classes: int) -> int:
    """Number of a network member's details for a recording."""
    if not learns_parent(member.spec.head_module):
        return segment_features.size(dim, classes)
    shape = cast(FittedRelated, member.heads[0]).shape
    own = int(shape["classes"])
    return own + (segment_features.size(dim, own) if shape["states"] else 0)


def _of_frames(member: Member, frames: Var, dim: int, classes: int) -> tuple[Var, Var | None, Var | None]:
    """A network member's log-probabilities and details, and the heart states of its first network.

    One that learnt a wider task has no opinion on this one, see `heartml.models.heads.related`.
    """
    known: dict[Any, onnx.ModelProto] = {}
    wider = learns_parent(member.spec.head_module)
    fitted = [cast(FittedRelated, head).parent if wider else head for head in member.heads]
    own = int(cast(FittedRelated, member.heads[0]).shape["classes"]) if wider else classes
    found = [networks.log_p_and_posteriors(frames, head, known) for head in fitted]
    mean = _average([one for one, _ in found])
    posteriors = [one for _, one in found if one is not None]
    segments = _average([networks.soft_segments(frames, one, dim, own) for one in posteriors]) if posteriors else None
    states = posteriors[0] if posteriors else None
    if not wider:
        return ops.normalised(mean), segments, states
    details = mean if segments is None else op.concat([segments, mean], axis=0)
    return f64(np.full(classes, -np.log(classes))), details, states


def _average(values: list[Var]) -> Var:
    return op.sum(values) / float(len(values))


def _unit(model: Model, layout: _Layout, features: Var) -> dict[str, Var]:
    """Everything about one unit from the features of its recordings `[r, features]`."""
    ensemble = model.ensemble
    views = {view: _view(model, layout, features, view) for view in ensemble.weights}
    log_p = ops.normalised(op.sum([views[view] * weight for view, weight in ensemble.weights.items()]))
    decision = op.squeeze(op.arg_max(log_p + f64(ensemble.rule.biases), axis=1, keepdims=0), i64([0]))
    z = log_p * ensemble.calibration.scale + f64(ensemble.calibration.biases)
    calibrated = op.squeeze(op.softmax(z, axis=1), i64([0]))
    groups = ensemble.calibration.groups
    if groups is not None:
        calibrated = (calibrated * float(groups) + 1.0) / float(groups + len(model.task.classes))
    confidence = op.gather(calibrated, decision)
    found = layout.of(("checks",), features)
    outside = ops.greatest(found, 1)                                                  # [r]
    referred = op.greater_or_equal(ops.total(outside, 0) * 2.0, double(ops.length(features)))
    any_of = op.and_(referred, op.greater(ops.greatest(found, 0), f64(0.0)))
    unsure = op.reshape(op.less(confidence, f64(model.refer_below)), i64([1]))
    reasons = op.concat([any_of, unsure], axis=0)
    return {
        "decision": decision, "confidence": single(confidence), "calibrated": single(calibrated),
        "probabilities": single(op.squeeze(op.exp(log_p), i64([0]))), "reasons": reasons,
        "refer": op.greater(ops.greatest(op.cast(reasons, to=np.int64), 0), i64(0)),
    }


def _of_recording(model: Model, layout: _Layout, features: Var, alone: Var) -> Var:
    """Probabilities from the recording alone; see `Model._of_recordings`."""
    own = {view: weight for view, weight in model.ensemble.weights.items() if model._takes_recordings(view)}
    if not own:
        return double(alone)
    log_p = [_log_p_of(model, layout, features, view.trials) * weight for view, weight in own.items()]
    return op.squeeze(op.exp(ops.normalised(op.sum(log_p))), i64([0]))


def _log_p_of(model: Model, layout: _Layout, features: Var, trials: tuple[int, ...]) -> Var:
    """Mean log-probabilities of several trials: `[r, classes]`, or `[1, classes]` at level `unit`."""
    return ops.normalised(_average([_member(model.members[trial], trial, layout, features) for trial in trials]))


def _member(member: Member, trial: int, layout: _Layout, features: Var) -> Var:
    spec = member.spec
    if spec.level == "recording":
        return layout.of(("log_p", trial), features)
    return _heads(member, ops.row(_summary(layout.of(("vector", spec.encoder, str(spec.pooling)), features))))


def _view(model: Model, layout: _Layout, features: Var, view: StackingView) -> Var:
    """Log-probabilities of the unit by one view: `[1, classes]`."""
    log_p = _log_p_of(model, layout, features, view.trials)
    if view.kind == "direct":
        return log_p
    stacker = model.ensemble.stackers[view]
    columns = [_summary(log_p), _two_highest(log_p)]
    if view.kind == "segments":
        columns.append(_summary(_average([layout.of(("details", trial), features) for trial in view.trials])))
    return heads.stacker(ops.row(op.concat(columns, axis=0)), stacker)


def _summary(values: Var) -> Var:
    """Mean, maximum, minimum over recordings: `[r, n] -> [3 n]`."""
    return op.concat([ops.mean(values, 0), ops.greatest(values, 0), ops.least(values, 0)], axis=0)


def _two_highest(log_p: Var) -> Var:
    highest, _ = op.top_k(log_p, op.reshape(op.min([ops.length(log_p), i64(2)]), i64([1])), axis=0)
    return ops.mean(highest, 0)

