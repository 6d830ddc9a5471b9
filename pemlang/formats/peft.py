"""The format of PEFT: its config and the header of its tensors, put together."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from pemlang.diagnostics import Fault, listed, told_of, visible
from pemlang.disk import is_dir, is_file, lfs_pointer
from pemlang.formats import peft_bias
from pemlang.formats.adapter import STATISTICS, Adapter, ByIdentity, Layout, kinds_text
from pemlang.formats.mlx_detect import mlx_config
from pemlang.formats.namings import MAX_NAME
from pemlang.formats.patterns import one_config
from pemlang.formats.peft_config import (
    Config,
    Scaling,
    parse_config,
    read_config,
)
from pemlang.formats.peft_dora import MAGNITUDE, hold_one, unlike_config
from pemlang.formats.peft_experts import (
    ExpertTensor,
    adapted_modules,
    expert_tensors,
    parameters_of,
)
from pemlang.formats.peft_names import CONFIG, PICKLED, PREFIX, ROWS, WEIGHTS
from pemlang.formats.peft_patterns import CHOOSING, left_out_by, look_up, module_of
from pemlang.formats.peft_renamed import head_of, with_names, without_leavings
from pemlang.formats.peft_sites import expert_site, gain_site, lora_site
from pemlang.formats.peft_trained import with_trained
from pemlang.formats.readers import READERS, OutputReader
from pemlang.formats.record import AdapterSpec, Detection, Format, OutputLayout, register
from pemlang.formats.signature import Malformed, headers_restored, headers_signature
from pemlang.formats.stored_sites import TITLES, stored_site
from pemlang.formats.uniform import equal_ranks, equal_scales, module_scales
from pemlang.modules import PARAMETRISATIONS, Shapes
from pemlang.modules.dense import DENSE
from pemlang.modules.sites import module_of_bias
from pemlang.tensorfiles.safetensors import Header, TensorEntry, float_dtypes, read_header

_KEY = re.compile(
    r"(?P<site>.+)\.(?:(?P<lora>lora_[AB])\.weight|(?P<embedding>lora_embedding_[AB])"
    r"|(?P<gain>ia3_l)|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?|(?P<bias>lora_B\.bias))"
)
_STORED_KEY = re.compile(
    r"(?P<site>.+)\.(?P<stored>lora_[ABE]|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))"
)
# What PEFT adds of the base itself, where an embedding that it adapts was given more rows.
_OF_BASE = re.compile(r"\.base_layer\.\w+$")
# Pieces of keys that belong to features peft_config.UNSUPPORTED names.
_FOREIGN = (
    "lora_",
    "ia3_",
    "token_adapter",
    "trainable_tokens",
    "kasa_",
    "vera_",
    "hada_",
    "lokr_",
)


class Peft(Format):
    """PEFT's directories: a config beside a safetensors file, or, older, beside
    a pickle, of which tensors are read and nothing is run."""

    name = "peft"
    weights = WEIGHTS
    texts = (CONFIG,)
    pickled = PICKLED
    library = "peft"
    told_of = frozenset(
        "peft_type base_model_name_or_path r lora_alpha rank_pattern alpha_pattern use_rslora "
        "fan_in_fan_out target_modules modules_to_save feedforward_modules peft_version".split()
    )

    def detect(self, place: Path) -> Detection:
        """See Format."""
        present = [name for name in (CONFIG, WEIGHTS, PICKLED) if is_file(place / name)]
        pointer = lfs_pointer(place / WEIGHTS) is not None
        whole = not pointer and (WEIGHTS in present or PICKLED in present)
        fits = CONFIG in present and mlx_config(place) is None
        return Detection(fits, whole, " and ".join(present) or f"no {CONFIG}")

    def read(self, place: Path) -> Adapter:
        """See Format.

        Raises:
            Fault: what read_config, read_header and read_pickled_header raise; PEM0415 when config
                and tensors disagree, PEM0416 a tensor that is no part of an adapter, PEM0417
                factors that do not fit each other, PEM0418 no factors at all, PEM0419 a dtype that
                is not a float, PEM0421 a feature the algebra cannot keep.
        """
        config = read_config(place)
        weights, pickled = place / WEIGHTS, place / PICKLED
        if is_file(weights) or is_dir(weights):
            header = read_header(weights)
        elif is_file(pickled) or is_dir(pickled):
            from pemlang.tensorfiles.pickled import read_pickled_header

            weights = pickled
            header = read_pickled_header(weights)
        else:
            raise Fault(
                "PEM0410",
                f"{visible(place)} has no {WEIGHTS} or {PICKLED}",
                _instead_of_weights(place),
            )
        beside = place / STATISTICS
        statistics = read_header(beside) if is_file(beside) else None
        return assemble(place, weights, config, header, statistics)

    def of_header(self, place: Path, header: Header) -> Adapter:
        """See Format."""
        return assemble(place, place / WEIGHTS, read_config(place), header)

    def files(self, adapter: Adapter) -> list[Path]:
        """See Format."""
        return [adapter.directory / CONFIG, adapter.weights]

    def signature(self, adapter: Adapter) -> dict[str, object]:
        """See Format: `config`, `tensors`, and `statistics` where it has some."""
        fields = {k: v for k, v in sorted(adapter.fields.items()) if v is not None}
        return {"config": fields, **headers_signature(adapter)}

    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """See Format."""
        config = signature.get("config")
        if not isinstance(config, dict):
            raise Malformed("it has no config")
        header, statistics = headers_restored(signature)
        return assemble(
            directory,
            directory / weights,
            parse_config(json.dumps(config).encode(), str(directory / CONFIG)),
            header,
            statistics,
        )

    def modules(self, adapter: Adapter) -> list[str]:
        """See Format: its heads too."""
        heads = map(head_of, adapter.layout.heads)
        return list(dict.fromkeys([*adapter.layout.shapes.modules, *heads]))

    def renamed(self, adapter: Adapter, names: Mapping[str, str]) -> Adapter:
        """See Format."""
        return with_names(super().renamed(adapter, names), names)

    def hold(self, shapes: Shapes, whole_modules: Sequence[str]) -> None:
        """See Format; raises PEM0346 and PEM0421."""
        for head in whole_modules:
            inside = [site for site in shapes if f".{head}." in f".{site}."]
            if inside:
                raise Fault(
                    "PEM0346",
                    f"{listed(inside)} would be changed, and {visible(head)} is saved whole "
                    "(modules_to_save): PEFT does not adapt what it saves whole",
                    'leave these modules out, as in x["*.q_proj", "*.v_proj"]',
                )
        twice = [s for s in shapes if module_of_bias(s) in shapes and shapes[s].layer != DENSE.name]
        if twice:
            raise Fault(
                "PEM0421",
                f"{listed(twice)} has the name that the bias of another of the modules has",
                "leave one of the two out, or give it another name with names=",
            )
        parameters_of(shapes)
        plain = shapes.kinds in (("ia3",), ("dora",)) or {*shapes.kinds} <= {"lora", "expert_lora"}
        if plain or peft_bias.beside_loras(shapes):
            return
        help = "save the sites of one kind; a bias is saved with the LoRA of its module"
        if shapes.kinds == (DENSE.name,):
            matrices = any(len(shape.a) > 1 for shape in shapes.values())
            lora = "; or make a LoRA of it: compress(x, rank=16)"
            help = f"add it to a model and save that, b + x{lora if matrices else ''}"
        raise Fault(
            "PEM0421",
            f"this is {kinds_text(shapes.kinds)}: a file of PEFT holds LoRA, (IA)³ or DoRA alone",
            help,
        )

    def needed(self, shapes: Shapes, written: Collection[str]) -> list[str]:
        """See Format: the LoRA that a bias is beside."""
        return [module for module in map(module_of_bias, written) if module in shapes]

    def stored_ranks(
        self, shapes: Shapes, ranks: Mapping[str, int], reader: OutputReader | None
    ) -> Mapping[str, int]:
        """See Format."""
        return equal_ranks(shapes, ranks, reader)

    def stored_scales(
        self,
        shapes: Shapes,
        ranks: Mapping[str, int],
        scales: Mapping[str, float],
        reader: OutputReader | None,
    ) -> Mapping[str, float]:
        """See Format; PEFT itself reads unlike ones, and stores a bias at that of its module."""
        own = module_scales(scales) if reader is READERS[self.name] else equal_scales(scales)
        return peft_bias.scales_with_biases(own, shapes)

    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """See Format; raises PEM0367."""
        from pemlang.formats.peft_write import peft_layout

        return peft_layout(spec)

    def loading(self, base: str) -> Sequence[str]:
        """See Format."""
        return (
            "from peft import PeftModel",
            "",
            f"base_model = ...  # {base}, as transformers loads it",
            "model = PeftModel.from_pretrained(base_model, path_of_this_directory)",
        )


PEFT = register(Peft())


def assemble(
    directory: Path,
    weights: Path,
    config: Config,
    header: Header,
    statistics: Header | None = None,
) -> Adapter:
    """Config and headers put together; raises as Peft.read."""
    with told_of(weights):
        header, config = without_leavings(header, config)
        with one_config():
            experts = expert_tensors(header.entries, config)
            layout = _layout(ByIdentity(header.entries), config.kind, config.feedforward, experts)
            _all_targeted(layout, json.dumps([config.raw.get(f) for f in CHOOSING]))
            scales = _scales(layout, config.scaling)
            layout = peft_bias.with_scales(layout, scales, config.lora_bias)
            layout = with_trained(layout, config.raw, config.modules_to_save)
    return Adapter(
        PEFT,
        directory,
        weights,
        header,
        layout,
        scales,
        base=config.base,
        fan_in_fan_out=config.fan_in_fan_out,
        whole_modules=config.modules_to_save,
        variant="rsLoRA" if config.scaling.rslora else "",
        fields=config.raw,
        statistics=statistics,
    )


@lru_cache(maxsize=64)
def _layout(
    key: ByIdentity,
    kind: str,
    feedforward: str | tuple[str, ...],
    experts: tuple[ExpertTensor, ...],
) -> Layout:
    entries: Mapping[str, TensorEntry] = key.it  # type: ignore[assignment]
    factors: dict[str, dict[str, str]] = {}
    heads: dict[str, TensorEntry] = {}
    of_experts = {x.key: (x.site, x.factor) for x in experts}
    expert_ranks = {x.site: x.rank for x in experts}
    for name, entry in entries.items():
        _hold_there(name, entry, kind)
        site, factor = of_experts.get(name) or _role(name, kind in TITLES)
        if factor is None:
            heads[name] = entry
        else:
            first = factors.setdefault(site, {}).setdefault(factor, name)
            hold_one(first, name)
    read = gain_site if kind == "ia3" else lora_site
    shapes, ranks, keys, stored = {}, {}, {}, {}
    dtypes = set[str]()
    for site, parts in factors.items():
        bias = parts.pop(peft_bias.KEY, None)
        if kind in TITLES:
            stored[site] = stored_site(site, parts, entries)
            keys[site] = tuple(parts[factor] for factor in stored[site].form.keys)
        else:
            keys[site] = _factor_keys(site, parts, kind)
        tensors = [entries[name] for name in keys[site]]
        dtypes |= float_dtypes([key for key in (*keys[site], bias) if key], entries)
        if kind in TITLES:
            shapes[site], ranks[site] = stored[site].shape, stored[site].rank
        elif site in expert_ranks:
            ranks[site] = expert_ranks[site]
            shapes[site] = expert_site(site, tensors, ranks[site])
        else:
            shapes[site], ranks[site] = read(site, parts, tensors, feedforward)
        if bias is not None:
            beside, shape = peft_bias.bias_site(site, shapes[site], bias, entries[bias], factors)
            shapes[beside], keys[beside] = shape, (bias,)
    if not shapes:
        title = TITLES[kind] if kind in TITLES else PARAMETRISATIONS[kind].title
        raise Fault(
            "PEM0418",
            f"it holds no {title} tensors",
            f"save the adapter with save_pretrained, or mend `peft_type` in {CONFIG}",
        )
    lora_ranks = {site: rank for site, rank in sorted(ranks.items()) if rank}
    return Layout(
        Shapes(shapes), MappingProxyType(lora_ranks), keys, dict(sorted(heads.items())),
        frozenset(dtypes), frozenset(name for name in heads if _OF_BASE.search(name)), stored,
    )  # fmt: skip


def _hold_there(name: str, entry: TensorEntry, kind: str) -> None:
    """Raise PEM0417 for a tensor without numbers; training may prune all that AdaLoRA has of a
    module."""
    if not all(entry.shape) and not (kind == "adalora" and len(entry.shape) == 2):
        raise Fault(
            "PEM0417",
            f"{visible(name)} is empty, of shape {list(entry.shape)}: it was saved while "
            "DeepSpeed's ZeRO-3 had its numbers elsewhere",
            "save it again with stage3_gather_16bit_weights_on_model_save=true",
        )


def _factor_keys(site: str, parts: Mapping[str, str], kind: str) -> tuple[str, ...]:
    """The keys of the factors of a site, in order; raises PEM0417 where they are not these."""
    wanted: tuple[str, ...] = ("ia3_l",) if kind == "ia3" else ("lora_A", "lora_B")
    if "lora_embedding_A" in parts and kind != "ia3":
        wanted = ("lora_embedding_A", "lora_embedding_B")
    if (MAGNITUDE in parts) != (kind == "dora"):
        raise unlike_config(site, kind == "dora")
    wanted += (MAGNITUDE,) * (kind == "dora")
    if set(parts) != set(wanted):
        raise Fault(
            "PEM0417",
            f"site {visible(site)} has {listed(sorted(parts))}, it should have "
            f"{' and '.join(wanted)}",
            "save the adapter again with PEFT",
        )
    return tuple(parts[factor] for factor in wanted)


def _role(name: str, stored: bool) -> tuple[str, str | None]:
    """The site and factor a key names; no factor for a head.

    Args:
        name: the key.
        stored: whether the factors are those of a stored form.
    """
    own = name.startswith(PREFIX) and len(name) <= MAX_NAME
    pattern = _STORED_KEY if stored else _KEY
    match = pattern.fullmatch(name.removeprefix(PREFIX)) if own else None
    if match is not None and stored:
        return match["site"], match["stored"]
    if match is not None:
        site = match["site"]
        if site.endswith(".base_layer"):
            raise Fault(
                "PEM0415",
                f"{visible(name)} is of a parameter, and no `target_parameters` in the config "
                "names one there",
                f"mend `target_parameters` in {CONFIG}",
            )
        factor = match["lora"] or match["embedding"] or match["gain"]
        return site, factor or match["magnitude"] or match["bias"]
    inner = name.removeprefix(PREFIX)
    if own and inner.endswith(ROWS):
        return inner, None
    foreign = any(part.startswith(_FOREIGN) for part in inner.split("."))
    if foreign or not own or inner == name or not inner.endswith((".weight", ".bias")):
        raise Fault(
            "PEM0416",
            f"{visible(name)} is no tensor of a LoRA or (IA)³ adapter that PEFT saves",
            f"save it with PEFT, whose keys are {PREFIX}….lora_A.weight, lora_B.weight or ia3_l",
        )
    return inner, None


MAX_LOOKED_AT = 1000
"""Entries of a folder that has no weights."""


def _instead_of_weights(place: Path) -> str:
    """What to write where a folder has no file of weights by PEFT's own name."""
    try:
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in islice(entries, MAX_LOOKED_AT))
    except OSError:
        names = []
    others = [x for x in names if x.endswith(Path(WEIGHTS).suffix) and x != STATISTICS]
    if not others:
        return "give the directory that PEFT's save_pretrained wrote"
    if len(others) == 1:
        return f"rename {visible(others[0])} to {WEIGHTS}, which is what PEFT reads"
    return f"put the tensors of {listed(others)} into one {WEIGHTS}, which is what PEFT reads"


@lru_cache(maxsize=64)
def _all_targeted(layout: Layout, fields: str) -> None:
    """Hold the tensors to what the config targets: PEFT ignores any other."""
    spec: list[object] = json.loads(fields)
    spec[:2] = [frozenset(v) if isinstance(v, list) else v for v in spec[:2]]
    for site in adapted_modules(layout.shapes):
        field = left_out_by(module_of(site), *spec)
        if field is not None:
            raise Fault(
                "PEM0415",
                f"it holds factors of {visible(site)}, but `{field}` in the config leaves that "
                "module out: PEFT would ignore them",
                f"mend `{field}` in {CONFIG}",
            )


@lru_cache(maxsize=64)
def _scales(layout: Layout, scaling: Scaling) -> Mapping[str, float]:
    scales = {}
    for site in layout.ranks:
        name = module_of(site)
        wanted = look_up(scaling.rank_pattern, name, scaling.rank)
        rank = layout.trained_rank(site, wanted)
        if wanted != rank:
            raise Fault(
                "PEM0415",
                f"site {visible(site)} has rank {rank}, but the config says {wanted}: the scale "
                f"may be α/{rank} or α/{wanted}",
                f"mend `{'init_r' if scaling.adalora else 'r'}` or `rank_pattern` in {CONFIG}",
            )
        scales[site] = scaling.scale(rank, look_up(scaling.alpha_pattern, name, scaling.alpha))
    return MappingProxyType(scales)
