"""The Python interface: recipes loaded, checked, built, evaluated, and applied to live models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pemlang.check.checked import Checked
from pemlang.check.kinds import article
from pemlang.check.outputs import Output
from pemlang.check.values import Params
from pemlang.check.wanted import list_kind
from pemlang.diagnostics import (
    Diagnostic,
    Fault,
    PemError,
    PemWarning,
    listed,
    nearest,
    placed,
    render,
    visible,
)
from pemlang.graph.node import AdapterNode
from pemlang.inputs.resolver import DiskResolver
from pemlang.pipeline.checking import checked_with, identified_with
from pemlang.pipeline.refusals import with_refusals
from pemlang.source import Source, Span
from pemlang.syntax.files import decoded, read_source
from pemlang.syntax.written import is_name
from pemlang.tensorfiles.dtypes import DTYPES

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from pemlang.check.tests import Printed
    from pemlang.compare.recipes import RecipeComparison
    from pemlang.inputs.lock import Lock
    from pemlang.lower.plan import BuildPlan
    from pemlang.pipeline.build import BuildOptions, BuildResult, InMemory
    from pemlang.pipeline.forecast import Forecast
    from pemlang.pipeline.making import Tick
    from pemlang.pipeline.study import Trial
    from pemlang.pipeline.sweep import Sweep
    from pemlang.pipeline.testing import TestOutcome
    from pemlang.pipeline.tuning import Tuned, TuningOptions, Watching


class Recipe:
    """A recipe file. Its adapters are read when it is checked, built or evaluated."""

    def __init__(self, path: Path, source: Source, params: Params) -> None:
        self._path, self._source, self._params = path, source, dict(params)

    def __repr__(self) -> str:
        params = "".join(f", {name}={value!r}" for name, value in self._params.items())
        return f"<Recipe {self._source.name}{params}>"

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
        return tuple(with_refusals(self.checked(locked)).diagnostics)

    def checked(self, locked: bool = False) -> Checked:
        """All that is known of the recipe from file headers, or from pem.lock, for tools that
        show it; raises as `check`."""
        if not locked:
            return checked_with(DiskResolver(), self._path, self._source, self._params)
        from pemlang.inputs.locked import LockResolver

        lock = self.lock_beside()
        resolver = LockResolver(lock)
        return checked_with(resolver, self._path, self._source, self._params, lock=lock)

    def lock_beside(self) -> Lock:
        """The pem.lock in the recipe's folder; raises PemError PEM0801."""
        from pemlang.inputs.lock import read_lock

        with placed(None):
            return read_lock(self._source.directory)

    def lock(self) -> Lock:
        """The lock of this recipe as its adapters are now, whole, fetched where they are on the
        hub; `pemlang.inputs.write_lock` writes it.

        Raises:
            PemError: everything wrong with the recipe.
        """
        from pemlang.pipeline.lock import locked_now

        return locked_now(self._path, self._source, self._params)

    def upgraded(self, library: str) -> tuple[Lock, RecipeComparison]:
        """The lock of this recipe with a library as it is now and all else as pem.lock beside it
        has it, and what that changes; no adapter need be there.

        Args:
            library: its name, or `hf://org/name` of a repository.

        Raises:
            PemError: PEM0393 the lock has none of the name, PEM0801 there is no lock, PEM0804
                another version made it, and everything wrong with the recipe.
        """
        from pemlang.compare.upgrade import upgraded

        return upgraded(self._path, self._source, self._params, library)

    def test(self, wanted: Callable[[str], bool] = lambda title: True) -> list[TestOutcome]:
        """Run the tests of the recipe.

        Args:
            wanted: says by its name whether a test is to be run.

        Returns:
            What became of each, in the order written.

        Raises:
            PemError: everything wrong with the recipe outside its tests.
        """
        from pemlang.pipeline.testing import run_tests

        return run_tests(self._path, self._source, self._params, wanted)

    def build(
        self,
        out: str | os.PathLike[str] | None = None,
        tick: Tick | None = None,
        sweep: Sweep | None = None,
        options: BuildOptions | None = None,
    ) -> BuildResult:
        """Build every `save` of the recipe.

        Args:
            out: the folder in which its outputs lie; the recipe's own when not given.
            tick: told of progress: what is being made, the steps done, the steps in all.
            sweep: build it at each of some values of a param, reading the inputs once.
            options: threads and memory, which change no byte of what is built, and the like.

        Returns:
            What was written, and the warnings.

        Raises:
            PemError: everything wrong; nothing has been written then.
        """
        from pemlang.pipeline.build import BuildOptions, build
        from pemlang.pipeline.making import no_tick

        return build(
            self._path,
            self._source,
            self._params,
            _root(out),
            tick or no_tick,
            sweep,
            options or BuildOptions(),
        )

    def tune(self, options: TuningOptions, watch: Watching | None = None) -> Tuned:
        """Find the values of its params that are best by a metric; those given to `load` stay.

        Args:
            options: what to tune by, and in which file the trials are kept.
            watch: told of each trial that is over, and of how many there are to be.

        Raises:
            PemError: everything wrong with the recipe, the metric, or the study. A trial that
                fails raises nothing.
        """
        from pemlang.pipeline.tuning import tune

        return tune(self._path, self._source, self._params, options, watch or (lambda *_: None))

    def with_defaults(self, tuned: Tuned, trial: Trial) -> str:
        """The text of the recipe with the values of a trial as its defaults, each below a comment
        that says by what; raises PemError PEM0925 where that would not be what was measured."""
        from pemlang.pipeline.tuning_defaults import with_defaults

        return with_defaults(self._path, self._source, self._params, tuned, trial)

    def plan(self, out: str | os.PathLike[str] | None = None, locked: bool = False) -> Forecast:
        """What a build would do, from headers and digests alone: normal forms, types, sizes,
        what is up to date, and what it would read, write, compute and need of memory.

        Args:
            out: as for `build`.
            locked: go by pem.lock; no adapter need be there.

        Raises:
            PemError: the recipe is wrong, or PEM0801 there is no lock.
        """
        from pemlang.pipeline.forecast import forecast

        lock = self.lock_beside() if locked else None
        return forecast(self._path, self._source, self._params, _root(out), lock)

    def programs(
        self, out: str | os.PathLike[str] | None = None, sweep: Sweep | None = None
    ) -> tuple[BuildPlan, list[str]]:
        """What a build would compute, and the paths of its outputs as written; nothing is
        written.

        Args:
            out, sweep: as for `build`.

        Raises:
            PemError: as `build`.
        """
        from pemlang.pipeline.build import plan_of

        return plan_of(self._path, self._source, self._params, _root(out), sweep)

    def evaluate(self, expression: str) -> dict[str, torch.Tensor]:
        """The tensors of an adapter, as PEFT stores them.

        Args:
            expression: a `let` or an `adapter` of the recipe, or an expression over its names, as
                in `0.5 * code + chat`.

        Returns:
            Key to tensor, on the CPU, in the inputs' dtype: for LoRA
            `base_model.model.<site>.lora_A.weight` (r, in) and `….lora_B.weight` (out, r), for
            (IA)³ `….ia3_l` (out, 1) or (1, in), and the heads: those all inputs share, or those
            chosen where the recipe saves this adapter `with heads=…`.

        Raises:
            PemError: the recipe or the expression is wrong, or PEM0206 it has no such name,
                PEM0301 this is something else than an adapter; PEM0523 torch is not installed.

        Warns:
            PemWarning: what a build would warn of.
        """
        _hold_installed("torch")
        return _tensors(self._adapter(expression))

    def measure(self, expression: str) -> float:
        """A number, computed from the weights: no torch is needed.

        Args:
            expression: over the names of the recipe, as in `cosine(a, b)`.

        Raises:
            PemError: the recipe or the expression is wrong, or PEM0301 it is no number.
        """
        from pemlang.pipeline.evaluating import measured

        return measured(*self._value(expression))

    def tell(self, expression: str) -> str:
        """What `print` tells of an expression over the names of the recipe: a measure, or a normal
        form and a type; raises as `measure`."""
        from pemlang.pipeline.evaluating import told

        return told(*self._value(expression))

    def _value(self, expression: str) -> tuple[Checked, Printed]:
        from pemlang.pipeline.evaluating import evaluated

        def check(source: Source) -> Checked:
            return identified_with(DiskResolver(), self._path, source, self._params)

        return evaluated(self._source, expression, check)

    def _repr_html_(self) -> str:
        """In a notebook: what it saves in normal form, and its graph; or what is wrong."""
        from pemlang.show.notebook import diagnostics_html, recipe_html

        try:
            return recipe_html(self.checked())
        except PemError as error:
            return diagnostics_html(error.diagnostics)

    def identified(self) -> Checked:
        """All that is known of a recipe that is right, its adapters fetched and known by their
        content; raises PemError with everything wrong with it."""
        return identified_with(DiskResolver(), self._path, self._source, self._params)

    def _adapter(self, expression: str) -> InMemory:
        from pemlang.pipeline.build import in_memory

        checked, node, place = self._node(expression)
        name = expression.strip()
        saved = [output for output in checked.outputs if output.node is node]
        heads = next((x.heads for x in saved if x.heads is not None), None)
        heads_by = next((x.heads_by for x in saved if x.heads_by), "") if heads is None else ""
        reader = next((x.reader for x in saved if x.reader is not None), None)
        output = Output(
            node, name, Path(), None, heads, place, name,
            reader=reader, heads_by=heads_by,
        )  # fmt: skip
        adapter, diagnostics = in_memory(replace(checked, outputs=[output]))
        for diagnostic in diagnostics:
            warnings.warn(render(diagnostic), PemWarning, stacklevel=3)
        return adapter

    def _node(self, expression: str) -> tuple[Checked, AdapterNode, Span]:
        """An adapter, by its name or by an expression, with its place."""
        if is_name(expression):
            checked = self.identified()
            with placed(None):
                return checked, _named(checked, expression), checked.places[expression]
        checked, printed = self._value(expression)
        if not isinstance(printed.value, AdapterNode):
            kind = article(list_kind(printed.value))
            fault = Fault(
                "PEM0301", f"this is {kind}, an adapter is wanted", "give one, as in 0.5 * a + b"
            )
            raise PemError([fault.at(printed.span)])
        return checked, printed.value, printed.span


def _root(out: str | os.PathLike[str] | None) -> Path | None:
    return None if out is None else Path(out).absolute()


def _named(checked: Checked, name: str) -> AdapterNode:
    value = checked.names.get(name)
    if isinstance(value, AdapterNode):
        return value
    adapters = [other for other, x in checked.names.items() if isinstance(x, AdapterNode)]
    close = nearest(name, adapters)
    has = (
        f"name one that there is: {listed(adapters, 8)}"
        if adapters
        else "declare an adapter: it has none"
    )
    hint = f"did you mean `{visible(close)}`?" if close else has
    if value is not None:
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
    file = Path(path).absolute()
    with placed(None):
        return Recipe(file, read_source(file, os.fspath(path)), params or {})


def loads(text: str, params: Params | None = None) -> Recipe:
    """A recipe that is in no file: its paths and imports are relative to the working directory.

    Args:
        text: of the recipe.
        params: values for its params, by name.

    Raises:
        PemError: PEM0101 to PEM0104 when it is not recipe text.
    """
    return of_text(text.encode(errors="surrogatepass"), "<text>", params)


def of_text(data: bytes, name: str, params: Params | None = None) -> Recipe:
    """A recipe that is in no file.

    Args:
        data: its text.
        name: of the file that it would be; its paths and imports are relative to the folder of
            that.
        params: values for its params, by name.

    Raises:
        PemError: PEM0101 to PEM0104 when it is not recipe text.
    """
    file = Path(name).absolute()
    with placed(None):
        return Recipe(file, decoded(data, name, file.parent.resolve()), params or {})


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
        PemError: the recipe is wrong; PEM0520 the model is none of PEFT, has adapters of another
            kind, or the adapter's tensors do not fit it; PEM0523 torch or PEFT is not installed.

    Warns:
        PemWarning: what a build would warn of.
    """
    from pemlang.formats.peft_live import hold_model

    _hold_installed("torch", "peft")
    with placed(None):
        hold_model(peft_model)
    recipe = recipe if isinstance(recipe, Recipe) else load(recipe)
    adapter = recipe._adapter(name)
    called = adapter_name or name
    if called not in peft_model.peft_config:
        _attach(peft_model, adapter, called, name)
        peft_model.set_adapter(called)
        return
    # What is there stays until the new one is known to fit; PEFT cannot rename an adapter.
    spare = (f"{called}_{number}" for number in count())
    fresh = next(word for word in spare if word not in peft_model.peft_config)
    _attach(peft_model, adapter, fresh, name)
    peft_model.set_adapter(fresh)
    peft_model.delete_adapter(called)
    _attach(peft_model, adapter, called, name)
    peft_model.set_adapter(called)
    peft_model.delete_adapter(fresh)


def _hold_installed(*packages: str) -> None:
    """Raise PemError PEM0523 unless packages can be imported that only Python needs."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        fault = Fault(
            "PEM0523",
            f"this needs {' and '.join(missing)}, which {verb} not installed",
            f'pip install "pemlang[{packages[-1]}]"',
        )
        raise PemError([fault.at(None)])


def _attach(peft_model: PeftModel, adapter: InMemory, called: str, name: str) -> None:
    """Add an adapter to a model; on PEM0520 the model is as it was."""
    from pemlang.formats.peft_live import attach, can_be_called

    with placed(None):
        if not can_be_called(called):
            raise Fault(
                "PEM0520",
                f"PEFT cannot call an adapter `{visible(called)}`: torch has another use for the "
                "name",
                'choose one: apply(…, adapter_name="merged")',
            )
        try:
            attach(peft_model, called, adapter.texts, _tensors(adapter))
        except ValueError as error:
            why = visible(" ".join(str(error).split()), 300)
            raise Fault(
                "PEM0520",
                f"`{visible(name)}` does not fit the model: {why}",
                "load the base model that the recipe's adapters belong to",
            ) from error


def _tensors(adapter: InMemory) -> dict[str, torch.Tensor]:
    import torch

    return {
        key: torch.frombuffer(bytearray(data), dtype=getattr(torch, DTYPES[dtype].torch)).reshape(
            shape
        )
        for key, dtype, shape, data in adapter.tensors
    }
