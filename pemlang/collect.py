"""Statistics for data-aware merges, collected from a live PEFT model: `collect_statistics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pemlang.formats.adapter import STATISTICS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

AdaptedModule: TypeAlias = "tuple[Any, dict[str, torch.nn.Parameter]]"
"""A module that an adapter changes, and its parameters by kind of statistic."""


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
        ValueError: there is no batch, one is no mapping or has no labels, or the model has no
            active LoRA or (IA)³.
    """
    sites = dict(_sites(model))
    if not sites:
        raise ValueError("the model has no active LoRA or (IA)³ adapter")
    collector = _Collector(model, sites)
    with collector.listening():
        for batch in batches:
            collector.add(batch, loss)
    return _write(collector.means(), Path(directory) / STATISTICS)


class _Collector:
    """Sums over batches, for the modules that an adapter changes."""

    def __init__(self, model: PeftModel, sites: Mapping[str, AdaptedModule]) -> None:
        self._model, self._sites = model, sites
        self._parameters = {
            f"{site}.{kind}": parameter
            for site, (_, parameters) in sites.items()
            for kind, parameter in parameters.items()
        }
        self._grams: dict[str, torch.Tensor] = {}
        self._inputs: dict[str, int] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._batches = 0
        self._mask: torch.Tensor | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """See the inputs of the modules, and let their parameters have gradients; the model is as
        it was afterwards."""
        import torch

        hooks = [
            module.register_forward_pre_hook(partial(self._see, site))
            for site, (module, _) in self._sites.items()
            if isinstance(module.get_base_layer(), torch.nn.Linear)
        ]
        wanted = {key: parameter.requires_grad for key, parameter in self._parameters.items()}
        training = self._model.training
        self._model.eval()
        try:
            for parameter in self._parameters.values():
                parameter.requires_grad_(True)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for key, parameter in self._parameters.items():
                parameter.requires_grad_(wanted[key])
            self._model.train(training)

    def add(
        self, batch: Mapping[str, torch.Tensor], loss: Callable[[Any], torch.Tensor] | None
    ) -> None:
        """Take one batch."""
        import torch

        if not isinstance(batch, Mapping):
            raise ValueError(f"a batch is a mapping of arguments of the model, not {type(batch)}")
        self._batches += 1
        self._mask = batch.get("attention_mask")
        output = self._model(**batch)
        lost = output.loss if loss is None else loss(output)
        if lost is None:
            raise ValueError("the model gives no loss: batches need labels, or give `loss`")
        gradients = torch.autograd.grad(
            lost,
            list(self._parameters.values()),
            allow_unused=True,
        )
        for key, gradient in zip(self._parameters, gradients, strict=True):
            square = 0 if gradient is None else gradient.detach().double() ** 2
            self._squares[key] = self._squares.get(key, 0) + square

    def means(self) -> dict[str, torch.Tensor]:
        """The statistics by key, in float64; raises ValueError where there was no batch."""
        import torch

        if self._batches == 0:
            raise ValueError("there is no batch to collect statistics from")
        means = {
            key: square / self._batches + torch.zeros_like(self._parameters[key])
            for key, square in self._squares.items()
        }
        grams = self._grams.items()
        return means | {f"{site}.gram": gram / self._inputs[site] for site, gram in grams}

    def _see(self, site: str, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        """The inputs of a module, padded places left out."""
        x = args[0]
        if self._mask is not None and self._mask.shape == x.shape[:-1]:
            x = x[self._mask.bool()]
        x = x.detach().reshape(-1, x.shape[-1]).double()
        self._grams[site] = self._grams.get(site, 0) + x.T @ x
        self._inputs[site] = self._inputs.get(site, 0) + len(x)


def _write(statistics: Mapping[str, torch.Tensor], place: Path) -> Path:
    """Write statistics, whole or not at all."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        key: value.to(torch.float32).contiguous() for key, value in sorted(statistics.items())
    }
    new = place.with_suffix(".new")
    save_file(tensors, new, metadata={"format": "pt"})
    new.replace(place)
    return place


def _sites(model: PeftModel) -> Iterator[tuple[str, AdaptedModule]]:
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
