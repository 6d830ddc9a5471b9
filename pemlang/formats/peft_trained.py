"""What PEFT trains of the base itself beside an adapter, and saves whole: biases (`bias`), and rows
of embeddings (`trainable_token_indices`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter, Layout
from pemlang.formats.peft_names import CONFIG, PREFIX, ROWS
from pemlang.formats.peft_patterns import endings

BIAS, TOKENS = "bias", "trainable_token_indices"

_BIAS = ".bias"
_OF_SITE = ".base_layer.bias"
# With `bias="all"` PEFT saves these of a module that `modules_to_save` has whole, too.
_DOUBLE = re.compile(r"\.(?:original_module|modules_to_save)\.bias$")


def with_trained(layout: Layout, config: Mapping[str, object], whole: Sequence[str]) -> Layout:
    """A layout whose heads are told apart: those of the base's own that were trained, and which
    rows of an embedding some are.

    Args:
        layout: with all whole tensors among its heads.
        config: the fields of the config.
        whole: the names of `modules_to_save`.

    Raises:
        Fault: PEM0414 indices that are none, PEM0415 rows where config and tensors disagree.
    """
    bias, indices = config.get(BIAS), config.get(TOKENS)
    tokens = [key for key in layout.heads if key.endswith(ROWS)]
    if bias in (None, "none") and not indices and not tokens:
        return layout
    rows = _rows(layout, tokens, indices)
    modules = frozenset(whole)
    biases = {key for key in layout.heads if _is_trained(key, bias, modules)}
    doubled = {key for key in layout.heads if bias == "all" and _DOUBLE.search(key)}
    return replace(
        layout,
        heads={key: entry for key, entry in layout.heads.items() if key not in doubled},
        copies=layout.copies - biases,
        of_base=frozenset(biases - doubled | rows.keys()),
        rows=rows,
        tied_rows=isinstance(indices, dict) and len(indices) > len(rows),
    )


def trained_fields(lender: Adapter, sites: Mapping[str, object]) -> dict[str, object]:
    """The fields of a config for what an output has of the base from one of its inputs."""
    layout = lender.layout
    biases = [key for key in layout.of_base if key not in layout.rows]
    fields: dict[str, object] = {}
    if biases:
        of_sites = all(key.removeprefix(PREFIX).removesuffix(_OF_SITE) in sites for key in biases)
        fields[BIAS] = "lora_only" if of_sites else "all"
    if layout.rows:
        fields[TOKENS] = {
            key.removeprefix(PREFIX).removesuffix(ROWS): list(rows)
            for key, rows in layout.rows.items()
        }
    return fields


def _is_trained(key: str, bias: object, whole: frozenset[str]) -> bool:
    """Whether a whole tensor is a bias of the base that was trained."""
    if bias in (None, "none") or not key.endswith(_BIAS):
        return False
    module = key.removeprefix(PREFIX).removesuffix(_BIAS)
    return key.endswith(_OF_SITE) or (bias == "all" and whole.isdisjoint(endings(module)))


def _rows(layout: Layout, tokens: Sequence[str], indices: object) -> dict[str, tuple[int, ...]]:
    """The rows that each tensor of tokens is, by its key."""
    if not isinstance(indices, list | dict | None):
        raise _no_numbers("this adapter")
    rows, unused = {}, set(indices or ()) if isinstance(indices, dict) else set[str]()
    for key in tokens:
        module = key.removeprefix(PREFIX).removesuffix(ROWS)
        # A list alone is of the model's embedding of tokens.
        own = [indices] if isinstance(indices, list) and indices and len(tokens) == 1 else []
        if isinstance(indices, dict):
            names = [name for name in endings(module) if name in indices]
            own = [indices[name] for name in names]
            unused -= set(names)
        if len(own) != 1:
            raise Fault(
                "PEM0415",
                f"it holds rows of tokens of {visible(module)}, and `{TOKENS}` in the config has "
                + ("several lists for it" if own else "none for it: PEFT would ignore them"),
                f"mend `{TOKENS}` in {CONFIG}",
            )
        rows[key] = _numbers(module, own[0], layout.heads[key].shape)
    stored = set(rows.values())
    lost = [name for name in unused if not _is_tied(indices, name, stored)]
    if lost or (indices and not rows):
        of = f" of {listed(sorted(lost))}" if lost else ""
        raise Fault(
            "PEM0415",
            f"the config has `{TOKENS}`, and there are no rows{of}: PEFT would not load it",
            "save the adapter again with PEFT",
        )
    return rows


def _is_tied(indices: object, name: str, stored: Collection[tuple[int, ...]]) -> bool:
    """Whether a module without rows has those of another: of two that are tied PEFT saves one."""
    given = indices[name] if isinstance(indices, dict) else None
    if not isinstance(given, list) or not all(type(x) is int for x in given):
        return False
    return tuple(given) in stored


def _numbers(module: str, given: object, shape: Sequence[int]) -> tuple[int, ...]:
    """The numbers of the rows of a module; raises PEM0414, PEM0415."""
    numbers = given if isinstance(given, list) else []
    if not numbers or not all(type(x) is int and 0 <= x < 1 << 31 for x in numbers):
        raise _no_numbers(visible(module))
    wrong = None
    if len(set(numbers)) < len(numbers):
        wrong = f"names a token of {visible(module)} twice"
    elif len(shape) != 2 or shape[0] != len(numbers):
        wrong = f"has {len(numbers)} tokens of {visible(module)}, and its rows are {list(shape)}"
    if wrong is not None:
        help = "save the adapter again with PEFT, each token once"
        raise Fault("PEM0415", f"`{TOKENS}` {wrong}", help)
    return tuple(numbers)


def _no_numbers(what: str) -> Fault:
    return Fault(
        "PEM0414",
        f"`{TOKENS}` of {what} is no list of numbers of tokens, each at least 0",
        f"mend it in {CONFIG}",
    )
