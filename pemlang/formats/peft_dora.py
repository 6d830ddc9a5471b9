"""DoRA as PEFT stores it: a magnitude beside the factors of each site."""

from __future__ import annotations

from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft_names import CONFIG
from pemlang.modules.dora import magnitude_shape
from pemlang.modules.sites import SiteShape
from pemlang.tensorfiles.safetensors import TensorEntry

MAGNITUDE = "lora_magnitude_vector"


def dora_shape(site: str, shape: SiteShape, magnitude: TensorEntry) -> SiteShape:
    """The shape of a site by that of its LoRA; raises PEM0417 for a magnitude that does not fit."""
    wanted = magnitude_shape(shape)
    if magnitude.shape != wanted:
        raise Fault(
            "PEM0417",
            f"the magnitude of site {visible(site)} is {list(magnitude.shape)}, and its B has "
            f"{shape.b[0]} outputs",
            f"save the adapter again with PEFT: it is {list(wanted)}",
        )
    return shape._replace(kind="dora")


def hold_one(first: str, other: str) -> None:
    """Raise PEM0417 for two tensors of one factor: PEFT has called a magnitude by two names."""
    if first != other:
        raise Fault(
            "PEM0417",
            f"{visible(first)} and {visible(other)} are one factor of one site",
            "take one of them out of the file",
        )


def unlike_config(site: str, dora: bool) -> Fault:
    """PEM0415: a site with a magnitude where the config says no DoRA, or the other way round."""
    if dora:
        return Fault(
            "PEM0415",
            f"the config says `use_dora`, and site {visible(site)} has no {MAGNITUDE}: PEFT would "
            "take the length that the base has there",
            f"save the adapter again with PEFT, or mend `use_dora` in {CONFIG}",
        )
    return Fault(
        "PEM0415",
        f"site {visible(site)} has a {MAGNITUDE}, but `use_dora` is not set in the config: PEFT "
        "would ignore it",
        f"set `use_dora` to true in {CONFIG}",
    )
