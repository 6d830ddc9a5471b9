"""What stands in the tables of results.md: numbers over seeds, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import record
from record import Results
from settings import SEEDS, TITLES

ACCURACY, LOSS = 1, 3  # decimals


def spread(values: Sequence[float], decimals: int = ACCURACY) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):.{decimals}f} ± {statistics.stdev(values):.{decimals}f}"


def over_seeds(value: Callable[[str], float]) -> list[float]:
    """One number a seed."""
    return [value(seed) for seed in SEEDS]


def tested(results: Results, name: str, method: str, text: str) -> list[float]:
    """What a composition measures on the test sentences, a number a seed."""
    return over_seeds(lambda seed: record.test(results, name, method, seed)[text])


def parted(results: Results, part: str, method: str, text: str) -> list[float]:
    """What a module does, a number a seed."""
    return over_seeds(lambda seed: record.part(results, part, method, seed)[text])


def weights(results: Results, name: str, method: str) -> str:
    """The λ of each seed."""
    return ", ".join(record.chosen(results, name, method, seed) for seed in SEEDS)


def gain(one: Sequence[float], other: Sequence[float], decimals: int = ACCURACY) -> str:
    """How much more one is than another, seed by seed."""
    change = changed(one, other)
    return f"{statistics.fmean(change):+.{decimals}f} ± {statistics.stdev(change):.{decimals}f}"


def changed(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """One less another, seed by seed."""
    return [a - b for a, b in zip(one, other, strict=True)]


def best_part(*parts: Sequence[float]) -> list[float]:
    """The best of some parts in each seed."""
    return [max(values) for values in zip(*parts, strict=True)]


def table(columns: str, rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is a label."""
    names = columns.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(name: str, alt: str) -> str:
    """A plot."""
    return f"![{alt}](plots/{name}.svg)"


def count(one: Sequence[float], other: Sequence[float]) -> int:
    """In how many seeds one is more than the other."""
    return sum(a > b for a, b in zip(one, other, strict=True))


# --- what is said of them -------------------------------------------------------------------------


def section(title: str, recipe: str, why: Mapping[str, str], *parts: str) -> str:
    """A setting: its recipe's formula, its table, its plot, what they say."""
    return "\n\n".join(
        [f"## {title}", f"[{recipe}.pem]({recipe}.pem). {why['what'].strip()}", *parts]
    )


def verdict(why: Mapping[str, str], held: Mapping[str, tuple[int, str]]) -> str:
    """Whether the paper's direction is seen, by method, and why it may not be.

    Args:
        why: what whys.toml says of the setting.
        held: method to how many seeds show it, and in what it is seen or not.
    """
    said = "; ".join(
        f"{TITLES[m]}: {count} of {len(SEEDS)} seeds ({what})" for m, (count, what) in held.items()
    )
    lines = [f"**The paper's direction, {why['claim']}:** {said}."]
    if any(count < len(SEEDS) for count, _ in held.values()) and "short" in why:
        lines.append(f"**Why it falls short:** {why['short'].strip()}")
    if "note" in why:
        lines.append(why["note"].strip())
    return "\n\n".join(lines)


def chosen_by_movies(results: Results, method: str) -> str:
    """Each λ that a transfer has by the sentences of its own domain, in the order of the seeds."""
    return ", ".join(
        results["found"][f"validation/transfer/{method}/{seed}"]["chosen_on_movies"]
        for seed in SEEDS
    )


def lifted(results: Results, why: Mapping[str, str]) -> str:
    """In how many seeds `+` does better than ⊕ where the modules start apart."""
    plus, oplus = (
        over_seeds(lambda seed, n=n: record.curve(results, n, "lora", seed)["0.5"]["movies"])
        for n in ("apart_function", "apart_parameters")
    )
    held = {"lora": (count(plus, oplus), f"`+` over ⊕ at λ = 0.5 by {gain(plus, oplus)}")}
    return verdict(why, held)


def times(results: Results, note: str) -> str:
    """How long each kind of step took."""
    kinds: dict[str, list[float]] = {}
    for step, seconds in sorted(results["seconds"].items()):
        kinds.setdefault(step.partition("/")[0], []).append(seconds)
    rows = [
        [kind, str(len(each)), f"{max(each):.0f}", f"{sum(each) / 60:.1f}"]
        for kind, each in kinds.items()
    ]
    total = sum(map(sum, kinds.values()))
    rows.append(["all", str(len(results["seconds"])), "", f"{total / 60:.1f}"])
    columns = "step | how many | the longest, s | in all, min"
    return f"""## Wall time

Steps run one a core: on two cores all took about {total / 120:.0f} minutes.
{note.strip()}
[results.json](results.json) has each step.

{table(columns, rows)}"""
