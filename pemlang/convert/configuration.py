"""A configuration of mergekit: what stands in one, with the place of each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from pemlang.convert.marked import Marked, MarkedEntry
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, nearest, visible
from pemlang.source import Span

MarkedMapping = Mapping[str, MarkedEntry]

KEYS = (
    "models", "slices", "modules", "merge_method", "base_model", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "name",
)  # fmt: skip


@dataclass(frozen=True)
class ModelReference:
    """A model as a configuration names it: `path@revision+lora@revision`."""

    path: str
    lora: str | None = None


@dataclass(frozen=True, eq=False)
class ModelInput:
    """A model that is merged.

    Attributes:
        model: which one.
        layers: the first and the last of its layers that are taken, both of them; None for all.
        parameters: what is said of it.
        span: where it is named.
    """

    model: ModelReference
    layers: tuple[int, int] | None
    parameters: MarkedMapping
    span: Span


@dataclass(frozen=True, eq=False)
class MergedSlice:
    """Models, or layers of models, that are merged into one, or into layers of one.

    Attributes:
        inputs: the models.
        base: what they are held to.
        levels: what is said of all of them, the nearest first.
        span: where it stands.
    """

    inputs: tuple[ModelInput, ...]
    base: ModelReference | None
    levels: tuple[MarkedMapping, ...]
    span: Span


@dataclass(frozen=True, eq=False)
class Configuration:
    """All of a configuration. `keys` are the entries at its top."""

    method: str
    slices: tuple[MergedSlice, ...]
    by_layers: bool
    keys: MarkedMapping

    def value(self, key: str) -> Marked | None:
        """What is said under a key, where something is."""
        entry = self.keys.get(key)
        return entry.value if entry is not None and entry.value.data is not None else None

    @property
    def models(self) -> list[ModelReference]:
        """All models, the bases first."""
        bases = [part.base for part in self.slices if part.base is not None]
        inputs = [each.model for part in self.slices for each in part.inputs]
        return list(dict.fromkeys([*bases, *inputs]))


def read_configuration(document: Marked) -> Configuration:
    """The configuration in a document; raises Fault PEM0832 for what is none."""
    keys = document.entries("a configuration of mergekit")
    known(keys, KEYS, "a configuration of mergekit")
    method = _needed(keys, "merge_method", document.span).text("merge_method", "ties")
    base = keys.get("base_model")
    named = None if base is None or base.value.data is None else _reference(base.value)
    levels: tuple[MarkedMapping, ...] = (_parameters(keys),)
    holder = keys
    if "modules" in keys:
        modules = keys["modules"].value.entries("modules")
        if len(modules) != 1:
            raise keys["modules"].value.wrong(
                "PEM0833",
                "the modules of this model are merged apart, which one recipe does not say",
                "convert one module at a time: leave the others out",
            )
        [module] = modules.values()
        holder = module.value.entries("a module")
        known(holder, ("models", "slices", "parameters"), "a module")
        levels = (_parameters(holder), *levels)
    lists = [key for key in ("models", "slices") if key in holder]
    if len(lists) != 1:
        raise document.wrong(
            "PEM0832",
            "a configuration of mergekit has either models or slices",
            "keep one of the two" if lists else "write models: and below it the models",
        )
    listed = holder[lists[0]].value
    if lists[0] == "models":
        inputs = tuple(_input(item, False) for item in listed.items("models"))
        slices = [MergedSlice(_apart(inputs), named, levels, listed.span)]
    else:
        slices = [_slice(item, named, levels) for item in listed.items("slices")]
    return Configuration(method, tuple(slices), lists[0] == "slices", keys)


def known(entries: MarkedMapping, names: Iterable[str], what: str) -> None:
    """Raise Fault PEM0832 for a key that is none of those."""
    names = tuple(names)
    for name, entry in entries.items():
        if name not in names:
            close = nearest(name, names)
            help = f"did you mean `{close}`?" if close else f"it has {', '.join(names)}"
            message = f"{what} has no `{visible(name, 40)}`: mergekit passes over it in silence"
            raise Fault("PEM0832", message, help, place=entry.key)


def _needed(entries: MarkedMapping, key: str, span: Span) -> Marked:
    if key in entries:
        return entries[key].value
    help = f"add it: {key}: …"
    raise Fault("PEM0832", f"there is no {key} here", help, place=span)


def _parameters(entries: MarkedMapping) -> MarkedMapping:
    entry = entries.get("parameters")
    return {} if entry is None or entry.value.data is None else entry.value.entries("parameters")


def _reference(value: Marked) -> ModelReference:
    parts = value.text("a model", "org/name").split("+")
    if len(parts) > 2 or not all(parts):
        help = "write it as MODEL or MODEL+LORA"
        raise value.wrong("PEM0832", "this names no model", help)
    return ModelReference(*parts)


def _input(value: Marked, in_layers: bool) -> ModelInput:
    entries = value.entries("a model")
    known(entries, ("model", "parameters", *["layer_range"] * in_layers), "a model")
    model = _needed(entries, "model", value.span)
    layers = _range(_needed(entries, "layer_range", value.span)) if in_layers else None
    return ModelInput(_reference(model), layers, _parameters(entries), model.span)


def _range(value: Marked) -> tuple[int, int]:
    ends = [item.number("layer_range") for item in value.items("layer_range")]
    whole = all(end.denominator == 1 and 0 <= end < 100_000 for end in ends)
    if len(ends) != 2 or not whole or ends[0] >= ends[1]:
        help = "write the first layer and the one after the last: layer_range: [0, 16]"
        raise value.wrong("PEM0832", "this is no range of layers", help)
    return int(ends[0]), int(ends[1]) - 1


def _slice(
    value: Marked, base: ModelReference | None, levels: tuple[MarkedMapping, ...]
) -> MergedSlice:
    entries = value.entries("a slice")
    known(entries, ("sources", "base_model", "parameters"), "a slice")
    sources = _needed(entries, "sources", value.span)
    inputs = tuple(_input(item, True) for item in sources.items("sources"))
    for one, other in pairwise(inputs):
        if _count(one) != _count(other):
            message = "the sources of a slice have numbers of layers that differ"
            help = "give each the same number of layers"
            raise Fault("PEM0832", message, help, place=other.span)
    own = entries.get("base_model")
    named = base if own is None else _reference(own.value)
    return MergedSlice(_apart(inputs), named, (_parameters(entries), *levels), value.span)


def _count(each: ModelInput) -> int:
    assert each.layers is not None
    first, last = each.layers
    return last - first + 1


def _apart(inputs: Sequence[ModelInput]) -> tuple[ModelInput, ...]:
    """Inputs that are each another model; raises Fault PEM0832 for one that stands there
    twice, of which mergekit takes one alone."""
    seen = set()
    for each in inputs:
        if each.model in seen:
            message = "this model stands here twice, and mergekit would take it once"
            help = "leave one of the two out, and give the other the sum of their weights"
            raise Fault("PEM0832", message, help, place=each.span)
        seen.add(each.model)
    return tuple(inputs)


OverDepth = Fraction | tuple[Fraction, ...]
"""A number, or some at equal distances over the depth."""


@dataclass(frozen=True)
class MergekitSetting:
    """A setting of mergekit.

    Attributes:
        rows: numbers with the text that a tensor's name has to have, the first that it has
            deciding; None for every name.
        span: where it is written; None where it is a default.
    """

    rows: tuple[tuple[str | None, OverDepth], ...]
    span: Span | None

    @property
    def constant(self) -> Fraction | None:
        """The one number that it is everywhere, where it is one."""
        [(name, number), *_] = self.rows
        return number if name is None and isinstance(number, Fraction) else None


def setting(
    name: str, levels: Sequence[MarkedMapping], default: Fraction | None
) -> MergekitSetting | None:
    """A setting as mergekit finds it: at the nearest level that says something of a tensor.

    Raises:
        Fault: PEM0832 a number is wanted.
    """
    rows: list[tuple[str | None, OverDepth]] = []
    span = None
    for level in levels:
        if name in level:
            span = span or level[name].key
            rows += _rows(name, level[name].value)
            if rows[-1][0] is None:
                return MergekitSetting(tuple(rows), span)
    if default is not None:
        rows.append((None, default))
    return MergekitSetting(tuple(rows), span) if rows else None


def _rows(name: str, value: Marked) -> list[tuple[str | None, OverDepth]]:
    """What is written of a setting, up to what holds of every tensor."""
    if not isinstance(value.data, tuple | Mapping):
        return [(None, value.number(name))]
    items = value.items(name) if isinstance(value.data, tuple) else (value,)
    if not any(isinstance(item.data, Mapping) for item in items):
        return [(None, _number(name, value))]
    rows: list[tuple[str | None, OverDepth]] = []
    for item in items:
        entries = item.entries(f"an item of {name}")
        known(entries, ("filter", "value"), f"an item of {name}")
        number = _number(name, _needed(entries, "value", item.span))
        part = entries.get("filter")
        if part is None or part.value.data in (None, "*"):
            return [*rows, (None, number)]
        rows.append((part.value.text("filter", "mlp"), number))
    return rows


def _number(name: str, value: Marked) -> OverDepth:
    """One number, or several over the depth."""
    if not isinstance(value.data, tuple):
        return value.number(name)
    numbers = tuple(item.number(name) for item in value.items(name))
    return numbers[0] if len(set(numbers)) == 1 else numbers
