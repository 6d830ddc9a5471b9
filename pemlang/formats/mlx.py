"""LoRAs of mlx-lm: a config, and factors that are the transposes of PEFT's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.diagnostics import Fault, told_of, visible
from pemlang.disk import is_file, lfs_pointer
from pemlang.formats.adapter import Adapter, Layout
from pemlang.formats.holding import hold_plain_loras
from pemlang.formats.mlx_detect import mlx_config
from pemlang.formats.peft_names import CONFIG
from pemlang.formats.readers import OutputReader
from pemlang.formats.record import (
    AdapterSpec,
    Detection,
    Format,
    OutputLayout,
    OutputTensor,
    register,
)
from pemlang.formats.signature import Malformed, headers_restored, headers_signature
from pemlang.formats.uniform import equal_scales
from pemlang.modules import Shapes
from pemlang.modules.sites import layer_start
from pemlang.modules.stored import TRANSPOSED, StoredSite
from pemlang.tensorfiles.safetensors import Header, TensorEntry, float_dtypes, read_header

_FIELDS = ("model", "fine_tune_type", "num_layers", "lora_parameters")
"""What a config says of an adapter; the rest is how it was trained."""

_EMBEDDINGS = frozenset(
    "embed embed_in embed_tokens embed_tokens_per_layer embedding embeddings "
    "position_embedding_table tok_embeddings token_embeddings word_embeddings wpe wte".split()
)
"""What mlx-lm's models call their embeddings; their factors are called as all are."""

_FUSED = (
    "fuse it into its model, mlx_lm.fuse --model … --adapter-path … --save-path merged; what it "
    'changes is then m - b, of model m = "merged" and a model b, its base'
)
_ENDS = ("lora_a", "lora_b")
_METHOD = "lora"
_REFUSED = {
    "dora": "DoRA, which rescales the base's weights",
    "full": "whole weights of its model, and no changes of them",
}


class Mlx(Format):
    """mlx-lm's directories. All modules have one rank and one scale, which the config says:
    Δ = scale·(a·b)ᵀ of a (in, r) and b (r, out)."""

    name = "mlx"
    weights = "adapters.safetensors"
    texts = (CONFIG,)
    library = "mlx"
    told_of = frozenset(_FIELDS)
    keeps_heads = False

    def detect(self, place: Path) -> Detection:
        """See Format; PEFT's config has the same name."""
        fits = mlx_config(place) is not None
        there = is_file(place / self.weights)
        whole = fits and there and lfs_pointer(place / self.weights) is None
        saw = f"{self.weights} without a {CONFIG} of mlx-lm" * (there and not fits)
        return Detection(fits, whole, saw)

    def read(self, place: Path) -> Adapter:
        """See Format.

        Raises:
            Fault: what read_header raises; PEM0410 no config or no tensors, PEM0414 a config that
                is not what mlx-lm writes, PEM0415 one that its tensors disagree with, PEM0416 a
                tensor that is no factor, PEM0417 factors that do not fit each other, PEM0418 none
                at all, PEM0419 a dtype that is not a float, PEM0421 DoRA, whole weights, experts.
        """
        if not is_file(place / self.weights):
            raise _nothing(place, self.weights)
        return self.of_header(place, read_header(place / self.weights))

    def of_header(self, place: Path, header: Header) -> Adapter:
        """See Format."""
        config = mlx_config(place)
        if config is None:
            raise _nothing(place, f"{CONFIG} of mlx-lm")
        return self._assembled(place, place / self.weights, config, header)

    def _assembled(
        self, place: Path, weights: Path, config: Mapping[str, object], header: Header
    ) -> Adapter:
        """A config and a header put together; raises as `read`."""
        rank, scale, keys = _parameters(config, place / CONFIG)
        with told_of(weights):
            layout = _layout(header.entries, rank, keys)
        base = config.get("model")
        return Adapter(
            self,
            place,
            weights,
            header,
            layout,
            dict.fromkeys(layout.ranks, scale),
            base=base if isinstance(base, str) and base else None,
            fields={field: config[field] for field in _FIELDS if field in config},
        )

    def files(self, adapter: Adapter) -> list[Path]:
        """See Format."""
        return [adapter.directory / CONFIG, adapter.weights]

    def signature(self, adapter: Adapter) -> dict[str, object]:
        """See Format: `config`, `tensors`."""
        return {"config": dict(adapter.fields), **headers_signature(adapter)}

    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """See Format."""
        config = signature.get("config")
        if not isinstance(config, dict):
            raise Malformed("it has no config")
        header, _ = headers_restored(signature)
        return self._assembled(directory, directory / weights, config, header)

    def hold(self, shapes: Shapes, whole_modules: Sequence[str]) -> None:
        """See Format; raises PEM0421."""
        hold_plain_loras(shapes, "a file of mlx-lm")

    def stored_ranks(
        self, shapes: Shapes, ranks: Mapping[str, int], reader: OutputReader | None
    ) -> Mapping[str, int]:
        """See Format; one for all."""
        return dict.fromkeys(ranks, max(ranks.values()))

    def stored_scales(
        self,
        shapes: Shapes,
        ranks: Mapping[str, int],
        scales: Mapping[str, float],
        reader: OutputReader | None,
    ) -> Mapping[str, float]:
        """See Format; one for all."""
        return equal_scales(scales)

    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """See Format."""
        tensors = [
            OutputTensor(f"{site}.{end}", spec.dtype, shape[::-1], site, factor, turned=True)
            for site in spec.shapes
            for end, (factor, shape, _) in zip(_ENDS, spec.factors(site), strict=True)
        ]
        text = json.dumps(_config(spec), indent=4, sort_keys=True, ensure_ascii=False)
        return OutputLayout({self.weights: tensors}, {CONFIG: text + "\n"})

    def loading(self, base: str) -> Sequence[str]:
        """See Format."""
        return (
            "from mlx_lm import load",
            "",
            f"# {base}, or its copy for MLX",
            "model, tokenizer = load(path_of_the_model, adapter_path=path_of_this_directory)",
        )


MLX = register(Mlx())


# --- configs -------------------------------------------------------------------------------


def _parameters(
    config: Mapping[str, object], path: Path
) -> tuple[int, float, frozenset[str] | None]:
    """The rank and the scale of all modules, and the names of those that are adapted, where a
    config says them (mlx_lm/tuner/utils.py, `linear_to_lora_layers`).

    Raises:
        Fault: PEM0414 a field that is not what mlx-lm writes, PEM0421 another method.
    """
    kind = config.get("fine_tune_type", _METHOD)
    if kind != _METHOD:
        method = _REFUSED.get(kind) if isinstance(kind, str) else None
        told = visible(json.dumps(kind), 40)
        if method is None:
            raise _wrong_config(path, f'`fine_tune_type` is {told}, it should be "lora"')
        raise _refused(f"{visible(path)} has `fine_tune_type` {told}: {method}")
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise _wrong_config(path, "it has no `lora_parameters`")
    rank, scale, keys = (parameters.get(field) for field in ("rank", "scale", "keys"))
    if type(rank) is not int or rank < 1:
        raise _wrong_config(path, "`lora_parameters.rank` is no whole number of at least 1")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not abs(scale) < 1 << 53:
        raise _wrong_config(path, "`lora_parameters.scale` is no finite number")
    if keys is None:
        return rank, float(scale), None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _wrong_config(path, "`lora_parameters.keys` is no list of names")
    return rank, float(scale), frozenset(keys)


def _wrong_config(path: Path, what: str) -> Fault:
    return Fault(
        "PEM0414",
        f"{visible(path)}: {what}",
        'mend it: {"lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}, with the '
        "numbers it was trained with",
    )


def _config(spec: AdapterSpec) -> dict[str, object]:
    """The config of an output. `keys` name modules within a layer, and those outside of layers in
    full; a module that is named and has no factors in the file does nothing, as B starts at 0."""
    [rank], [scale] = set(spec.ranks.values()), set(spec.scales.values())
    counts = [adapter.fields.get("num_layers") for adapter in spec.inputs]
    # Layers are counted from the last, and -1 is all of them.
    told = [count for count in counts if type(count) is int and count > 0]
    return {
        "fine_tune_type": "lora",
        "lora_parameters": {
            "dropout": 0.0,
            "keys": sorted({_within_layer(site) for site in spec.shapes}),
            "rank": rank,
            "scale": scale,
        },
        "model": spec.base,
        "num_layers": max(told) if told and len(told) == len(counts) else -1,
    }


def _within_layer(site: str) -> str:
    """What a module is called in its layer; its whole name where it is in none."""
    start = layer_start(site)
    return site if start is None else site[start:].partition(".")[2] or site


# --- tensors -------------------------------------------------------------------------------


def _layout(entries: Mapping[str, TensorEntry], rank: int, keys: frozenset[str] | None) -> Layout:
    """What the names and shapes in a header say, held to a config; raises as Mlx.read."""
    parts: dict[str, dict[str, str]] = {}
    for name in entries:
        site, _, end = name.rpartition(".")
        if end == "m" and f"{site}.lora_a" in entries:
            raise _refused(f"{visible(name)} belongs to {_REFUSED['dora']}")
        if end not in _ENDS or not site:
            raise Fault(
                "PEM0416",
                f"{visible(name)} is no tensor of a LoRA that mlx-lm saves",
                "keep tensors such as model.layers.0.self_attn.q_proj.lora_a and lora_b alone",
            )
        parts.setdefault(site, {})[end] = name
    if not parts:
        raise Fault(
            "PEM0418", "it holds no LoRA tensors", "give the adapter that mlx_lm.lora trained"
        )
    stored = {site: _site(site, parts[site], entries, rank) for site in sorted(parts)}
    for site in stored:
        if keys is not None and _within_layer(site) not in keys and site not in keys:
            raise _disagree(
                f"it holds factors of {visible(site)}, but `lora_parameters.keys` in the config "
                "leaves that module out: mlx-lm refuses them, and older ones ignored them",
                "keys",
            )
    factors = {site: tuple(parts[site][end] for end in _ENDS) for site in stored}
    dtypes = float_dtypes([name for names in factors.values() for name in names], entries)
    shapes = Shapes({site: here.shape for site, here in stored.items()})
    ranks = {site: here.rank for site, here in stored.items()}
    return Layout(shapes, ranks, factors, {}, dtypes, stored=stored)


def _site(
    site: str, keys: Mapping[str, str], entries: Mapping[str, TensorEntry], rank: int
) -> StoredSite:
    """What a site is; raises PEM0415, PEM0417, PEM0421."""
    shapes = [entries[name].shape for name in keys.values()]
    if [len(shape) for shape in shapes] == [3, 3]:
        raise _refused(
            f"site {visible(site)} is the experts of a layer in one tensor, of shape "
            f"{list(shapes[0])}"
        )
    whole = len(keys) == len(_ENDS)
    here = TRANSPOSED.read([entries[keys[end]].shape for end in _ENDS]) if whole else None
    if here is None:
        told = (f"{end} of {list(entries[name].shape)}" for end, name in keys.items())
        raise Fault(
            "PEM0417",
            f"site {visible(site)} has {' and '.join(told)}",
            "save the adapter again: a site has lora_a of (in, rank) and lora_b of (rank, out)",
        )
    if here.rank != rank:
        what = f"site {visible(site)} has rank {here.rank}, but the config says {rank}"
        raise _disagree(what, "rank")
    if site.rpartition(".")[2] in _EMBEDDINGS:
        return replace(here, shape=here.shape._replace(layer="embedding"))
    return here


def _nothing(place: Path, file: str) -> Fault:
    return Fault(
        "PEM0410",
        f"{visible(place)} has no {file}",
        "give the folder that mlx_lm.lora wrote, its --adapter-path",
    )


def _refused(what: str) -> Fault:
    return Fault("PEM0421", what, _FUSED)


def _disagree(what: str, field: str) -> Fault:
    return Fault("PEM0415", what, f"mend `lora_parameters.{field}` in {CONFIG}")
