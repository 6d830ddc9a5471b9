"""Where the modules of an adapter lie in the files of a model.

An adapter names modules as the model had them that it was trained on; a checkpoint may have other
names for them. The ways are listed here, one record each, and all of an adapter goes by one of
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft_names import PREFIX


@dataclass(frozen=True)
class Naming:
    """A way in which a checkpoint names modules.

    Attributes:
        seen: where it comes from.
        changes: patterns, each with what stands in their place, one after the other.
    """

    seen: str
    changes: tuple[tuple[str, str], ...] = ()

    def of(self, tensor: str) -> str:
        """What a tensor is called in the checkpoint."""
        for pattern, new in self.changes:
            tensor = re.sub(pattern, new, tensor, count=1)
        return tensor


_PARTS = "vision_tower|vision_model|image_tower|video_tower|audio_tower|multi_modal_projector"

NAMINGS = (
    Naming("the adapter was trained on a model of the same class and version"),
    Naming(
        "LLaVA and its like since transformers 4.52, whose checkpoints keep the older names",
        (
            (r"^model\.language_model\.", "language_model.model."),
            (r"^lm_head\.", "language_model.lm_head."),
            (rf"^model\.({_PARTS})\.", r"\1."),
        ),
    ),
    Naming(
        "LLaVA and its like: an adapter from before transformers 4.52, a checkpoint from after",
        (
            (r"^language_model\.model\.", "model.language_model."),
            (r"^language_model\.lm_head\.", "lm_head."),
            (rf"^({_PARTS})\.", r"model.\1."),
        ),
    ),
    Naming(
        "Qwen2-VL and its like since transformers 4.52, whose checkpoints keep the older names",
        ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
    ),
    Naming(
        "Qwen2-VL and its like: an adapter from before transformers 4.52, a checkpoint from after",
        (
            (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
            (r"^visual\.", "model.visual."),
        ),
    ),
    Naming(
        "ViT and its like in transformers 5, whose checkpoints keep the older names",
        (
            (r"(^|\.)layers\.(?=\d)", r"\1encoder.layer."),
            (r"\.attention\.q_proj\.", ".attention.attention.query."),
            (r"\.attention\.k_proj\.", ".attention.attention.key."),
            (r"\.attention\.v_proj\.", ".attention.attention.value."),
            (r"\.attention\.o_proj\.", ".attention.output.dense."),
            (r"\.mlp\.fc1\.", ".intermediate.dense."),
            (r"\.mlp\.fc2\.", ".output.dense."),
        ),
    ),
)


def tensor_of_head(key: str) -> str:
    """The tensor of the base that a head of an adapter of PEFT stands for."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")


def located(tensors: Collection[str], wanted: Sequence[str]) -> dict[str, str]:
    """Where some tensors of a base are in a model.

    Args:
        tensors: those of the model.
        wanted: as the adapter's base names them; at least one.

    Raises:
        Fault: PEM0338 there is none, or more than one, for some of them.
    """
    wanted = least = list(dict.fromkeys(wanted))
    tries: Iterator[list[list[str | None]]] = chain(
        ([[naming.of(tensor) for tensor in wanted]] for naming in NAMINGS),
        (list(_other_prefixes(tensors, wanted, naming)) for naming in NAMINGS),
    )
    for ways in tries:
        lost = [_lost(tensors, wanted, names) for names in ways]
        whole = [names for names, missing in zip(ways, lost, strict=True) if not missing]
        if len(whole) > 1:
            first, second = (visible(names[0] or "") for names in whole[:2])
            raise Fault(
                "PEM0338",
                f"{visible(wanted[0])} may be {first} or {second}",
                "give the model that the adapter was trained on, or save it with its class",
            )
        if whole:
            return {tensor: name for tensor, name in zip(wanted, whole[0], strict=True) if name}
        least = min([least, *lost], key=len)
    raise Fault(
        "PEM0338",
        f"the model has no place for {len(least)} of the {len(wanted)} tensors that the adapter "
        f"changes: {listed(least)}",
        "give the model that the adapter was trained on, saved by the class that it had then; or "
        'leave these modules out, as in x["*.q_proj", "*.v_proj"]',
    )


def _lost(
    tensors: Collection[str], wanted: Sequence[str], names: Sequence[str | None]
) -> list[str]:
    """Those of some tensors whose names are none of a model's; all where two have one name."""
    found = [name for name in names if name in tensors]
    if len(set(found)) < len(found):
        return list(wanted)
    return [tensor for tensor, name in zip(wanted, names, strict=True) if name not in tensors]


def _other_prefixes(
    tensors: Collection[str], wanted: Sequence[str], naming: Naming
) -> Iterator[list[str | None]]:
    """What some tensors may be called with one prefix less, or more; None of what lacks it."""
    deepest = max(wanted, key=lambda tensor: tensor.count("."))
    parts = deepest.split(".")
    for count in range(1, len(parts) - 1):
        prefix = ".".join(parts[:count]) + "."
        yield [
            naming.of(tensor.removeprefix(prefix)) if tensor.startswith(prefix) else None
            for tensor in wanted
        ]
    name = naming.of(deepest)
    for prefix in [x.removesuffix(name) for x in tensors if x.endswith(f".{name}")]:
        yield [prefix + naming.of(tensor) for tensor in wanted]
