"""`pem build`: write every adapter that a recipe saves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    Bar,
    coloured,
    importing,
    locked_option,
    out_option,
    recipe_options,
    say,
)
from pemlang.cli.values import Memory, SweepOf
from pemlang.diagnostics import PemError, visible
from pemlang.execute.backends import BACKENDS

if TYPE_CHECKING:
    from pemlang.artifact.write import Built
    from pemlang.pipeline.sweep import Sweep

_SITES_SHOWN = 5


@click.command()
@out_option
@click.option(
    "--sweep",
    type=SweepOf(),
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
@locked_option("Build only what pem.lock has: refuse adapters, imports or a version that differ.")
@click.option(
    "--dump-kernels",
    is_flag=True,
    help="Show the programs that would run, and write nothing.",
)
@recipe_options("text", "json")
def build(
    recipe: str,
    settings: dict[str, str],
    form: str,
    out: str | None,
    sweep: Sweep | None,
    memory: int | None,
    threads: int | None,
    device: str,
    force: bool,
    locked: bool,
    dump_kernels: bool,
) -> int:
    """Build a recipe: write every adapter it saves.

    Each output is a directory that PEFT loads; it appears whole or not at all, and carries its
    provenance. One that is there already and means the same is not made again.
    """
    with importing():
        from pemlang.execute.elementwise import get_ready

        get_ready()  # while all else is imported
        from pemlang.api import load
        from pemlang.pipeline.build import BuildOptions

    if sweep is not None and sweep.name in settings:
        raise click.UsageError(f"`{sweep.name}` is both in --set and in --sweep.")
    bar = Bar()
    try:
        loaded = load(recipe, settings)
        lock = loaded.lock_beside() if locked else None
        options = BuildOptions(threads, memory, device, force, lock)
        if dump_kernels:
            from pemlang.show.kernels import kernels_as_text

            programs, outputs = loaded.programs(out, sweep)
            many, triton = options.running.most_threads, device == "cuda"
            click.echo(kernels_as_text(programs.plan, outputs, many, triton))
            return 0
        result = loaded.build(out, bar, sweep, options)
    except PemError as error:
        bar.clear()
        return say(error.diagnostics, form)
    bar.clear()
    code = say(result.warnings, form)
    if form == "text":
        for built in result.outputs:
            click.echo(_line(built), color=coloured(sys.stdout))
    return code


def _line(built: Built) -> str:
    from pemlang.graph.formula import size_text

    path = os.path.relpath(built.path)
    shown = path if not path.startswith("..") else str(Path(built.path))
    facts = [f"{built.sites} sites", f"{size_text(built.size)}", f"hash {built.semantic_hash[:12]}"]
    if built.rank is not None:
        facts.insert(0, f"rank {built.rank}")
    facts += ["up to date"] * built.was_there
    line = f"{click.style(visible(shown, 4096), bold=True)}  {built.title}, {', '.join(facts)}"
    if built.loss is None:
        return line
    worst = sorted(built.loss.sites.items(), key=lambda item: -item[1])
    rows = [f"    {share:7.3%}  {visible(site)}" for site, share in worst[:_SITES_SHOWN]]
    if len(worst) > _SITES_SHOWN:
        rows.append(f"    … {len(worst) - _SITES_SHOWN} sites that lose less")
    head = f"    truncation took {built.loss.total:.3%} of the norm in all; by site:"
    return "\n".join([line, head, *rows])
