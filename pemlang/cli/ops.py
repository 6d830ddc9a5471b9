"""`pem ops`: the operators of the language, and what each of them does."""

from __future__ import annotations

import click

from pemlang.cli.common import USAGE_IS_WRONG
from pemlang.diagnostics import nearest, visible
from pemlang.ops.record import Operator


@click.command()
@click.argument("name", required=False)
def ops(name: str | None) -> int:
    """Say what an operator such as lerp does, or list them all."""
    from pemlang.show.operators import SECTIONS, as_text, use

    if name is None:
        for title, _, operators in SECTIONS:
            click.secho(title, bold=True)
            for operator in operators:
                click.echo(f"  {use(operator)}\n      {operator.summary}")
        return 0
    known = {
        word: [op for _, _, group in SECTIONS for op in group if word in _names(op)]
        for _, _, operators in SECTIONS
        for operator in operators
        for word in _names(operator)
    }
    if name not in known:
        close = nearest(name, known)
        hint = f" Did you mean `pem ops {close}`?" if close else ""
        click.echo(
            f"There is no operator `{visible(name, 40)}`.{hint} `pem ops` lists them all.", err=True
        )
        return USAGE_IS_WRONG
    click.echo("\n\n".join(map(as_text, known[name])))
    return 0


def _names(operator: Operator) -> tuple[str, ...]:
    return (operator.name, *operator.aliases, *operator.symbols)
