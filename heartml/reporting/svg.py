"""Plots as inline SVG: numbers in, text out. The same numbers give the same bytes; the style sheet has the colours.

Series have the CSS classes `s0`, `s1` ...; other elements `axis`, `grid`, `tick`, `track`, `whisker`, `dot`.
Coordinates are rounded to a tenth of a unit. Every plot has a name (`aria-label`) for people who cannot see it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 280, 250                      # of a plot with axes
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 40     # margins
SERIES = 6                                    # colours in the style sheet


@dataclass(frozen=True)
class Line:
    """A curve; with `radii` its points are drawn too. x and y [points] are in units of the axes, radii in pixels."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    series: int
    radii: Sequence[float] | None = None


def domain(values: Sequence[float | None], *, unit: bool = True) -> tuple[float, float]:
    """Rounded lower and upper limits around the values; within [0, 1] where `unit`."""
    known = [value for value in values if value is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    largest = max(abs(high), abs(low))
    step = 0.1 if unit or largest < 1e-4 else 10 ** np.floor(np.log10(largest))
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    if unit:
        low, high = max(0.0, low), min(1.0, high)
    if high <= low:
        low, high = (low - step, high) if unit and high >= 1 else (low, low + step)
    return float(round(low, 6)) + 0.0, float(round(high, 6)) + 0.0


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most `most`, for the marks of an axis."""
    for step in (base * 10.0**power for power in range(-3, 7) for base in (1, 2, 2.5, 5)):
        first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
        if first <= last < first + most:
            found = np.arange(first, last + 1) * step
            return [float(round(value, 6)) + 0.0 for value in found]   # no minus before a zero
    return [low, high]


def whisker(
    number: Mapping[str, float | None], limits: tuple[float, float], name: str, *,
    kind: str = "other", reference: float | None = None,
) -> str:
    """A dot with its interval on a line from `limits[0]` to `limits[1]`; as wide as its table cell.

    Args:
        number: value, low and high.
        name: the text for people who cannot see the plot.
        kind: CSS class: `model`, `champion`, `baseline`, `flag` or `other`.
        reference: where a thin vertical line is drawn, to compare with.
    """
    def at(value: float) -> str:
        share = (value - limits[0]) / (limits[1] - limits[0])
        return f"{100 * min(max(share, 0), 1):.2f}%"

    parts = ['<line class="track" x1="0" x2="100%" y1="9" y2="9"/>']
    if reference is not None:
        parts.append(f'<line class="reference" x1="{at(reference)}" x2="{at(reference)}" y1="0" y2="18"/>')
    value, low, high = (number.get(key) for key in ("value", "low", "high"))
    if low is not None and high is not None:
        parts.append(f'<line class="whisker" x1="{at(low)}" x2="{at(high)}" y1="9" y2="9"/>')
    if value is not None:
        parts.append(f'<circle class="dot" cx="{at(value)}" cy="9" r="4.5"/>')
    return (f'<svg class="w {escape(kind)}" width="100%" height="18" role="img" aria-label="{escape(name)}">'
            f'{"".join(parts)}</svg>')


def chart(
    lines: Sequence[Line], x_title: str, y_title: str, name: str, *,
    x_limits: tuple[float, float] = (0, 1), y_limits: tuple[float, float] = (0, 1), diagonal: bool = False,
) -> str:
    """Curves and points over two axes; `diagonal` draws a line from corner to corner."""
    x_at, y_at = _Scale(x_limits, (LEFT, WIDTH - RIGHT)), _Scale(y_limits, (HEIGHT - BOTTOM, TOP))
    parts = [_axes(x_limits, y_limits, x_title, y_title)]
    if diagonal:
        parts.append(f'<line class="diagonal" x1="{x_at(0):.1f}" y1="{y_at(0):.1f}" '
                     f'x2="{x_at(1):.1f}" y2="{y_at(1):.1f}"/>')
    for line in lines:
        points = [(x_at(x), y_at(y)) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        radii = line.radii if line.radii is not None else ()
        thin = " thin" if line.radii is not None else ""
        parts.append(f'<polyline class="curve{thin} s{line.series % SERIES}" points="{path}"/>')
        parts += [f'<circle class="point s{line.series % SERIES}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
                  for (x, y), r in zip(points, radii, strict=False)]
    return _picture("".join(parts), WIDTH, HEIGHT, name)


def strip(
    rows: Mapping[str, Sequence[tuple[float, int, str]]], x_title: str, name: str, limits: tuple[float, float]
) -> str:
    """One row of dots for each label: (value, series, text), moved apart a little so that equal values stay visible."""
    row, left, width = 34, 110, 460
    bottom = TOP + row * len(rows)
    x_at = _Scale(limits, (left, width - RIGHT))
    parts = [f'<line class="grid" x1="{x_at(t):.1f}" x2="{x_at(t):.1f}" y1="{TOP}" y2="{bottom}"/>'
             f'<text class="tick" x="{x_at(t):.1f}" y="{bottom + 16}" text-anchor="middle">{t:g}</text>'
             for t in ticks(*limits)]
    for place, (label, dots) in enumerate(rows.items()):
        y = TOP + row * (place + 0.5)
        parts.append(f'<text class="label" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
                     f'<line class="axis" x1="{left}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for number, (value, series, words) in enumerate(dots):
            parts.append(f'<circle class="point s{series % SERIES}" cx="{x_at(value):.1f}" '
                         f'cy="{y + (number % 5 - 2) * 3:.1f}" r="4.5"><title>{escape(words)}</title></circle>')
    parts.append(f'<text class="title" x="{(left + width - RIGHT) / 2:.1f}" y="{bottom + 34}" '
                 f'text-anchor="middle">{escape(x_title)}</text>')
    return _picture("".join(parts), width, bottom + 42, name)


@dataclass(frozen=True)
class _Scale:
    limits: tuple[float, float]
    to: tuple[float, float]

    def __call__(self, value: float) -> float:
        share = (value - self.limits[0]) / (self.limits[1] - self.limits[0])
        return self.to[0] + share * (self.to[1] - self.to[0])


def _axes(x_limits: tuple[float, float], y_limits: tuple[float, float], x_title: str, y_title: str) -> str:
    x_at, y_at = _Scale(x_limits, (LEFT, WIDTH - RIGHT)), _Scale(y_limits, (HEIGHT - BOTTOM, TOP))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(*y_limits):
        y = y_at(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts += [f'<text class="tick" x="{x_at(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
              for value in ticks(*x_limits)]
    middle, centre = (TOP + bottom) / 2, (LEFT + right) / 2
    return "".join([
        *parts, f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<text class="title" x="{centre:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text class="title" x="12" y="{middle:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle:.1f})">{escape(y_title)}</text>',
    ])


def _picture(body: str, width: float, height: float, name: str) -> str:
    return (f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}">'
            f"{body}</svg>")
