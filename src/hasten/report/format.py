"""Numbers as a reader needs them: with unit, 95 % interval and sample size, or the reason why there is none.

The interval decides how many decimals are shown: its half-width keeps one significant digit, two where the first is a
1. More digits than the evidence carries would be a claim. The other modules of `hasten.report` call this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hasten.spec.measurement import Figure, MetricInfo

__all__ = [
    "FigureText",
    "Unit",
    "amount",
    "bytes_text",
    "count",
    "duration",
    "figure_text",
    "interval",
    "is_measured",
    "unit_of",
]

MINUS = "−"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """How one kind of number is shown: factor, suffix, whether a plus sign matters, fewest and most decimals."""

    suffix: str = ""
    scale: float = 1.0
    signed: bool = False
    least: int = 0
    most: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureText:
    """One figure in words. Where nothing was measured, `value` says so and `note` says why."""

    value: str
    interval: str = ""
    n: str = ""
    note: str = ""
    measured: bool = True

    @property
    def full(self) -> str:
        """Value and interval in one piece: "14.8 ms (14.5 – 15.2)"."""
        extra = self.interval or self.note
        return f"{self.value} ({extra})" if extra else self.value


PERCENT = Unit(suffix=" %", scale=100.0, least=1, most=2)
POINTS = Unit(suffix=" points", scale=100.0, signed=True, least=1, most=2)
SHARES = ("exact_match", "char_error_rate", "top1", "agreement")
BY_ENDING = {
    "_ms": Unit(suffix=" ms", least=1, most=3),
    "_mb": Unit(suffix=" MB", most=1),
    "_rps": Unit(suffix="/s", most=1),
    "_j": Unit(suffix=" J", most=6),
    "_usd": Unit(suffix=" USD", least=2, most=4),
}


def unit_of(name: str, metric: MetricInfo) -> Unit:
    """Return how the figure called `name` is shown; accuracy takes the metric's own unit."""
    if name == "speedup":
        return Unit(suffix="×", least=2, most=2)
    if name == "accuracy":
        return _level(metric.unit)
    if name == "accuracy_change":
        return _change(metric.unit)
    ending = next((unit for end, unit in BY_ENDING.items() if name.endswith(end)), None)
    return ending or _extra(name)


def _extra(name: str) -> Unit:
    """A figure of a third party's meter: its name is all there is to go by."""
    stem = name.removesuffix("_change")
    share = stem in SHARES or stem.endswith(("_rate", "_share"))
    kind = "share" if share else ""
    return _level(kind) if stem == name else _change(kind)


def _level(unit: str) -> Unit:
    return PERCENT if unit == "share" else Unit(suffix=f" {unit}".rstrip(), most=4)


def _change(unit: str) -> Unit:
    return POINTS if unit == "share" else Unit(suffix=f" {unit}".rstrip(), signed=True, most=4)


def is_measured(figure: Figure) -> bool:
    """Whether there is a finite number to show."""
    return figure.value is not None and math.isfinite(figure.value)


def figure_text(figure: Figure, unit: Unit) -> FigureText:
    """Put one figure into words."""
    if figure.value is None or not math.isfinite(figure.value):
        reason = figure.reason or "the value is not a finite number"
        return FigureText(value="not measured", note="" if reason == "not measured" else reason, measured=False)
    decimals = _decimals(figure.value, _half_width(figure), unit)
    return FigureText(
        value=_number(figure.value, unit, decimals) + unit.suffix,
        interval=interval(figure, unit),
        n=f"n = {count(figure.n)}" if figure.n else "",
        note=(figure.method or "").replace("_", " "),
    )


def interval(figure: Figure, unit: Unit) -> str:
    """Return the bounds without unit: "14.5 – 15.2", or "−0.5 to +0.4" where a sign could be misread as a dash."""
    if figure.value is None or figure.low is None or figure.high is None:
        return ""
    decimals = _decimals(figure.value, _half_width(figure), unit)
    bounds = [_number(bound, unit, decimals) for bound in (figure.low, figure.high)]
    return (" to " if unit.signed or figure.low < 0 else " – ").join(bounds)


def amount(value: float, unit: Unit) -> str:
    """Return a bare number with its unit, without padding zeros: a bound, a tick."""
    text = _number(value, unit, unit.most)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit.suffix


def _half_width(figure: Figure) -> float:
    if figure.low is None or figure.high is None:
        return 0.0
    return abs(figure.high - figure.low) / 2


def _decimals(value: float, half_width: float, unit: Unit) -> int:
    half, size = half_width * unit.scale, abs(value) * unit.scale
    if half > 0 and math.isfinite(half):
        wanted = -math.floor(math.log10(half))
        wanted += half * 10.0**wanted < 2
    else:
        wanted = 2 - math.floor(math.log10(size)) if size else unit.least
    return min(max(wanted, unit.least if size < 100 else 0), unit.most)


def _number(value: float, unit: Unit, decimals: int) -> str:
    if not math.isfinite(value):
        return "unbounded"
    rounded = round(value * unit.scale, decimals)
    sign = MINUS if rounded < 0 else "+" if unit.signed and rounded > 0 else ""
    return f"{sign}{abs(rounded):,.{decimals}f}"


def count(value: int) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Return a time span: "48 s", "6 min 12 s", "2 h 5 min"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def bytes_text(size: int) -> str:
    """Return a file size in decimal units: "10.9 MB"."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
