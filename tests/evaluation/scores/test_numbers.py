from __future__ import annotations

from hyocr_core.evaluation.scores import numbers


def test_numbers() -> None:
    shown = (
        numbers.percent(0.01234),
        numbers.points(-0.0012),
        numbers.points(0.0012),
        numbers.signed_span((-0.001, 0.002)),
    )
    assert shown == ("1.23\u00a0%", "−0.12", "+0.12", "−0.10 to +0.20")
    assert [numbers.size(size) for size in (12, 3400, 5_600_000, 1_927_000_000)] == [
        "12\u00a0bytes",
        "3.4\u00a0kB",
        "5.6\u00a0MB",
        "1.93\u00a0GB",
    ]
    assert [numbers.seconds(seconds) for seconds in (0.5, 12, 600)] == ["0.50\u00a0s", "12\u00a0s", "10.0\u00a0min"]
    assert (numbers.relative(0.61234), numbers.times(1.5), numbers.count(1, "page")) == (
        "61.2\u00a0%",
        "1.50×",
        "1\u00a0page",
    )
    assert [numbers.number(value) for value in (0.000277, 12.34, 2010.4, 123456, 1.5e8)] == [
        "0.000277",
        "12.3",
        "2,010",
        "123,456",
        "1.5e+08",
    ]
    formats = (
        numbers.percent,
        numbers.points,
        numbers.span,
        numbers.size,
        numbers.number,
        numbers.seconds,
        numbers.relative,
        numbers.times,
    )
    assert {show(None) for show in formats} == {"–"}


def test_a_metric_is_shown_in_its_unit() -> None:
    assert [numbers.measured(value, "%") for value in (0.012, None)] == ["1.20\u00a0%", "–"]
    assert [numbers.measured(value, "edits") for value in (12.345, None)] == ["12.3\u00a0edits", "–"]
    assert numbers.measured(0.5, "") == "0.5"
    differences = [numbers.measured_difference(value, "edits") for value in (-1.5, 2, 0, None)]
    assert differences == ["−1.5\u00a0edits", "+2\u00a0edits", "+0\u00a0edits", "–"]
    assert numbers.measured_difference(-0.012, "%") == "−1.20"
    assert [numbers.measured_span((0.1, 2.5), unit) for unit in ("%", "edits")] == ["10.00 to 250.00", "0.1 to 2.5"]
    assert numbers.measured_span(None, "edits") == "–"


def test_a_range_of_seconds_has_the_unit_of_its_end() -> None:
    shown = [numbers.duration(*ends).replace("\u00a0", " ") for ends in ((3, 90), (30, 600), (1800, 9000))]
    assert shown == ["3 to 90 s", "0.5 to 10.0 min", "0.5 to 2.5 h"]
