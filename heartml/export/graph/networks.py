"""Network heads as ONNX graphs, by torch's own exporter: frames of one recording in, log-probabilities out."""

import contextlib
import io
import logging
import math
import warnings
from typing import Any

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
import torch
from spox import Var, inline

from heartml.export.graph import ops
from heartml.export.graph.ops import count, double, f64, i64, length, part
from heartml.models.heads import segment_features as names
from heartml.models.heads.network_training import SHORTEST_FRAMES

EXPORTED = ("sequence", "related", "resnet")
_OPSET = 18
_LEAST_HALVED = 1000      # entries of a weight that is worth it


def log_p_and_posteriors(frames: Var, head: Any, known: dict[Any, onnx.ModelProto]) -> tuple[Var, Var | None]:
    """One recording's `[frames, dim]` -> log-probabilities `[classes]`, and posteriors `[frames / 2, 4 + classes]`.

    The posteriors are `None` for a network that was not trained on heart states. See `exported` for `known`.
    """
    centred = frames - op.reduce_mean(frames, keepdims=1)
    times = (i64(SHORTEST_FRAMES - 1) + length(frames)) // length(frames)
    repeated = op.tile(centred, count(times, 1))
    image = op.unsqueeze(op.transpose(repeated), i64([0]))
    outputs = inline(exported(head.network, known))(frames=image)
    log_p = op.squeeze(op.log_softmax(double(outputs["logits"]), axis=-1), i64([0]))
    if not head.shape.get("states"):
        return log_p, None
    own = (length(frames) + i64(1)) // i64(2)
    posteriors = op.transpose(op.squeeze(op.softmax(outputs["states"], axis=1), i64([0])))
    return log_p, part(posteriors, 0, own)


def exported(network: "torch.nn.Module", known: dict[Any, onnx.ModelProto]) -> onnx.ModelProto:
    """A network as a model `frames` `[1, dim, frames]` -> `logits`, and `states` where it classifies frames.

    Args:
        known: models of networks that were exported before, by their layers' names and shapes. One with the same layers
            gets its own weights in such a model, because torch's exporter takes three seconds.
    """
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    shapes = type(network).__name__, tuple((name, array.shape) for name, array in weights.items())
    if shapes not in known:
        known[shapes] = _exported(network)
    model = onnx.ModelProto()
    model.CopyFrom(known[shapes])
    for stored in model.graph.initializer:
        if stored.name in weights:
            stored.CopyFrom(onnx.numpy_helper.from_array(weights[stored.name], stored.name))
    return in_half_precision(model)


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with large weights stored in half precision, and turned back when it is read."""
    for stored in list(model.graph.initializer):
        array = onnx.numpy_helper.to_array(stored)
        if array.dtype != np.float32 or array.size < _LEAST_HALVED:
            continue
        name = stored.name
        stored.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
        node = onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, node)
    return model


def _exported(network: "torch.nn.Module") -> onnx.ModelProto:
    dim = int(network.norm.num_features)      # type: ignore[union-attr, arg-type]
    with torch.inference_mode():
        two = network.eval()(torch.zeros(1, dim, SHORTEST_FRAMES))[1] is not None
    return by_torch(network, dim, ["logits", "states"][: 1 + two])


def by_torch(network: "torch.nn.Module", dim: int, outputs: list[str]) -> onnx.ModelProto:
    """torch's own export of a network that takes `x`, frames `[1, dim, frames]`, any number of them but not few.

    Args:
        outputs: names of what it gives.
    """
    example = torch.zeros(1, dim, SHORTEST_FRAMES * 2)
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (example,), input_names=["frames"], output_names=outputs,
                dynamic_shapes={"x": {2: torch.export.Dim("frames", min=SHORTEST_FRAMES, max=100_000)}},
                dynamo=True, opset_version=_OPSET, verbose=False, optimize=False)
    finally:
        quiet.setLevel(level)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    learnt = {name for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    missing = learnt - {stored.name for stored in model.graph.initializer}
    assert not missing, f"weights that the exporter renamed: {sorted(missing)[:3]}"
    for part_of_graph in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input,
                          *model.graph.output):
        part_of_graph.ClearField("metadata_props")      # stack traces, a fifth of the file
    return model


def soft_segments(frames: Var, posteriors: Var, dim: int, classes: int) -> Var:
    """See `heartml.models.heads.segment_features.soft_segments`: `[frames, dim], [t, 4 + classes] -> [features]`."""
    p = double(posteriors)
    every_second = op.slice(frames, i64([0]), i64([2**31]), i64([0]), i64([2]))
    groups = np.array_split(np.arange(dim), min(names._GROUPS, dim))
    grouping = np.zeros((dim, len(groups)))
    for number, group in enumerate(groups):
        grouping[group, number] = 1 / len(group)
    energy = op.matmul(double(every_second), f64(grouping))
    s1, diastole, s2 = (op.gather(p, i64(one), axis=1) for one in (names.S1, names.DIASTOLE, names.S2))
    by_class = part(p, names.FIRST_SYSTOLE, names.FIRST_SYSTOLE + classes, 1)
    systole = ops.total(by_class, 1)
    after, before = _recent(s1, back=True), _recent(s2, back=False)
    early, late, middle = systole * after, systole * before, systole * (1.0 - after) * (1.0 - before)
    quiet, during = _weighted(energy, diastole), _weighted(energy, systole)
    contrasts = [during - quiet, *(_weighted(energy, w) - quiet for w in (early, middle, late)),
                 _weighted(energy, s1) - during, _weighted(energy, s2) - during]
    odds = op.log(by_class + 1e-4) - op.log(ops.column(systole) - by_class + 1e-4)
    entropy = op.neg(ops.total(p * op.log(p + 1e-6), 1))
    sure = double(op.greater(ops.greatest(p, 1), f64(names._SURE)))
    unannotated = op.gather(p, i64(names.UNANNOTATED), axis=1)
    last = [op.reshape(ops.mean(one, 0), i64([1])) for one in (entropy, sure, unannotated, systole, diastole)]
    quantiles = op.reshape(ops.quantiles(by_class, names._QUANTILES), i64([-1]))
    return op.concat([*contrasts, _weighted(odds, systole), quantiles, *last], axis=0)


def _weighted(values: Var, weights: Var) -> Var:
    positive = weights + 1e-3
    return ops.total(ops.column(positive) * values, 0) / ops.total(positive, 0)


def _recent(posterior: Var, *, back: bool) -> Var:
    """Highest posterior among the frames just before each frame, or just after it: `[t]`."""
    near = names._NEAR_FRAMES
    padded = op.pad(posterior, i64([near, 0] if back else [0, near]))
    size = length(posterior)
    shifted = [part(padded, k if back else k + 1, size + i64(k if back else k + 1)) for k in range(near)]
    return op.max(shifted)


def segmentation(posteriors: Var, frames: Var, seconds: Var, frame_rate_hz: float) -> dict[str, Var]:
    """See `heartml.models.segmentation.decode`.

    Returns:
        `state_starts_s` `[n]`, `states` `[n]` and `heart_rate_per_min`, which is not a number where it is not known.
    """
    from heartml.models import segmentation as own

    rate_hz = frame_rate_hz / 2
    first_s = (seconds - double(length(frames) - i64(1)) / frame_rate_hz) * 0.5
    p = double(posteriors)
    systole = op.reduce_sum(part(p, names.FIRST_SYSTOLE, 2**31, 1), i64([1]), keepdims=1)
    one = {n: part(p, n, n + 1, 1) for n in (names.S1, names.S2, names.DIASTOLE)}
    raw = op.concat([one[names.S1], systole, one[names.S2], one[names.DIASTOLE]], axis=1) + 1e-4
    by_state = raw / op.reduce_sum(raw, i64([1]), keepdims=1)
    path = _viterbi(op.log(by_state), np.log(own._transitions(rate_hz)))
    last = length(path)
    before, after = part(path, 0, last - i64(1)), part(path, 1, last)
    changes = op.compress(ops.numbers(last - i64(1)) + i64(1), op.not_(op.equal(before, after)), axis=0)
    starts = op.concat([f64([0.0]), _crossings(by_state, path, changes)], axis=0)
    shifted = starts - op.where(op.equal(starts, f64(0.0)), f64(0.5), f64(0.0))
    begins_s = op.max([f64(0.0), first_s + shifted / rate_hz])
    states = op.gather(path, op.concat([i64([0]), changes], axis=0))
    onsets = op.compress(begins_s, op.equal(states, i64(0)), axis=0)
    rate = op.reshape(_rate(onsets, own._RATES_PER_MIN), i64(np.zeros(0)))
    flat = i64([-1])
    return {"state_starts_s": op.reshape(begins_s, flat), "states": op.reshape(states, flat),
            "heart_rate_per_min": rate}


def _rate(onsets_s: Var, rates_per_min: tuple[float, float]) -> Var:
    beats = op.max([length(onsets_s) - i64(1), i64(0)])
    intervals = part(onsets_s, 1, beats + i64(1)) - part(onsets_s, 0, beats)
    slowest, fastest = (60 / rate for rate in rates_per_min)
    inside = op.and_(op.greater_or_equal(intervals, f64(fastest)), op.less_or_equal(intervals, f64(slowest)))
    usable = op.compress(intervals, inside, axis=0)
    return op.where(op.less(length(usable), i64(3)), f64(math.nan), 60.0 / ops.median(usable))


def _crossings(p: Var, path: Var, changes: Var) -> Var:
    """Where between two frames the new state becomes more probable than the old one: `[changes]`."""
    new, old = op.gather(path, changes), op.gather(path, changes - i64(1))
    rows = op.gather(p, changes - i64(1)), op.gather(p, changes)

    def lead(row: Var) -> Var:
        of = [op.squeeze(op.gather_elements(row, ops.column(state), axis=1), i64([1])) for state in (new, old)]
        return of[0] - of[1]

    before, after = (lead(row) for row in rows)
    at = double(changes)
    rises = op.greater(after, before)
    share = op.neg(before) / op.where(rises, after - before, f64(1.0))
    inside = op.min([op.max([share, f64(0.0)]), f64(1.0)])
    return op.where(rises, at - 1.0 + inside, at - 0.5)


def _viterbi(log_p: Var, log_move: "np.ndarray[Any, np.dtype[np.float64]]") -> Var:
    """The most probable path `[t]` through the states: Viterbi's algorithm as two loops, forwards and backwards."""
    move, go_on = f64(log_move), op.const(np.array([True]))
    steps = length(log_p) - i64(1)

    def forwards(step: Var, condition: Var, score: Var) -> list[Var]:
        reached = ops.column(score) + move
        own = op.gather(log_p, op.reshape(step, i64([])) + i64(1))
        return [op.identity(condition), ops.greatest(reached, 0) + own, op.arg_max(reached, axis=0, keepdims=0)]

    score, back = op.loop(steps, go_on, [op.gather(log_p, i64(0))], body=forwards)
    end = op.arg_max(score, axis=0, keepdims=0)

    def backwards(step: Var, condition: Var, state: Var) -> list[Var]:
        before = op.gather(op.gather(back, steps - i64(1) - op.reshape(step, i64([]))), state)
        return [op.identity(condition), before, op.identity(before)]

    _, turned = op.loop(steps, go_on, [end], body=backwards)
    path = op.slice(turned, i64([-1]), i64([-(2**31)]), i64([0]), i64([-1]))
    return op.concat([path, op.reshape(end, i64([1]))], axis=0)
