"""LoRAs as sd-scripts (kohya) writes them: names of modules with underscores for their dots."""

from __future__ import annotations

from pemlang.formats.one_file import OneFile, alpha_at
from pemlang.formats.record import AdapterSpec, register


class Kohya(OneFile):
    """`lora_unet_…`, `lora_te_…`, of SDXL `lora_te1_…` and `lora_te2_…`, as sd-scripts and most
    trainers of image models write them. α stands beside each site."""

    name = "kohya"
    starts = ("lora_", "lycoris_")
    written = (".lora_down.weight", ".lora_up.weight")
    says_alpha = True
    example = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    written_by = "sd-scripts, OneTrainer; ComfyUI, Forge and diffusers read it"

    def metadata(self, spec: AdapterSpec) -> dict[str, str]:
        """See OneFile; with the rank and the α that are shown of a file, as sd-scripts' own merge
        says them."""
        ranks = {rank for rank in spec.ranks.values() if rank}
        if not ranks:
            return super().metadata(spec)
        [alpha] = {alpha_at(spec, site) for site, rank in spec.ranks.items() if rank}
        return {
            **super().metadata(spec),
            "ss_network_dim": str(*ranks) if len(ranks) == 1 else "Dynamic",
            "ss_network_alpha": f"{alpha:.9g}",
        }


KOHYA = register(Kohya())
