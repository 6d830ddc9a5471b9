"""What is trained, composed and measured: every name in examples/paper, in one place."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "quickstart"
if str(QUICKSTART) not in sys.path:
    sys.path.append(str(QUICKSTART))

MODULES, OUT, SAMPLE, PLOTS = (HERE / name for name in ("modules", "out", "sample", "plots"))
RESULTS, PAGE = HERE / "results.json", HERE / "results.md"

SEEDS = ("0", "1", "2")
METHODS = ("lora", "ia3")
FULL = "full"
"""A fine-tune of all weights, on SmolLM2: a model, which is no module."""

TITLES = {"lora": "LoRA", "ia3": "(IA)³", FULL: "all weights"}
GRID = tuple(f"{tenth / 10:g}" for tenth in range(11))
"""The paper's: λ from 0 to 1 by 0.1."""

LOSSES = ("lm_products", "lm_plots")
"""The texts on which the loss of masked language modelling is measured; on others, accuracy."""


@dataclass(frozen=True)
class Module:
    """One trained module.

    Attributes:
        name: its folder is modules/SEED/NAME-METHOD.
        examples: what it is trained on, by the name that texts.training knows.
        methods: LoRA, (IA)³ or both.
        elsewhere: whether it starts from another initialisation than the seed's other modules.
        epochs: of LoRA. Subsets need four: after two, validation showed modules that answer nearly
            every sentence alike, by the label that is most frequent in the subset.
    """

    name: str
    examples: str
    methods: tuple[str, ...] = METHODS
    elsewhere: bool = False
    epochs: int = 2

    @property
    def models_language(self) -> bool:
        """Whether it learns to fill in masked words, and not to answer yes or no."""
        return self.name.startswith("lm_")


TRAINED = (
    Module("subset_a", "subset_a", epochs=4),
    Module("subset_b", "subset_b", epochs=4),
    Module("movies", "movies"),
    Module("polarity", "polarity"),
    Module("subjectivity", "subjectivity"),
    Module("lm_movies", "movies"),
    Module("lm_products", "products"),
    Module("subset_b_elsewhere", "subset_b", ("lora",), elsewhere=True, epochs=4),
)


@dataclass(frozen=True)
class Composition:
    """One composition, at each λ and seed.

    Attributes:
        name: what results.json calls it.
        recipe: the file that says it.
        folder: of its outputs, below out/; params stand in it, such as {seed} and {method}.
        texts: what it is measured on.
        parts: what it is measured beside: modules, or "base" for none.
        methods: LoRA, (IA)³ or both.
        params: what the recipe is built with, beside the seed, the method and λ.
        grid: every λ that it is measured at.
        home: the folder of its recipe.
    """

    name: str
    recipe: str
    folder: str
    texts: tuple[str, ...]
    parts: tuple[str, ...] = ()
    methods: tuple[str, ...] = METHODS
    params: Mapping[str, str] = field(default_factory=dict)
    grid: tuple[str, ...] = GRID
    home: Path = HERE

    def set(self, seed: str, method: str) -> dict[str, str]:
        """The params of a build."""
        method_too = {"method": method} if "{method}" in self.folder else {}
        return {"seed": seed, **method_too, **self.params}

    def directory(self, seed: str, method: str, weight: str) -> Path:
        """Where a build at some λ saves."""
        return self.home / "out" / self.folder.format(**self.set(seed, method)) / weight


def _initialisations(name: str, operator: str, second: str) -> Composition:
    return Composition(
        name=name,
        recipe="initialisations.pem",
        folder=f"initialisations/{{seed}}-{second}/{operator}",
        texts=("movies",),
        parts=("subset_a", second),
        methods=("lora",),
        params={"second": second},
    )


COMPOSITIONS = (
    Composition(
        name="generalise",
        recipe="generalise.pem",
        folder="generalise/{seed}-{method}",
        texts=("movies",),
        parts=("subset_a", "subset_b", "movies"),
    ),
    Composition(
        name="multitask",
        recipe="multitask.pem",
        folder="multitask/{seed}-{method}",
        texts=("polarity", "subjectivity"),
        parts=("polarity", "subjectivity"),
    ),
    Composition(
        name="unlearn",
        recipe="unlearn.pem",
        folder="unlearn/{seed}-{method}",
        texts=LOSSES,
        parts=("base", "lm_products"),
    ),
    Composition(
        name="transfer",
        recipe="transfer.pem",
        folder="transfer/{seed}-{method}",
        texts=("products", "movies"),
        parts=("movies",),
    ),
    _initialisations("apart_parameters", "parameters", "subset_b_elsewhere"),
    _initialisations("apart_function", "function", "subset_b_elsewhere"),
    _initialisations("shared_function", "function", "subset_b"),
)
BY_NAME = {one.name: one for one in COMPOSITIONS}


def module_directory(name: str, seed: str, method: str) -> Path:
    """Where a trained module lies."""
    return MODULES / seed / f"{name}-{method}"


# --- how λ is chosen, written down before anything is measured ------------------------------------

GENERAL_MAY_RISE = 1.02
"""How far the loss on general text may rise when unlearning: by two percent of the base's."""

Curve = Mapping[str, Mapping[str, float]]
"""λ to what was measured, by text."""


def choose(name: str, curve: Curve, base: Mapping[str, float] | None = None) -> str:
    """The λ that validation says.

    Unlearning: the largest at which general text stays within two percent of the base's loss. Else
    the one with the best accuracy (the mean, over two tasks); of several, the nearest to one half.
    """
    if name == "unlearn":
        assert base is not None
        return harmless(curve, "lm_plots", base)
    texts = BY_NAME[name].texts if name == "multitask" else BY_NAME[name].texts[:1]
    return best(curve, texts)


def harmless(curve: Curve, general: str, base: Mapping[str, float]) -> str:
    """The largest λ up to which the loss on general text rises by no more than it may."""
    limit = GENERAL_MAY_RISE * base[general]
    rising = [weight for weight in GRID if curve[weight][general] > limit]
    return GRID[max(0, GRID.index(rising[0]) - 1)] if rising else GRID[-1]


def best(curve: Curve, texts: tuple[str, ...]) -> str:
    """The λ with the highest mean over some texts; of several, the nearest to one half."""
    return max(
        curve,
        key=lambda weight: (
            sum(curve[weight][text] for text in texts),
            -abs(float(weight) - 0.5),
            weight,
        ),
    )
