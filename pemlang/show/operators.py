"""What there is to know about the operators, from their records: docs/operators.md, `pem ops`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from string import ascii_lowercase

from pemlang.dataclass import dataclass
from pemlang.graph.numbers import shown
from pemlang.ops import SECTIONS
from pemlang.ops.record import Operator, Parameter

_MEANINGS = {
    "weights": "a number for each adapter, wᵢ",
    "scale": "what the result is multiplied by, λ",
    "density": "the share of the entries that is kept",
    "over": "what is merged: Δ, or A and B each for itself",
    "rank": "the rank of what comes out",
    "seed": "of the chances: one seed, one result",
    "elect": "how a sign is elected: by the sum of the entries, or by their number",
    "normalize": "what the sum of an entry is divided by",
    "linear.normalize": "whether weights are divided by their sum; true where it is not given",
    "rescale": "how the entries that are kept make up for those that go",
    "epsilon": "how far the chances of a row go below and above the density",
    "gamma": "the share of the largest entries, which is dropped",
    "t": "how far to go from the first adapter to the second",
    "nearswap.t": "how near two entries have to be",
    "along": "what has an angle of its own: the whole tensor, each row or each column",
    "model_stock.along": "what has angles of its own: the whole tensor, or each row",
    "threshold": "the size up to which an entry is not changed, ε",
    "r": "how much stronger, for a ρᵢ of 1",
    "alpha": "the most that ρᵢ counts for, α",
    "svc.alpha": "the least that sᵢ counts for, α: 1 for a sum, 1/n for a mean of n",
    "ridge": "how near it is kept to the mean where the adapters say little, ρ",
    "rounds": "how many steps are taken at the most",
    "tolerance": "the length of a step at which no further one is taken",
    "common": "the share of the directions that are taken from the sum",
    "by": "how much of it is taken away",
    "units": "how many parts of rank one are left",
    "off_diagonal": "what the Gram matrices are multiplied by beside their diagonals",
    "energy": "the share of the squared norm that is kept",
    "energy.rank": "the rank that is asked about",
    "like": "the adapter whose scale it gets",
    "first": "the number in the first layer, or a list of numbers from the first layer to the last",
    "last": "the number in the last layer; not given after a list",
    "values": "the numbers, a band of layers each",
}
"""What the settings of the operators say, by name; of one operator where it differs there."""

_VALUES = {
    "density": "0.5", "weights": "[2, 1]", "t": "0.5", "rank": "8", "units": "4", "like": "b",
    "first": "1", "last": "0.4", "values": "[1, 0.5]",
}  # fmt: skip
"""What examples give for a setting that has to be given."""


_WHICH = """Which merge to take: first a weighted sum, `+` or `task_arithmetic`; another where it is
better by a measure of your own. A study of six methods on language models (Hitit, Girrbach and
Akata, *A Systematic Study of In-the-Wild Model Merging for Large Language Models*, arXiv
2511.21437: four models, twelve public fine-tunes of each, sixteen benchmarks) found that task
arithmetic alone gains reliably; the others, `ties`, `model_stock`, `tsv` and `iso_c` among them,
mostly bring no notable improvement over the base. Its fine-tunes overlap in what they are for, or
conflict; gains reported before were of experts with a task each. Where the weights of a merge are
tuned on data of a task, a LoRA trained on that data does nearly as well: so found another study
(*The Appeal and Reality of Recycling LoRAs with Adaptive Merging*, arXiv 2602.12323), of nearly a
thousand LoRAs of one model as their authors published them. Which of them were merged mattered
little, and LoRAs of random numbers did about as well, unless some were of the task itself."""
"""What is known of the methods before anything is measured."""


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
                dict(settings_of(x)), x.rank, x.laws, x.source,
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
        _WHICH,
        "",
    ]
    for section in SECTIONS:
        parts += [f"## {section.title}", "", section.text, ""]
        for operator in section.operators:
            parts += [*entry(operator), ""]
    return "\n".join(parts)


def entry(operator: Operator) -> Iterable[str]:
    """An operator in Markdown, a line each."""
    yield f"### `{use(operator)}`"
    yield ""
    yield operator.summary
    yield ""
    yield f"    {operator.formula}"
    yield ""
    yield f"Example: `{example(operator)}`"
    params = settings_of(operator)
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
    lines += ["", f"  Example: {example(operator)}"]
    lines += [""] * bool(settings_of(operator))
    lines += [f"  {name}: {text}" for name, text in settings_of(operator)]
    lines += [""] * bool(_facts(operator))
    lines += [f"  {what}: {text}" for what, text in _facts(operator)]
    lines += ["", *(f"  Law: {law}" for law in operator.laws)] if operator.laws else []
    lines += ["", f"  Source: {operator.source}"] if operator.source else []
    return "\n".join(lines)


def _facts(operator: Operator) -> list[tuple[str, str]]:
    names = ", ".join(operator.aliases)
    return [(what, text) for what, text in (("Also", names), ("Rank", operator.rank)) if text]


def settings_of(operator: Operator) -> list[tuple[str, str]]:
    """What the settings of an operator mean, what they take, and what they are where they are not
    given."""
    settings = []
    for param in operator.signatures[0].params if not operator.symbols else ():
        meaning = _MEANINGS.get(f"{operator.name}.{param.name}") or _MEANINGS.get(param.name, "")
        takes = param.choice if param.words else str(param.within or "")
        takes = "; ".join(filter(None, (meaning, takes)))
        usual = param.default
        if isinstance(usual, str | Fraction):
            takes += f"; {usual if isinstance(usual, str) else shown(usual)} where it is not given"
        if param.name == "weights" and not param.required:
            takes += "; 1 each where they are not given"
        if takes:
            settings.append((param.name, takes.removeprefix("; ")))
    return settings


def example(operator: Operator) -> str:
    """A use of an operator that checks, of adapters a and b that fit each other; of what takes
    models alone, of models."""
    if operator.symbols:
        [symbol] = operator.symbols
        params = next(s.params for s in operator.signatures if s.returns == "adapter")
        operands = ["a", "2"] if symbol == "/" else ["a", "b"]
        operands = ["0.5", "a"] if symbol in "*⊗" else operands
        return f" {symbol} ".join(operands) if len(params) == 2 else f"{symbol}a"
    if operator.signatures[0].returns == "model":
        return f"{operator.name}(a[layers 0..15], b[layers 8..31])"
    params, adapters = operator.signatures[0].params, iter(ascii_lowercase)
    given = []
    for param in params:
        if "[adapter]" in param.kinds or param.variadic:
            given.append("[a, b]" if not param.variadic else "a, b")
        elif param.kinds[0] == "adapter" and param.name not in _VALUES:
            given.append(next(adapters))
        elif param.required or param.name in ("rank", "last"):
            plain = param.name in ("first", "last", "values")
            given.append(("" if plain else f"{param.name}=") + _VALUES.get(param.name, "…"))
    call = f"{operator.name}({', '.join(given)})"
    return f"{call} * a" if operator.signatures[0].returns == "schedule" else call


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
