"""A histogram as a small SVG: bars stacked by source, limits as dashed lines.

In: a table with one row a recording. Out: markup that holds numbers only, so that nothing needs escaping. Colours are
the classes `s0`, `s1` ... of the page's style sheet; `limit` and `base` are its lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

Numbers = npt.NDArray[np.float64]
_WIDTH, _HEIGHT, _BINS = 300, 96, 40


@dataclass(frozen=True)
class Axis:
    """One measurement to draw.

    Attributes:
        column: its column in the table.
        title, unit: as they are shown.
        logarithmic: whether the axis is logarithmic.
        limits: values at which a dashed line is drawn: beyond them validation warns.
    """

    column: str
    title: str
    unit: str
    logarithmic: bool = False
    limits: tuple[float, ...] = ()

    def positions(self, values: Numbers) -> Numbers:
        """The positions of values on the axis."""
        return np.log10(np.maximum(values, 1e-6)) if self.logarithmic else values

    def value_at(self, position: float) -> float:
        """The value at a position on the axis."""
        return float(10**position if self.logarithmic else position)


def number(value: float) -> str:
    """A number with three significant digits; thousands in full, numbers near 0 as 0.

    >>> number(0.12345), number(12345.6), number(1e-9)
    ('0.123', '12,346', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 or abs(value) < 1e-6 else f"{value:.3g}"


def histogram(table: pd.DataFrame, axis: Axis, sources: Sequence[str]) -> Markup:
    """The histogram of one measurement, with bins of equal width on the axis.

    Args:
        table: the axis' column and `source`, one row a recording; nulls are left out.
        axis: what to draw.
        sources: in the order of the colours.
    """
    known = table.dropna(subset=[axis.column])
    if known.empty:
        return Markup("<p class=quiet>nothing measured</p>")
    values, limits = axis.positions(known[axis.column].to_numpy()), axis.positions(np.array(axis.limits, float))
    low, high = min([*values, *limits]), max([*values, *limits])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, _BINS + 1)
    counts = np.array([np.histogram(values[known["source"] == source], edges)[0] for source in sources])
    lines = "".join(_line("limit", x, x, -4) for x in (limits - low) / (high - low) * _WIDTH)
    texts = _text(0, "start", number(axis.value_at(low))) + _text(_WIDTH, "end", number(axis.value_at(high)))
    middle = _text(_WIDTH / 2, "middle", f"median {number(float(known[axis.column].median()))}")
    drawn = _line("base", 0, _WIDTH, _HEIGHT) + _bars(counts) + lines + texts + middle
    return Markup(f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 24}" role="img">{drawn}</svg>')


def _bars(counts: npt.NDArray[np.int64]) -> str:
    """Stacked bars of counts [sources, bins]."""
    step, unit = _WIDTH / _BINS, _HEIGHT / max(1, counts.sum(axis=0).max())
    tops = _HEIGHT - np.cumsum(counts, axis=0) * unit
    return "".join(
        f'<rect class="s{source}" x="{k * step:.1f}" y="{tops[source, k]:.1f}" width="{step - 1:.1f}" '
        f'height="{n * unit:.1f}"><title>{n}</title></rect>'
        for source, row in enumerate(counts) for k, n in enumerate(row) if n
    )


def _line(name: str, x1: float, x2: float, y1: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{_HEIGHT}"/>'


def _text(x: float, anchor: str, words: str) -> str:
    return f'<text x="{x:.0f}" y="{_HEIGHT + 15}" text-anchor="{anchor}">{words}</text>'
