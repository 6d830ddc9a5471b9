"""LoRA of PEFT on parameters of a mixture of experts: `target_parameters` in a config.

A module whose parameters are adapted is wrapped once for each, the first of them innermost, so that
its factors are `M.lora_A.weight` of the last parameter, `M.base_layer.lora_A.weight` of the one
before. A is (experts·r, in), expert by expert; B is (out, r·experts), the experts of a column of B
side by side. A site is called as its parameter, `M.gate_up_proj`.

Source: PEFT `tuners/lora/layer.py`, `ParamWrapper`; `tuners_utils.py`, `_inject_parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.namings import MAX_NAME
from pemlang.formats.peft_config import Config
from pemlang.formats.peft_names import CONFIG, PREFIX
from pemlang.formats.peft_patterns import endings, look_up, targets
from pemlang.formats.uniform import experts_apart
from pemlang.modules import Shapes
from pemlang.modules.sites import EXPERTS

_KEY = re.compile(
    rf"{re.escape(PREFIX)}(?P<module>.+?)(?P<inside>(?:\.base_layer)*)\.(?P<factor>lora_[AB])\.weight"
)
# The order in which the modules of transformers have their parameters.
_ORDER = ("gate_up_proj", "down_proj")


@dataclass(frozen=True)
class ExpertTensor:
    """What a tensor of a file is.

    Attributes:
        key: its name.
        site, factor: what it belongs to, and `lora_A` or `lora_B`.
        rank: of each expert.
    """

    key: str
    site: str
    factor: str
    rank: int


def expert_tensors(keys: Iterable[str], config: Config) -> tuple[ExpertTensor, ...]:
    """The tensors of an adapter that are of parameters.

    Raises:
        Fault: PEM0415 a config that names others, or a DoRA of some;
            PEM0421 parameters whose order is not known.
    """
    wanted = config.raw.get("target_parameters")
    named: dict[str, set[str]] = {}
    for name in wanted if isinstance(wanted, list) else [wanted] * bool(wanted):
        place, _, parameter = str(name).rpartition(".")
        if all(str(name).split(".")):  # PEFT finds no parameter by another name
            named.setdefault(place, set()).add(parameter)
    modules: dict[str, dict[str, tuple[str, int]]] = {}
    for key in keys:
        match = _KEY.fullmatch(key) if named and len(key) <= MAX_NAME else None
        if match is not None:
            depth = match["inside"].count(".")
            modules.setdefault(match["module"], {})[key] = (match["factor"], depth)
    field = config.raw.get("target_modules")
    chosen = frozenset(map(str, field)) if isinstance(field, list) else field
    chosen = chosen if isinstance(chosen, str | frozenset) else None
    tensors = []
    for module, places in modules.items():
        parameters = set() if targets(chosen, module) else _parameters_named(module, named)
        if not parameters:
            continue
        if {depth for _, depth in places.values()} != set(range(len(parameters))):
            raise Fault(
                "PEM0415",
                f"`target_parameters` in the config names {listed(sorted(parameters))} of "
                f"{visible(module)}, and the file holds factors of "
                f"{len({depth for _, depth in places.values()})} of its parameters",
                f"mend `target_parameters` in {CONFIG}",
            )
        ordered = in_order(module, parameters)
        for key, (factor, depth) in places.items():
            site = f"{module}.{ordered[-1 - depth]}"
            rank = look_up(config.scaling.rank_pattern, site, config.scaling.rank)
            tensors.append(ExpertTensor(key, site, factor, rank))
    if tensors and config.raw.get("use_dora"):
        raise Fault(
            "PEM0415",
            "the config has `use_dora` and `target_parameters`: PEFT has no DoRA of parameters",
            f"mend `use_dora` in {CONFIG}",
        )
    return tuple(tensors)


def _parameters_named(module: str, named: Mapping[str, set[str]]) -> set[str]:
    """The parameters of a module that PEFT adapts: those that are called by how the name of the
    module ends, all of it, or nothing of it."""
    return set[str]().union(*(named.get(end, ()) for end in (*endings(module), "")))


def in_order(module: str, parameters: Iterable[str]) -> list[str]:
    """Some parameters of a module in the order that it has them; raises PEM0421 where that is not
    known."""
    names = sorted(parameters)
    if len(names) > 1 and not set(names) <= set(_ORDER):
        raise Fault(
            "PEM0421",
            f"{listed(names)} of {visible(module)} are adapted together: which of them the factors "
            "of a file belong to goes by their order in the model, which only the model tells",
            "adapt one parameter of a module, or merge the adapter into its base with PEFT: "
            "model.merge_and_unload()",
        )
    return sorted(names, key=_ORDER.index) if len(names) > 1 else names


def parameters_of(shapes: Shapes) -> dict[str, str]:
    """The module in whose place the factors of each site of experts stand in a file: `M`, or
    `M.base_layer`.

    Raises:
        Fault: as in_order; PEM0421 a module with LoRAs of single experts beside.
    """
    inside: dict[str, list[str]] = {}
    for site, shape in shapes.items():
        if shape.layer == EXPERTS:
            module, _, parameter = site.rpartition(".")
            inside.setdefault(module, []).append(parameter)
    for site in experts_apart(shapes):
        module = site.rpartition(".experts.")[0] + ".experts"
        if module in inside:
            raise Fault(
                "PEM0421",
                f"{visible(site)} is of one expert, and {visible(module)}.{inside[module][0]} of "
                "all in one parameter: PEFT would put the one in the place of the other",
                'leave one of the two out, as in x["*.self_attn.*"]',
            )
    return {
        f"{module}.{parameter}": module + ".base_layer" * depth
        for module, parameters in inside.items()
        for depth, parameter in enumerate(reversed(in_order(module, parameters)))
    }


def adapted_modules(shapes: Shapes) -> list[str]:
    """The sites that are modules: no parameters of experts, and no biases beside others."""
    return [site for site in shapes.modules if shapes[site].layer != EXPERTS]


def flat_shape(factor: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape in a file of a factor of experts: (experts·r, in) of A, (out, r·experts) of B."""
    first, second, third = shape
    return (first * second, third) if factor == "a" else (first, second * third)
