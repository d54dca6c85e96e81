"""The figures of a report: spectrograms, excerpts, ticks, scales, whiskers, and numbers as they are written."""

import re
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartml.reporting import number_format
from heartml.reporting import svg as plots
from heartml.reporting.task_report import charts, listening, trials_table
from heartml.reporting.task_report.charts import importance


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_spectrogram_shows_the_tone_that_is_there(seed):
    tone_hz = 60 + np.random.default_rng(seed).integers(0, 680)
    tone = np.sin(2 * np.pi * tone_hz * np.arange(8000) / listening.RATE_HZ).astype(np.float32)
    png = listening.spectrogram_png(tone)
    width, height = (int.from_bytes(png[16 + 4 * i:20 + 4 * i]) for i in range(2))
    data = zlib.decompress(png[png.index(b"IDAT") + 4:png.index(b"IEND") - 8])
    pixels = np.frombuffer(data, np.uint8).reshape(height, width + 1)[:, 1:]
    brightest = height - 1 - int(pixels.sum(axis=1, dtype=int).argmax())
    assert abs((brightest + 1) * listening.RATE_HZ / listening.FFT_SIZE - tone_hz) < 25


@pytest.mark.parametrize(("samples", "value"), [(0, 0.0), (10, 0.0), (10, 0.5), (8000, 0.3)])
def test_silence_and_scraps_can_be_shown(samples, value):
    excerpt = listening.excerpt(np.full(samples, value, np.float32), 44100)
    assert np.isfinite(excerpt).all()
    assert listening.spectrogram_png(excerpt).startswith(b"\x89PNG")
    listening.flac(excerpt)


def test_an_excerpt_keeps_its_pitch_at_any_rate():
    for rate_hz in (2000, 4000, 11025, 44100):
        time_s = np.arange(3 * rate_hz) / rate_hz
        excerpt = listening.excerpt(np.sin(2 * np.pi * 100 * time_s).astype(np.float32), rate_hz)
        assert len(excerpt) / listening.RATE_HZ == pytest.approx(3, abs=0.01)
        spectrum = np.abs(np.fft.rfft(excerpt))
        assert np.fft.rfftfreq(len(excerpt), 1 / listening.RATE_HZ)[spectrum.argmax()] == pytest.approx(100, abs=1)


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
@settings(deadline=None)
def test_ticks_are_few_and_within_their_limits(low, width):
    found = plots.ticks(low, low + width)
    assert 1 <= len(found) <= 6
    assert all(low - width / 100 <= value <= low + width * 1.01 for value in found)


@given(st.lists(st.floats(0, 1), min_size=1))
@settings(deadline=None)
def test_the_scale_of_shares_holds_them_and_nothing_that_no_share_can_be(values):
    low, high = plots.domain(values)
    assert 0 <= low < high <= 1
    assert low <= min(values) + 1e-6 and max(values) <= high + 1e-6


@given(st.lists(st.floats(-1e4, 1e4), min_size=1))
@settings(deadline=None)
def test_the_scale_of_differences_holds_them_and_has_a_width_also_where_nothing_changed(values):
    low, high = plots.domain(values, unit=False)
    assert low < high
    assert low <= min(values) + 1e-6 and max(values) <= high + 1e-6


def test_a_whisker_lies_where_its_numbers_say():
    svg = plots.whisker({"value": 0.5, "low": 0.25, "high": 0.75}, (0.0, 1.0), "half <&>", reference=0.1)
    assert 'x1="25.00%" x2="75.00%"' in svg and 'cx="50.00%"' in svg and 'x1="10.00%"' in svg
    assert "half &lt;&amp;&gt;" in svg


def test_importance_is_the_share_of_the_differences_that_a_choice_explains():
    table = pd.DataFrame({"encoder": ["a", "a", "b", "b"], "pooling": ["x", "y", "x", "y"], "head": ["h"] * 4,
                          "level": ["unit"] * 4, "value": [0.1, 0.1, 0.5, 0.5]})
    assert dict(importance(table)) == pytest.approx({"encoder": 1, "pooling": 0, "head": 0, "level": 0})


@pytest.mark.parametrize(("value", "text"), [(0.814, "0.81"), (0.996, "1.00"), (15123.4, "15,123"), (None, "–")])
def test_figures_are_rounded_numbers(value, text):
    assert number_format.figure(value) == text
    assert number_format.signed(-0.052) == "−0.05" and number_format.signed(0.26) == "+0.26"
    assert number_format.span({"low": 0.731, "high": 0.884}) == "0.73 to 0.88"


def test_the_history_of_the_search_goes_by_number_and_only_ever_rises() -> None:
    rows = [(2, 0.7), (0, 0.5), (1, None), (3, 0.6)]
    table = pd.DataFrame([{"trial": trial, "value": value, "folds": 4, "encoder": "logspec", "pooling": None,
                           "head": "trees", "level": "unit"} for trial, value in rows])
    drawn = charts.history(table, "uar")
    best, each = re.findall(r'<polyline class="curve[^"]*" points="([^"]*)"', drawn.svg)
    heights = [[float(point.split(",")[1]) for point in line.split()] for line in (best, each)]
    assert heights[0][0] > heights[0][1] == heights[0][2], "higher on the page is a smaller y"
    assert heights[1][2] > heights[1][1]
    assert charts.history(table.head(1), "uar") is None
    shown = trials_table(table, "uar")
    assert [(row[0], row[1]) for row in shown["rows"]] == [(2, "0.700"), (3, "0.600"), (0, "0.500"), (1, "pruned")]
