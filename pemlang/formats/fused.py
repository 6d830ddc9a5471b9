"""Modules that are several in one, as the `qkv_proj` of Phi-3 is q, k and v: their outputs are
those of the parts, one after the other.

What an adapter changes of such a module is split into what it changes of the parts, exactly: A is
that of each, and B has a row for each output. Nothing is computed: a part has rows of one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter, ModulePart, PartsOf
from pemlang.formats.homes import tensor_of_head
from pemlang.formats.namings import NamingRule, by_rule
from pemlang.modules import PARAMETRISATIONS, Shapes
from pemlang.modules.sites import bias_of, module_of_bias
from pemlang.modules.stored import StoredSite, StoredVector
from pemlang.tensorfiles.safetensors import Header, TensorEntry


def parts_text(parts: Sequence[ModulePart]) -> str:
    """How a recipe writes them, `a[0:4], b[4:6]`."""
    return ", ".join(f"{part.name}{part.place}" for part in parts)


MAX_PARTS = 16
"""Of one module, in a rule that a recipe states."""

_PART = re.compile(r"([^][]+)\[([0-9]{1,9}):([0-9]{1,9})\]")


def parts_by_rule(rule: NamingRule, modules: Collection[str]) -> dict[str, list[ModulePart]]:
    """The parts of some modules by a rule that names them, of those modules that it is about.

    Raises:
        Fault: PEM0361 it is about none, PEM0362 it cannot be followed.
    """
    parts: dict[str, list[ModulePart]] = {}
    texts = rule.new.split(",")
    for text in texts:
        match = _PART.fullmatch(text.strip())
        if match is None or len(texts) > MAX_PARTS:
            raise Fault(
                "PEM0362",
                f"{visible(rule.new, 60)!r} are no parts of a module",
                f"write each part with its outputs, {MAX_PARTS} at most, as in "
                '"*.q_proj[0:4096], *.k_proj[4096:5120], *.v_proj[5120:6144]"',
            )
        for module, name in by_rule(NamingRule(rule.old, match[1]), modules).items():
            parts.setdefault(module, []).append(ModulePart(name, int(match[2]), int(match[3])))
    return parts


def split(adapter: Adapter, parts_of: PartsOf) -> Adapter:
    """An adapter with the parts of some modules in their place, each a site of its own.

    Raises:
        Fault: PEM0365 a module that has no such parts.
    """
    layout, entries = adapter.layout, dict(adapter.header.entries)
    shapes, factors = dict(layout.shapes), dict(layout.factors)
    ranks, scales, stored = dict(layout.ranks), dict(adapter.scales), dict(layout.stored)
    for site, parts in _with_biases(adapter, parts_of):
        by_row = _by_row(adapter, site, parts)
        shape, keys, form = shapes.pop(site), factors.pop(site), stored.pop(site, None)
        rank, scale = ranks.pop(site, None), scales.pop(site, None)
        tensors = [entries[key] for key in keys]
        for key, has_rows in zip(keys, by_row, strict=True):
            if has_rows:
                del entries[key]
        for part in parts:
            cut = [
                (key + part.place, part.rows(entry)) if has_rows else (key, entry)
                for key, entry, has_rows in zip(keys, tensors, by_row, strict=True)
            ]
            entries.update(cut)
            factors[part.name] = tuple(key for key, _ in cut)
            shapes[part.name] = shape.with_outputs(part.end - part.first)
            if isinstance(form, StoredVector):
                stored[part.name] = form
            elif form is not None:
                here = form.form.read([entry.shape for _, entry in cut])
                assert here is not None and here.shape == shapes[part.name]
                stored[part.name], rank = here, here.rank
            if rank is not None and scale is not None:
                ranks[part.name], scales[part.name] = rank, scale
    return replace(
        adapter,
        header=Header(entries, adapter.header.data_start),
        layout=replace(
            layout,
            shapes=Shapes(dict(sorted(shapes.items()))),
            ranks=MappingProxyType(dict(sorted(ranks.items()))),
            factors=factors,
            stored=stored,
        ),
        scales=MappingProxyType(scales),
        statistics=_statistics(adapter, parts_of),
        parts_of=parts_of,
    )


def _with_biases(adapter: Adapter, parts_of: PartsOf) -> Iterator[tuple[str, Sequence[ModulePart]]]:
    """Modules with their parts, and the biases beside them with the biases of these."""
    for module, parts in parts_of.items():
        yield module, parts
        if bias_of(module) in adapter.layout.shapes:
            yield bias_of(module), [replace(part, name=bias_of(part.name)) for part in parts]


def _by_row(adapter: Adapter, module: str, parts: Sequence[ModulePart]) -> tuple[bool, ...]:
    """Which tensors of a module have a row for each output; raises PEM0365 where some parts are not
    all of them."""
    shape, form = adapter.layout.shapes.get(module), adapter.layout.stored.get(module)
    by_row: tuple[bool, ...] = ()
    if module_of_bias(module) in adapter.layout.shapes:
        by_row = (True,)
    elif isinstance(form, StoredSite):
        by_row = form.form.by_row
    elif shape is not None:
        by_row = PARAMETRISATIONS[shape.kind].by_row(shape)
    if shape is None or not any(by_row):
        raise Fault(
            "PEM0365",
            f"{visible(module)} cannot be split: nothing of it has a row for each output, as B "
            "of a LoRA has",
            "write a pattern of other modules",
        )
    whole = [key for key in adapter.layout.heads if tensor_of_head(key).startswith(f"{module}.")]
    if whole:
        raise Fault(
            "PEM0365",
            f"{visible(module)} cannot be split: {listed(whole)} is saved whole",
            "write a pattern of other modules",
        )
    ends = [0, *(part.end for part in parts)]
    starts = [*(part.first for part in parts), shape.outputs]
    if ends != starts or any(part.first >= part.end for part in parts):
        raise Fault(
            "PEM0365",
            f"{visible(module)} has {shape.outputs} outputs, and {visible(parts_text(parts))} are "
            "not all of them, one part after the other",
            f"begin at 0, let each part begin where the one before it ends, and end at "
            f"{shape.outputs}",
        )
    return by_row


def _statistics(adapter: Adapter, parts_of: PartsOf) -> Header | None:
    """Statistics with the parts in the place of modules: those of inputs are those of each part,
    and of others there are the rows, where all of a family have some. What was measured of a tensor
    that all parts share is that of none."""
    if adapter.statistics is None:
        return None
    entries = dict(adapter.statistics.entries)
    for module, parts in _with_biases(adapter, parts_of):
        kept = {key.removeprefix(module): entries.pop(key) for key in adapter.statistics_at(module)}
        for kind, entry, has_rows in _families(adapter, module, kept):
            for part in parts:
                entries[part.name + kind] = part.rows(entry) if has_rows else entry
    return Header(entries, adapter.statistics.data_start)


def _families(
    adapter: Adapter, module: str, measured: Mapping[str, TensorEntry]
) -> Iterator[tuple[str, TensorEntry, bool]]:
    """The statistics of a module that its parts have too, and whether these have rows of them."""
    shape = adapter.layout.shapes[module]
    record = PARAMETRISATIONS[shape.kind]
    for family, kinds in record.statistics(shape, adapter.layout.ranks.get(module, 0)).items():
        of_inputs = family == "gram"
        if of_inputs or all(record.by_row(shape)):
            for kind in kinds:
                if f".{kind}" in measured:
                    yield f".{kind}", measured[f".{kind}"], not of_inputs
