"""What changed between two adapters, or two models."""

from __future__ import annotations

import shlex

from pemlang.compare.adapters import AdapterComparison, compare_adapters
from pemlang.compare.models import ModelComparison, compare_models
from pemlang.diagnostics import Fault, visible
from pemlang.formats.transformers import StoredModel
from pemlang.inputs.resolver import read_stored
from pemlang.pipeline.making import Tick, no_tick


def compare(old: str, new: str, tick: Tick = no_tick) -> AdapterComparison | ModelComparison:
    """Two adapters or two models, each in a directory or on the hub (`hf://…`), read and measured.

    Raises:
        Fault: as read_stored, compare_adapters and compare_models; PEM0304 one is a model and the
            other an adapter.
    """
    before, after = read_stored(old), read_stored(new)
    if isinstance(before, StoredModel) and isinstance(after, StoredModel):
        return compare_models(old, before, new, after, tick)
    if isinstance(before, StoredModel) or isinstance(after, StoredModel):
        model, adapter = (old, new) if isinstance(before, StoredModel) else (new, old)
        words = " ".join(f"{name}={shlex.quote(at)}" for name, at in (("b", model), ("a", adapter)))
        raise Fault(
            "PEM0304",
            f"{visible(model)} is a model and {visible(adapter)} an adapter: nothing measures how "
            "far apart they are",
            "bake the adapter into its model, and compare what comes out: "
            f'`pem build -e "b + a" {visible(words, 1000)} --to baked`',
        )
    return compare_adapters(old, before, new, after)
