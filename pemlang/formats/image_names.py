"""Names of modules in the files of one format, as another has them.

Only from names with dots, or from those with less before them: a name of kohya, whose dots are
underscores, may be that of several modules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pemlang.diagnostics import Fault, visible

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
