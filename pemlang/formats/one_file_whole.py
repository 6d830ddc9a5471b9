"""Whole differences in one-file LoRAs: of weights, of biases, and of norms, all of which add.

Source: LyCORIS, `algo=full` (`diff`, `diff_b`) and `train_norm` (`w_norm`, `b_norm`); ComfyUI adds
all four too, and takes `diff` of a norm. None of them has an α.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.record import AdapterSpec
from pemlang.modules import SiteShape
from pemlang.modules.dense import DENSE
from pemlang.modules.sites import bias_of, layer_of_weight, module_of_bias
from pemlang.tensorfiles.safetensors import TensorEntry

WEIGHTS, BIASES = ("diff", "w_norm"), ("diff_b", "b_norm")
WHOLE_ENDS = {f".{end}": end for end in (*WEIGHTS, *BIASES)}
"""What their keys end in, and what they are."""


def whole_sites(
    module: str,
    keys: Mapping[str, str],
    entries: Mapping[str, TensorEntry],
    factors: SiteShape | None,
    modules: Container[str],
) -> dict[str, tuple[SiteShape, str]]:
    """The sites of a module that are whole differences, each with its key.

    Args:
        module: its name.
        keys: those of its tensors that are such, by what they are called.
        entries: the header.
        factors: the shape of its LoRA, where it has one too.
        modules: all that the file names.

    Raises:
        Fault: PEM0417 tensors that do not fit each other.
    """
    of_weight = [keys[end] for end in WEIGHTS if end in keys]
    of_bias = [keys[end] for end in BIASES if end in keys]
    rows = None if factors is None else factors.b[0]
    twice = len(of_bias) > 1 or (of_bias and bias_of(module) in modules)
    if len(of_weight) + (factors is not None) > 1 or twice:
        raise Fault(
            "PEM0417",
            f"{listed(of_weight + of_bias)} would change what another tensor of "
            f"{visible(module)} changes",
            "save the file again: a module has a LoRA or a whole difference",
        )
    sites = {}
    for key in of_weight:
        shape = entries[key].shape
        layer = layer_of_weight(shape)
        if layer is None or not all(shape):
            raise _misfit(key, shape, module, "a weight has one to five axes")
        rows = shape[0]
        sites[module] = (SiteShape(DENSE.name, layer, shape), key)
    for key in of_bias:
        shape = entries[key].shape
        if len(shape) != 1 or not shape[0] or rows not in (None, shape[0]):
            raise _misfit(key, shape, module, f"it has {rows or 'some'} outputs")
        sites[bias_of(module)] = (SiteShape(DENSE.name, DENSE.name, shape), key)
    return sites


def _misfit(key: str, shape: tuple[int, ...], module: str, why: str) -> Fault:
    return Fault(
        "PEM0417",
        f"{visible(key)} of shape {list(shape)} does not fit {visible(module)}: {why}",
        "save the file again",
    )


def module_in_file(site: str, shape: SiteShape) -> str:
    """The module whose name the key of a site has."""
    return module_of_bias(site) if shape.layer == DENSE.name else site


def end_of_whole(spec: AdapterSpec, site: str) -> str:
    """What the key of a whole difference ends in: as in the first input that has it."""
    keys = (key for x in spec.inputs for key in x.layout.factors.get(site, ()))
    own = (end for key in keys for end in WHOLE_ENDS if key.endswith(end))
    return next(own, ".diff_b" if spec.shapes[site].layer == DENSE.name else ".diff")
