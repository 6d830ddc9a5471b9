"""Strategies that draw whole recipes, right and wrong ones: what the laws draw, and on top of it
calls, options and paths that may not fit."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from safetensors.torch import save_file

from pemlang.ops import FUNCTIONS, METHODS, Parameter
from support.calls import adapters_of
from support.laws.drawing import IA3, LORA, adapters
from support.laws.expressions import Writer
from support.laws.pool import declared

NAMES = "abdegioprtu"
MODELS = 'base m = "models/m"\nmodel tuned on m = "models/tuned"\n'
PLACES = ["a", "occupied", "file", "file/x", "../x", "models", "a/../b", "elsewhere"]
SAVES = 8
RANKS = ["1", "2", "3", "5", "9", "n", "norm(a)"]
NUMBERS = [
    "0",
    "0.5",
    "1",
    "3",
    "-2",
    "n",
    "norm(a)",
    "cosine(a, b)",
    "ramp(0, 1)",
    "steps([1, 2])",
]
SELECTORS = ['"*.q"', '"*.v", "*.q"', "layers 0..1", "layers 7", "like t", "like o", '"*.k"']


def surroundings(folder: Path) -> None:
    """What recipes of these meet in the folder they lie in."""
    for name in ("m", "tuned"):
        (folder / "models" / name).mkdir(parents=True)
        shapes = {"q.weight": (4, 6), "norm.weight": (4,)}
        tensors = {key: torch.ones(shape) for key, shape in shapes.items()}
        save_file(tensors, folder / "models" / name / "model.safetensors")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "notes.txt").write_text("mine")
    (folder / "file").write_text("mine")


def settings_of(param: Parameter) -> SearchStrategy[str]:
    """A value for a setting: most fit."""
    if param.words:
        return st.sampled_from([*param.words, *(RANKS if "number" in param.kinds else ["other"])])
    if param.name == "rank":
        return st.sampled_from(RANKS)
    if param.name == "weights":
        return st.lists(st.sampled_from(NUMBERS[1:4]), min_size=1, max_size=3).map(
            lambda numbers: f"[{', '.join(numbers)}]"
        )
    if param.within is not None and param.within.whole:
        return st.sampled_from(["0", "1", "2", "10", "1.5"])
    return st.sampled_from(["0.25", "0.5", "1", "0.01", "2", "n"])


@st.composite
def merges(draw: DrawFn, depth: int) -> str:
    """A call of a method, of as many adapters as it takes."""
    name = draw(st.sampled_from(sorted(METHODS)))
    params = FUNCTIONS[name].signatures[0].params
    first = METHODS[name].ordered
    listed = any(param.name == "xs" for param in params)
    count = draw(st.integers(first + 1, 3)) if listed else first
    given = [adapters_of(name, [draw(expressions(depth)) for _ in range(count)])]
    for param in params[first + listed :]:
        if param.required or draw(st.integers(0, 3)) == 0:
            given.append(f"{param.name}={draw(settings_of(param))}")
    return f"{name}({', '.join(given)})"


@st.composite
def expressions(draw: DrawFn, depth: int) -> str:
    """An expression over a few adapters, which may not fit each other."""
    if depth == 0:
        return draw(st.sampled_from(["a", "b", "a", "b", *NAMES, "x", "x"]))
    kind = draw(st.sampled_from(["infix", "scale", "select", "call", "shape", "merge", "merge"]))
    if kind == "merge":
        return draw(merges(depth - 1))
    x, y = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    number = draw(st.sampled_from(NUMBERS))
    if kind == "infix":
        return f"({x} {draw(st.sampled_from('+-+-⊕⊖'))} {y})"
    if kind == "scale":
        return f"{number} {draw(st.sampled_from('*⊗'))} ({x})"
    if kind == "select":
        return f"({x})[{draw(st.sampled_from(SELECTORS))}]"
    rank = draw(st.sampled_from(RANKS))
    shaped = [f"pad({x}, rank={rank})", f"rescale({x}, like={y})", f"compress({x}, rank={rank})",
              f"compress({x}, energy=0.9)"]  # fmt: skip
    calls = [f"join({x}, {y})", f"mean([{x}, {y}])", f"linear([{x}, {y}], weights=[1, 0.5])",
             f"lerp({x}, {y}, t=0.5)", f"join({x}, {y}, b)"]  # fmt: skip
    return draw(st.sampled_from(shaped if kind == "shape" else calls))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "rank": st.sampled_from([*RANKS, "full", "full"]),
        "energy": st.sampled_from(["0.5", "0.99", "2"]),
        "dtype": st.sampled_from(["bf16", "f16", "f32", "f64", "f8_e4m3", "i8"]),
        "heads": st.sampled_from(["a", "x"]),
    },
)
MODEL_VALUES = ["tuned", "m + 0.5 * (tuned - m)", "tuned - m", "compress(tuned - m, rank=2)",
                'compress((tuned - m)["q.*"], rank=2)', "norm(tuned - m) * x"]  # fmt: skip


@st.composite
def saves(draw: DrawFn, number: int) -> str:
    """A `save` of some value, in some place."""
    kind = draw(st.sampled_from(["x", "model", *["any"] * 18]))
    value = draw(expressions(draw(st.sampled_from([1, 1, 2]))))
    if kind != "any":
        value = "x" if kind == "x" else draw(st.sampled_from(MODEL_VALUES))
    options = draw(st.one_of(st.just({}), st.just({"rank": "full"}), OPTIONS))
    said = ", ".join(f"{key}={option}" for key, option in options.items())
    place = draw(st.sampled_from([f"out/{number}"] * 20 + PLACES))
    return f'save {value} to "{place}"' + f" with {said}" * bool(said)


@st.composite
def recipes(draw: DrawFn) -> tuple[str, list[str]]:
    """The start of a recipe, which is right, and some saves, each of which may be."""
    tree = draw(st.sampled_from([LORA, LORA, IA3]).flatmap(lambda w: adapters(w, depth=2)))
    text = Writer().recipe(tree)
    names = [name for name in NAMES if f"adapter {name} = " not in text]
    head = f"{declared(names)}param n: number = 2\n{MODELS}{text}"
    return head, [draw(saves(number)) for number in range(SAVES)]
