"""An adapter put onto a live PEFT model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft_names import CONFIG

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel


def attach(
    model: PeftModel, name: str, texts: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Add an adapter to a model.

    Args:
        model: takes it.
        name: what the model calls it.
        texts: the files beside its tensors.
        tensors: by key, as in its file.

    Raises:
        Fault: PEM0520 the model has adapters of another type.
        ValueError: it does not fit; the model is as it was.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    config = _config(texts)
    _hold_type(model, config)
    try:
        model.add_adapter(name, config)
        base = model.state_dict()
        shared = {key for key in tensors if key in base}
        for key in sorted(shared):
            if not tensors[key].to(base[key]).equal(base[key]):
                raise ValueError(f"it brings its own {key}, which all adapters of a model share")
        set_peft_model_state_dict(model, dict(tensors), adapter_name=name)
        taken = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        missing = set(tensors) - shared - set(taken)
        if missing:
            raise ValueError(f"the model has no {min(missing)}")
    except (ValueError, RuntimeError, KeyError) as error:
        if name in model.peft_config:
            model.delete_adapter(name)
        raise ValueError(str(error)) from error


def hold_model(model: object) -> None:
    """Raise Fault PEM0520 unless a model is one of PEFT, which adapters can be put onto."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise Fault(
            "PEM0520",
            f"the model is of class {visible(type(model).__name__, 60)}, not a PeftModel",
            "build the recipe, and load what it saves: PeftModel.from_pretrained(model, …)",
        )


def _hold_type(model: PeftModel, config: PeftConfig) -> None:
    """Raise Fault PEM0520 where a model has adapters of another type than this."""
    from peft import PeftType

    own = PeftType(config.peft_type).value
    others = {PeftType(other.peft_type).value for other in model.peft_config.values()} - {own}
    if others:
        raise Fault(
            "PEM0520",
            f"this is an adapter of PEFT's type {own}, the model has {listed(sorted(others))}: "
            "PEFT takes one type at a time",
            "load the base model again, and apply to it adapters of one type",
        )


def can_be_called(name: str) -> bool:
    """Whether PEFT can call an adapter by a name: torch has another use for some."""
    from torch.nn import ModuleDict

    return "." not in name and not hasattr(ModuleDict(), name)


def _config(texts: Mapping[str, str]) -> PeftConfig:
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    fields = json.loads(texts[CONFIG])
    kind: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(fields.pop("peft_type"))]
    return kind(**fields)
