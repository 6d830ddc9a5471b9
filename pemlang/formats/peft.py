"""A PEFT adapter directory: its config and the header of its tensors, put together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft_config import UNSUPPORTED, Config, read_config
from pemlang.formats.peft_patterns import feeds_forward, in_layers, look_up, module_of, targets
from pemlang.modules.sites import Method, Shapes, SiteShape
from pemlang.tensorfiles.disk import is_dir, is_file
from pemlang.tensorfiles.safetensors import Entry, Header, read_header

PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
STATISTICS = "statistics.safetensors"
KINDS_OF_STATISTICS = ("gram", "fisher_A", "fisher_B", "fisher_l")
MAX_NAME = 512  # patterns of a config are matched with names: time grows with both
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")

_KEY = re.compile(
    r"(?P<site>.+)\.(?:(?P<lora>lora_[AB])\.weight|(?P<embedding>lora_embedding_[AB])"
    r"|(?P<gain>ia3_l)|(?P<magnitude>lora_magnitude_vector.*)|(?P<bias>lora_[AB]\.bias))"
)
# Pieces of keys that belong to features config.UNSUPPORTED names.
_FOREIGN = ("lora_", "ia3_", "token_adapter", "trainable_tokens", "kasa_", "vera_")


@dataclass(frozen=True, eq=False)
class Layout:
    """What the names and shapes of a file's tensors say.

    Attributes:
        shapes: the sites.
        ranks: the rank at each site, from the tensors; empty for (IA)³.
        factors: site to the keys of its factors: (A, B) for LoRA, (l,) for (IA)³.
        heads: keys of whole tensors saved beside the adapter (`modules_to_save`).
        dtypes: the dtypes of the factors.
    """

    shapes: Shapes
    ranks: Mapping[str, int]
    factors: Mapping[str, tuple[str, ...]]
    heads: Mapping[str, Entry]
    dtypes: frozenset[str]


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter as the checker knows it: everything but the numbers in its tensors.

    Attributes:
        directory: where it is.
        weights: the file that holds its tensors.
        config: its adapter_config.json.
        header: the places of its tensors.
        layout: its sites and factors.
        scales: s at each site; empty for (IA)³.
        statistics: the header of what was collected beside it for data-aware merges, if it was.
    """

    directory: Path
    weights: Path
    config: Config
    header: Header
    layout: Layout
    scales: Mapping[str, float]
    statistics: Header | None = None

    @property
    def statistics_file(self) -> Path:
        """Where its statistics lie, if they do."""
        return self.directory / STATISTICS

    @property
    def method(self) -> Method:
        return self.config.method


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a directory, from its config and the header of its tensors alone.

    Raises:
        Fault: what read_config, read_header and read_pickled_header raise; PEM0415 when config
            and tensors disagree, PEM0416 a tensor that is no part of an adapter, PEM0417 factors
            that do not fit each other, PEM0418 no factors at all, PEM0419 a dtype that is not a
            float, PEM0421 a feature the algebra cannot keep.
    """
    config = read_config(directory)
    weights = directory / WEIGHTS
    pickled = directory / PICKLED
    if is_file(weights) or is_dir(weights):
        header = read_header(weights)
    elif is_file(pickled) or is_dir(pickled):
        from pemlang.tensorfiles.pickled import read_pickled_header

        weights = pickled
        header = read_pickled_header(weights)
    else:
        raise Fault(
            "PEM0410",
            f"{visible(directory)} has no adapter_model.safetensors or adapter_model.bin",
            "give the directory that PEFT's save_pretrained wrote",
        )
    beside = directory / STATISTICS
    statistics = read_header(beside) if is_file(beside) else None
    return assemble(directory, weights, config, header, statistics)


def statistics_at(adapter: Adapter, site: str) -> list[str]:
    """The keys of the statistics that an adapter has of a site, in one order at every site."""
    if adapter.statistics is None:
        return []
    keys = (f"{site}.{kind}" for kind in KINDS_OF_STATISTICS)
    return [key for key in keys if key in adapter.statistics.entries]


def assemble(
    directory: Path,
    weights: Path,
    config: Config,
    header: Header,
    statistics: Header | None = None,
) -> Adapter:
    """Config and headers put together; raises as read_adapter."""
    try:
        layout = _layout(_ByIdentity(header.entries), config.method, config.feedforward)
        _all_targeted(_ByIdentity(layout), json.dumps([config.raw.get(f) for f in _TARGETING]))
        scales = _scales(layout, config)
    except Fault as fault:
        message = f"{visible(weights)}: {fault.message}"
        raise Fault(fault.code, message, fault.help, fault.notes) from None
    return Adapter(directory, weights, config, header, layout, scales, statistics)


class _ByIdentity:
    """A cache key: the same object, whatever it holds. read_header shares equal headers."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)  # stays its own: the key keeps the object alive

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.it is other.it


@lru_cache(maxsize=64)
def _layout(key: _ByIdentity, method: Method, feedforward: str | tuple[str, ...]) -> Layout:
    entries: Mapping[str, Entry] = key.it  # type: ignore[assignment]
    factors: dict[str, dict[str, str]] = {}
    heads: dict[str, Entry] = {}
    for name, entry in entries.items():
        site, factor = _role(name)
        if factor is None:
            heads[name] = entry
        else:
            factors.setdefault(site, {})[factor] = name
    read = _lora_site if method == "lora" else _gain_site
    shapes, ranks, keys, dtypes = {}, {}, {}, set()
    for site, parts in factors.items():
        wanted = ("lora_A", "lora_B") if method == "lora" else ("ia3_l",)
        if "lora_embedding_A" in parts and method == "lora":
            wanted = ("lora_embedding_A", "lora_embedding_B")
        if set(parts) != set(wanted):
            raise Fault(
                "PEM0417",
                f"site {visible(site)} has {listed(sorted(parts))}, it should have "
                f"{' and '.join(wanted)}",
                "save the adapter again with PEFT",
            )
        keys[site] = tuple(parts[factor] for factor in wanted)
        found = [entries[name] for name in keys[site]]
        for name, entry in zip(keys[site], found, strict=True):
            if entry.dtype not in FLOATS:
                raise Fault(
                    "PEM0419",
                    f"{visible(name)} is of dtype {entry.dtype}",
                    f"save it as one of {', '.join(FLOATS)}",
                )
            dtypes.add(entry.dtype)
        shapes[site], ranks[site] = read(site, parts, found, feedforward)
    if not shapes:
        raise Fault(
            "PEM0418",
            f"it holds no {'LoRA' if method == 'lora' else '(IA)³'} tensors",
            "was the adapter saved with save_pretrained, and is its peft_type right?",
        )
    lora_ranks = {site: rank for site, rank in sorted(ranks.items()) if rank}
    return Layout(
        Shapes(shapes), MappingProxyType(lora_ranks), keys, dict(sorted(heads.items())),
        frozenset(dtypes),
    )  # fmt: skip


def _role(name: str) -> tuple[str, str | None]:
    """The site and factor a key names; no factor for a head."""
    own = name.startswith(PREFIX) and len(name) <= MAX_NAME
    match = _KEY.fullmatch(name.removeprefix(PREFIX)) if own else None
    if match is not None:
        site = match["site"]
        if match["magnitude"]:
            raise _feature(name, "use_dora")
        if match["bias"]:
            raise _feature(name, "lora_bias")
        if site.endswith(".base_layer"):
            raise _feature(name, "target_parameters")
        return site, match["lora"] or match["embedding"] or match["gain"]
    inner = name.removeprefix(PREFIX)
    if "token_adapter" in inner or "trainable_tokens" in inner:
        raise _feature(name, "trainable_token_indices")
    foreign = any(part.startswith(_FOREIGN) for part in inner.split("."))
    if foreign or not own or inner == name or not inner.endswith((".weight", ".bias")):
        raise Fault(
            "PEM0416",
            f"{visible(name)} is no tensor of a LoRA or (IA)³ adapter that PEFT saves",
            f"keys start with {PREFIX} and end in lora_A.weight, lora_B.weight or ia3_l",
        )
    return inner, None


def _feature(name: str, field: str) -> Fault:
    return Fault(
        "PEM0421",
        f"{visible(name)} belongs to `{field}`: {UNSUPPORTED[field]}",
        f"use an adapter trained without `{field}`",
    )


_LORA_LAYERS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}


def _lora_site(
    site: str, parts: Mapping[str, str], found: list[Entry], _: str | tuple[str, ...]
) -> tuple[SiteShape, int]:
    a, b = (entry.shape for entry in found)
    layer = "embedding" if "lora_embedding_A" in parts else _LORA_LAYERS.get(len(a), "")
    rank = a[0] if a else 0
    fits = len(a) == len(b) and layer and all(a + b) and all(n == 1 for n in b[2:])
    if layer == "embedding":
        fits = fits and len(a) == 2
    if fits and len(a) > 2 and b[1] != rank and rank % b[1] == 0:
        raise Fault(
            "PEM0421",
            f"site {visible(site)} is a grouped convolution: its B of shape {list(b)} joins "
            f"only parts of the {rank} rows of A",
            "leave this site out of the adapter",
        )
    if not fits or b[1] != rank:
        raise Fault(
            "PEM0417",
            f"the factors of site {visible(site)} do not fit: A is {list(a)}, B is {list(b)}",
            "A is (rank, in), B is (out, rank); save the adapter again with PEFT",
        )
    return SiteShape(layer, a[1:], (b[0], *b[2:])), rank


def _gain_site(
    site: str, _: Mapping[str, str], found: list[Entry], feedforward: str | tuple[str, ...]
) -> tuple[SiteShape, int]:
    shape = found[0].shape
    inputs = feeds_forward(feedforward, site)
    along = 0 if len(shape) == 2 and not inputs else 1
    if (
        len(shape) < 2
        or any(n != 1 for axis, n in enumerate(shape) if axis != along)
        or not all(shape)
    ):
        where = "is a feed-forward module" if inputs else "is not a feed-forward module"
        wanted = "(1, in)" if inputs else "(out, 1)"
        raise Fault(
            "PEM0415",
            f"ia3_l of site {visible(site)} has shape {list(shape)}, but the config says it "
            f"{where}, whose vector is {wanted}",
            "mend `feedforward_modules` in adapter_config.json",
        )
    return SiteShape("gain_in" if inputs else "gain_out", shape), 0


_TARGETING = (
    "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern",
)  # fmt: skip


@lru_cache(maxsize=64)
def _all_targeted(key: _ByIdentity, fields: str) -> None:
    """Hold the tensors to what the config targets: PEFT ignores any other."""
    layout: Layout = key.it  # type: ignore[assignment]
    said: list[Any] = json.loads(fields)
    said[:2] = [frozenset(v) if isinstance(v, list) else v for v in said[:2]]
    for site in layout.shapes:
        field = _left_out_by(module_of(site), *said)
        if field is not None:
            raise Fault(
                "PEM0415",
                f"it holds factors of {visible(site)}, but `{field}` in the config leaves that "
                "module out: PEFT would ignore them",
                f"mend `{field}` in adapter_config.json",
            )


def _left_out_by(
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


def _scales(layout: Layout, config: Config) -> Mapping[str, float]:
    scales = {}
    for site, rank in layout.ranks.items():
        name, said = module_of(site), config.rank
        if config.rank_pattern:
            said = look_up(config.rank_pattern, name, said)
        if said != rank:
            raise Fault(
                "PEM0415",
                f"site {visible(site)} has rank {rank}, but the config says {said}: the scale may "
                f"be α/{rank} or α/{said}",
                "mend `r` or `rank_pattern` in adapter_config.json",
            )
        alpha = config.alpha
        if config.alpha_pattern:
            alpha = look_up(config.alpha_pattern, name, alpha)
        scales[site] = config.scale(rank, alpha)
    return MappingProxyType(scales)
