"""What a site is by the tensors that PEFT has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft_dora import MAGNITUDE, dora_shape
from pemlang.formats.peft_names import CONFIG
from pemlang.formats.peft_patterns import feeds_forward
from pemlang.modules import SiteShape
from pemlang.modules.expert_lora import expert_shape
from pemlang.modules.sites import lora_shape
from pemlang.tensorfiles.safetensors import TensorEntry


def lora_site(
    site: str, parts: Mapping[str, str], entries: list[TensorEntry], _: str | tuple[str, ...]
) -> tuple[SiteShape, int]:
    """Of LoRA and DoRA, with its rank; raises PEM0417 and PEM0421."""
    a, b = (entry.shape for entry in entries[:2])
    shape = lora_shape(a, b)
    if shape is not None and "lora_embedding_A" in parts:
        shape = shape._replace(layer="embedding") if shape.layer == "linear" else None
    if shape is None and len(a) == len(b) > 2 and all(n == 1 for n in b[2:]) and a[0] % b[1] == 0:
        raise Fault(
            "PEM0421",
            f"site {visible(site)} is a grouped convolution: its B of shape {list(b)} joins "
            f"only parts of the {a[0]} rows of A",
            "leave this site out of the adapter",
        )
    if shape is None:
        raise Fault(
            "PEM0417",
            f"the factors of site {visible(site)} do not fit: A is {list(a)}, B is {list(b)}",
            "save the adapter again with PEFT: A is (rank, in), B is (out, rank)",
        )
    if MAGNITUDE in parts:
        shape = dora_shape(site, shape, entries[-1])
    return shape, a[0]


def gain_site(
    site: str, _: Mapping[str, str], entries: list[TensorEntry], feedforward: str | tuple[str, ...]
) -> tuple[SiteShape, int]:
    """Of (IA)³, which has no rank; raises PEM0415."""
    shape = entries[0].shape
    inputs = feeds_forward(feedforward, site)
    along = 0 if len(shape) == 2 and not inputs else 1
    if len(shape) < 2 or any(n != 1 for axis, n in enumerate(shape) if axis != along):
        where = "is a feed-forward module" if inputs else "is not a feed-forward module"
        wanted = "(1, in)" if inputs else "(out, 1)"
        raise Fault(
            "PEM0415",
            f"ia3_l of site {visible(site)} has shape {list(shape)}, but the config says it "
            f"{where}, whose vector is {wanted}",
            f"mend `feedforward_modules` in {CONFIG}",
        )
    return SiteShape("ia3", "gain_in" if inputs else "gain_out", shape), 0


def expert_site(site: str, entries: Sequence[TensorEntry], rank: int) -> SiteShape:
    """Of a LoRA of experts; raises PEM0417."""
    a, b = (entry.shape for entry in entries)
    shape = expert_shape(a, b, rank)
    if shape is None:
        raise Fault(
            "PEM0417",
            f"the factors of site {visible(site)} do not fit: A is {list(a)}, B is {list(b)}, at "
            f"rank {rank}",
            "save the adapter again with PEFT: A is (experts·rank, in), B is (out, rank·experts)",
        )
    return shape
