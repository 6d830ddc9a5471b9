"""Words of the command line that are more than a name: amounts of memory, sweeps."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pemlang.pipeline.sweep import Sweep

MAX_SWEEP = 1000
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


class Memory(click.ParamType[int]):
    """Bytes, as 512MB."""

    name = "amount"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        from pemlang.graph.numbers import amount_of

        amount = amount_of(str(value))
        if amount is None:
            self.fail(f"`{value}` is not an amount of memory, such as 512MB", param, ctx)
        return amount


def the_one_sweep(
    ctx: click.Context, param: click.Parameter, sweeps: tuple[Sweep, ...]
) -> Sweep | None:
    """The sweep that is asked for, if one is."""
    if len(sweeps) > 1:
        names = " and ".join(f"`{sweep.name}`" for sweep in sweeps)
        raise click.UsageError(
            f"--sweep is given for {names}, and a build goes over one param: list its values, as "
            f"{sweeps[0].name}=0.2,0.5, and build once for each value of another, with --set."
        )
    return sweeps[0] if sweeps else None


class SweepOf(click.ParamType["Sweep"]):
    """A param and its values, as weight=0:1:0.1 or weight=0.2,0.5."""

    name = "sweep"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Sweep:
        from pemlang.pipeline.sweep import Sweep

        name, equals, text = str(value).partition("=")
        if not equals or not name.strip() or not text.strip():
            self.fail(f"`{value}` is not NAME=START:STOP:STEP, such as weight=0:1:0.1", param, ctx)
        parts = text.split(":")
        values = [part.strip() for part in text.split(",")] if len(parts) == 1 else None
        if values is None:
            values = self._steps(parts, value, param, ctx)
        if len(values) > MAX_SWEEP:
            self.fail(f"`{value}` has {len(values)} values; {MAX_SWEEP} is the most", param, ctx)
        if len(set(values)) < len(values) or not all(values):
            self.fail(f"`{value}` has a value twice, or an empty one", param, ctx)
        return Sweep(name.strip(), tuple(values))

    def _steps(
        self,
        parts: list[str],
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> list[str]:
        from pemlang.graph.numbers import shown

        if len(parts) != 3 or not all(_NUMBER.fullmatch(part.strip()) for part in parts):
            self.fail(f"`{value}` is not NAME=START:STOP:STEP, such as weight=0:1:0.1", param, ctx)
        start, stop, step = (Fraction(part.strip()) for part in parts)
        if step <= 0 or stop < start:
            self.fail(f"`{value}` goes nowhere: STEP is positive, START below STOP", param, ctx)
        count = int((stop - start) / step) + 1
        if count > MAX_SWEEP:
            self.fail(f"`{value}` has {count} values; {MAX_SWEEP} is the most", param, ctx)
        return [shown(start + step * index) for index in range(count)]
