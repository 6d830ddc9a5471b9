"""PEFT's ways of naming modules in a config, matched as PEFT matches them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.patterns import BadPattern, Found, matched
from pemlang.formats.peft_names import CONFIG


def _found(pattern: str, name: str, frame: str = "%", whole: bool = False) -> Found | None:
    """What a pattern finds in a name, in PEFT's frame around it, where `%` stands for it."""
    try:
        return matched(pattern, name, frame, whole)
    except BadPattern as why:
        raise Fault(
            "PEM0424",
            f"the pattern `{visible(pattern, 80)}` in {CONFIG} cannot be used: {why}",
            "write the module names out",
        ) from None


def module_of(site: str) -> str:
    """The module by which a config names a site.

    PEFT adapts an nn.MultiheadAttention as two layers of one rank and α: itself, and the
    out_proj inside its `base_layer`.
    """
    return site.split(".base_layer.", 1)[0]


def look_up(pattern: Iterable[tuple[str, Any]], site: str, default: Any) -> Any:
    """The entry of a `rank_pattern` or `alpha_pattern`: the first key that matches the name's end.

    Source: PEFT `utils/other.py`, `get_pattern_key`.
    """
    for key, value in pattern:
        if key == site or _found(key, site, r"(.*\.)?(%)$"):
            return value
    return default


def targets(modules: str | Collection[str] | None, site: str) -> bool:
    """Whether `target_modules` names a site.

    Source: PEFT `tuners_utils.py`, `check_target_module_exists`: a string is a full match, a list
    matches exactly or by `.suffix`.
    """
    if modules is None:
        return False
    if isinstance(modules, str):
        return bool(_found(modules, site, whole=True))
    return any(end in modules for end in endings(site))


def endings(module: str) -> Iterator[str]:
    """What a name of a module may be written as: the whole of it, or its last parts."""
    yield module
    at = module.find(".")
    while at >= 0:
        yield module[at + 1 :]
        at = module.find(".", at + 1)


def in_layers(layers: object, patterns: object, site: str) -> bool:
    """Whether `layers_to_transform` takes a site that a list of targets names by its end.

    Source: PEFT `tuners_utils.py`, `check_target_module_exists`.
    """
    if layers is None or layers == []:
        return True
    given = patterns if isinstance(patterns, list) else [patterns]
    names = given if patterns else [r"[^.]*"]
    frame = r"(?:^|.*?\.)%\.(?P<index>\d+)\." if patterns else r".*?\.%\.(?P<index>\d+)\."
    match = next(filter(None, (_found(str(n), site, frame) for n in names)), None)
    taken = layers if isinstance(layers, list) else [layers]
    return match is not None and int(match["index"]) in taken


CHOOSING = (
    "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern",
)  # fmt: skip
"""The fields of a config that choose modules, in the order that `left_out_by` takes them."""


def left_out_by(
    module: str, wanted: Any, unwanted: Any, heads: Any, layers: Any, pattern: Any
) -> str | None:
    """The field of a config for which PEFT does not adapt a module, if there is one."""
    if targets(unwanted, module):
        return "exclude_modules"
    saved = [heads] if isinstance(heads, str) else heads or ()
    if any(f".{head}." in f".{module}." for head in saved):
        return "modules_to_save"
    if wanted is None or (isinstance(wanted, str) and wanted.lower() == "all-linear"):
        return None
    if not targets(wanted, module):
        return "target_modules"
    if isinstance(wanted, str) or module in wanted:
        return None
    return None if in_layers(layers, pattern, module) else "layers_to_transform"


def feeds_forward(modules: str | Collection[str] | None, site: str) -> bool:
    """Whether `feedforward_modules` names a site.

    Source: PEFT `tuners/ia3/model.py`, `_check_target_module_feedforward`: in a list any ending
    of the name will do, a whole part of it or not.
    """
    if modules is None or isinstance(modules, str):
        return targets(modules, site)
    return any(site.endswith(name) for name in modules)
