"""The signal path as an ONNX graph: samples and their rate in, the input of the encoders and the quality out.

It is `heartml.audio.preprocessing` and `heartml.audio.quality` once more, in operators of ONNX. A test compares them.
"""

import math

import numpy as np
import spox.opset.ai.onnx.v18 as op
from spox import Var

from heartml.audio import preprocessing, quality
from heartml.core.config import AudioParams
from heartml.export.graph import ops
from heartml.export.graph.ops import count, double, f64, i64, length, mean, numbers, part, whole

FFT_BLOCK = 4096      # see `heartml.audio.preprocessing._highpass`


def prepared(samples: Var, rate_hz: Var, audio: AudioParams) -> Var:
    """See `heartml.audio.preprocessing.prepare`: double `[time]` at `rate_hz` -> `[time']` at the encoders' rate."""
    centred = samples - mean(samples, 0)
    resampled = _resampled(centred, rate_hz, audio)
    filtered = _highpassed(resampled, audio)
    level = _level(filtered, audio.sample_rate_hz // 2)
    return filtered / op.where(op.greater(level, f64(0.0)), level, f64(1.0))


def _resampled(x: Var, rate_hz: Var, audio: AudioParams) -> Var:
    """Windowed sinc as in `torchaudio.functional.resample` (Smith, Digital audio resampling, 2002)."""
    (found,) = op.if_(op.equal(rate_hz, i64(audio.sample_rate_hz)),
                      then_branch=lambda: [op.identity(x)], else_branch=lambda: [_sinc(x, rate_hz, audio)])
    return found


def _sinc(x: Var, rate_hz: Var, audio: AudioParams) -> Var:
    wanted = i64(audio.sample_rate_hz)
    common = _greatest_common_divisor(rate_hz, wanted)
    old, new = rate_hz // common, wanted // common
    base = double(op.min([old, new])) * preprocessing.ROLLOFF
    width = whole(op.ceil(audio.resample_filter_width * double(old) / base))
    (found,) = op.if_(op.greater(new, i64(preprocessing.MOST_PHASES)),
                      then_branch=lambda: [_by_block(x, old, new, base, width, audio)],
                      else_branch=lambda: [_by_matrix(x, old, new, base, width, audio)])
    return part(found, 0, (new * length(x) + old - i64(1)) // old)


def _by_matrix(x: Var, old: Var, new: Var, base: Var, width: Var, audio: AudioParams) -> Var:
    """All periods at once, by one matrix."""
    periods = (width * i64(2) + old - i64(1)) // old          # of one block: its inputs overlap by half at most
    step, outputs = old * periods, new * periods
    taps = width * i64(2) + step
    time = (ops.row(double(numbers(taps) - width)) / double(old)
            - ops.column(double(numbers(outputs))) / double(new)) * base
    kernel = _windowed_sinc(time, audio) * (base / double(old))                        # [outputs, taps]
    blocks = length(x) // step + i64(1)
    padded = op.pad(x, count(width, blocks * step + width + step - length(x)))
    at = ops.column(numbers(blocks) * step) + ops.row(numbers(taps))
    return op.reshape(op.matmul(op.gather(padded, at), op.transpose(kernel)), i64([-1]))


def _by_block(x: Var, old: Var, new: Var, base: Var, width: Var, audio: AudioParams) -> Var:
    """Period after period; see `heartml.audio.preprocessing._resampled_by_block`."""
    taps = ops.column(numbers(new) * old // new) + ops.row(numbers(width * i64(2) + i64(2)) - width)
    time = (double(taps) / double(old) - ops.column(double(numbers(new)) / double(new))) * base
    kernel = _windowed_sinc(time, audio) * (base / double(old))
    periods = length(x) // old + i64(1)
    padded = op.pad(x, count(width, periods * old + width + i64(2) - length(x)))

    def period(number: Var, go_on: Var) -> list[Var]:
        cut = op.gather(padded, taps + op.reshape(number, i64(np.zeros(0))) * old + width)
        return [op.identity(go_on), ops.total(cut * kernel, 1)]

    (found,) = op.loop(periods, op.const(np.array([True])), [], body=period)
    return op.reshape(found, i64([-1]))


def _windowed_sinc(time: Var, audio: AudioParams) -> Var:
    limit = float(audio.resample_filter_width)
    inside = op.min([op.max([time, f64(-limit)]), f64(limit)])
    window, angle = op.cos(inside * (math.pi / limit / 2)), inside * math.pi
    zero = op.equal(angle, f64(0.0))
    return op.where(zero, f64(1.0), op.sin(angle) / op.where(zero, f64(1.0), angle)) * window * window


def _greatest_common_divisor(a: Var, b: Var) -> Var:
    """Euclid's algorithm."""
    def body(number: Var, go_on: Var, first: Var, second: Var) -> list[Var]:
        rest = first - (first // second) * second
        return [op.reshape(op.greater(rest, i64(0)), i64([1])), second, rest]

    # The last step leaves (divisor, 0); a loop is not entered again then, so nothing is divided by zero.
    found = op.loop(i64(64), op.const(np.array([True])), [a, b], body=body)
    return found[0]


def _highpassed(x: Var, audio: AudioParams) -> Var:
    """Zero-phase Butterworth response of order 4, by FFT, on ends that are continued by odd reflection."""
    edge = audio.sample_rate_hz // 5
    last = length(x) - i64(1)
    before = op.gather(x, i64(0)) * 2.0 - op.gather(x, i64(list(range(edge, 0, -1))))
    after = op.gather(x, last) * 2.0 - op.gather(x, last - i64(list(range(1, edge + 1))))
    padded = op.concat([before, x, after], axis=0)
    blocks = (length(padded) + i64(FFT_BLOCK - 1)) // i64(FFT_BLOCK)
    size = blocks * i64(FFT_BLOCK)
    spectrum = _fft(op.reshape(ops.end_padded(padded, size), count(FFT_BLOCK, blocks)), blocks, size)
    number = ops.column(numbers(i64(FFT_BLOCK))) + ops.row(numbers(blocks)) * i64(FFT_BLOCK)       # k1 + 4096 k2
    number = op.min([number, size - number])
    frequency_hz = double(number) * float(audio.sample_rate_hz) / double(size)
    ratio = op.max([frequency_hz, f64(1e-9)]) / audio.highpass_hz
    gain = op.sqrt(1.0 / (1.0 + op.pow(ratio, f64(-8.0))))
    filtered = _inverse_fft(spectrum * op.unsqueeze(gain, i64([2])), blocks, size)
    return part(filtered, edge, length(x) + i64(edge))


def _fft(x: Var, blocks: Var, size: Var) -> Var:
    """The discrete Fourier transform of `4096 * blocks` real samples: `[4096, blocks] -> [4096, blocks, 2]`.

    ONNX's own operator is ten times as slow for a size that is no power of two. So the transform is divided into those
    of 4096 samples and those of `blocks` (Cooley and Tukey 1965). Sample n stands at `[n / blocks, n % blocks]`,
    frequency k at `[k % 4096, k / 4096]`.
    """
    outer = _outer_angles(blocks)
    return _matmul(_inner_fft(x, blocks, size), op.cos(outer), op.neg(op.sin(outer)))


def _inner_fft(x: Var, blocks: Var, size: Var) -> Var:
    """The transforms of 4096 samples, turned as the transform over the blocks needs them: `[4096, blocks, 2]`."""
    inner = op.dft(op.unsqueeze(op.transpose(x), i64([2])), axis=1)                # [blocks, 4096, 2]
    angles = _angles(blocks, size)
    return _times(op.transpose(inner, perm=[1, 0, 2]), op.cos(angles), op.neg(op.sin(angles)))


def _inverse_fft(spectrum: Var, blocks: Var, size: Var) -> Var:
    """The real part of the inverse: `[4096, blocks, 2] -> [4096 * blocks]`."""
    outer, angles = _outer_angles(blocks), _angles(blocks, size)
    summed = _times(_matmul(spectrum, op.cos(outer), op.sin(outer)), op.cos(angles), op.sin(angles))
    inner = op.dft(op.transpose(summed, perm=[1, 0, 2]), axis=1, inverse=1)        # [blocks, 4096, 2]
    real = op.gather(inner, i64(0), axis=2) / double(blocks)
    return op.reshape(op.transpose(real), i64([-1]))


def _angles(blocks: Var, size: Var) -> Var:
    return double(ops.column(numbers(i64(FFT_BLOCK))) * ops.row(numbers(blocks))) * (2 * math.pi) / double(size)


def _outer_angles(blocks: Var) -> Var:
    return double(ops.column(numbers(blocks)) * ops.row(numbers(blocks))) * (2 * math.pi) / double(blocks)


def _times(x: Var, real: Var, imaginary: Var) -> Var:
    """Complex product, entry by entry."""
    a, b = op.gather(x, i64(0), axis=2), op.gather(x, i64(1), axis=2)
    return _complex(a * real - b * imaginary, a * imaginary + b * real)


def _matmul(x: Var, real: Var, imaginary: Var) -> Var:
    """Complex product of matrices `[n, m, 2], [m, m] -> [n, m, 2]`."""
    a, b = op.gather(x, i64(0), axis=2), op.gather(x, i64(1), axis=2)
    return _complex(op.matmul(a, real) - op.matmul(b, imaginary), op.matmul(a, imaginary) + op.matmul(b, real))


def _complex(real: Var, imaginary: Var) -> Var:
    return op.concat([op.unsqueeze(real, i64([2])), op.unsqueeze(imaginary, i64([2]))], axis=2)


def _level(x: Var, window: int) -> Var:
    """Root of the median over windows of the mean square; see `heartml.audio.preprocessing._level`."""
    windows = length(x) // i64(window)
    power = x * x
    of_windows = mean(op.reshape(part(power, 0, windows * i64(window)), count(windows, window)), 1)
    median = op.where(op.greater(windows, i64(0)), ops.median(of_windows), f64(0.0))
    average = mean(power, 0)
    return op.sqrt(op.where(op.greater(median, average * 1e-6), median, average))


def measured(samples: Var, rate_hz: Var) -> dict[str, Var]:
    """The measures of `heartml.audio.quality.Quality`, each a double.

    The spectrum is taken with another number of points, so the bandwidths may differ by one of its steps.
    """
    dc = mean(samples, 0)
    centred = samples - dc
    size = op.abs(samples)
    peak = ops.greatest(size, 0)
    at_rail = mean(double(op.greater_or_equal(size, peak * quality.AT_RAIL)), 0)
    frames_db = _frame_levels_db(centred, rate_hz)
    contrast = ops.quantiles(frames_db, [0.1, 0.9])
    power, frequency_hz = _power_spectrum(centred, rate_hz)
    heard = op.where(op.greater_or_equal(frequency_hz, f64(quality.RUMBLE_HZ)), power, f64(0.0))
    return {
        "seconds": double(length(samples)) / double(rate_hz),
        "peak": peak,
        "level_db": _decibels(mean(centred * centred, 0)),
        "dc": dc,
        "clipped_share": op.where(op.greater_or_equal(peak, f64(quality.LOUD)), at_rail, f64(0.0)),
        "bandwidth_hz": _reached_hz(power, frequency_hz, 0.99),
        "silent_share": mean(double(op.less(frames_db, f64(-80.0))), 0),
        "contrast_db": op.gather(contrast, i64(1)) - op.gather(contrast, i64(0)),
        "heard_bandwidth_hz": _reached_hz(heard, frequency_hz, 0.999),
    }


def _decibels(power: Var) -> Var:
    return op.log(op.max([power, f64(1e-10)])) * (10 / math.log(10))


def _frame_levels_db(centred: Var, rate_hz: Var) -> Var:
    wanted = op.max([whole(double(rate_hz) * quality.FRAME_S), i64(1)])
    size = op.min([wanted, length(centred)])
    frames = length(centred) // size
    power = op.reshape(part(centred * centred, 0, frames * size), count(frames, size))
    return _decibels(mean(power, 1))


def _power_spectrum(centred: Var, rate_hz: Var) -> tuple[Var, Var]:
    """Power and frequency in Hz from 0 to half the rate, with a power of two as number of points."""
    least = op.ceil(double(length(centred)) / float(FFT_BLOCK))
    blocks = whole(op.round(op.pow(f64(2.0), op.ceil(op.log(least) / math.log(2) - 1e-9))))
    size = blocks * i64(FFT_BLOCK)
    turned = _inner_fft(op.reshape(ops.end_padded(centred, size), count(FFT_BLOCK, blocks)), blocks, size)
    spectrum = op.dft(turned, axis=1)                                                  # [4096, blocks, 2]
    power = op.reshape(op.transpose(op.reduce_sum(spectrum * spectrum, i64([2]), keepdims=0)), i64([-1]))
    half = size // i64(2) + i64(1)
    return part(power, 0, half), double(numbers(half)) * double(rate_hz) / double(size)


def _reached_hz(power: Var, frequency_hz: Var, share: float) -> Var:
    """The frequency up to which this share of the energy is; 0 for silence."""
    up_to = op.cumsum(power, i64(0))
    everything = op.gather(up_to, i64(-1))
    below = ops.total(op.cast(op.less(up_to, everything * share), to=np.int64), 0)
    reached_hz = op.gather(frequency_hz, op.min([below, length(power) - i64(1)]))
    return op.where(op.greater(everything, f64(1e-10)), reached_hz, f64(0.0))
