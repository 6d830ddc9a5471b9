"""The part of a first recipe that is about models: task arithmetic on the one that the others were
tuned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from pemlang.formats.transformers import config_of
from pemlang.show.first_input import SUM, WEIGHT, FirstInput, grouped, last_part
from pemlang.syntax.written import quoted
from pemlang.tensorfiles.dtypes import FLOATS


def model_lines(
    models: Sequence[FirstInput], named: Callable[[str], str], alone: bool
) -> Iterator[str]:
    """The statements that declare models, add what those of one architecture learned to the base
    among them, and save what comes out.

    Args:
        models: at least one.
        named: gives what each is called a name of its own.
        alone: whether the recipe is about nothing else.

    Raises:
        Fault: as quoted.
    """
    groups = grouped(models, lambda one: one.adapter.layout.shapes)
    for group in groups.values():
        base = _base_among(group)
        tuned = [one for one in group if one is not base]
        name = named(last_part(base.path))
        if tuned and not _is_named(base, tuned):
            yield "# The others are taken to be tuned from it: put another first if they are not."
        yield f"{'base' if tuned else 'model'} {name} = {quoted(base.path)}"
        names = [named(last_part(one.path)) for one in tuned]
        for each, one in zip(names, tuned, strict=True):
            yield f"model {each} on {name} = {quoted(one.path)}"
        yield ""
        only = alone and len(groups) == 1
        result = SUM if only else named(f"{SUM}_{name}")
        yield from _task_arithmetic(result, name, names, only)
        yield f'save {result} to "out/{result}"{_dtype(base, tuned)}'
        yield ""


def _task_arithmetic(
    result: str, base: str, names: Sequence[str], with_param: bool
) -> Iterator[str]:
    weight = "0.5" if len(names) < 3 else "0.3"
    if names and with_param:
        yield "## How much of what each model learned goes in."
        yield f"param {WEIGHT}: number in 0..1 = {weight}"
        yield ""
        weight = WEIGHT
    yield f"let {result} = {' + '.join([base, *(f'{weight} * ({x} - {base})' for x in names)])}"
    yield ""


def _base_among(group: Sequence[FirstInput]) -> FirstInput:
    """The model that most of the others say they were tuned from; the first where none does."""
    told = Counter(_tuned_from(one) for one in group)
    return max(group, key=lambda one: told[one.called] - (_tuned_from(one) == one.called))


def _is_named(base: FirstInput, tuned: Sequence[FirstInput]) -> bool:
    return any(_tuned_from(one) == base.called for one in tuned)


def _tuned_from(model: FirstInput) -> str:
    """What a model was loaded from before it was saved, as transformers writes it down."""
    place = config_of(model.adapter.directory).get("_name_or_path")
    return last_part(place).casefold() if isinstance(place, str) else ""


def _dtype(base: FirstInput, tuned: Sequence[FirstInput]) -> str:
    """The option that says of which dtype an output is, where the models store a tensor in
    different ones: that of most of the base."""
    entries = base.adapter.header.entries
    floats = [name for name, entry in entries.items() if entry.dtype in FLOATS]
    others = (one.adapter.header.entries for one in tuned)
    if all(other[name].dtype == entries[name].dtype for other in others for name in floats):
        return ""
    [(dtype, _)] = Counter(entries[name].dtype for name in floats).most_common(1)
    return f" with dtype={dtype.lower()}"
