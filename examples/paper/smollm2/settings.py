"""What is trained, composed and measured on SmolLM2: every name, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import settings
from settings import FULL, GRID, METHODS, Composition, Curve, best, harmless

HERE = Path(__file__).parent
MODULES, OUT, SAMPLE, PLOTS = (HERE / name for name in ("modules", "out", "sample", "plots"))
RESULTS, PAGE = HERE / "results.json", HERE / "results.md"
FINE_TUNES = HERE / "full" / "out" / "models"
BASE_MODEL = FINE_TUNES / "base"

SEEDS = settings.SEEDS
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"

FINE_GRID = tuple(f"{hundredth / 100:g}" for hundredth in range(84, 100, 2))
"""λ of domain transfer in the authors' scripts, 0.84 to 1 by 0.02: there the task all but rules."""

TRANSFERRED = tuple(sorted({*GRID, *FINE_GRID}, key=float))
"""λ of domain transfer here: the paper's, and the authors'."""

LOSSES = ("cons", "pros", "plots", "asked_cons", "asked_pros")
"""The texts of which the loss of a token is measured, in nats."""

ACCURACIES = ("movies", "products", "subjectivity")
"""Those of which it is measured how many are answered rightly, in percent."""


@dataclass(frozen=True)
class Module:
    """One trained module.

    Attributes:
        name: its folder is modules/SEED/NAME-METHOD, or full/out/models/SEED/NAME.
        methods: LoRA, (IA)³, all weights, or some of these.
        epochs: how often it sees each example.
        after: the module that it goes on from; none, it starts from the seed's initialisation.
    """

    name: str
    epochs: int
    methods: tuple[str, ...] = (*METHODS, FULL)
    after: str | None = None


TRAINED = (
    Module("cons", 2),
    Module("subset_a", 2),
    Module("subset_b", 2),
    Module("movies", 1),
    Module("products", 1, METHODS),
    Module("subjectivity", 2),
    Module("lm_movies", 1),
    Module("lm_products", 1),
    Module("instruct", 1, ("lora",)),
    Module("unwanted", 1, ("lora",), after="instruct"),
)


def module_directory(name: str, seed: str, method: str) -> Path:
    """Where a trained module lies, or a fine-tune."""
    return FINE_TUNES / seed / name if method == FULL else MODULES / seed / f"{name}-{method}"


# --- compositions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmolComposition(Composition):
    """A composition of this folder.

    Attributes:
        tested: what it is measured on in the test, where that is more than `texts`.
        also_at: at which λ it is tested beside the one that validation chose.
        further: where it has a second seed, how many after its own that is.
        fine_tunes: those that its recipe in full/ takes; none, it has no such recipe.
    """

    home: Path = HERE
    tested: tuple[str, ...] = ()
    also_at: tuple[str, ...] = ()
    further: int | None = None
    fine_tunes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tested:
            object.__setattr__(self, "tested", self.texts)

    def set(self, seed: str, method: str) -> dict[str, str]:
        params = super().set(seed, method)
        if self.further is None:
            return params
        other = SEEDS[(SEEDS.index(seed) + self.further) % len(SEEDS)]
        return {**params, "other": other}

    @property
    def measured_by(self) -> tuple[str, ...]:
        """The methods that it is measured with, of which full fine-tunes are not shipped."""
        return (*self.methods, FULL) if self.fine_tunes else self.methods

    def by(self, method: str) -> SmolComposition:
        """The composition as a method has it."""
        if method != FULL:
            return self
        folder = self.folder.removesuffix("-{method}")
        return replace(self, home=HERE / "full", folder=folder, methods=(FULL,))


def _initialisations(name: str, operator: str, further: int) -> SmolComposition:
    return SmolComposition(
        name=name,
        recipe="initialisations.pem",
        folder=f"apart/{{seed}}-{{other}}/{operator}",
        texts=("movies",),
        parts=("subset_a", "subset_b"),
        methods=("lora",),
        further=further,
    )


def _detoxify(name: str, operator: str) -> SmolComposition:
    return SmolComposition(
        name=name,
        recipe="detoxify.pem",
        folder=f"detoxify/{{seed}}/{operator}",
        texts=("asked_cons", "asked_pros", "opinions"),
        tested=("asked_cons", "asked_pros", "new_opinions"),
        also_at=("0.3", "0.4", "0.5"),
        parts=("base", "instruct", "unwanted"),
        methods=("lora",),
        grid=("0", "0.2", "0.3", "0.4", "0.5", "0.7", "1"),
    )


COMPOSITIONS = (
    SmolComposition(
        name="unlearn",
        recipe="unlearn.pem",
        folder="unlearn/{seed}-{method}",
        texts=("cons", "pros", "plots"),
        tested=("cons", "pros", "plots", "complaints"),
        also_at=("0.5", "1"),
        parts=("base", "cons"),
        fine_tunes=("cons",),
    ),
    SmolComposition(
        name="generalise",
        recipe="generalise.pem",
        folder="generalise/{seed}-{method}",
        texts=("movies",),
        parts=("base", "subset_a", "subset_b", "movies"),
        fine_tunes=("subset_a", "subset_b"),
    ),
    SmolComposition(
        name="multitask",
        recipe="multitask.pem",
        folder="multitask/{seed}-{method}",
        texts=("movies", "subjectivity"),
        parts=("base", "movies", "subjectivity"),
        fine_tunes=("movies", "subjectivity"),
    ),
    SmolComposition(
        name="multitask_function",
        recipe="multitask.pem",
        folder="multitask_function/{seed}-{method}",
        texts=("movies", "subjectivity"),
        parts=("base", "movies", "subjectivity"),
        methods=("lora",),
    ),
    SmolComposition(
        name="transfer",
        recipe="transfer.pem",
        folder="transfer/{seed}-{method}",
        texts=("products", "movies"),
        parts=("base", "movies"),
        fine_tunes=("movies", "lm_products", "lm_movies"),
        grid=TRANSFERRED,
    ),
    SmolComposition(
        name="transfer_back",
        recipe="transfer_back.pem",
        folder="transfer_back/{seed}-{method}",
        texts=("movies", "products"),
        parts=("base", "products"),
        grid=TRANSFERRED,
    ),
    _initialisations("apart_parameters", "parameters", 1),
    _initialisations("apart_function", "function", 1),
    _initialisations("shared_function", "function", 0),
    _detoxify("detoxify", "parameters"),
    _detoxify("detoxify_function", "function"),
)
BY_NAME = {one.name: one for one in COMPOSITIONS}


def complete(results: Mapping[str, Any]) -> list[SmolComposition]:
    """The compositions that have been measured to the end, from every seed."""
    done = results["found"]

    def whole(step: str, name: str, methods: tuple[str, ...]) -> bool:
        return all(f"{step}/{name}/{method}/{seed}" in done for method in methods for seed in SEEDS)

    return [
        one
        for one in COMPOSITIONS
        if whole("test", one.name, one.measured_by) and whole("sample", one.name, one.methods)
    ]


# --- how λ is chosen, written down before anything is measured ------------------------------------

KEPT_TO_TOPIC = 0.9
"""The share of the instruction module's answers on the topic that a detoxified one has to keep."""


def choose(name: str, curve: Curve, base: Mapping[str, float]) -> str:
    """The λ that validation says.

    Unlearning: the largest up to which the loss of plots stays within two percent of the base's.
    Detoxifying: that of the least blame, of those that keep to the topic. Else the one with the
    best accuracy (the mean, over two tasks; on products, of a transfer); of several, the nearest
    to one half.
    """
    if name == "unlearn":
        return harmless(curve, "plots", base)
    if name.startswith("detoxify"):
        least = KEPT_TO_TOPIC * curve["0"]["on_topic"]
        helpful = [weight for weight in curve if curve[weight]["on_topic"] >= least]
        return min(helpful, key=lambda weight: (curve[weight]["blame"], float(weight)))
    both = name.startswith("multitask")
    texts = BY_NAME[name].texts if both else BY_NAME[name].texts[:1]
    return best(curve, texts)
