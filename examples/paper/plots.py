"""The plots of results.md: what validation measured over λ, with the spread over seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no date in the files

import matplotlib as mpl
import record
from settings import GRID, METHODS, PLOTS, SEEDS, TITLES

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

COLOURS = {"lora": "#1f6fb4", "ia3": "#c8501e"}
AT = [float(weight) for weight in GRID]
Line = tuple[str, str, str, str, str]
"""Composition, method, text, colour, label."""


def draw(results: record.Results, folder: Path = PLOTS) -> None:
    """Write every plot."""
    folder.mkdir(exist_ok=True)
    both = [(method, COLOURS[method], TITLES[method]) for method in METHODS]
    accuracy = "accuracy on validation, %"
    panels: dict[str, list[tuple[str, list[Line]]]] = {
        "generalise": [
            ("a ⊕ b, on movies", [("generalise", m, "movies", c, t) for m, c, t in both])
        ],
        "multitask": [
            (f"on {text}", [("multitask", m, text, c, t) for m, c, t in both])
            for text in ("polarity", "subjectivity")
        ],
        "unlearn": [
            (title, [("unlearn", m, text, c, t) for m, c, t in both])
            for text, title in (
                ("lm_products", "on products, to be unlearned"),
                ("lm_plots", "on general text (plots)"),
            )
        ],
        "transfer": [
            (f"on {text}", [("transfer", m, text, c, t) for m, c, t in both])
            for text in ("products", "movies")
        ],
        "initialisations": [
            ("one initialisation", _ways("generalise", "shared_function")),
            ("different initialisations", _ways("apart_parameters", "apart_function")),
        ],
    }  # fmt: skip
    for name, shown in panels.items():
        ylabel = "loss of a masked word, nats" if name == "unlearn" else accuracy
        figure = Figure(figsize=(4.2 * len(shown) + 0.4, 3.4), layout="constrained")
        axes = figure.subplots(1, len(shown), sharey=name != "multitask", squeeze=False)[0]
        for axis, (title, lines) in zip(axes, shown, strict=True):
            _panel(axis, title, lines, results)
        axes[0].set_ylabel(ylabel)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _ways(parameters: str, function: str) -> list[Line]:
    return [
        (parameters, "lora", "movies", "#1f6fb4", "⊕, on the parameters"),
        (function, "lora", "movies", "#2a8a4a", "+ with rank=8, on what they do"),
    ]


def _panel(axis: Axes, title: str, lines: Sequence[Line], results: record.Results) -> None:
    """Lines of means with bands from the least to the most of the seeds."""
    for name, method, text, colour, label in lines:
        curves = [record.curve(results, name, method, seed) for seed in SEEDS]
        values = [[curve[weight][text] for curve in curves] for weight in GRID]
        axis.fill_between(AT, [min(v) for v in values], [max(v) for v in values],
                          color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        means = [statistics.fmean(v) for v in values]
        axis.plot(AT, means, color=colour, marker="o", markersize=3.5, label=label)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("λ")
    axis.set_xticks(AT[::2])
    axis.legend(frameon=False, fontsize=9)
