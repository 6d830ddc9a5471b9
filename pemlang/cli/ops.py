"""`pem ops`: the operators of the language, and what each of them does."""

from __future__ import annotations

import click

from pemlang.cli.common import USAGE_IS_WRONG, format_option, say
from pemlang.diagnostics import nearest, visible
from pemlang.ops.record import Operator


@click.command()
@click.argument("name", required=False)
@format_option("text", "json")
def ops(name: str | None, form: str) -> int:
    """Say what an operator such as lerp does, or list them all."""
    from pemlang.check.elsewhere import FUNCTIONS
    from pemlang.ops import SECTIONS, every_operator
    from pemlang.show.operators import as_json, as_text, use

    if name is None and form == "json":
        return say([], form, as_json(every_operator()))
    if name is None:
        for section in SECTIONS:
            click.secho(section.title, bold=True)
            for operator in section.operators:
                click.echo(f"  {use(operator)}\n      {operator.summary}")
        return 0
    by_name: dict[str, list[Operator]] = {}
    for operator in every_operator():
        for word in dict.fromkeys(_names(operator)):
            by_name.setdefault(word, []).append(operator)
    if name not in by_name:
        close, known = nearest(name, by_name), FUNCTIONS.get(name.casefold())
        hint = f" Did you mean `pem ops {close}`?" if close else ""
        if known:
            hint = f" {known[:1].upper()}{known[1:]}".rstrip("?") + ("?" if "?" in known else ".")
        click.echo(
            f"There is no operator `{visible(name, 40)}`.{hint} `pem ops` lists them all.", err=True
        )
        return USAGE_IS_WRONG
    if form == "json":
        return say([], form, as_json(by_name[name]))
    click.echo("\n\n".join(map(as_text, by_name[name])))
    return 0


def _names(operator: Operator) -> tuple[str, ...]:
    from pemlang.syntax.builder import ASCII

    typed = [ascii for ascii, symbol in ASCII.items() if symbol in operator.symbols]
    return (operator.name, *operator.aliases, *operator.symbols, *typed)
