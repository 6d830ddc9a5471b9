"""LoRAs by the names that ComfyUI has for the modules of a model."""

from __future__ import annotations

from pemlang.formats.one_file import OneFile
from pemlang.formats.record import register


class ComfyUi(OneFile):
    """`diffusion_model.…` before the names of the model's own checkpoint, and
    `text_encoders.…`."""

    name = "comfyui"
    starts = ("diffusion_model.", "text_encoders.")
    example = "diffusion_model.double_blocks.0.img_attn.qkv"
    written_by = "ai-toolkit, diffusion-pipe, musubi-tuner; ComfyUI reads it"


COMFYUI = register(ComfyUi())
