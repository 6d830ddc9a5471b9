"""The part of a first recipe that is about models: task arithmetic on the one that the others were
tuned from, and which adapters can be added to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.formats.transformers import config_of
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Model, leaf
from pemlang.graph.types import ModelType
from pemlang.ops.bakes import bake
from pemlang.ops.record import Context
from pemlang.show.first_input import SUM, WEIGHT, FirstInput, grouped, last_part
from pemlang.syntax.written import quoted
from pemlang.tensorfiles.dtypes import FLOATS


@dataclass(frozen=True)
class Family:
    """Models of one architecture, and what can be added to them.

    Attributes:
        base: the one that the others were tuned from.
        tuned: the others.
        adapters: those that fit the base.
        name: what the recipe calls the base.
    """

    base: FirstInput
    tuned: Sequence[FirstInput]
    adapters: Sequence[FirstInput]
    name: str

    @property
    def only_holds_adapters(self) -> bool:
        return bool(self.adapters) and not self.tuned


def families(
    models: Sequence[FirstInput], adapters: Sequence[FirstInput], named: Callable[[str], str]
) -> list[Family]:
    """Models by their architecture, each with the adapters that can be added to it and to none
    before, or that name it as theirs; `named` gives each a name of its own."""
    groups = grouped(models, lambda one: one.adapter.layout.shapes).values()
    bases = [_base_among(group) for group in groups]
    home: dict[str, str] = {}
    for one in adapters:
        fitting = [base for base in bases if _fits(one, base)]
        fitting.sort(key=lambda base: base.called != one.model)
        if fitting:
            home[one.path] = fitting[0].path
    return [
        Family(
            base,
            [one for one in group if one is not base],
            [one for one in adapters if home.get(one.path) == base.path],
            named(last_part(base.path)),
        )
        for group, base in zip(groups, bases, strict=True)
    ]


def _fits(adapter: FirstInput, base: FirstInput) -> bool:
    """Whether an adapter can be added to a model."""
    graph = Graph()
    shapes = base.adapter.layout.shapes
    point = graph.add(Model(ModelType(None, shapes), base.path, base.adapter))
    try:
        bake(Context(graph), point, leaf(graph, adapter.path, adapter.adapter, None))
    except Fault:
        return False
    return True


def model_lines(
    families: Sequence[Family], named: Callable[[str], str], alone: bool
) -> Iterator[str]:
    """The statements that declare models, add what those of one architecture learned to the base
    among them, and save what comes out.

    Args:
        families: at least one.
        named: gives what each is called a name of its own.
        alone: whether the recipe is about nothing else.

    Raises:
        Fault: as quoted.
    """
    for family in families:
        base, name, tuned = family.base, family.name, family.tuned
        if tuned and not _is_named(base, tuned):
            yield "# The others are taken to be tuned from it: put another first if they are not."
        yield from _declared(family)
        names = [named(last_part(one.path)) for one in tuned]
        for each, one in zip(names, tuned, strict=True):
            yield f"model {each} on {name} = {quoted(one.path)}"
        if family.only_holds_adapters:
            continue
        yield ""
        only = alone and len(families) == 1
        result = SUM if only else named(f"{SUM}_{name}")
        yield from _task_arithmetic(result, name, names, only)
        yield f'save {result} to "out/{result}"{_dtype(base, tuned)}'
        yield ""


def _declared(family: Family) -> Iterator[str]:
    """The declaration of a base; of a model that nothing belongs to, as that."""
    told = (one.adapter.base for one in family.adapters)
    others = dict.fromkeys(name for name in told if name and name != family.base.path)
    path = quoted(family.base.path)
    if not others:
        word = "base" if family.tuned or family.adapters else "model"
        yield f"{word} {family.name} = {path}"
        return
    yield "# The adapters fit it; their configs name it otherwise."
    yield f"base {family.name} = [{', '.join([path, *map(quoted, others)])}]"


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
