"""Statistics for data-aware merges, collected from a live PEFT model: `collect_statistics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pemlang.formats.peft import STATISTICS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def collect_statistics(
    model: PeftModel,
    batches: Iterable[Mapping[str, torch.Tensor]],
    directory: str | Path,
    loss: Callable[[Any], torch.Tensor] | None = None,
) -> Path:
    """Write `statistics.safetensors` beside an adapter: what `regmean` and `fisher` merge by.

    For each module that the active adapter changes, over all batches: `SITE.gram`, the mean of
    x·xᵀ over its inputs x, padded places left out, as (in, in), for Linear modules; and
    `SITE.fisher_A` and `SITE.fisher_B`, or `SITE.fisher_l` of an (IA)³, the mean over batches of
    the squared gradient. A batch of one example makes that the diagonal of the empirical Fisher
    information; with larger ones it is an approximation.

    Args:
        model: with the adapter active, as `PeftModel.from_pretrained` gives it.
        batches: keyword arguments of the model, labels among them, such as a DataLoader gives.
        directory: the adapter's.
        loss: the loss from what the model returns; its `.loss` unless given.

    Returns:
        The file.

    Raises:
        ValueError: there is no batch, or the model has no active LoRA or (IA)³.
    """
    import torch
    from safetensors.torch import save_file

    sites = dict(_sites(model))
    if not sites:
        raise ValueError("the model has no active LoRA or (IA)³ adapter")
    grams: dict[str, torch.Tensor] = {}
    squares: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}
    mask: list[torch.Tensor | None] = [None]

    def look(site: str, x: torch.Tensor) -> None:
        places = mask[0]
        if places is not None and places.shape == x.shape[:-1]:
            x = x[places.bool()]
        x = x.detach().reshape(-1, x.shape[-1]).double()
        grams[site] = grams.get(site, 0) + x.T @ x
        seen[site] = seen.get(site, 0) + len(x)

    hooks = [
        module.register_forward_pre_hook(lambda _, args, site=site: look(site, args[0]))
        for site, (module, _) in sites.items()
        if isinstance(module.get_base_layer(), torch.nn.Linear)
    ]
    wanted = {
        f"{site}.{kind}": p for site, (_, found) in sites.items() for kind, p in found.items()
    }
    before = {key: parameter.requires_grad for key, parameter in wanted.items()}
    training, count = model.training, 0
    model.eval()
    try:
        for parameter in wanted.values():
            parameter.requires_grad_(True)
        for batch in batches:
            count += 1
            mask[0] = batch.get("attention_mask")
            output = model(**batch)
            gradients = torch.autograd.grad(
                output.loss if loss is None else loss(output),
                list(wanted.values()),
                allow_unused=True,
            )
            for key, gradient in zip(wanted, gradients, strict=True):
                square = 0 if gradient is None else gradient.detach().double() ** 2
                squares[key] = squares.get(key, 0) + square
    finally:
        for hook in hooks:
            hook.remove()
        for key, parameter in wanted.items():
            parameter.requires_grad_(before[key])
        model.train(training)
    if count == 0:
        raise ValueError("there is no batch to collect statistics from")
    found = {key: square / count + torch.zeros_like(wanted[key]) for key, square in squares.items()}
    found |= {f"{site}.gram": gram / seen[site] for site, gram in grams.items()}
    whole = {key: value.to(torch.float32).contiguous() for key, value in sorted(found.items())}
    place = Path(directory) / STATISTICS
    new = place.with_suffix(".new")
    save_file(whole, new, metadata={"format": "pt"})
    new.replace(place)
    return place


def _sites(model: PeftModel) -> Iterable[tuple[str, tuple[Any, dict[str, torch.nn.Parameter]]]]:
    """Each module that the active adapter changes, with its parameters by kind of statistic."""
    from peft.tuners.ia3 import IA3Layer
    from peft.tuners.lora import LoraLayer

    active: Any = model.active_adapter
    base: Any = model.base_model
    for name, module in base.model.named_modules():
        if isinstance(module, LoraLayer) and active in module.lora_A:
            a: Any = module.lora_A[active].weight
            b: Any = module.lora_B[active].weight
            yield name, (module, {"fisher_A": a, "fisher_B": b})
        elif isinstance(module, IA3Layer) and active in module.ia3_l:
            yield name, (module, {"fisher_l": module.ia3_l[active]})
