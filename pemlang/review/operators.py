"""What there is to know about the operators, from their records: docs/operators.md, `pem ops`."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.ops import exact, linear, measures, parameters, schedule, shaping
from pemlang.ops.record import Operator, Param

SECTIONS: tuple[tuple[str, str, tuple[Operator, ...]], ...] = (
    (
        "On what modules do",
        "These act on Δ, the change of the weights, and are exact: a sum of LoRAs stacks their "
        "factors, and its rank is the sum of the ranks.",
        exact.OPERATORS,
    ),
    (
        "Weighted sums",
        "`+` and `*` under the names that other tools give them. They take a list of adapters.",
        linear.OPERATORS,
    ),
    (
        "On their parameters",
        "The operators of the paper (arXiv 2306.14870), on A and B each for itself. In ASCII "
        "`⊕ ⊖ ⊗` are written `.+ .- .*`. For (IA)³ they are the same as the ones above.",
        parameters.OPERATORS,
    ),
    ("Ranks and scales", "The same function, or nearly, by other factors.", shaping.OPERATORS),
    (
        "Schedules",
        'Numbers that vary by module. A third kind, `per { "*.q_proj": 0.5, else: 1 }`, goes by '
        "the modules' names.",
        schedule.OPERATORS,
    ),
    (
        "Measures",
        "Numbers computed from the factors when weights are read, for `assert` and for weights.",
        measures.OPERATORS,
    ),
)


def as_markdown() -> str:
    """docs/operators.md."""
    parts = [
        "# Operators",
        "",
        "This page is made from the records in `pemlang/ops` by `make docs`.",
        "",
    ]
    for title, text, operators in SECTIONS:
        parts += [f"## {title}", "", text, ""]
        for operator in operators:
            parts += [*_entry(operator), ""]
    return "\n".join(parts)


def _entry(operator: Operator) -> Iterable[str]:
    yield f"### `{use(operator)}`"
    yield ""
    yield operator.summary
    yield ""
    yield f"    {operator.formula}"
    if operator.laws:
        yield ""
        yield "Laws: " + "; ".join(f"`{law}`" for law in operator.laws) + "."
    if operator.source:
        yield ""
        yield f"Source: {operator.source}."


def as_text(operator: Operator) -> str:
    """An operator for the terminal."""
    lines = [use(operator), "", f"  {operator.summary}", "", f"      {operator.formula}"]
    lines += ["", *(f"  Law: {law}" for law in operator.laws)] if operator.laws else []
    lines += ["", f"  Source: {operator.source}"] if operator.source else []
    return "\n".join(lines)


def use(operator: Operator) -> str:
    """How an operator is written."""
    if not operator.symbols:
        return f"{operator.name}({', '.join(map(_param, operator.signatures[0].params))})"
    [symbol] = operator.symbols
    operands = next(s.params for s in operator.signatures if s.returns == "adapter")
    names = ["c" if param.name == "by" else param.name for param in operands]
    return f" {symbol} ".join(names) if len(names) == 2 else f"{symbol}{names[0]}"


def _param(param: Param) -> str:
    if param.variadic:
        return f"{param.name}, …"
    if param.kinds[0].startswith("["):
        many = f"[{'x' if 'adapter' in param.kinds[0] else 'c'}, …]"
        return many if param.name in ("xs", "values") else f"{param.name}={many}"
    return param.name if param.required else f"{param.name}=…"
