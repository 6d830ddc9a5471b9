"""results.md of SmolLM2, from its results.json."""

from __future__ import annotations

import math
import statistics
import tomllib

import record
from cells import (
    ACCURACY,
    best_part,
    changed,
    chosen_by_movies,
    count,
    gain,
    lifted,
    over_seeds,
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
from settings import TITLES

from smollm2.settings import (
    BY_NAME,
    COMPOSITIONS,
    HERE,
    KEPT_TO_TOPIC,
    LOSSES,
    PAGE,
    SEEDS,
    complete,
)

WHY = tomllib.loads((HERE / "whys.toml").read_text(encoding="utf-8"))
"""What is said of each setting beside its numbers."""

NATS = 2  # decimals


def write(results: Results) -> None:
    """Write the page."""
    PAGE.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """The page, whole."""
    settings = (
        generalise, multitask, unlearn, transfer, transfer_back, initialisations, detoxify
    )  # fmt: skip
    left = [setting.__name__ for setting in settings if setting.__name__ not in recipes(results)]
    parts = (
        HEAD,
        f"**Not measured yet:** {', '.join(left)}. `make paper` trains and measures them."
        if left
        else "",
        *(setting(results) for setting in settings if setting.__name__ in recipes(results)),
        sample(results),
        times(results, WHY["times"]["note"]),
    )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def recipes(results: Results) -> list[str]:
    """The settings that have been measured, by their recipes."""
    left = {one.recipe for one in COMPOSITIONS if one not in complete(results)}
    names = dict.fromkeys(one.recipe for one in COMPOSITIONS if one.recipe not in left)
    return [name.removesuffix(".pem") for name in names]


# --- cells ----------------------------------------------------------------------------------------


def parted(results: Results, part: str, method: str, text: str) -> list[float]:
    """What a module does, a number a seed; of the base, one number as often."""
    if part == "base":
        return [results["found"]["parts/base/none/0"][text]] * len(SEEDS)
    return over_seeds(lambda seed: results["found"][f"parts/{part}/{method}/{seed}"][text])


def also(results: Results, name: str, method: str, weight: str, text: str) -> list[float]:
    """What a composition measures on the test sentences at another λ, a number a seed."""
    return over_seeds(lambda seed: record.test(results, name, method, seed)[weight][text])


def shown(values: list[float], decimals: int = ACCURACY) -> str:
    """Mean and standard deviation; of the base, the one number."""
    return f"{values[0]:.{decimals}f}" if len(set(values)) == 1 else spread(values, decimals)


def perplexity(losses: list[float]) -> str:
    """Mean and standard deviation of perplexities, given losses in nats."""
    return shown([math.exp(loss) for loss in losses], 0)


def mean_of(*texts: list[float]) -> list[float]:
    """The mean over texts, a number a seed."""
    return [statistics.fmean(values) for values in zip(*texts, strict=True)]


# --- the settings ---------------------------------------------------------------------------------


def generalise(results: Results) -> str:
    rows, held = [], {}
    for m in BY_NAME["generalise"].measured_by:
        base, a, b, whole = (
            parted(results, part, m, "movies")
            for part in ("base", "subset_a", "subset_b", "movies")
        )
        merged = tested(results, "generalise", m, "movies")
        rows.append(
            [TITLES[m], f"{base[0]:.1f}", *map(spread, (a, b, merged, whole)),
             gain(merged, best_part(a, b)), weights(results, "generalise", m)]
        )  # fmt: skip
        held[m] = (count(merged, best_part(a, b)), "the better part beaten")
    columns = (
        "accuracy, % | the base | subset a | subset b | a ⊕ b | trained on all | "
        "⊕ over the better part | λ"
    )
    return section(
        "1. Distribution generalisation", "generalise", WHY["generalise"], table(columns, rows),
        picture("generalise", "Accuracy of a ⊕ b over λ"), verdict(WHY["generalise"], held),
    )  # fmt: skip


def multitask(results: Results) -> str:
    texts = ("movies", "subjectivity")
    rows, held = [], {}
    bases = [parted(results, "base", "", text) for text in texts]
    rows.append(["", "the base", *(f"{x[0]:.1f}" for x in (*bases, mean_of(*bases))), ""])
    for m in BY_NAME["multitask"].measured_by:
        found = {part: [parted(results, part, m, text) for text in texts] for part in texts}
        for part, both in found.items():
            name = "trained on polarity" if part == "movies" else f"trained on {part}"
            rows.append([TITLES[m], name, *map(spread, (*both, mean_of(*both))), ""])
        for operator, composition in (("⊕", "multitask"), ("+", "multitask_function")):
            if m in BY_NAME[composition].measured_by:
                both = [tested(results, composition, m, text) for text in texts]
                found[operator] = both
                rows.append(
                    [TITLES[m], f"polarity {operator} subjectivity",
                     *map(spread, (*both, mean_of(*both))), weights(results, composition, m)]
                )  # fmt: skip
        means = {key: mean_of(*both) for key, both in found.items()}
        better = best_part(means["movies"], means["subjectivity"])
        plus = f", by + in {count(means['+'], better)}" if "+" in means else ""
        held[m] = (count(means["⊕"], better), f"a better mean than either part{plus}")
    columns = "accuracy, % | module | polarity | subjectivity | mean | λ"
    return section(
        "2. Multi-tasking", "multitask", WHY["multitask"], table(columns, rows),
        picture("multitask", "Accuracy on both tasks over λ"), verdict(WHY["multitask"], held),
    )  # fmt: skip


def unlearn(results: Results) -> str:
    said, texts = ("disliked_blame", "opinion_blame"), ("cons", "pros", "plots")
    found = {name: parted(results, "base", "", name) for name in (*said, *texts)}
    rows, held = [spoken(["", "the base"], found, "")], {}
    for m in BY_NAME["unlearn"].measured_by:
        learned = {name: parted(results, "cons", m, name) for name in found}
        rows.append(spoken([TITLES[m], "the module of complaints"], learned, ""))
        negated = {name: tested(results, "unlearn", m, name) for name in found}
        rows.append(spoken([TITLES[m], "negated"], negated, weights(results, "unlearn", m)))
        for weight in BY_NAME["unlearn"].also_at:
            other = {name: also(results, "unlearn", m, weight, name) for name in found}
            rows.append(spoken([TITLES[m], "negated"], other, weight))
        changes = [changed(negated[x], found[x]) for x in ("cons", "plots", *said)]
        rises, less = [], []
        for cons, plots, disliked, opinion in zip(*changes, strict=True):
            rises.append(cons > max(0, 2 * abs(plots)))
            less.append(disliked < 0 and opinion < 0)
        held[m] = (
            sum(map(all, zip(rises, less, strict=True))),
            f"in {sum(rises)} the loss on complaints rises more than twice as far as plots' moves, "
            f"in {sum(less)} there is less blame after both beginnings: dislikes "
            f"{gain(negated[said[0]], found[said[0]])} points, opinions "
            f"{gain(negated[said[1]], found[said[1]])}",
        )
    columns = (
        "method | module | blame after “What I dislike”, % | blame after “My opinion”, % | "
        "perplexity of complaints | of praise | of plots | λ"
    )
    return section(
        "3. Unlearning", "unlearn", WHY["unlearn"], table(columns, rows),
        picture("unlearn", "Loss on complaints and on plots over λ"),
        verdict(WHY["unlearn"], held),
    )  # fmt: skip


def spoken(labels: list[str], found: dict[str, list[float]], weight: str) -> list[str]:
    """A row of what a module says and of how well it models texts."""
    cells = [perplexity(v) if name in LOSSES else shown(v) for name, v in found.items()]
    return [*labels, *cells, weight]


def transfer(results: Results) -> str:
    rows, held = [], {}
    for m in BY_NAME["transfer"].measured_by:
        source = parted(results, "movies", m, "products")
        moved = tested(results, "transfer", m, "products")
        blind = over_seeds(
            lambda seed, m=m: record.test(results, "transfer", m, seed)["on_movies"]["products"]
        )
        rows.append(
            [TITLES[m], f"{parted(results, 'base', m, 'products')[0]:.1f}", spread(source),
             f"{spread(moved)} (λ {weights(results, 'transfer', m)})", gain(moved, source),
             f"{spread(blind)} (λ {chosen_by_movies(results, m)})", gain(blind, source)]
        )  # fmt: skip
        held[m] = (count(moved, source), "better on products than what was trained on movies")
    columns = (
        "accuracy on products, % | the base | trained on movies | moved, λ by products | gain | "
        "moved, λ by movies | gain"
    )
    return section(
        "4. Domain transfer", "transfer", WHY["transfer"], table(columns, rows),
        picture("transfer", "Accuracy on products and on movies over λ"),
        verdict(WHY["transfer"], held),
    )  # fmt: skip


def transfer_back(results: Results) -> str:
    """The transfer to the domain that is further off."""
    rows, held = [], {}
    for m in BY_NAME["transfer_back"].measured_by:
        source, right = (parted(results, part, m, "movies") for part in ("products", "movies"))
        moved = tested(results, "transfer_back", m, "movies")
        rows.append(
            [TITLES[m], f"{parted(results, 'base', m, 'movies')[0]:.1f}", spread(source),
             f"{spread(moved)} (λ {weights(results, 'transfer_back', m)})", gain(moved, source),
             spread(right)]
        )  # fmt: skip
        held[m] = (count(moved, source), "better on movies than what was trained on products")
    columns = (
        "accuracy on movies, % | the base | trained on products | moved, λ by movies | gain | "
        "trained on movies"
    )
    why = WHY["transfer_back"]
    return section(
        "4b. Domain transfer, the other way", "transfer_back", why, table(columns, rows),
        picture("transfer_back", "Accuracy on movies and on products over λ"), verdict(why, held),
    )  # fmt: skip


WAYS = (
    ("one", "shared_function", "⊕", "generalise"),
    ("one", "shared_function", "+ with rank=8", "shared_function"),
    ("different", "apart_function", "⊕", "apart_parameters"),
    ("different", "apart_function", "+ with rank=8", "apart_function"),
)


def initialisations(results: Results) -> str:
    rows = []
    for start, pair, operator, name in WAYS:
        curves = [record.curve(results, name, "lora", seed) for seed in SEEDS]
        overlap = over_seeds(lambda seed, p=pair: results["found"]["overlap"][p][seed])
        rows.append(
            [start, spread(overlap, 2), operator, spread(tested(results, name, "lora", "movies")),
             weights(results, name, "lora"), spread([c["0.5"]["movies"] for c in curves]),
             spread([min(v["movies"] for v in c.values()) for c in curves])]
        )  # fmt: skip
    columns = (
        "initialisation | `init_overlap` | operator | merged | λ | at λ = 0.5, validation | "
        "at the worst λ, validation"
    )
    built = results["found"]["build/apart_parameters"]["lora/0"].get("PEM0701", "nothing")
    said = f"What `pem build` said of the modules apart, before anything was measured:\n\n> {built}"
    why = WHY["initialisations"]
    return section(
        "5. The paper's limit, lifted", "initialisations", why, table(columns, rows), said,
        picture("initialisations", "Accuracy over λ, with one initialisation and with two"),
        lifted(results, why),
    )  # fmt: skip


def detoxify(results: Results) -> str:
    names = ("blame", "on_topic", "asked_cons", "asked_pros")
    learned = {
        part: {name: parted(results, part, "lora", name) for name in names}
        for part in ("base", "instruct", "unwanted")
    }
    labels = ("the base", "the module of opinions", "gone on from it on complaints")
    rows = [spoken([label], each, "") for label, each in zip(labels, learned.values(), strict=True)]
    said = []
    for composition, operator in (("detoxify", "⊕"), ("detoxify_function", "`+`")):
        label = f"moved away, by {operator}"
        moved = {name: tested(results, composition, "lora", name) for name in names}
        rows.append(spoken([label], moved, weights(results, composition, "lora")))
        for weight in BY_NAME[composition].also_at:
            other = {name: also(results, composition, "lora", weight, name) for name in names}
            rows.append(spoken([label], other, weight))
        less, kept = (
            gain(also(results, composition, "lora", "0.4", name), learned["instruct"][name])
            for name in names[:2]
        )
        said.append(f"by {operator} blame {less} points, on the topic {kept}")
    less, kept = (also(results, "detoxify", "lora", "0.4", name) for name in names[:2])
    blame, topic = (learned["instruct"][name] for name in names[:2])
    seen = [less[i] < blame[i] and kept[i] >= KEPT_TO_TOPIC * topic[i] for i in range(len(SEEDS))]
    what = f"less blame, and nine in ten of the topic kept, at λ = 0.4; {'; '.join(said)}"
    held = {"lora": (sum(seen), what)}
    columns = "module | blame, % | on the topic, % | perplexity of complaints | of praise | λ"
    return section(
        "6. Detoxifying", "detoxify", WHY["detoxify"], table(columns, rows),
        picture("detoxify", "Blame and topic of what is answered, over λ"),
        verdict(WHY["detoxify"], held),
    )  # fmt: skip


# --- the rest -------------------------------------------------------------------------------------

HEAD = """# The paper's settings on SmolLM2, as measured

Written by `make paper` from [results.json](results.json). [README.md](README.md) says how. Base:
SmolLM2-135M-Instruct, 134.5 M parameters. Mean and standard deviation of three seeds, on 400 test
sentences of each kind (200 complaints, 200 of praise, 200 plots); λ was chosen on half as many
others, for each seed and method by itself, and is listed in the order of the seeds. In plots, lines
are means and bands run from the least to the most of the seeds, on validation sentences. *The
paper's direction* is what Zhang et al. report.
"""


def sample(results: Results) -> str:
    """The compositions on the shipped sentences; tests/test_paper_smollm2.py measures them anew."""
    rows = []
    for one in complete(results):
        for method in one.methods:
            found = [results["found"][f"sample/{one.name}/{method}/{seed}"] for seed in SEEDS]
            for text in found[0]:
                decimals = ACCURACY if text not in LOSSES and not text.endswith("_loss") else NATS
                shown = [f"{numbers[text]:.{decimals}f}" for numbers in found]
                rows.append([one.name, TITLES[method], text, *shown])
    columns = "composition | method | on | " + " | ".join(f"seed {seed}" for seed in SEEDS)
    return f"""## On the sentences in the repository

What each composition measures at its λ on the first 24 sentences of each kind in
[sample](../sample/README.md), in float32, and what `tests/test_paper_smollm2.py` holds rebuilt ones
to; `_loss` is the cross entropy between the two answers, in nats:

{table(columns, rows)}"""
