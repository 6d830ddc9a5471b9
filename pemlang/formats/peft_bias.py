"""A LoRA's bias on B, PEFT's `lora_bias`: W changes by s·B·A, the module's bias by s·bias."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import replace

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Layout
from pemlang.formats.peft_names import CONFIG
from pemlang.modules import PARAMETRISATIONS, Shapes, SiteShape
from pemlang.modules.dense import DENSE
from pemlang.modules.lora import LORA
from pemlang.modules.sites import EXPERTS, bias_of
from pemlang.modules.stored import StoredVector
from pemlang.tensorfiles.safetensors import TensorEntry

KEY = "lora_B.bias"
"""What PEFT calls it beside the factors of a module."""


def bias_site(
    module: str, shape: SiteShape, key: str, entry: TensorEntry, modules: Container[str]
) -> tuple[str, SiteShape]:
    """The site of a bias beside a LoRA; raises PEM0417 where it does not fit this, or one of the
    modules has its name."""
    fits = entry.shape == shape.b[:1] and shape.layer != "embedding"
    if not fits or bias_of(module) in modules:
        raise Fault(
            "PEM0417",
            f"{visible(key)} of shape {list(entry.shape)} is no bias of {visible(module)}, which "
            f"is {shape}",
            "save the adapter again with PEFT",
        )
    return bias_of(module), SiteShape(DENSE.name, DENSE.name, entry.shape)


def with_scales(layout: Layout, scales: Mapping[str, float], on: bool) -> Layout:
    """The layout whose biases are times the scales of their modules; raises PEM0415 where the
    config does not turn them on."""
    biases = {module: bias for module in layout.ranks if (bias := bias_of(module)) in layout.shapes}
    if biases and not on:
        raise Fault(
            "PEM0415",
            f"it holds the bias of {listed(list(biases))}, but `lora_bias` in the config is not "
            "set: PEFT would ignore it",
            f"mend `lora_bias` in {CONFIG}",
        )
    stored = {bias: StoredVector("lora_bias", scales[module]) for module, bias in biases.items()}
    return replace(layout, stored={**layout.stored, **stored}) if stored else layout


def beside_loras(shapes: Shapes) -> bool:
    """Whether the sites of an output are LoRAs, and biases beside some of them; raises PEM0421 for
    layers that PEFT has none for."""
    modules = shapes.only(frozenset(shapes.modules))
    if {PARAMETRISATIONS[kind].family or kind for kind in modules.kinds} != {LORA.name}:
        return False
    bare = ("embedding", EXPERTS)
    without = [s for s in modules if modules[s].layer in bare or ".base_layer." in s]
    if without:
        raise Fault(
            "PEM0421",
            f"{listed(without)} cannot have a bias on B in PEFT, where all modules of an adapter "
            "have one or none has",
            "leave these modules out, or save them by themselves",
        )
    return True


def scales_with_biases(scales: Mapping[str, float], shapes: Collection[str]) -> Mapping[str, float]:
    """The scales of modules, none of them 0, and those of the biases beside them."""
    own = {module: scale or 1.0 for module, scale in scales.items()}
    biases = {bias: scale for module, scale in own.items() if (bias := bias_of(module)) in shapes}
    return {**own, **biases} if biases else scales
