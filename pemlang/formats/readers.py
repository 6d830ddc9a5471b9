"""Programs that load an adapter, as `reader=` names them: one record each of what it takes."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.dataclass import dataclass

_LINEAR = ("linear", "embedding")
_IMAGES = ("linear", "conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class OutputReader:
    """What a program that loads adapters takes of them.

    Attributes:
        name: what recipes call it.
        title: what people do.
        formats: of files that it reads, by name, its own first.
        since: the version, or the month, that the facts are of.
        facts: what it does, each with where that stands.
        kinds: of modules: `lora`, `ia3`, and `dense` of biases and whole weights.
        layers: of modules that it adapts; any when empty.
        one_rank: whether its scale is right only where all modules have one rank.
        max_rank: the largest rank that it takes; None where there is no end.
        heads: whether it takes modules that are saved whole.
        listed: whether `target_modules` has to be a list of names.
    """

    name: str
    title: str
    formats: Sequence[str]
    since: str
    facts: Sequence[tuple[str, str]]
    kinds: Sequence[str] = ("lora",)
    layers: Sequence[str] = ()
    one_rank: bool = True
    max_rank: int | None = None
    heads: bool = False
    listed: bool = False


READERS = {
    record.name: record
    for record in (
        OutputReader(
            name="peft",
            title="PEFT",
            formats=("peft",),
            since="0.21",
            facts=(
                ("takes ranks and α of each module from the patterns", "`LoraModel` in `peft`"),
                ("takes the weights of `modules_to_save`", "`set_peft_model_state_dict`"),
            ),
            kinds=("lora", "ia3", "dora", "dense", "expert_lora"),
            one_rank=False,
            heads=True,
        ),
        OutputReader(
            name="vllm",
            title="vLLM",
            formats=("peft",),
            since="0.12",
            facts=(
                (
                    "scales every module by `lora_alpha / r` and drops the patterns",
                    "`vllm/lora/peft_helper.py`",
                ),
                (
                    "refuses `modules_to_save`, DoRA and biases",
                    "`_validate_features` in `vllm/lora/peft_helper.py`",
                ),
                (
                    "takes ranks up to its `--max-lora-rank`, one of 1, 8, 16, 32, 64, 128, 256, "
                    "320 and 512",
                    "`MaxLoRARanks` in `vllm/config/lora.py`",
                ),
                (
                    "scales experts by `lora_alpha / r` even with rsLoRA, which no output has",
                    "vllm-project/vllm#55545",
                ),
            ),
            layers=_LINEAR,
            max_rank=512,
            listed=True,
        ),
        OutputReader(
            name="sglang",
            title="SGLang",
            formats=("peft",),
            since="main of 2026",
            facts=(
                (
                    "scales every module by `lora_alpha / r`",
                    "`LoRAAdapter` in `sglang/srt/lora/lora.py`",
                ),
                (
                    "refuses patterns that change a rank or an α",
                    "`_pattern_overrides` in `sglang/srt/lora/lora_config.py`",
                ),
                (
                    "knows modules by the last part of each name in the list `target_modules`; "
                    "a regular expression says nothing to it",
                    "`get_normalized_target_modules` in `sglang/srt/lora/utils.py`",
                ),
            ),
            layers=_LINEAR,
            listed=True,
        ),
        OutputReader(
            name="llama_cpp",
            title="llama.cpp, through `convert_lora_to_gguf.py`",
            formats=("peft", "gguf"),
            since="main of 2026",
            facts=(
                (
                    "scales each module by `lora_alpha` over the rank of its tensors",
                    "`get_scale` in `src/llama-adapter.h`",
                ),
                (
                    "the converter ends at a tensor that is no factor, such as a head",
                    "`get_tensors` in `convert_lora_to_gguf.py`",
                ),
            ),
            layers=_LINEAR,
        ),
        OutputReader(
            name="diffusers",
            title="diffusers",
            formats=("diffusers", "kohya"),
            since="0.42",
            facts=(
                (
                    "takes one α for all modules where a file says none, so that unlike ranks get "
                    "wrong scales",
                    "huggingface/diffusers#14409, which mends it",
                ),
            ),
            layers=_IMAGES,
        ),
        OutputReader(
            name="comfyui",
            title="ComfyUI",
            formats=("comfyui", "kohya", "diffusers", "bfl"),
            since="main of 2026",
            facts=(
                (
                    "scales each module by its own α over the rank of its tensors, by 1 without α",
                    "`comfy/weight_adapter/lora.py`",
                ),
            ),
            kinds=("lora", "dense"),
            layers=(*_IMAGES, "norm", "dense"),
            one_rank=False,
        ),
    )
}
"""The records by name."""
