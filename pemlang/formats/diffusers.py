"""LoRAs as diffusers writes them: a part of a pipeline, and the name of a module in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pemlang.diagnostics import Fault, visible
from pemlang.formats.one_file import OneFile
from pemlang.formats.patterns import one_config
from pemlang.formats.peft_config import MAX_CONFIG, parse_config
from pemlang.formats.peft_patterns import look_up
from pemlang.formats.record import register
from pemlang.tensorfiles.jsons import parse_json
from pemlang.tensorfiles.safetensors import read_metadata

METADATA = "lora_adapter_metadata"
"""Where a file says PEFT's configs of its parts, `unet.lora_alpha` and so on, as JSON."""

_PARTS = ("unet", "transformer", "text_encoder", "prior", "controlnet", "connectors")
_PART = re.compile(rf"(?:{'|'.join(_PARTS)})(?:_[0-9])?(?=\.)")

# Attention processors of older versions hold the factors, under names of their own.
_OF_UNET = {"to_out": "to_out.0"}
_OF_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


class Diffusers(OneFile):
    """`unet.…`, `transformer.…`, `text_encoder.…`, with the keys of PEFT or those of before it,
    `….lora.down.weight` or `….processor.to_q_lora.down.weight`. What is written has PEFT's."""

    name = "diffusers"
    starts = tuple(
        f"{part}{number}." for part in _PARTS for number in ("", *(f"_{n}" for n in range(1, 10)))
    )
    example = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    written_by = "diffusers, ai-toolkit, SimpleTuner; diffusers and ComfyUI read it"

    def site(self, named: str, end: str) -> str:
        """See OneFile; the processor of an attention is left out, as diffusers itself does."""
        name = named.replace(".processor.", ".")
        if not end.startswith("_lora."):
            return name
        module, _, layer = name.rpartition(".")
        others = _OF_TEXT if name.startswith("text_encoder") else _OF_UNET
        return f"{module}.{others.get(layer, layer)}"

    def configs(self, place: Path) -> Mapping[str, object]:
        """See OneFile: the configs in a file's metadata, by part."""
        text = read_metadata(place).get(METADATA)
        if text is None:
            return {}
        try:
            fields = parse_json(text.encode()) if len(text) <= MAX_CONFIG else None
        except (ValueError, AttributeError):
            fields = None
        if not isinstance(fields, dict):
            raise Fault(
                "PEM0414",
                f"{visible(place)}: `{METADATA}` in its metadata is not a JSON object",
                "save the file again with diffusers",
            )
        configs: dict[str, dict[str, object]] = {}
        for key, value in fields.items():
            part = _PART.match(key)
            if part is None:
                raise Fault(
                    "PEM0423",
                    f"{visible(place)}: `{METADATA}` has `{visible(key, 60)}`, which is of no part "
                    "of a pipeline",
                    "save the file again with diffusers",
                )
            configs.setdefault(part[0], {})[key[part.end() + 1 :]] = value
        return configs

    def scales_of_configs(
        self, place: Path, configs: Mapping[str, object], ranks: Mapping[str, int]
    ) -> Mapping[str, float]:
        """See OneFile; raises as parse_config, and PEM0415 where a config says another rank."""
        scales: dict[str, float] = {}
        for part, fields in configs.items():
            assert isinstance(fields, dict)
            text = json.dumps({"peft_type": "LORA", **fields})
            scaling = parse_config(text.encode(), f"{place}, {METADATA} of {part}").scaling
            with one_config():
                for site, rank in ranks.items():
                    module = site.removeprefix(f"{part}.")
                    if module == site:
                        continue
                    wanted = look_up(scaling.rank_pattern, module, scaling.rank)
                    if wanted != rank:
                        raise Fault(
                            "PEM0415",
                            f"{visible(place)}: site {visible(site)} has rank {rank}, but "
                            f"`{METADATA}` says {wanted}: the scale may be α/{rank} or α/{wanted}",
                            "save the file again with diffusers",
                        )
                    alpha = look_up(scaling.alpha_pattern, module, scaling.alpha)
                    scales[site] = scaling.scale(rank, alpha)
        return scales


DIFFUSERS = register(Diffusers())
