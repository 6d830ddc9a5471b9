"""Messages about adapters of more kinds than one, which no format that comes with pemlang holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pemlang.formats import FORMATS, Adapter, Detection, Format, Layout
from pemlang.modules import Shapes, SiteShape
from pemlang.tensorfiles import read_header
from support.messages.case import Diagnostics, made, text_checked

PAIR = 'adapter x = "mixed/x"\nadapter y = "mixed/y"\n'
SITES = {
    "layer.0.key": SiteShape("ia3", "gain_out", (6, 1)),
    "layer.0.query": SiteShape("lora", "linear", (8,), (6,)),
}
KEYS = {"layer.0.key": ("l",), "layer.0.query": ("a", "b")}
TENSORS = {"l": (6, 1), "a": (2, 8), "b": (6, 2)}


class Mixed(Format):
    """Directories of one file, NAME.safetensors, with a LoRA of one module and an (IA)³ of
    another. They can be checked, and no more."""

    texts = ()

    def __init__(self, name: str) -> None:
        self.name, self.weights = name, f"{name}.safetensors"  # type: ignore[misc]

    def detect(self, place: Path) -> Detection:
        whole = (place / self.weights).is_file()
        return Detection(whole, whole, self.weights)

    def read(self, place: Path) -> Adapter:
        return self.of_header(place, read_header(place / self.weights))

    def of_header(self, place: Path, header: Any) -> Adapter:
        layout = Layout(Shapes(SITES), {"layer.0.query": 2}, KEYS, {}, frozenset({"F32"}))
        return Adapter(self, place, place / self.weights, header, layout, {"layer.0.query": 1.0})

    def files(self, adapter: Adapter) -> list[Path]:
        return [adapter.weights]

    def signature(self, adapter: Adapter) -> Any:
        raise AssertionError("it is checked, and no more")

    def restored(self, signature: object, directory: Path, weights: str) -> Any:
        raise AssertionError("it is checked, and no more")

    def layout(self, spec: object) -> Any:
        raise AssertionError("it is checked, and no more")


def checked_pair(root: Path, patch: pytest.MonkeyPatch, text: str) -> Diagnostics:
    """What a check says of a text over two adapters of two formats."""
    for adapter, name in (("x", "mine"), ("y", "yours")):
        patch.setitem(FORMATS, name, Mixed(name))
        directory = root / "mixed" / adapter
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {key: np.ones(shape, "f4") for key, shape in TENSORS.items()}
        save_file(tensors, directory / f"{name}.safetensors")
    return text_checked(root, PAIR + text)


@made
def PEM0311_mixed_merged(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked_pair(root, patch, "let z = ties([x, y], density=0.5, over=factors)\n")


class MixedOfKohya(Mixed):
    """The same, with kohya's names of modules."""

    naming = "kohya"


@made
def PEM0421_mixed_in_one_file(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(sys.modules[__name__], "Mixed", MixedOfKohya)
    return checked_pair(root, patch, 'save x + y to "out/z.safetensors" with format=kohya\n')


@made
def PEM0421_mixed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked_pair(root, patch, 'save x + y to "out/z"\n')
