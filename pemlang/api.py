"""The Python interface: recipes loaded, checked, built, evaluated, and applied to live models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.options import Output
from pemlang.diagnostics import (
    Diagnostic,
    Fault,
    PemError,
    PemWarning,
    listed,
    nearest,
    render,
    visible,
)
from pemlang.graph.node import Node
from pemlang.inputs.load import loaders
from pemlang.ops.record import kind_of
from pemlang.source import Source
from pemlang.syntax.files import read_source

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from pemlang.inputs.lock import Lock
    from pemlang.lower.plan import Plan
    from pemlang.pipeline.build import How, InMemory, Result, Tick
    from pemlang.pipeline.forecast import Outlook
    from pemlang.pipeline.sweep import Sweep

Params = Mapping[str, str | float | bool]


class Recipe:
    """A recipe file. Its adapters are read when it is checked, built or evaluated."""

    def __init__(self, path: Path, source: Source, params: Params) -> None:
        self._path, self._source, self._params = path, source, dict(params)

    def check(self, locked: bool = False) -> tuple[Diagnostic, ...]:
        """What is wrong with the recipe and what is worth a warning, from file headers alone.

        Args:
            locked: go by the signatures in pem.lock beside the recipe; its adapters need not be
                there.

        Returns:
            Diagnostics in source order; no `error` among them means that the recipe builds.

        Raises:
            PemError: PEM0801 there is no lock that can be read.
        """
        return tuple(self.checked(locked).report)

    def checked(self, locked: bool = False) -> Checked:
        """All that is known of the recipe from file headers, or from pem.lock, for tools that
        show it; raises as `check`."""
        if not locked:
            return check(self._path, self._source, loaders(), self._params)
        from pemlang.inputs.locked import hold_imports, locked_loaders

        lock = self.lock_beside()
        found = check(self._path, self._source, locked_loaders(lock), self._params)
        hold_imports(found, lock)
        return found

    def lock_beside(self) -> Lock:
        """The pem.lock in the recipe's folder; raises PemError PEM0801."""
        from pemlang.inputs.lock import read_lock

        try:
            return read_lock(self._source.directory)
        except Fault as fault:
            raise PemError([fault.at(None)]) from None

    def lock(self) -> Lock:
        """The lock of this recipe as its adapters are now, whole, fetched where they are on the
        hub; `pemlang.inputs.lock.write_lock` writes it.

        Raises:
            PemError: everything wrong with the recipe.
        """
        from pemlang.inputs.lock import locked_now

        return locked_now(self._path, self._source, self._params)

    def build(
        self,
        out: str | os.PathLike[str] | None = None,
        tick: Tick | None = None,
        sweep: Sweep | None = None,
        how: How | None = None,
    ) -> Result:
        """Build every `save` of the recipe.

        Args:
            out: the folder in which its outputs lie; the recipe's own when not given.
            tick: told of progress: what is being made, the steps done, the steps in all.
            sweep: build it at each of some values of a param, reading the inputs once.
            how: threads and memory; they change no byte of what is built.

        Returns:
            What was written, and the warnings.

        Raises:
            PemError: everything wrong; nothing has been written then.
        """
        from pemlang.pipeline.build import build

        root = None if out is None else Path(out).absolute()
        told = tick or (lambda what, done, total: None)
        return build(self._path, self._source, self._params, root, told, sweep, how)

    def plan(
        self, out: str | os.PathLike[str] | None = None, sweep: Sweep | None = None
    ) -> tuple[Plan, list[str]]:
        """What a build would compute, and the paths of its outputs as written; nothing is
        written.

        Args:
            out, sweep: as for `build`.

        Raises:
            PemError: as `build`.
        """
        from pemlang.pipeline.build import plan_of

        root = None if out is None else Path(out).absolute()
        return plan_of(self._path, self._source, self._params, root, sweep)

    def outlook(self, out: str | os.PathLike[str] | None = None, locked: bool = False) -> Outlook:
        """What a build would do, from headers and digests alone: normal forms, types, sizes,
        what is up to date, and what it would read, write, compute and need of memory.

        Args:
            out: as for `build`.
            locked: go by pem.lock; no adapter need be there.

        Raises:
            PemError: the recipe is wrong, or PEM0801 there is no lock.
        """
        from pemlang.pipeline.forecast import outlook

        root = None if out is None else Path(out).absolute()
        lock = self.lock_beside() if locked else None
        return outlook(self._path, self._source, self._params, root, lock)

    def evaluate(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a named adapter of the recipe, as PEFT stores them.

        Args:
            name: a `let` or an `adapter` of the recipe.

        Returns:
            Key to tensor, on the CPU, in the inputs' dtype: for LoRA
            `base_model.model.<site>.lora_A.weight` (r, in) and `….lora_B.weight` (out, r), for
            (IA)³ `….ia3_l` (out, 1) or (1, in), and the heads: those all inputs share, or those
            chosen where the recipe saves this adapter `with heads=…`.

        Raises:
            PemError: the recipe is wrong, or PEM0206 it has no such name, PEM0301 it names
                something else than an adapter.

        Warns:
            PemWarning: what a build would warn of.
        """
        return _tensors(self._adapter(name))

    def identified(self) -> Checked:
        """All that is known of a recipe that is right, its adapters fetched and known by their
        content; raises PemError with everything wrong with it."""
        from pemlang.pipeline.jobs import identified
        from pemlang.pipeline.sweep import Point

        [checked] = identified(self._path, self._source, [Point(self._params)])
        return checked

    def _adapter(self, name: str) -> InMemory:
        from pemlang.artifact.staging import placed
        from pemlang.pipeline.build import in_memory

        checked = self.identified()
        with placed(None):
            node = _named(checked, name)
        place = checked.scope.places[name]
        saved = (output.heads for output in checked.outputs if output.node is node)
        chosen = next(filter(None, saved), None)
        checked.outputs = [Output(node, name, Path(), None, chosen, place, name)]
        found, told = in_memory(checked)
        for one in told:
            warnings.warn(render(one), PemWarning, stacklevel=3)
        return found


def _named(checked: Checked, name: str) -> Node:
    values = checked.scope.values
    adapters = [known for known, value in values.items() if kind_of(value) == "adapter"]
    if name in adapters:
        return values[name]  # type: ignore[no-any-return]
    close = nearest(name, adapters)
    has = f"its adapters are {listed(adapters, 8)}" if adapters else "it has no adapters"
    hint = f"did you mean `{visible(close)}`?" if close else has
    if name in values:
        raise Fault("PEM0301", f"`{visible(name)}` is not an adapter", hint)
    raise Fault("PEM0206", f"the recipe has nothing called `{visible(name)}`", hint)


def load(path: str | os.PathLike[str], params: Params | None = None) -> Recipe:
    """Open a recipe file.

    Args:
        path: the .pem file.
        params: values for its params, by name.

    Raises:
        PemError: PEM0100 to PEM0104 when the file is not readable recipe text.
    """
    found = Path(path).absolute()
    try:
        return Recipe(found, read_source(found, os.fspath(path)), params or {})
    except Fault as fault:
        raise PemError([fault.at(None)]) from None


def apply(
    peft_model: PeftModel,
    recipe: Recipe | str | os.PathLike[str],
    name: str,
    adapter_name: str | None = None,
) -> None:
    """Put a named adapter of a recipe onto a live PEFT model, and make it the active one.

    Args:
        peft_model: a model made by PEFT, on the recipe's base.
        recipe: a recipe, or the path of one.
        name: a `let` or an `adapter` of the recipe.
        adapter_name: what the model calls it; `name` when not given. An adapter of that name
            that is already there is replaced.

    Raises:
        PemError: the recipe is wrong, or PEM0520 the adapter's tensors do not fit the model.

    Warns:
        PemWarning: what a build would warn of.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load(recipe)
    found = recipe._adapter(name)
    called = adapter_name or name
    known = peft_model.peft_config
    if called not in known:
        _attach(peft_model, found, called, name)
        peft_model.set_adapter(called)
        return
    # What is there stays until the new one is known to fit; PEFT cannot rename an adapter.
    fresh = next(f"{called}_{i}" for i in count() if f"{called}_{i}" not in known)
    _attach(peft_model, found, fresh, name)
    peft_model.set_adapter(fresh)
    peft_model.delete_adapter(called)
    _attach(peft_model, found, called, name)
    peft_model.set_adapter(called)
    peft_model.delete_adapter(fresh)


def _attach(peft_model: PeftModel, found: InMemory, called: str, name: str) -> None:
    """Add an adapter to a model; on PEM0520 the model is as it was."""
    from peft import PeftConfig, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from torch.nn import ModuleDict

    if "." in called or hasattr(ModuleDict(), called):
        fault = Fault(
            "PEM0520",
            f"PEFT cannot call an adapter `{visible(called)}`: torch has another use for the name",
            'choose one: apply(…, adapter_name="merged")',
        )
        raise PemError([fault.at(None)])
    kind: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(found.config["peft_type"])]
    fields = {key: value for key, value in found.config.items() if key != "peft_type"}
    try:
        peft_model.add_adapter(called, kind(**fields))
        tensors, base = _tensors(found), peft_model.state_dict()
        shared = {key for key in tensors if key in base}
        for key in sorted(shared):
            if not tensors[key].to(base[key]).equal(base[key]):
                raise ValueError(f"it brings its own {key}, which all adapters of a model share")
        set_peft_model_state_dict(peft_model, tensors, adapter_name=called)
        there = get_peft_model_state_dict(
            peft_model, adapter_name=called, save_embedding_layers=False
        )
        missing = set(tensors) - shared - set(there)
        if missing:
            raise ValueError(f"the model has no {min(missing)}")
    except (ValueError, RuntimeError, KeyError) as error:
        if called in peft_model.peft_config:
            peft_model.delete_adapter(called)
        raise PemError([_unfit(name, str(error)).at(None)]) from error


def _unfit(name: str, why: str) -> Fault:
    return Fault(
        "PEM0520",
        f"`{visible(name)}` does not fit the model: {visible(' '.join(why.split()), 300)}",
        "load the base model that the recipe's adapters belong to",
    )


def _tensors(adapter: InMemory) -> dict[str, torch.Tensor]:
    import torch

    dtypes = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    return {
        key: torch.frombuffer(bytearray(data), dtype=dtypes[dtype]).reshape(shape)
        for key, dtype, shape, data in adapter.tensors
    }
