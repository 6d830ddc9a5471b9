"""`pem graph`: the typed graph of a recipe as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from pemlang.cli.common import GivenPath, say, set_option, write_whole
from pemlang.diagnostics import PemError, visible


@click.command()
@click.argument("recipe", type=GivenPath())
@set_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg", "json"]),
    default="mermaid",
    help="Write it for Mermaid, which GitHub and GitLab draw, for Graphviz, as an SVG, or as data.",
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
    from pemlang.show.graph import GraphJson, TooMany, as_dot, as_mermaid, picture
    from pemlang.show.svg import as_svg

    if output is not None and output.resolve() == Path(recipe).resolve():
        raise click.UsageError("The picture would take the place of the recipe.")
    if output is not None and form == "json":
        raise click.UsageError("-o is for pictures; JSON goes to standard output.")
    try:
        checked = load(recipe, settings).checked()
        checked.raise_errors()
        drawn = picture(checked)
    except PemError as error:
        return say(error.diagnostics, form)
    except TooMany as error:
        raise click.ClickException(f"{error}.") from None
    code = say(checked.diagnostics, form, GraphJson(drawn.vertices, drawn.edges))
    if form == "json":
        return code
    text = {"mermaid": as_mermaid, "dot": as_dot, "svg": as_svg}[form](drawn)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text, start=8)
        click.echo(visible(output, 4096))
    return code
