"""Weights that are stored quantised, told by a config or by the names and dtypes of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS
from pemlang.tensorfiles.safetensors import TensorEntry

_DEQUANTIZE = "load it in transformers, call model.dequantize(), and save it again"


@dataclass(frozen=True)
class Quantisation:
    """A way to store weights as codes.

    Attributes:
        title: what it is called.
        methods: what a config calls it, in `quant_method`.
        codes: how the name of a tensor of codes ends.
        beside: what else the module has, by the ends of names; one of them is enough.
        undone: how to have the weights as floats; empty where only the model itself has them.
    """

    title: str
    methods: tuple[str, ...]
    codes: str
    beside: tuple[str, ...]
    undone: str = ""


def _loaded_with(config: str) -> str:
    return f"load it in transformers with quantization_config={config}, and save it again"


QUANTISATIONS = (
    Quantisation(
        "fp8 with a scale for each block", ("fp8",), ".weight", (".weight_scale_inv",),
        _loaded_with("FineGrainedFP8Config(dequantize=True)"),
    ),
    Quantisation(
        "fp8 with a scale for each tensor or row", ("fbgemm_fp8", "modelopt"), ".weight",
        (".weight_scale", ".scale_weight"),
    ),
    Quantisation("GPTQ", ("gptq",), ".qweight", (".g_idx",)),
    Quantisation("AWQ", ("awq",), ".qweight", (".qzeros",)),
    Quantisation(
        "bitsandbytes, in 4 bits", ("bitsandbytes", "bitsandbytes_4bit"), ".weight",
        (".weight.absmax", ".weight.quant_map"), _DEQUANTIZE,
    ),
    Quantisation(
        "bitsandbytes, in 8 bits", ("bitsandbytes_8bit",), ".weight", (".SCB",), _DEQUANTIZE
    ),
    Quantisation(
        "compressed-tensors", ("compressed-tensors",), ".weight_packed",
        (".weight_shape", ".weight_scale"),
        _loaded_with("CompressedTensorsConfig(run_compressed=False)"),
    ),
    Quantisation(
        "MXFP4", ("mxfp4",), "_blocks", ("_scales",), _loaded_with("Mxfp4Config(dequantize=True)")
    ),
    Quantisation("HQQ", ("hqq",), ".W_q", (".scale", ".zero", ".meta")),
    Quantisation("MLX", ("mlx",), ".weight", (".scales",)),
)  # fmt: skip

_OF_CODES = re.compile(
    r"([-_. ](gptq|awq|fp8|nf4|mxfp4|hqq|mlx|bnb|bitsandbytes|quanti[sz]ed|dynamic|block"
    r"|int[48]|[2-8]-?bits?|w[48]a(16|8)|g(32|64|128)|sym|asym|marlin))+$",
    re.IGNORECASE,
)
"""How the name of a model ends that says that it was quantised."""


def hold_plain(
    directory: Path, config: Mapping[str, object], entries: Mapping[str, TensorEntry]
) -> None:
    """Hold the tensors of a model to be its weights, and no codes of them.

    Args:
        directory: of the model, for the message.
        config: its config.
        entries: its tensors.

    Raises:
        Fault: PEM0431 it is stored quantised, as its config or its tensors say.
    """
    told = config.get("quantization_config")
    record, key = _of_tensors(entries)
    if not told and not key:
        return
    method = told.get("quant_method") if isinstance(told, dict) else None
    if record is None and isinstance(method, str):
        record = next((x for x in QUANTISATIONS if method in x.methods), None)
    how = record.title if record else "a method it does not name"
    if record is None and isinstance(method, str):
        how = visible(method, 40)
    raise Fault(
        "PEM0431",
        f"the weights of {visible(directory)} are stored quantised, by {how}: what is in the "
        "file are codes, and codes do not add",
        _way(directory, record),
        (f"{visible(key)} is {entries[key].dtype} {list(entries[key].shape)}",) if key else (),
    )


def _of_tensors(entries: Mapping[str, TensorEntry]) -> tuple[Quantisation | None, str]:
    """The first tensor of codes, and how they were made where names tell; empty where there is
    none."""
    for name in _codes(entries):
        for record in QUANTISATIONS:
            module = name.removesuffix(record.codes)
            if module != name and any(module + end in entries for end in record.beside):
                return record, name
    whole = (x for x in _codes(entries) if x.endswith(".weight") and len(entries[x].shape) > 1)
    return None, next((name for name in whole if entries[name].dtype not in FLOATS), "")


def _codes(entries: Mapping[str, TensorEntry]) -> Iterable[str]:
    """The tensors of dtypes that codes have: of 8 bits, or of whole numbers."""
    for name, entry in entries.items():
        if DTYPES[entry.dtype].size == 1 or entry.dtype not in FLOATS:
            yield name


def _way(directory: Path, record: Quantisation | None) -> str:
    """What to do about weights that are stored quantised."""
    [*_, repository] = [x for x in directory.parts if x.startswith("models--")] or [directory.name]
    name = repository.removeprefix("models--").replace("--", "/")
    twin = _OF_CODES.sub("", name)
    given = "give the model before it was quantised"
    given += f": by its name, {visible(twin, 80)}" if twin and twin != name else ""
    return f"{given}; or {record.undone}" if record and record.undone else given
