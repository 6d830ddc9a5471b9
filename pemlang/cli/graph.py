"""`pem graph`: the typed graph of a recipe as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from pemlang.cli.common import GivenPath, say, set_option, write_whole
from pemlang.diagnostics import PemError


@click.command()
@click.argument("recipe", type=GivenPath())
@set_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    help="Write it for Mermaid, which GitHub and GitLab draw, for Graphviz, or as an SVG.",
)
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to a file instead of standard output.",
)
def graph(recipe: str, settings: dict[str, str], form: str, output: Path | None) -> int:
    """Draw how a recipe makes what it saves.

    From which adapters, and through which operators; types and coefficients stand on the lines.
    Reads the adapters' configs and file headers only.
    """
    from pemlang.api import load
    from pemlang.show.graph import TooMany, as_dot, as_mermaid, picture
    from pemlang.show.svg import as_svg

    if output is not None and output.resolve() == Path(recipe).resolve():
        raise click.UsageError("The picture would take the place of the recipe.")
    try:
        checked = load(recipe, settings).checked()
        checked.raise_errors()
        text = {"mermaid": as_mermaid, "dot": as_dot, "svg": as_svg}[form](picture(checked))
    except PemError as error:
        return say(error.diagnostics, "text")
    except TooMany as error:
        raise click.ClickException(f"{error}.") from None
    say(checked.diagnostics, "text")
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text, start=8)
    return 0
