"""What a model can judge, as an ONNX graph: frames and signal measures of one recording in, findings out.

It is `heartml.models.applicability` once more; the names of the findings are `names(organ)`, in this order.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from heartml.core.task_definition import HEART, Organ
from heartml.export.graph import heads, ops, pooling
from heartml.export.graph.ops import count, double, f64, i64, length, numbers
from heartml.models import applicability
from heartml.models.applicability import CONDITION_COUNT, UNLIKE, Applicability, conditions, heart_evidence

_SIGNAL = ("short", "quiet", "clipped", "silent")
COUNT = len(_SIGNAL) + CONDITION_COUNT
_ENCODER = applicability.ENCODER


def names(organ: Organ = HEART) -> tuple[str, ...]:
    """What may speak against judging a recording `[COUNT]`: measures of the signal, conditions, `unlike`."""
    return (*_SIGNAL, *conditions(organ)[1:], UNLIKE)


@dataclass(frozen=True)
class Findings:
    """What the checks say of a recording, in double precision.

    Attributes:
        marks: which of `names` speak against judging it: `[checks]`, one for yes and zero for no.
        unusual: probability of any condition but a recording as the model knows it.
        distances: from each reference `[references]`.
    """

    marks: Var
    unusual: Var
    distances: Var


def nothing() -> Findings:
    """The findings of a model without checks."""
    return Findings(f64(np.zeros(COUNT)), f64(0.0), f64(np.zeros(0)))


def findings(checks: Applicability, frames: Var, frame_rate_hz: float, dim: int, measured: dict[str, Var]) -> Findings:
    """See `heartml.models.applicability.Applicability.judge`."""
    signal = checks.signal
    of_signal = [op.less(measured["seconds"], f64(signal.seconds)), op.less(measured["peak"], f64(signal.peak)),
                 op.greater(measured["clipped_share"], f64(signal.clipped_share)),
                 op.greater(measured["silent_share"], f64(signal.silent_share))]
    exact = double(frames)
    vector = evidence(exact, frame_rate_hz, dim)
    probabilities = op.squeeze(op.exp(heads.forest(ops.row(vector), checks.conditions)), i64([0]))
    unusual = 1.0 - op.gather(probabilities, i64(0))
    description = op.concat([ops.mean(exact, 0), ops.deviation(exact, 0)], axis=0)
    distances = op.concat([op.reshape(_distance(description, one.centre, one.precision), i64([1]))
                           for one in checks.references], axis=0)
    farthest = f64([one.farthest for one in checks.references])
    most_unusual = f64([one.most_unusual for one in checks.references])
    inside = op.and_(op.less_or_equal(distances, farthest), op.less_or_equal(unusual, most_unusual))
    outside = op.equal(ops.greatest(op.cast(inside, to=np.int64), 0), i64(0))
    nearest = op.arg_min(distances / farthest, axis=0, keepdims=0)
    odd = op.greater(unusual, op.gather(most_unusual, nearest))
    condition = op.arg_max(op.slice(probabilities, i64([1]), i64([CONDITION_COUNT]), i64([0])), axis=0, keepdims=0)
    of_sound = [op.and_(outside, op.and_(odd, op.equal(condition, i64(number))))
                for number in range(CONDITION_COUNT - 1)]
    found = [*of_signal, *of_sound, op.and_(outside, op.not_(odd))]
    return Findings(op.concat([op.reshape(double(one), i64([1])) for one in found], axis=0), unusual, distances)


def _distance(description: Var, centre: object, precision: object) -> Var:
    away = ops.row(description - f64(np.asarray(centre)))
    squared = op.matmul(op.matmul(away, f64(np.asarray(precision))), op.transpose(away))
    return op.sqrt(op.max([squared, f64(0.0)]))


def evidence(frames: Var, frame_rate_hz: float, dim: int) -> Var:
    """See `heartml.models.applicability.heart_evidence.evidence`: `[frames, dim] -> [6 * 17]`."""
    groups = np.array_split(np.arange(dim), heart_evidence.BAND_GROUPS)
    grouping = np.zeros((dim, len(groups)))
    for number, group in enumerate(groups):
        grouping[group, number] = 1 / len(group)
    envelopes = op.transpose(op.matmul(frames, f64(grouping)))                        # [6, frames]
    overall = op.reduce_mean(envelopes, keepdims=0)
    means = ops.mean(envelopes, 1)
    centred = envelopes - ops.column(means)
    deviation = op.max([ops.deviation(envelopes, 1), f64(1e-6)])
    z = centred / ops.column(deviation)
    span = ops.quantiles(op.transpose(envelopes), [0.1, 0.9])
    low, high = op.gather(span, i64(0)), op.gather(span, i64(1))
    loud = op.greater(envelopes, ops.column((low + high) * 0.5))
    steps = op.abs(op.slice(z, i64([1]), i64([2**31]), i64([1])) - op.slice(z, i64([0]), i64([-1]), i64([1])))
    columns = [
        means - overall, deviation, ops.mean(z * z * z, 1), ops.mean(z * z * z * z, 1),
        *_repetition(centred, frame_rate_hz),
        high - low, ops.mean(double(loud), 1), _between_blocks(centred, round(frame_rate_hz)) / deviation,
        ops.mean(steps, 1),
    ]
    table = op.concat([*(ops.column(one) for one in columns), _modulation(centred, frame_rate_hz)], axis=1)
    return op.reshape(table, i64([-1]))


def _between_blocks(centred: Var, block: int) -> Var:
    """Deviation of the means of blocks of one second; the last block may be shorter."""
    frames = length(centred, 1)
    blocks = (frames + i64(block - 1)) // i64(block)
    padded = op.pad(centred, count(0, 0, 0, blocks * i64(block) - frames))
    sums = ops.total(op.reshape(padded, count(heart_evidence.BAND_GROUPS, blocks, block)), 2)
    sizes = op.min([frames - numbers(blocks) * i64(block), i64(block)])
    return ops.deviation(sums / ops.row(double(sizes)), 1)


def _repetition(centred: Var, frame_rate_hz: float) -> list[Var]:
    """Height of the highest peak of the autocorrelation, its height over the lowest value before it, its lag in s."""
    first_frame, last_frame = (round(s * frame_rate_hz) for s in heart_evidence.PERIODS_S)
    frames = length(centred, 1)
    first, last = (op.min([i64(one), frames // i64(2)]) for one in (first_frame, last_frame))
    raw = pooling.autocorrelation(centred, last_frame + 1)
    whole = double(frames)
    lags = i64(np.arange(last_frame + 1))
    pairs = op.max([whole - double(lags), f64(1.0)])
    unbiased = raw / op.max([op.slice(raw, i64([0]), i64([1]), i64([1])), f64(1e-9)]) * whole / ops.row(pairs)
    tried = op.and_(op.greater_or_equal(lags, first), op.less(lags, last))
    candidates = op.where(ops.row(tried), unbiased, f64(-math.inf))
    peak = op.arg_max(candidates, axis=1, keepdims=1)
    height = op.gather_elements(unbiased, peak, axis=1)
    up_to = op.where(op.less_or_equal(ops.row(lags), peak), unbiased, f64(math.inf))
    rise = height - op.reduce_min(up_to, i64([1]), keepdims=1)
    enough = op.greater_or_equal(last - first, i64(2))
    found = [height, rise, double(peak) / frame_rate_hz]
    return [op.where(enough, op.squeeze(one, i64([1])), f64(0.0)) for one in found]


def _modulation(centred: Var, frame_rate_hz: float) -> Var:
    """Shares of the envelopes' power between the edges: `[6, frames] -> [6, 6]`."""
    frames = length(centred, 1)
    place = double(numbers(frames)) * (2 * math.pi) / double(op.max([frames - i64(1), i64(1)]))
    window = 0.5 - 0.5 * op.cos(place)                                                # np.hanning
    spectrum = op.dft(op.unsqueeze(centred * ops.row(window), i64([2])), axis=1, onesided=1)
    power = op.reduce_sum(spectrum * spectrum, i64([2]), keepdims=0)
    hz = double(numbers(length(power, 1))) * frame_rate_hz / double(frames)
    everything = op.max([op.reduce_sum(power, i64([1]), keepdims=1), f64(1e-9)])
    edges = heart_evidence.MODULATION_EDGES_HZ
    shares = []
    for low, high in pairwise(edges):
        between = op.and_(op.greater_or_equal(hz, f64(low)), op.less(hz, f64(high)))
        inside = op.where(ops.row(between), power, f64(0.0))
        shares.append(op.reduce_sum(inside, i64([1]), keepdims=1) / everything)
    return op.concat(shares, axis=1)
