"""A comparison of two adapters or two models: which of the two it is, and how that is shown."""

from __future__ import annotations

from pemlang.compare.adapters import AdapterComparison
from pemlang.compare.models import ModelComparison
from pemlang.show import adapter_diff, model_diff
from pemlang.show.adapter_diff import AdapterDiffJson
from pemlang.show.model_diff import ModelDiffJson
from pemlang.show.weights_diff import WeightsDiff


def shown(c: AdapterComparison | ModelComparison) -> WeightsDiff:
    """What is to be shown of it."""
    return model_diff.shown(c) if isinstance(c, ModelComparison) else adapter_diff.shown(c)


def as_json(c: AdapterComparison | ModelComparison) -> AdapterDiffJson | ModelDiffJson:
    """All that was found as plain values; names as the files have them."""
    return model_diff.as_json(c) if isinstance(c, ModelComparison) else adapter_diff.as_json(c)
