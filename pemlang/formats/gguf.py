"""LoRAs of llama.cpp: one GGUF file, with llama.cpp's names of tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.diagnostics import Fault, listed, told_of, visible
from pemlang.disk import is_file
from pemlang.formats.adapter import Adapter, Layout, alpha_of
from pemlang.formats.gguf_names import ARCHITECTURE, HEADS, fields_of_model
from pemlang.formats.gguf_names import GGUF as NAMING
from pemlang.formats.holding import hold_plain_loras
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
from pemlang.formats.uniform import equal_alphas, float32
from pemlang.modules import Shapes, SiteShape
from pemlang.modules.sites import lora_shape
from pemlang.modules.stored import TOKEN_EMBEDDING, StoredSite
from pemlang.tensorfiles.container import floats_of
from pemlang.tensorfiles.gguf import SUFFIX, GgufHeader, Scalar, read_gguf
from pemlang.tensorfiles.safetensors import Header, TensorEntry, float_dtypes

_LORA = "lora"
_TYPE, METHOD, _ALPHA = "general.type", "adapter.type", "adapter.lora.alpha"
_TOKENS = "adapter.alora.invocation_tokens"
_BASES, _BASE = "general.base_model.count", "general.base_model.0"
_HUB = "https://huggingface.co/"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_OF_BASES = "general.base_model."
_KEPT = (_OF_BASES, "adapter.", ARCHITECTURE, _TYPE)
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}

_EMBEDDING = "token_embd"
_ENDS = {".weight.lora_a": "a", ".weight.lora_b": "b"}
_TRAINED = "give the LoRA that convert_lora_to_gguf.py made, or what it made it from"


class Gguf(Format):
    """GGUF files whose `general.type` is `adapter`: Δ = (α/r)·B·A with one α for all modules, and
    of each its own r (`src/llama-adapter.h`). With an α of 0, or none, Δ is B·A."""

    name = "gguf"
    one_file = True
    suffix = SUFFIX
    weights = ""
    texts = ()
    keeps_heads = False
    dtypes = tuple(_FILE_TYPES)
    told_of = frozenset({_ALPHA})

    @property
    def naming(self) -> str:
        """See Format."""
        return NAMING

    def detect(self, place: Path) -> Detection:
        """See Format."""
        fits = place.suffix == SUFFIX and is_file(place)
        return Detection(fits, fits, "")

    def read(self, place: Path) -> Adapter:
        """See Format.

        Raises:
            Fault: what read_gguf raises; PEM0410 a model, PEM0416 a tensor that is no part of a
                LoRA, PEM0417 factors that do not fit each other, PEM0418 none at all, PEM0419 a
                dtype that is not a float, PEM0421 another method, PEM0425 an α that is no number.
        """
        told = read_gguf(place)
        return self.of_header(place, _floats(place, told), told)

    def of_header(self, place: Path, header: Header, told: GgufHeader | None = None) -> Adapter:
        """See Format."""
        told = read_gguf(place) if told is None else told
        fields = {
            key: value
            for key, value in told.fields.items()
            if key.startswith(_KEPT) or key.endswith(HEADS)
        }
        return self._assembled(place, fields, header)

    def _assembled(self, place: Path, fields: Mapping[str, Scalar], header: Header) -> Adapter:
        """What a file says of itself and a header, put together; raises as `read`."""
        alpha = fields.get(_ALPHA, 0.0)
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise Fault(
                "PEM0425",
                f"{visible(place)}: `{_ALPHA}` is {visible(str(alpha), 40)}, and no number",
                "convert the adapter again with convert_lora_to_gguf.py",
            )
        with told_of(place):
            layout = _layout(header.entries)
        scales = {site: alpha / rank if alpha else 1.0 for site, rank in layout.ranks.items()}
        base = fields.get(f"{_BASE}.repo_url")
        return Adapter(
            self,
            place.parent,
            place,
            header,
            layout,
            scales,
            base=base.removeprefix(_HUB) or None if isinstance(base, str) else None,
            fields=fields,
        )

    def files(self, adapter: Adapter) -> list[Path]:
        """See Format."""
        return [adapter.weights]

    def readable(self, place: Path) -> list[Path]:
        """See Format."""
        return [place]

    def signature(self, adapter: Adapter) -> dict[str, object]:
        """See Format: `fields`, `tensors`."""
        return {"fields": dict(adapter.fields), **headers_signature(adapter)}

    def restored(self, signature: Mapping[str, object], directory: Path, weights: str) -> Adapter:
        """See Format; `directory` is the file."""
        fields = signature.get("fields")
        if not isinstance(fields, dict):
            raise Malformed("it has no fields")
        header, _ = headers_restored(signature)
        return self._assembled(directory.with_name(weights), fields, header)

    def renamed(self, adapter: Adapter, names: Mapping[str, str]) -> Adapter:
        """See Format; raises PEM0354: with a name of transformers, rows of q and k would be taken
        for rows in the order of transformers."""
        raise Fault(
            "PEM0354",
            f"{visible(adapter.place)} is in GGUF, where rows may stand in another order: other "
            "names would not be true of them",
            "convert it, which does both: `pem convert FILE.gguf DIR --to peft`",
        )

    def hold_inputs(self, inputs: Sequence[Adapter]) -> None:
        """See Format; raises PEM0354."""
        architectures = sorted({str(fields_of_model(x).get(ARCHITECTURE)) for x in inputs})
        if len(architectures) != 1:
            told = f"are of {listed(architectures)}" if architectures else "are none: it is zero"
            raise Fault(
                "PEM0354",
                f"a GGUF file is of one architecture, and the adapters it is made from {told}",
                "combine adapters of one model" if architectures else "save what is not zero",
            )

    def hold(self, shapes: Shapes, whole_modules: Sequence[str]) -> None:
        """See Format; raises PEM0421."""
        hold_plain_loras(shapes, "a GGUF file")

    def stored_scales(
        self,
        shapes: Shapes,
        ranks: Mapping[str, int],
        scales: Mapping[str, float],
        reader: OutputReader | None,
    ) -> Mapping[str, float]:
        """See Format; those of one α."""
        return equal_alphas(ranks, scales)

    def layout(self, spec: AdapterSpec) -> OutputLayout:
        """See Format."""
        tensors = [
            OutputTensor(site + end, spec.dtype, shape[::-1] if turned else shape, site, factor,
                         turned=turned)
            for site in spec.shapes
            for end, (factor, shape, _) in zip(_ENDS, spec.factors(site), strict=True)
            for turned in [site == _EMBEDDING and factor == "a"]
        ]  # fmt: skip
        return OutputLayout({spec.name: tensors}, {}, metadata=_fields(spec))


GGUF = register(Gguf())


# --- what a file says of itself ----------------------------------------------------------------


def _floats(place: Path, told: GgufHeader) -> Header:
    """The header of a LoRA's file; raises Fault PEM0410, PEM0419, PEM0421."""
    kind, method = told.fields.get(_TYPE), told.fields.get(METHOD)
    if kind != "adapter":
        architecture = visible(str(told.fields.get(ARCHITECTURE, "unknown architecture")), 40)
        raise Fault(
            "PEM0410",
            f"{visible(place)} is a model in GGUF ({architecture}), and no adapter",
            "give the model that it was converted from, in the directory that transformers reads",
        )
    if method != _LORA or _TOKENS in told.arrays:
        what = "an activated LoRA" if method == _LORA else f"of type {visible(str(method), 40)!r}"
        raise Fault("PEM0421", f"{visible(place)} is {what}, and no plain LoRA", _TRAINED)
    with told_of(place):
        return floats_of(told)


def _fields(spec: AdapterSpec) -> dict[str, Scalar]:
    """The fields of an output, in the order in which llama.cpp's converter writes them."""
    [alpha] = {float32(alpha_of(spec.scales[site], rank)) for site, rank in spec.ranks.items()}
    models = [fields_of_model(adapter) for adapter in spec.inputs]
    model = dict(set.intersection(*(set(fields.items()) for fields in models)))
    return {
        ARCHITECTURE: model.pop(ARCHITECTURE, ""),
        _TYPE: "adapter",
        "general.file_type": _FILE_TYPES[spec.dtype],
        **_base(spec),
        METHOD: _LORA,
        _ALPHA: alpha,
        **dict(sorted(model.items())),
    }


def _base(spec: AdapterSpec) -> dict[str, Scalar]:
    """What all inputs say of the model that an output belongs to, or what its name says."""
    told = [
        {key: x for key, x in adapter.fields.items() if key.startswith(_OF_BASES)}
        for adapter in spec.inputs
    ]
    if told[0] and all(other == told[0] for other in told):
        texts = {key: x for key, x in told[0].items() if isinstance(x, str)}
        return {_BASES: len({key.split(".")[2] for key in texts}), **texts}
    if spec.base is None or not _HUB_NAME.fullmatch(spec.base):
        return {}
    name = spec.base.rpartition("/")[2]
    return {_BASES: 1, _BASE + ".name": name, _BASE + ".repo_url": _HUB + spec.base}


# --- tensors -------------------------------------------------------------------------------


def _layout(entries: Mapping[str, TensorEntry]) -> Layout:
    """What the names and shapes in a header say; raises as Gguf.read."""
    keys: dict[str, dict[str, str]] = {}
    for name in entries:
        end = next((end for end in _ENDS if name.endswith(end)), "")
        if not end or len(name) == len(end):
            raise Fault(
                "PEM0416",
                f"{visible(name)} is no tensor of a LoRA that llama.cpp reads",
                "keep tensors such as blk.0.attn_q.weight.lora_a and lora_b alone",
            )
        keys.setdefault(name.removesuffix(end), {})[_ENDS[end]] = name
    if not keys:
        raise Fault("PEM0418", "it holds no LoRA tensors", _TRAINED)
    shapes, ranks, factors, stored = {}, {}, {}, {}
    for site, named in sorted(keys.items()):
        here = _site(site, [entries[named[factor]].shape for factor in "ab" if factor in named])
        if isinstance(here, StoredSite):
            stored[site] = here
            shapes[site], ranks[site] = here.shape, here.rank
        else:
            shapes[site], ranks[site] = here
        factors[site] = (named["a"], named["b"])
    names = [name for keys in factors.values() for name in keys]
    dtypes = float_dtypes(names, entries, _TRAINED)
    return Layout(Shapes(shapes), ranks, factors, {}, dtypes, stored=stored)


def _site(site: str, shapes: Sequence[tuple[int, ...]]) -> StoredSite | tuple[SiteShape, int]:
    """What a site is, by the shapes of its factors; raises PEM0417, PEM0421."""
    if [len(shape) for shape in shapes] == [3, 3]:
        raise Fault(
            "PEM0421",
            f"site {visible(site)} is the experts of a layer in one tensor, of shape "
            f"{list(shapes[0])}",
            "leave such modules out where it is trained",
        )
    whole = None
    if len(shapes) == len(_ENDS) and all(map(all, shapes)):
        if site == _EMBEDDING:
            read = TOKEN_EMBEDDING.read(shapes)
            if read is not None:
                return replace(read, shape=read.shape._replace(layer="embedding"))
        else:
            whole = lora_shape(*shapes)
    if whole is None or whole.layer != "linear":
        told = " and ".join(map(str, map(list, shapes)))
        raise Fault(
            "PEM0417",
            f"site {visible(site)} has factors of {told}",
            "convert the adapter again: lora_a is (rank, in), and of token_embd its transpose; "
            "lora_b is (out, rank)",
        )
    return whole, shapes[0][0]
