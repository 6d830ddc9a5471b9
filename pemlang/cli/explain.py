"""`pem explain`: what a code means, with an example of the mistake and of what is right."""

from __future__ import annotations

import click

from pemlang.cli.common import USAGE_IS_WRONG, format_option, say
from pemlang.diagnostics import nearest
from pemlang.show.codes import ExplainJson, catalogue


@click.command()
@click.argument("code", required=False)
@format_option("text", "json")
def explain(code: str | None, form: str) -> int:
    """Explain a code such as PEM0306, or list them all."""
    codes = catalogue()
    if code is None and form == "json":
        return say([], form, ExplainJson(codes))
    if code is None:
        for name, entry in codes.items():
            click.echo(f"{name}  {entry.title}")
        return 0
    wanted = f"PEM{code.upper().removeprefix('PEM').zfill(4)}"
    if wanted not in codes:
        close = nearest(wanted, codes)
        hint = f" The nearest is {close}." if close else ""
        click.echo(f"There is no code {code}.{hint} `pem explain` lists them all.", err=True)
        return USAGE_IS_WRONG
    entry = codes[wanted]
    if form == "json":
        return say([], form, ExplainJson({wanted: entry}))
    click.echo(f"{click.style(wanted, bold=True)}: {entry.title}\n\n{entry.text}")
    return 0
