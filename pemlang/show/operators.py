"""What there is to know about the operators, from their records: docs/operators.md, `pem ops`."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.graph.numbers import shown
from pemlang.ops import (
    data,
    exact,
    geometric,
    linear,
    lowrank,
    measures,
    parameters,
    schedule,
    shaping,
    signs,
    sparse,
)
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
        "Sparse merges",
        "A share of the entries of each adapter is kept, tensor by tensor; entries as large as the "
        "smallest that is kept are kept too. With over=delta an entry is one of Δ, which fills the "
        "matrix: it is formed a site at a time, in tiles, and cut to rank=, or to that of `save … "
        "with rank`. With over=factors, as in PEFT, it is one of A or of B: the adapters need one "
        "rank, one scale and one initialisation. What is drawn depends on the seed, the site's "
        "name and the adapter, not on an order.",
        sparse.OPERATORS,
    ),
    (
        "Merges that elect a sign",
        "Entry by entry, the adapters that have the elected sign are kept: that of their sum with "
        "elect=total, of their number with elect=frequency, + where that is 0. As in PEFT the "
        "weights play no part in the election, and the sum is divided by how many agree "
        "(normalize=count); or as in mergekit weighted entries elect, and the sum is divided by "
        "the weights that agree (normalize=weights) or not at all (normalize=off).",
        signs.OPERATORS,
    ),
    (
        "Geometric merges",
        "Weighted sums whose weights come from the angles between adapters, site by site. They "
        "need inner products of the factors alone, and stay as low-rank as a sum.",
        geometric.OPERATORS,
    ),
    (
        "Low-rank merges",
        "For LoRA: in a basis that the adapters share, on their singular vectors, or on their "
        "rank-one parts. Nothing larger than the factors is formed.",
        lowrank.OPERATORS,
    ),
    (
        "Merges by data",
        "How much each adapter counts, and where, comes from statistics of its data, which "
        "`pemlang.collect_statistics(model, batches, directory)` writes beside it as "
        "statistics.safetensors. They are part of the adapter's content, and of its hash.",
        data.OPERATORS,
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
    params = _params(operator)
    if params:
        yield ""
        yield from (f"- `{name}`: {said}" for name, said in params)
    for what, said in _facts(operator):
        yield ""
        yield f"{what}: {said}."
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
    lines += [f"  {name}: {said}" for name, said in _params(operator)]
    lines += [""] * bool(_facts(operator))
    lines += [f"  {what}: {said}" for what, said in _facts(operator)]
    lines += ["", *(f"  Law: {law}" for law in operator.laws)] if operator.laws else []
    lines += ["", f"  Source: {operator.source}"] if operator.source else []
    return "\n".join(lines)


def _facts(operator: Operator) -> list[tuple[str, str]]:
    names = ", ".join(operator.aliases)
    return [(what, said) for what, said in (("Also", names), ("Rank", operator.rank)) if said]


def _params(operator: Operator) -> list[tuple[str, str]]:
    """What the settings of an operator take, and what they are where they are not given."""
    found = []
    for param in operator.signatures[0].params if not operator.symbols else ():
        takes = " or ".join(param.words) or (str(param.within) if param.within else "")
        usual = param.default
        if not param.required and usual is not None:
            takes += f"; {usual if isinstance(usual, str) else shown(usual)} where it is not given"
        if takes:
            found.append((param.name, takes.removeprefix("; ")))
    return found


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
    if param.kinds[0].startswith("[") and param.required:
        many = f"[{'x' if 'adapter' in param.kinds[0] else 'c'}, …]"
        return many if param.name in ("xs", "values") else f"{param.name}={many}"
    return param.name if param.required else f"{param.name}=…"
