"""Validation from expectation to page: each planted fault fails its own check, in words, rows, bars and colours."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from great_expectations import expectations as gxe

from heartml.core import config
from heartml.data.validation import expectations, histogram, page, result, run_suites

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
SUITES = expectations.suites(PARAMS.ingest, PARAMS.validate_, ["label_murmur"])
GOOD = {"fault": None, "peak": 0.5, "seconds": 10.0, "silent_share": 0.0, "clipped_share": 0.0, "dc": 0.0,
        "bandwidth_hz": 400.0, "contrast_db": 30.0, "heard_bandwidth_hz": 500.0}
LIMITS = PARAMS.validate_


def signals(**faults: object) -> pd.DataFrame:
    """Five recordings; `faults`: column -> what the third one has there."""
    rows = [{"recording_id": f"{n:064x}", "patient_id": f"simulated-{n}", "source_file": f"{n}_AV.wav",
             "dataset": "simulated", **GOOD} for n in range(5)]
    rows[2] |= faults
    return pd.DataFrame(rows).astype({"fault": "object"})


def failed(suite: str, table: pd.DataFrame) -> list[run_suites.CheckResult]:
    return [check for check in run_suites.check({suite: table}, {suite: SUITES[suite]}) if not check["success"]]


# Which check finds what


@pytest.mark.parametrize(("column", "value", "severity"), [
    ("fault", "its samples have another hash", "error"), ("peak", 0.0, "error"),
    ("peak", LIMITS.quiet_peak / 2, "warning"), ("seconds", LIMITS.short_seconds / 2, "warning"),
    ("silent_share", 0.5, "warning"), ("clipped_share", 2 * LIMITS.clipped_share, "warning"),
    ("dc", -2 * LIMITS.dc_offset, "warning"), ("heard_bandwidth_hz", LIMITS.bandwidth_hz / 2, "warning"),
    ("contrast_db", LIMITS.contrast_db / 2, "warning")])
def test_each_fault_of_a_signal_fails_the_check_of_its_column_and_names_its_recording(
    column: str, value: object, severity: str
) -> None:
    assert failed("signals", signals()) == []
    found = failed("signals", signals(**{column: value}))
    assert {check["column"] for check in found} == {column}
    check = next(check for check in found if check["severity"] == severity)
    assert (check["checked"], check["unexpected"]) == (5, 1)
    assert [row["source_file"] for row in check["rows"]] == ["2_AV.wav"]
    assert check["rows"][0][column] == value
    line = result.check_line(check)
    assert line.startswith(f"{check['title']}: not so for 1 of 5 (2_AV.wav [") and line.endswith(check["way_out"])


def test_every_expectation_has_a_sentence_and_a_way_out() -> None:
    for suite in SUITES.values():
        for expectation in suite:
            assert re.match(r"[A-Z]|label_", expectation.description)
            assert expectation.meta["way_out"].endswith(".")
            assert expectation.severity.value in run_suites.SEVERITIES


def test_checks_come_in_the_order_of_the_suite_and_only_the_first_rows_are_shown() -> None:
    table = pd.concat([signals(peak=0.0).iloc[[2]]] * 30, ignore_index=True)
    checks = run_suites.check({"signals": table}, {"signals": SUITES["signals"]})
    assert [check["title"] for check in checks] == [e.description for e in SUITES["signals"]]
    silent = next(check for check in checks if check["severity"] == "error" and check["column"] == "peak")
    assert (silent["unexpected"], len(silent["rows"])) == (30, run_suites.ROWS_SHOWN)


def test_an_expectation_that_cannot_be_checked_is_a_fault_of_ours() -> None:
    broken = gxe.ExpectColumnValuesToBeNull(column="no_such_column", severity="critical", description="x",
                                            meta={"way_out": "y"})
    with pytest.raises(RuntimeError, match=r"no_such_column.*could not be checked"):
        run_suites.check({"signals": signals()}, {"signals": [broken]})


# The result in words


def test_errors_fail_and_warnings_do_not() -> None:
    recordings = pd.DataFrame({"patient_id": ["a", "a", "b", None], "group_id": ["g", "g", "h", "i"],
                               "seconds": [1800.0] * 4, "dataset": "simulated"})
    tables = {"recordings": recordings, "pairs": pd.DataFrame(index=range(2)), "labels": pd.DataFrame({"groups": [3]}),
              "quarantine": pd.DataFrame({"reason": ["silent", "short", "silent"]})}
    groups = pd.DataFrame({"group_id": ["g", "g", "g", "i"]})
    checks = failed("signals", signals(dc=2 * LIMITS.dc_offset))
    found = result.summarise(tables, groups, checks)
    assert found["success"] and len(found["warnings"]) == 1 and found["errors"] == []
    assert found["counts"] == {"recordings": 4, "patients": 2, "groups": 2, "groups_before_joining": 3, "hours": 2.0,
                               "near_duplicate_pairs": 2, "quarantined": 3}
    assert found["quarantined_by_reason"] == {"short": 1, "silent": 2}
    worse = result.summarise(tables, groups, checks + failed("signals", signals(fault="gone")))
    assert not worse["success"] and len(worse["errors"]) == 1


@pytest.mark.parametrize(("row", "name"), [
    ({"recording_id": "ab" * 32, "source_file": "1_AV.wav", "patient_id": None}, "1_AV.wav [abababab]"),
    ({"source_file": "a", "other_source_file": "b", "correlation": -0.98765}, "a and b at 0.988"),
    ({"dataset": "circor", "label": "murmur", "value": "Unknown", "groups": 9}, "circor murmur Unknown with 9"),
    ({"patient_id": "circor-1", "groups": 2}, "circor-1"), ({"patient_id": None, "source_file": "x"}, "x")])
def test_a_row_of_any_table_has_a_name(row: dict[str, object], name: str) -> None:
    assert result.row_name(row) == name


# Histograms and cells


def bars(svg: str) -> dict[str, int]:
    """Colour -> sum of the counts of its bars."""
    found: dict[str, int] = {}
    for source, count in re.findall(r'<rect class="(\w+)"[^>]*><title>(\d+)</title>', svg):
        found[source] = found.get(source, 0) + int(count)
    return found


def test_bars_hold_every_measured_recording_in_the_colour_of_its_source() -> None:
    table = pd.DataFrame({"level_db": [*np.linspace(-40, -20, 30), None], "source": ["a"] * 20 + ["b"] * 11})
    axis = histogram.Axis("level_db", "Level", "dB", limits=(-35.0, -30.0))
    svg = histogram.histogram(table, axis, ["a", "b"])
    assert bars(svg) == {"s0": 20, "s1": 10}
    limits = [float(x) for x in re.findall(r'class="limit" x1="([\d.]+)"', svg)]
    assert limits == pytest.approx([300 * 5 / 20, 300 * 10 / 20], abs=0.1)
    assert "median -30" in svg and ">-40<" in svg and ">-20<" in svg


@pytest.mark.parametrize("values", [[], [None], [3.0], [3.0, 3.0]])
def test_few_and_equal_values_can_be_drawn(values: list[float | None]) -> None:
    table = pd.DataFrame({"dc": pd.Series(values, dtype=float), "source": "a"})
    svg = histogram.histogram(table, histogram.Axis("dc", "DC", ""), ["a"])
    known = [value for value in values if value is not None]
    assert bars(svg) == ({"s0": len(known)} if known else {})
    assert ("nothing measured" in svg) == (not known)


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.12345, "0.123"), (12345.6, "12,346"), ("AV", "AV"),
                                             ("ab" * 32, "abababababab…"), ("x" * 64, "x" * 64), (3, "3")])
def test_a_cell_is_short(value: object, text: str) -> None:
    assert page.cell(value) == text


def test_an_observed_value_is_a_range_a_number_or_nothing() -> None:
    assert page.span({"min": 0.5, "max": 1234.5}) == "0.5 to 1,234"
    assert (page.span(0.25), page.span(None)) == ("0.25", "")
    assert page.words("other_source_file") == "other source file"
