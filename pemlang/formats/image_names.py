"""Names of modules in the files of one format, as another has them.

By themselves only from names with dots, or from those with less before them: a name of kohya, whose
dots are underscores, may be that of several modules. Beside another file it is that of the one
module there which it fits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from pemlang.diagnostics import Fault, listed, visible

_STARTS = {
    ("bfl", "comfyui"): {"": "diffusion_model."},
    ("bfl", "kohya"): {"": "lora_unet_"},
    ("comfyui", "bfl"): {"diffusion_model.": ""},
    ("comfyui", "kohya"): {"diffusion_model.": "lora_unet_"},
    ("diffusers", "kohya"): {
        "unet.": "lora_unet_",
        "text_encoder.": "lora_te1_",
        "text_encoder_2.": "lora_te2_",
    },
}
"""From one naming to another: what a name starts with, and what stands there instead. The rest is
the same; in kohya's names each dot is an underscore."""

_COMPARED = {
    "bfl": {"": "lora_unet_"},
    "comfyui": {"diffusion_model.": "lora_unet_"},
    "diffusers": {
        "unet.": "lora_unet_", "transformer.": "lora_unet_",
        "text_encoder.": "lora_te1_", "text_encoder_2.": "lora_te2_",
    },
    "kohya": {"lora_te_": "lora_te1_", "": ""},
}  # fmt: skip
"""What the names of each naming start with, and what stands there instead where the names of two
files are compared; the rest in underscores. A first text encoder has a number."""

# Blocks of a UNet as Stability's checkpoints have them, whose names sd-scripts gives those of SDXL:
# counted through, three a level, with resnet, attention and sampler as their parts 0, 1, 2.
_BLOCK = re.compile(r"lora_unet_(input|output)_blocks_([0-9]{1,2})_([0-2])_(\w+)")
_MIDDLE = re.compile(r"lora_unet_middle_block_([0-2])_(\w+)")
_MIDDLE_PARTS = ("resnets_0", "attentions_0", "resnets_1")
_OF_RESNET = {
    "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}  # fmt: skip


def can_rename(naming: str, other: str) -> bool:
    """Whether sites of one naming have names in another."""
    return naming == other or (naming, other) in _STARTS


def names_in(sites: Collection[str], naming: str, other: str) -> dict[str, str]:
    """What the files of another naming call some sites; raises Fault PEM0354 for one that has no
    name there, or whose name is that of a second."""
    if naming == other:
        return {site: site for site in sites}
    starts = dict(_STARTS[naming, other])
    if "text_encoder." in starts and not any(x.startswith("text_encoder_2.") for x in sites):
        starts["text_encoder."] = "lora_te_"  # a model of one text encoder has no number
    names: dict[str, str] = {}
    for site in sites:
        name = _renamed(site, starts.items(), other)
        if name in names:
            raise Fault(
                "PEM0354",
                f"{visible(names[name])} and {visible(site)} would both be {visible(name)} in a "
                f"file of {other}",
                f"leave format= out, and save it as a file of {naming}",
            )
        names[name] = site
    return {site: name for name, site in names.items()}


def names_like(
    sites: Collection[str], naming: str, others: Collection[str], other: str
) -> dict[str, str]:
    """What another file calls the same modules as some sites; raises Fault PEM0354 for one that it
    has no name for, or two. A module that it does not have can have a name of kohya all the same.

    Args:
        sites, naming: of the adapter that is to have other names.
        others, other: of the adapter whose names it is to have.
    """
    modules: dict[str, list[str]] = {}
    for name in others:
        modules.setdefault(_compared(name, other), []).append(name)
    names: dict[str, str] = {}
    for site in sites:
        same = modules.get(_compared(site, naming), [])
        if len(same) > 1:
            raise Fault(
                "PEM0354",
                f"{visible(site)} may be {visible(same[0])} or {visible(same[1])}",
                'say which: with names={ "old.*": "new.*" }',
            )
        if same:
            names[site] = same[0]
    left = [site for site in sites if site not in names]
    if left and other == "kohya" and can_rename(naming, other) and not _of_checkpoints(others):
        return names | names_in(left, naming, other)
    if left:
        raise Fault(
            "PEM0354",
            f"the other adapter lacks {len(left)} of its modules: {listed(left)}",
            "give the other adapter the names of this one, where that has all of its modules",
        )
    return names


def _compared(site: str, naming: str) -> str:
    """A name that is the same for the same module in any naming."""
    starts = sorted(_COMPARED.get(naming, {}).items(), reverse=True)
    start, instead = next((pair for pair in starts if site.startswith(pair[0])), ("", ""))
    name = instead + site.removeprefix(start).replace(".", "_")
    block, middle = _BLOCK.fullmatch(name), _MIDDLE.fullmatch(name)
    if middle is not None:
        part, rest = middle.groups()
        return f"lora_unet_mid_block_{_MIDDLE_PARTS[int(part)]}_{_OF_RESNET.get(rest, rest)}"
    if block is None:
        return name
    side, number, part, rest = block.groups()
    level, at = divmod(int(number) - (side == "input"), 3)
    way = "down" if side == "input" else "up"
    if rest in ("op", "conv"):
        inner = f"{way}samplers_0_conv"
    elif part == "0":
        inner = f"resnets_{at}_{_OF_RESNET.get(rest, rest)}"
    else:
        inner = f"attentions_{at}_{rest}"
    return f"lora_unet_{way}_blocks_{level}_{inner}"


def _of_checkpoints(sites: Collection[str]) -> bool:
    return any(_BLOCK.fullmatch(site) or _MIDDLE.fullmatch(site) for site in sites)


def _renamed(site: str, starts: Iterable[tuple[str, str]], other: str) -> str:
    for start, instead in starts:
        if site.startswith(start):
            rest = site.removeprefix(start)
            return instead + (rest.replace(".", "_") if other == "kohya" else rest)
    raise Fault(
        "PEM0354",
        f"{visible(site)} has no name in files of {other}",
        'leave such modules out, as in x["unet.*"]',
    )
