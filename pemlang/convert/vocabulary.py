"""The `tokenizer_source` of a configuration of mergekit: models brought to one vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pemlang.convert.configuration import ModelReference
from pemlang.diagnostics import Fault
from pemlang.formats.transformers import config_of
from pemlang.formats.vocabulary import read_vocabulary

Named = dict[ModelReference, str]
"""Models, each with what a recipe calls it."""


def matched(
    names: Named, source: ModelReference | None, let: Callable[[str, str], str], base: bool
) -> Named:
    """Models with the tokens of all of them, or of one, as mergekit's default is: a token that a
    model lacks has the row of the base, else the mean of the rows of those that have it.

    Args:
        names: the models that are merged, the base first.
        source: whose tokens they get; those of all when None.
        let: writes a `let` of a name and a value, and gives the name.
        base: whether the configuration says which is the base.

    Returns:
        What to call each after that.

    Raises:
        Fault: PEM0833 mergekit gives other rows to tokens that a model lacks.
    """
    models = dict.fromkeys([*names, *([] if source is None else [source])])
    differ = _differ([Path(model.path) for model in models])
    if not differ and not (differ is None and source is None):
        return names
    if not base and len(names) > 2:
        raise Fault(
            "PEM0833",
            "without a base_model, a token that one of several models lacks is the mean of the "
            "others in mergekit, and what the first of them has here",
            "add a base_model: it gives the tokens that others lack",
        )
    if source is not None and source not in names:
        raise Fault(
            "PEM0833",
            "the tokenizer is that of a model that is not merged, and its tokens are others: "
            "mergekit has zeros for those that no merged model has",
            "choose base, union, or a model that is merged",
        )
    [first, *_] = names
    if source == first:
        target = names[first]
    else:
        target = let("joined", f"join({', '.join(names.values())})")
    if source is not None and source != first:
        target = let("target", f"{target}[like {names[source]}]")
    as_target = {first: target} if source in (None, first) else {}
    return {
        model: as_target.get(model) or let(f"{name}_matched", f"{name}[like {target}]")
        for model, name in names.items()
    }


def _differ(places: Sequence[Path]) -> bool | None:
    """Whether models on disk have other tokens, or as many rows; None where that is not seen."""
    seen = []
    for place in places:
        try:
            seen.append((read_vocabulary(place).numbers, config_of(place).get("vocab_size")))
        except Fault:
            return None
    return any(other != seen[0] for other in seen[1:])
