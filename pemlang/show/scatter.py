"""The trials of a tuning as SVG: by two objectives, with the Pareto front as a line; by one, over
the param that is tuned, or over the trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from pemlang.pipeline.study import Trial
from pemlang.pipeline.tuning import Tuned
from pemlang.show.svg import escaped

_WIDTH, _HEIGHT, _LEFT, _BELOW, _MARGIN = 640.0, 400.0, 76.0, 48.0, 18.0
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.line{stroke:#ddd}.dot{fill:#7a9cc6}"
    ".best{fill:#c0392b}.front{stroke:#c0392b;fill:none}"
)
SVG_START = "<svg xmlns="
"""How the file begins."""


class _Dot(NamedTuple):
    """A trial, and its numbers on the two rulers."""

    x: float
    y: float
    trial: Trial


class _Ruler:
    """Numbers along a line of the picture. They may be any that a float is: what lies between two
    of them may be more than the largest, or less than the least."""

    def __init__(self, numbers: Sequence[float], start: float, end: float) -> None:
        low, high = Fraction(min(numbers, default=0.0)), Fraction(max(numbers, default=1.0))
        if low == high:
            low, high = low - Fraction(1, 2), high + Fraction(1, 2)
        self._low, self._high, self._start, self._end = low, high, start, end

    def at(self, number: float | Fraction) -> float:
        """Where a number is."""
        share = float((Fraction(number) - self._low) / (self._high - self._low))
        return self._start + share * (self._end - self._start)

    def marks(self) -> list[Fraction]:
        """Round numbers along it, some five."""
        rough = (self._high - self._low) / 5
        digits = len(str(rough.numerator)) - len(str(rough.denominator)) - 1
        steps = (Fraction(10) ** digits * times for times in (1, 2, 5, 10, 20, 50, 100))
        step = next(step for step in steps if step >= rough)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [index * step for index in range(first, last + 1)]


def trials_as_svg(tuned: Tuned) -> str:
    """A picture of the trials that have numbers."""
    across, dots = _dots(tuned)
    up = tuned.objectives[min(1, len(tuned.objectives) - 1)].name
    bottom = _HEIGHT - _BELOW
    xs = _Ruler([dot.x for dot in dots], _LEFT + _MARGIN, _WIDTH - 2 * _MARGIN)
    ys = _Ruler([dot.y for dot in dots], bottom - _MARGIN, 2 * _MARGIN)
    parts = [
        f'<path class="line" d="M{_LEFT:.0f} {_MARGIN:.0f}V{bottom:.0f}H{_WIDTH - _MARGIN:.0f}" '
        'fill="none"/>',
        _text((_LEFT + _WIDTH) / 2, _HEIGHT - 10, "middle", across),
        _text(10, _MARGIN - 4, "start", up),
    ]
    parts += [_text(xs.at(x), bottom + 16, "middle", f"{float(x):.6g}") for x in xs.marks()]
    parts += [_text(_LEFT - 8, ys.at(y) + 4, "end", f"{float(y):.6g}") for y in ys.marks()]
    best = {trial.number for trial in tuned.best}
    if len(tuned.objectives) > 1:
        front = sorted((dot.x, dot.y) for dot in dots if dot.trial.number in best)
        points = " ".join(f"{xs.at(x):.1f},{ys.at(y):.1f}" for x, y in front)
        parts.append(f'<polyline class="front" points="{points}"/>')
    for x, y, trial in dots:
        kind = "best" if trial.number in best else "dot"
        parts.append(
            f'<circle class="{kind}" cx="{xs.at(x):.1f}" cy="{ys.at(y):.1f}" r="4">'
            f"<title>{escaped(_words(trial))}</title></circle>"
        )
    return (
        f'{SVG_START}"http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        f'role="img"><title>{escaped(f"{up} over {across}")}</title><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _words(trial: Trial) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in trial.settings.items())
    numbers = ", ".join(f"{name} = {number:.6g}" for name, number in trial.numbers.items())
    return f"trial {trial.number}: {settings}; {numbers}"


def _dots(tuned: Tuned) -> tuple[str, list[_Dot]]:
    """What goes across, and the trials."""
    measured = [trial for trial in tuned.trials if trial.numbers]
    first, *others = (objective.name for objective in tuned.objectives)
    if others:
        return first, [_Dot(x.numbers[first], x.numbers[others[0]], x) for x in measured]
    places = [_one_number(trial) for trial in measured]
    if None in places:
        return "trial", [_Dot(float(x.number), x.numbers[first], x) for x in measured]
    return next(iter(tuned.trials[0].settings), ""), [
        _Dot(place, x.numbers[first], x)
        for place, x in zip(places, measured, strict=True)
        if place is not None
    ]


def _one_number(trial: Trial) -> float | None:
    """The value of the one param that is tuned, where it is a number."""
    try:
        [value] = trial.settings.values()
        return float(value)
    except ValueError:
        return None
