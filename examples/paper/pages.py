"""results.md, from results.json."""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path

import record
from cells import (
    ACCURACY,
    LOSS,
    best_part,
    changed,
    chosen_by_movies,
    count,
    gain,
    lifted,
    over_seeds,
    parted,
    picture,
    section,
    spread,
    table,
    tested,
    times,
    verdict,
    weights,
)
from record import Results
from settings import BY_NAME, COMPOSITIONS, HERE, METHODS, PAGE, SEEDS, TITLES

WHY = tomllib.loads((HERE / "whys.toml").read_text(encoding="utf-8"))
"""What is said of each setting beside its numbers."""


def write(results: Results, path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """The page, whole."""
    parts = (
        HEAD, generalise(results), multitask(results), unlearn(results), transfer(results),
        initialisations(results), DETOXIFY, sample(results), times(results, WHY["times"]["note"]),
    )  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


# --- the settings ---------------------------------------------------------------------------------


def generalise(results: Results) -> str:
    rows, held = [], {}
    for m in METHODS:
        a, b, whole = (parted(results, p, m, "movies") for p in BY_NAME["generalise"].parts)
        merged = tested(results, "generalise", m, "movies")
        rows.append(
            [TITLES[m], *map(spread, (a, b, merged, whole)), gain(merged, best_part(a, b)),
             weights(results, "generalise", m)]
        )  # fmt: skip
        held[m] = (count(merged, best_part(a, b)), "the better part beaten")
    columns = (
        "accuracy, % | subset a | subset b | a ⊕ b | trained on all | ⊕ over the better part | λ"
    )
    return section(
        "1. Distribution generalisation", "generalise", WHY["generalise"], table(columns, rows),
        picture("generalise", "Accuracy of a ⊕ b over λ"), verdict(WHY["generalise"], held),
    )  # fmt: skip


def multitask(results: Results) -> str:
    rows, held = [], {}
    for m in METHODS:
        found = {
            part: [parted(results, part, m, text) for text in BY_NAME["multitask"].texts]
            for part in BY_NAME["multitask"].parts
        }
        found["⊕"] = [tested(results, "multitask", m, t) for t in BY_NAME["multitask"].texts]
        means = {k: [statistics.fmean(p) for p in zip(*v, strict=True)] for k, v in found.items()}
        for label, both in found.items():
            shown = f"the module of {label}" if label != "⊕" else "polarity ⊕ subjectivity"
            weight = weights(results, "multitask", m) if label == "⊕" else ""
            rows.append([TITLES[m], shown, *map(spread, (*both, means[label])), weight])
        better = best_part(means["polarity"], means["subjectivity"])
        held[m] = (count(means["⊕"], better), "a better mean than either module")
    columns = "accuracy, % | module | polarity | subjectivity | mean | λ"
    return section(
        "2. Multi-tasking", "multitask", WHY["multitask"], table(columns, rows),
        picture("multitask", "Accuracy on both tasks over λ"), verdict(WHY["multitask"], held),
    )  # fmt: skip


def unlearn(results: Results) -> str:
    rows, held = [], {}
    bases = [parted(results, "base", "", text) for text in BY_NAME["unlearn"].texts]
    rows.append(["", "the base", *(spread(b, LOSS) for b in bases), "", "", ""])
    for m in METHODS:
        learned = [parted(results, "lm_products", m, text) for text in BY_NAME["unlearn"].texts]
        negated = [tested(results, "unlearn", m, text) for text in BY_NAME["unlearn"].texts]
        rows.append(
            [TITLES[m], "the module of products", *(spread(x, LOSS) for x in learned),
             *(gain(x, base, LOSS) for x, base in zip(learned, bases, strict=True)), ""]
        )  # fmt: skip
        changes = [gain(x, base, LOSS) for x, base in zip(negated, bases, strict=True)]
        rows.append(
            [TITLES[m], "negated", *(spread(x, LOSS) for x in negated), *changes,
             weights(results, "unlearn", m)]
        )  # fmt: skip
        rises = zip(*(changed(x, b) for x, b in zip(negated, bases, strict=True)), strict=True)
        seen = [products > max(0, 2 * abs(plots)) for products, plots in rises]
        held[m] = (sum(seen), "the loss on products rises more than twice as far as plots' moves")
    columns = "nats a word | module | products | plots | products, change | plots, change | λ"
    return section(
        "3. Unlearning", "unlearn", WHY["unlearn"], table(columns, rows),
        picture("unlearn", "Loss on products and on plots over λ"), verdict(WHY["unlearn"], held),
    )  # fmt: skip


def transfer(results: Results) -> str:
    rows, held = [], {}
    for m in METHODS:
        source = parted(results, "movies", m, "products")
        moved = tested(results, "transfer", m, "products")
        blind = over_seeds(
            lambda seed, m=m: record.test(results, "transfer", m, seed)["on_movies"]["products"]
        )
        rows.append(
            [TITLES[m], spread(source), f"{spread(moved)} (λ {weights(results, 'transfer', m)})",
             gain(moved, source), f"{spread(blind)} (λ {chosen_by_movies(results, m)})",
             gain(blind, source), spread(parted(results, "movies", m, "movies"))]
        )  # fmt: skip
        held[m] = (count(moved, source), "better on products than the module of movies")
    columns = (
        "accuracy, % | module of movies, on products | moved, λ by products | gain | "
        "moved, λ by movies | gain | module of movies, on movies"
    )
    return section(
        "4. Domain transfer", "transfer", WHY["transfer"], table(columns, rows),
        picture("transfer", "Accuracy on products and on movies over λ"),
        verdict(WHY["transfer"], held),
    )  # fmt: skip


WAYS = (
    ("one", "subset_b", "⊕", "generalise"),
    ("one", "subset_b", "+ with rank=8", "shared_function"),
    ("different", "subset_b_elsewhere", "⊕", "apart_parameters"),
    ("different", "subset_b_elsewhere", "+ with rank=8", "apart_function"),
)


def initialisations(results: Results) -> str:
    rows = []
    for start, second, operator, name in WAYS:
        parts = [parted(results, part, "lora", "movies") for part in ("subset_a", second)]
        merged = tested(results, name, "lora", "movies")
        half = over_seeds(
            lambda seed, n=name: record.curve(results, n, "lora", seed)["0.5"]["movies"]
        )
        worst = over_seeds(
            lambda seed, n=name: min(
                v["movies"] for v in record.curve(results, n, "lora", seed).values()
            )
        )
        overlap = over_seeds(lambda seed, s=second: results["found"]["overlap"][s][seed])
        rows.append(
            [start, spread(overlap, 2), operator, spread(best_part(*parts)), spread(merged),
             gain(merged, best_part(*parts)), weights(results, name, "lora"), spread(half),
             spread(worst)]
        )  # fmt: skip
    columns = (
        "initialisation | `init_overlap` | operator | the better part | merged | gain | λ | "
        "at λ = 0.5, validation | at the worst λ, validation"
    )
    built = results["found"]["build/apart_parameters"]["lora/0"].get("PEM0701", "nothing")
    said = f"What `pem build` said of the modules apart, before anything was measured:\n\n> {built}"
    return section(
        "5. The paper's limit, lifted", "initialisations", WHY["initialisations"],
        table(columns, rows), said,
        picture("initialisations", "Accuracy over λ, with one initialisation and with two"),
        lifted(results, WHY["initialisations"]),
    )  # fmt: skip


# --- the rest -------------------------------------------------------------------------------------

HEAD = """# The paper's settings, as measured

Written by `make paper` from [results.json](results.json). [README.md](README.md) says how. Base:
all-MiniLM-L6-v2, 22 M parameters. Mean and standard deviation of three seeds, on 400 test
sentences of each kind (200 plots); λ, of 0 to 1 by 0.1, was chosen on 200 others, for each seed and
method by itself, and is listed in the order of the seeds. In plots, lines are means and bands run
from the least to the most of the seeds, on validation sentences. *The paper's direction* is what
Zhang et al. report; full fine-tunes, their third method, are measured on
[SmolLM2](smollm2/results.md).
"""

DETOXIFY = """## 6. Alpaca, detoxified

[detoxify.pem](detoxify.pem). **Not run**: it needs LLaMA 7B, two modules of 67 MB and a judge
of toxicity. `pem check --locked detoxify.pem` type-checks it offline, from [pem.lock](pem.lock),
which records the modules' shapes (32 layers, q k v o, r = 16). The paper's direction: less toxic,
and about as helpful.
"""


def sample(results: Results) -> str:
    """The compositions on the shipped sentences; tests/test_paper_example.py measures them anew."""
    rows = []
    for one in COMPOSITIONS:
        for method in one.methods:
            found = [results["found"]["sample"][f"{one.name}/{method}/{seed}"] for seed in SEEDS]
            for text in one.texts:
                decimals = LOSS if text.startswith("lm_") else ACCURACY
                shown = [f"{numbers[text]:.{decimals}f}" for numbers in found]
                rows.append([one.name, TITLES[method], text, *shown])
    columns = "composition | method | on | " + " | ".join(f"seed {seed}" for seed in SEEDS)
    return f"""## On the sentences in the repository

The first 60 test sentences of each kind are in [sample](sample/README.md). What each composition
measures on them at its λ, and what `tests/test_paper_example.py` holds rebuilt ones to:

{table(columns, rows)}"""
