"""What there is to know about the operators, from their records: docs/operators.md, `pem ops`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pemlang.dataclass import dataclass
from pemlang.graph.numbers import shown
from pemlang.ops import SECTIONS
from pemlang.ops.record import Operator, Parameter


@dataclass(frozen=True)
class OperatorJson:
    """An operator: its record, how it is written, and by name what its settings take."""

    name: str
    section: str
    use: str
    summary: str
    formula: str
    symbols: Sequence[str]
    aliases: Sequence[str]
    settings: Mapping[str, str]
    rank: str
    laws: Sequence[str]
    source: str


@dataclass(frozen=True)
class OpsJson:
    """`pem ops`: all operators, or those of a name."""

    operators: Sequence[OperatorJson]


def as_json(operators: Sequence[Operator]) -> OpsJson:
    """Operators as plain values."""
    sections = {id(operator): s.title for s in SECTIONS for operator in s.operators}
    return OpsJson(
        [
            OperatorJson(
                x.name, sections[id(x)], use(x), x.summary, x.formula, x.symbols, x.aliases,
                dict(_params(x)), x.rank, x.laws, x.source,
            )
            for x in operators
        ]
    )  # fmt: skip


def as_markdown() -> str:
    """docs/operators.md."""
    parts = [
        "# Operators",
        "",
        "This page is made from the records in `pemlang/ops` by `make docs`.",
        "",
    ]
    for section in SECTIONS:
        parts += [f"## {section.title}", "", section.text, ""]
        for operator in section.operators:
            parts += [*_entry(operator), ""]
    return "\n".join(parts)


def _entry(operator: Operator) -> Iterable[str]:
    yield f"### `{use(operator)}`"
    yield ""
    yield operator.summary
    yield ""
    yield f"    {operator.formula}"
    params = _params(operator)
    if params:
        yield ""
        yield from (f"- `{name}`: {text}" for name, text in params)
    for what, text in _facts(operator):
        yield ""
        yield f"{what}: {text}."
    if operator.laws:
        yield ""
        yield "Laws: " + "; ".join(f"`{law}`" for law in operator.laws) + "."
    if operator.source:
        yield ""
        yield f"Source: {operator.source}."


def as_text(operator: Operator) -> str:
    """An operator for the terminal."""
    lines = [use(operator), "", f"  {operator.summary}", "", f"      {operator.formula}"]
    lines += [""] * bool(_params(operator))
    lines += [f"  {name}: {text}" for name, text in _params(operator)]
    lines += [""] * bool(_facts(operator))
    lines += [f"  {what}: {text}" for what, text in _facts(operator)]
    lines += ["", *(f"  Law: {law}" for law in operator.laws)] if operator.laws else []
    lines += ["", f"  Source: {operator.source}"] if operator.source else []
    return "\n".join(lines)


def _facts(operator: Operator) -> list[tuple[str, str]]:
    names = ", ".join(operator.aliases)
    return [(what, text) for what, text in (("Also", names), ("Rank", operator.rank)) if text]


def _params(operator: Operator) -> list[tuple[str, str]]:
    """What the settings of an operator take, and what they are where they are not given."""
    settings = []
    for param in operator.signatures[0].params if not operator.symbols else ():
        takes = param.choice if param.words else str(param.within or "")
        usual = param.default
        if isinstance(usual, str | Fraction):
            takes += f"; {usual if isinstance(usual, str) else shown(usual)} where it is not given"
        if takes:
            settings.append((param.name, takes.removeprefix("; ")))
    return settings


def use(operator: Operator) -> str:
    """How an operator is written."""
    if not operator.symbols:
        return f"{operator.name}({', '.join(map(_param, operator.signatures[0].params))})"
    [symbol] = operator.symbols
    operands = next(s.params for s in operator.signatures if s.returns == "adapter")
    names = ["c" if param.name == "by" else param.name for param in operands]
    return f" {symbol} ".join(names) if len(names) == 2 else f"{symbol}{names[0]}"


def _param(param: Parameter) -> str:
    if param.variadic:
        return f"{param.name}, …"
    if param.kinds[0].startswith("[") and param.required:
        many = f"[{'x' if 'adapter' in param.kinds[0] else 'c'}, …]"
        return many if param.name in ("xs", "values") else f"{param.name}={many}"
    return param.name if param.required else f"{param.name}=…"
