"""Sites whose tensors are of a stored form, by the names and shapes in a header."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pemlang.diagnostics import Fault, listed, visible
from pemlang.modules.stored import STORED_FORMS, StoredSite, forms_of
from pemlang.tensorfiles.safetensors import TensorEntry

MAX_NUMBERS = 1 << 33
"""Numbers of a factor of a site: a file of megabytes may stand for far more."""

TITLES = {form.name: form.title for form in reversed(STORED_FORMS)}
"""The methods of stored forms, as a reader writes them."""


def stored_site(
    site: str, parts: Mapping[str, str], entries: Mapping[str, TensorEntry]
) -> StoredSite:
    """What a site is.

    Args:
        site: its name.
        parts: the keys of its tensors, by what they are called.
        entries: the header.

    Raises:
        Fault: PEM0417 tensors that make no form, or do not fit each other; PEM0421 a LoKr over one
            axis.
    """
    forms = forms_of(parts)
    if not forms:
        raise Fault(
            "PEM0417",
            f"site {visible(site)} has {listed(sorted(parts))} alone",
            f"save it again: {_wanted(parts)}",
        )
    shapes = {key: entries[parts[key]].shape for key in forms[0].keys}
    if forms[0].name == "lokr" and len(shapes.get("lokr_w2", ())) == 3:
        raise Fault(
            "PEM0421",
            f"site {visible(site)} is a LoKr of a convolution over one axis: its lokr_w2 of shape "
            f"{list(shapes['lokr_w2'])} is multiplied along other axes than those of the module",
            "leave this site out of the adapter, or merge it into its base with PEFT",
        )
    read = (form.read([shapes[key] for key in form.keys]) for form in forms)
    whole = next(filter(None, read), None)
    if whole is None:
        told = listed([f"{key} is {list(shape)}" for key, shape in shapes.items()])
        raise Fault(
            "PEM0417",
            f"the tensors of site {visible(site)} do not fit each other: {told}",
            f"save it again: {forms[0].title} is {forms[0].formula}",
        )
    numbers = max(map(math.prod, whole.shapes))
    if numbers > MAX_NUMBERS:
        raise Fault(
            "PEM0417",
            f"the tensors of site {visible(site)} stand for a factor of {numbers:,} numbers: "
            + listed([f"{key} is {list(shape)}" for key, shape in shapes.items()]),
            "give an adapter that a model can have: no module is as large",
        )
    return whole


def _wanted(parts: Mapping[str, str]) -> str:
    """The form that has most of some tensors, in words."""
    form = max(STORED_FORMS, key=lambda form: len(set(form.keys) & set(parts)))
    return f"{form.title} has {listed(list(form.keys), len(form.keys))}"
