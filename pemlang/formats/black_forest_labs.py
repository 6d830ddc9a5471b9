"""LoRAs of Flux by the bare names of Black Forest Labs' checkpoints."""

from __future__ import annotations

from pemlang.formats.one_file import OneFile
from pemlang.formats.record import register


class BlackForestLabs(OneFile):
    """`double_blocks.…` and `single_blocks.…`, with nothing before them."""

    name = "bfl"
    starts = (
        "double_blocks.", "single_blocks.", "img_in.", "txt_in.", "time_in.", "vector_in.",
        "guidance_in.", "final_layer.",
    )  # fmt: skip
    example = "double_blocks.0.img_attn.qkv"
    written_by = "Black Forest Labs"


BFL = register(BlackForestLabs())
