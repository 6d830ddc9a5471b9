"""`pem build`: write every adapter that recipes save."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    Bar,
    GivenPath,
    coloured,
    importing,
    locked_option,
    out_option,
    recipe_options,
    say,
)
from pemlang.cli.one_off import as_words, one_off, whole
from pemlang.cli.values import Memory, SweepOf, the_one_sweep
from pemlang.diagnostics import Diagnostic, PemError, visible
from pemlang.execute.backends import BACKENDS
from pemlang.syntax.files import ON_THE_COMMAND_LINE

if TYPE_CHECKING:
    from pemlang.api import Recipe
    from pemlang.artifact.write import Built
    from pemlang.pipeline.build import BuildOptions
    from pemlang.pipeline.sweep import Sweep


@click.command()
@out_option
@click.option(
    "--sweep",
    type=SweepOf(),
    multiple=True,
    callback=the_one_sweep,
    metavar="NAME=START:STOP:STEP",
    help="Build at each value of a param, such as weight=0:1:0.1 or weight=0.2,0.5; the inputs "
    "are read once for all of them. The paths of the outputs must name it: out/w{weight}.",
)
@click.option(
    "--memory",
    type=Memory(),
    metavar="AMOUNT",
    help="Work in at most so much memory, such as 512MB; half of the machine's by default.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Use at most N threads; as many as there are processors by default. Neither this nor "
    "--memory changes a byte of the outputs.",
)
@click.option(
    "--device",
    type=click.Choice(list(BACKENDS)),
    default="cpu",
    help="Run elementwise programs on a GPU, which gives the same bytes; needs pemlang[cuda].",
)
@click.option(
    "--force",
    is_flag=True,
    help="Make again what is up to date, which else stays as it is; and replace an output that has "
    "been changed since it was built.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where a build was stopped, killed outright too, with the shards that it had "
    "finished; the output is the same to the byte.",
)
@locked_option("Build only what pem.lock has: refuse adapters, imports or a version that differ.")
@click.option(
    "--dump-kernels",
    is_flag=True,
    help="Show the programs that would run, and write nothing.",
)
@click.option(
    "-e",
    "expression",
    metavar="EXPRESSION",
    help="Build this expression. In the place of recipes come its adapters, as NAME=DIR. The "
    "recipe that it stands for is shown; what `save … with` takes needs one.",
)
@click.option("--to", type=GivenPath(), metavar="DIR", help="Where to save what -e says.")
@recipe_options("text", "json", several=True)
def build(
    recipes: tuple[str, ...],
    settings: dict[str, str],
    form: str,
    out: str | None,
    sweep: Sweep | None,
    memory: int | None,
    threads: int | None,
    device: str,
    force: bool,
    resume: bool,
    locked: bool,
    dump_kernels: bool,
    expression: str | None,
    to: str | None,
) -> int:
    """Build recipes: write every adapter they save.

    Each output is a directory that PEFT loads; it appears whole or not at all, and carries its
    provenance. One that is there already and means the same is not made again. Of several recipes
    one that is wrong keeps none of the others from being built.

    Without a recipe: pem build -e "0.5 * a + b" a=DIR b=DIR --to OUT
    """
    with importing():
        from pemlang.execute.elementwise import get_ready

        get_ready()  # while all else is imported
        from pemlang.api import load, of_text
        from pemlang.pipeline.build import BuildOptions
        from pemlang.show.written import BuildJson

    _hold_usage(expression, to, settings, sweep)
    if dump_kernels and form == "json":
        raise click.UsageError("--dump-kernels shows text.")
    written, opening = "", [partial(load, recipe, settings) for recipe in _once(recipes)]
    if expression is not None and to is not None:
        try:
            written, out = one_off(expression, recipes, to, out)
        except PemError as error:
            return say([as_words(message, "") for message in error.diagnostics], form)
        opening = [partial(of_text, written.encode(), ON_THE_COMMAND_LINE, settings)]
    options = BuildOptions(threads, memory, device, force, resume)
    if dump_kernels:
        return _dumped(opening, out, sweep, options)
    outputs, messages, printed = _built(opening, out, sweep, options, locked)
    if written:
        messages = [as_words(message, written) for message in messages]
        written = whole(written, out)
    code = say(messages, form, BuildJson(outputs, written or None, printed))
    if form == "text":
        for line in printed:
            click.echo(line)
        if written and outputs:
            click.echo(written)
        for built in outputs:
            click.echo(built_line(built), color=coloured(sys.stdout))
    return code


def _hold_usage(
    expression: str | None, to: str | None, settings: Mapping[str, str], sweep: Sweep | None
) -> None:
    """Hold options to go together."""
    if sweep is not None and sweep.name in settings:
        raise click.UsageError(f"`{sweep.name}` is both in --set and in --sweep.")
    if (expression is None) != (to is None):
        raise click.UsageError("-e and --to belong together: what to build, and where to save it.")
    if expression is not None and (settings or sweep is not None):
        raise click.UsageError(
            "-e has no params for --set and --sweep: write the number into the expression, or the "
            "expression into a recipe."
        )


def _once(recipes: Sequence[str]) -> Iterable[str]:
    """Recipes, each one time, however its path is spelt."""
    places: dict[str, str] = {}
    for recipe in recipes:
        places.setdefault(os.path.realpath(recipe), recipe)
    return places.values()


def _built(
    opening: Sequence[Callable[[], Recipe]],
    out: str | None,
    sweep: Sweep | None,
    options: BuildOptions,
    locked: bool,
) -> tuple[list[Built], list[Diagnostic], list[str]]:
    """What recipes have built, one after the other, all that there is to say, and what they
    print."""
    printed: list[str] = []
    outputs: list[Built] = []
    messages: list[Diagnostic] = []
    for opened in opening:
        bar = Bar()
        try:
            recipe = opened()
            lock = recipe.lock_beside() if locked else None
            taken = frozenset(built.path for built in outputs)
            result = recipe.build(out, bar, sweep, replace(options, lock=lock, taken=taken))
        except PemError as error:
            messages += error.diagnostics
            continue
        finally:
            bar.clear()
        messages += result.warnings
        outputs += result.outputs
        printed += result.printed
    return outputs, messages, printed


def _dumped(
    opening: Sequence[Callable[[], Recipe]],
    out: str | None,
    sweep: Sweep | None,
    options: BuildOptions,
) -> int:
    """Show the programs that would run."""
    from pemlang.show.kernels import kernels_as_text

    try:
        for opened in opening:
            programs, outputs = opened().programs(out, sweep)
            many, triton = options.running.most_threads, options.device == "cuda"
            click.echo(kernels_as_text(programs.plan, outputs, many, triton))
    except PemError as error:
        return say(error.diagnostics, "text")
    return 0


def built_line(built: Built) -> str:
    """An output of a build, as a line."""
    from pemlang.graph.formula import count, size_text

    path = os.path.relpath(built.path)
    shown = path if not path.startswith("..") else str(Path(built.path))
    facts = [
        count(built.sites, built.part),
        f"{size_text(built.size)}",
        f"hash {built.semantic_hash[:12]}",
    ]
    if built.rank is not None:
        facts.insert(0, f"rank {built.rank}")
    facts += ["up to date"] * built.was_there
    facts += [f"{count(built.resumed, 'file')} from before"] if built.resumed else []
    facts += [f"truncation took {built.loss.total:.3%}"] if built.loss is not None else []
    return f"{click.style(visible(shown, 4096), bold=True)}  {built.title}, {', '.join(facts)}"
