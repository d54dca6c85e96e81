"""Numbers as text for every page: rounded, signed, with their interval, listed."""

from collections.abc import Mapping, Sequence


def figure(value: float | None) -> str:
    """A rounded number, or a dash where there is none.

    >>> figure(0.8149), figure(15123.4), figure(None)
    ('0.81', '15,123', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def span(number: Mapping[str, float | None]) -> str:
    """The interval of a number, empty where it has none.

    >>> span({"value": 0.81, "low": 0.731, "high": 0.884})
    '0.73 to 0.88'
    """
    if number.get("low") is None or number.get("high") is None:
        return ""
    return f"{figure(number['low'])} to {figure(number['high'])}"


def signed(value: float | None) -> str:
    """A difference with its sign, or a dash where there is none.

    >>> signed(0.12), signed(-0.052)
    ('+0.12', '−0.05')
    """
    return figure(value) if value is None else ("−" if value < 0 else "+") + figure(abs(value))


def signed_span(number: Mapping[str, float | None]) -> str:
    """The interval of a difference.

    >>> signed_span({"value": 0.04, "low": 0.01, "high": 0.09})
    '+0.01 to +0.09'
    """
    if number["low"] is None or number["high"] is None:
        return "no interval"
    return f"{signed(number['low'])} to {signed(number['high'])}"


def criterion(name: str) -> str:
    """A criterion of the gate as people read it; `floors` is the stored name of the one about baselines.

    >>> criterion("floors"), criterion("calibration")
    ('Baselines', 'Calibration')
    """
    return "Baselines" if name == "floors" else name.capitalize()


def listed(names: Sequence[str]) -> str:
    """Names as a phrase.

    >>> listed(["Present", "Unknown", "Absent"])
    'Present, Unknown and Absent'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
