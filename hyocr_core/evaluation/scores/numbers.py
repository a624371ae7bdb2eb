"""Numbers as text, for people: the same in tables on the terminal, on the page and in the card."""

from __future__ import annotations

from hyocr_core import resources
from hyocr_core.checkpoint.quant_report import Measure
from hyocr_core.evaluation.scores.result import Interval
from hyocr_core.wording import phrase, spoken, tr

NONE = "–"
_NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""
RTN = phrase("round to nearest (RTN)")
"""How the weights merely rounded, which a method has to beat, are called wherever people read of them."""
READABLE = 1e7
"""From here on a number has an exponent."""


def percent(rate: float | None, digits: int = 2) -> str:
    return NONE if rate is None else f"{100 * rate:.{digits}f}{_NBSP}%"


def relative(error: float | None) -> str:
    """A relative error in percent, to three digits."""
    return NONE if error is None else f"{100 * error:.3g}{_NBSP}%"


def times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}×"


def agreed(agreement: float | None, interval: Interval | None) -> str:
    """The share of next tokens that agree; where all do, the least that may be so of others."""
    return f"≥{_NBSP}{percent(interval[0])}" if agreement == 1 and interval is not None else percent(agreement)


def points(difference: float | None) -> str:
    """The difference of two rates in percentage points, with its sign."""
    return NONE if difference is None else f"{100 * difference:+.2f}".replace("-", "−")


def span(interval: Interval | None) -> str:
    """An interval of rates, in percent."""
    return NONE if interval is None else _span(f"{100 * interval[0]:.2f}", f"{100 * interval[1]:.2f}")


def signed_span(interval: Interval | None) -> str:
    """An interval of a difference of rates, in points."""
    return NONE if interval is None else _span(points(interval[0]), points(interval[1]))


def _span(low: str, high: str) -> str:
    return tr("{low} to {high}", low=low, high=high)


def size(count: float | None) -> str:
    """Bytes, in decimal units."""
    return NONE if count is None else resources.size(count).replace(" ", _NBSP)


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, without an exponent where that is readable."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < READABLE else f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value >= 120:
        return f"{value / 60:.1f}{_NBSP}min"
    return f"{value:.0f}{_NBSP}s" if value >= 10 else f"{value:.2f}{_NBSP}s"


def milliseconds(value: float | None) -> str:
    return NONE if value is None else f"{number(1000 * value)}{_NBSP}ms"


def count(number: int, noun: str) -> str:
    """`1 page`, `2 pages`. noun: a literal."""
    return f"{number:,}{_NBSP}{tr(noun)}" + ("s" if number != 1 and spoken() == "en" else "")


def measured(value: float | None, unit: str) -> str:
    """What a metric says, in its unit: a fraction in percent."""
    return percent(value) if unit == "%" else _with_unit(number(value), unit)


def measured_span(interval: Interval | None, unit: str) -> str:
    """Its interval."""
    if interval is None or unit == "%":
        return span(interval)
    return _span(number(interval[0]), number(interval[1]))


def measured_difference(difference: float | None, unit: str) -> str:
    """How far two checkpoints are apart by it, with its sign: fractions in points."""
    if difference is None or unit == "%":
        return points(difference)
    return _with_unit(_signed(difference), unit)


def measured_signed_span(interval: Interval | None, unit: str) -> str:
    """The interval of that."""
    if interval is None or unit == "%":
        return signed_span(interval)
    return _span(_signed(interval[0]), _signed(interval[1]))


def apart(difference: Measure | None, unit: str) -> str:
    """Both: `−3.10 (−5.20 to −1.00)`."""
    if difference is None:
        return NONE
    value, interval = measured_difference(difference.value, unit), measured_signed_span(difference.interval, unit)
    return tr("{value} ({interval})", value=value, interval=interval)


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{number(abs(value))}"


def _with_unit(text: str, unit: str) -> str:
    return f"{text}{_NBSP}{unit}" if unit and text != NONE else text


def duration(low: float, high: float) -> str:
    """A range of seconds, in the unit that suits its end."""
    for unit, length in (("h", 3600), ("min", 60)):
        if high >= 2 * length:
            return f"{low / length:.1f} to {high / length:.1f}{_NBSP}{unit}"
    return f"{low:.0f} to {high:.0f}{_NBSP}s"
