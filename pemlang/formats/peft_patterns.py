"""PEFT's ways of naming modules in a config, matched as PEFT matches them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft_names import CONFIG

# A config comes from anywhere, and some regular expressions take for ever. These do not.
_SLOW = re.compile(r"\)\s*[*+{]|\\\d|\(\?P")
_REPEAT = re.compile(r"(?<!\\)[*+{]")
_OPTION = re.compile(r"(?<![\\(*+}?])\?")  # not of a group, not of a lazy repeat
MAX_REPEATS = 3
MAX_OPTIONS = 8


@lru_cache(maxsize=1 << 14)
def _compiled(pattern: str, frame: str) -> re.Pattern[str]:
    """The pattern inside PEFT's frame around it, where `%` stands for it."""
    repeats, options = len(_REPEAT.findall(pattern)), len(_OPTION.findall(pattern))
    # Each option doubles the work of the repeats before it.
    slow = repeats > MAX_REPEATS or options > (MAX_OPTIONS if repeats < MAX_REPEATS else 0)
    try:
        if slow or _SLOW.search(pattern) or len(pattern) > 10_000:
            raise re.error("it repeats too much")
        return re.compile(frame.replace("%", pattern))
    except (re.error, RecursionError, OverflowError) as error:
        why = error.msg if isinstance(error, re.error) else "it is too large"
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
        if key == site or _compiled(key, r"(.*\.)?(%)$").match(site):
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
        return bool(_compiled(modules, "%").fullmatch(site))
    parts = site.split(".")
    return any(".".join(parts[start:]) in modules for start in range(len(parts)))


def in_layers(layers: object, patterns: object, site: str) -> bool:
    """Whether `layers_to_transform` takes a site that a list of targets names by its end.

    Source: PEFT `tuners_utils.py`, `check_target_module_exists`.
    """
    if layers is None or layers == []:
        return True
    given = patterns if isinstance(patterns, list) else [patterns]
    names = given if patterns else [r"[^.]*"]
    frame = r"(?:^|.*?\.)%\.(?P<index>\d+)\." if patterns else r".*?\.%\.(?P<index>\d+)\."
    match = next(filter(None, (_compiled(str(n), frame).match(site) for n in names)), None)
    taken = layers if isinstance(layers, list) else [layers]
    return match is not None and int(match["index"]) in taken


def feeds_forward(modules: str | Collection[str] | None, site: str) -> bool:
    """Whether `feedforward_modules` names a site.

    Source: PEFT `tuners/ia3/model.py`, `_check_target_module_feedforward`: in a list any ending
    of the name will do, a whole part of it or not.
    """
    if modules is None or isinstance(modules, str):
        return targets(modules, site)
    return any(site.endswith(name) for name in modules)
