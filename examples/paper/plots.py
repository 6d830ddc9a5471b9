"""The plots of results.md: what validation measured over λ, with the spread over seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no date in the files

import matplotlib as mpl
import record
from settings import FULL, GRID, METHODS, PLOTS, SEEDS, TITLES

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "pemlang",  # names inside the file are the same each time
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

COLOURS = {"lora": "#1f6fb4", "ia3": "#c8501e", FULL: "#6a4fa3"}
Line = tuple[str, str, str, str, str]
"""Composition, method, text, colour, label."""


@dataclass(frozen=True)
class Plot:
    """Panels beside each other.

    Attributes:
        panels: the title and the lines of each.
        ylabel: what is measured.
        one_scale: whether all panels have the same.
    """

    panels: list[tuple[str, list[Line]]]
    ylabel: str = "accuracy on validation, %"
    one_scale: bool = True


def by_method(name: str, text: str, methods: Sequence[str] = METHODS) -> list[Line]:
    """Each method of a composition."""
    return [(name, method, text, COLOURS[method], TITLES[method]) for method in methods]


def draw(results: record.Results, folder: Path = PLOTS) -> None:
    """Write every plot."""
    plots = {
        "generalise": Plot([("a ⊕ b, on movies", by_method("generalise", "movies"))]),
        "multitask": Plot(
            [(f"on {text}", by_method("multitask", text)) for text in ("polarity", "subjectivity")],
            one_scale=False,
        ),
        "unlearn": Plot(
            [
                ("on products, to be unlearned", by_method("unlearn", "lm_products")),
                ("on general text (plots)", by_method("unlearn", "lm_plots")),
            ],
            "loss of a masked word, nats",
        ),
        "transfer": Plot([(f"on {t}", by_method("transfer", t)) for t in ("products", "movies")]),
        "initialisations": Plot(
            [
                ("one initialisation", ways("generalise", "shared_function")),
                ("different initialisations", ways("apart_parameters", "apart_function")),
            ]
        ),
    }
    write(plots, results, folder)


def write(plots: Mapping[str, Plot], results: record.Results, folder: Path) -> None:
    """Write plots by their names."""
    folder.mkdir(exist_ok=True)
    for name, plot in plots.items():
        count = len(plot.panels)
        figure = Figure(figsize=(4.2 * count + 0.4, 3.4), layout="constrained")
        axes = figure.subplots(1, count, sharey=plot.one_scale, squeeze=False)[0]
        for axis, (title, lines) in zip(axes, plot.panels, strict=True):
            _panel(axis, title, lines, results)
        axes[0].set_ylabel(plot.ylabel)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def ways(parameters: str, function: str, text: str = "movies") -> list[Line]:
    """The same modules added in two ways."""
    plus = "+ with rank=8" if text == "movies" else "+"
    return [
        (parameters, "lora", text, "#1f6fb4", "⊕, on the parameters"),
        (function, "lora", text, "#2a8a4a", f"{plus}, on what they do"),
    ]


def _panel(axis: Axes, title: str, lines: Sequence[Line], results: record.Results) -> None:
    """Lines of means with bands from the least to the most of the seeds."""
    for name, method, text, colour, label in lines:
        curves = [record.curve(results, name, method, seed) for seed in SEEDS]
        values = [[curve[weight][text] for curve in curves] for weight in curves[0]]
        at = [float(weight) for weight in curves[0]]
        axis.fill_between(at, [min(v) for v in values], [max(v) for v in values],
                          color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        means = [statistics.fmean(v) for v in values]
        axis.plot(at, means, color=colour, marker="o", markersize=3.5, label=label)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("λ")
    axis.set_xticks([float(weight) for weight in GRID[::2]])
    axis.legend(frameon=False, fontsize=9)
