"""Messages about texts, names and live models that no recipe can show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

import pemlang
from pemlang.modules import PARAMETRISATIONS
from support import recipe as write_recipe
from support.messages.case import Diagnostics, checked, loaded, made, raised, text_checked, told


@made
def PEM0100_missing(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked("nowhere.pem")


@made
def PEM0100_folder(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked("adapters")


@made
def PEM0100_not_a_path(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked("a\0b.pem")


@made
def PEM0101_large(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, "#" * (1 << 20) + "\n")


@made
def PEM0102_latin(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "made.pem").write_bytes("# été\n".encode("latin-1"))
    return checked("made.pem")


@made
def PEM0317_undrawn(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setitem(PARAMETRISATIONS, "turn", PARAMETRISATIONS["lora"])  # as an extension adds one
    recipe = loaded(root, 'test "one" { let x = sample(turn) }\n')
    return tuple(x for outcome in recipe.test() for x in outcome.wrong)


@made
def PEM0383_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    write_recipe(root, "let x = 1\n", "made.pem")
    return told("test", "made.pem")


@made
def PEM0383_other(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    write_recipe(root, 'test "one" { assert true }\n', "made.pem")
    return told("test", "made.pem", "-k", "two")


@made
def PEM0203_documented(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("doc", "std.papr")


def in_a_notebook(patch: pytest.MonkeyPatch, *cells: tuple[str, ...]) -> Diagnostics:
    """What the magics of a notebook say, each given a line, and a cell if it is one of a cell."""
    collected: list[pemlang.Diagnostic] = []
    patch.setattr("pemlang.notebook.say", collected.extend)
    magics: dict[str, Any] = {}
    shell = SimpleNamespace(
        user_ns={}, register_magic_function=lambda run, kind, name: magics.update({kind: run})
    )
    pemlang.load_ipython_extension(shell)
    for cell in cells:
        magics["cell" if len(cell) == 2 else "line"](*cell)
    return tuple(collected)


@made
def PEM0601_no_recipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return in_a_notebook(patch, ("norm(a)",))


@made
def PEM0601_words(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return in_a_notebook(patch, ("merged recipe", "let x = 1\n"))


@made
def PEM0108_expressions(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return in_a_notebook(patch, ("", "let x = 1\n"), ("x\nlet y = x",))


@made
def PEM0301_measured(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    adapter = write_recipe(root, 'adapter a = "adapters/a"\n', "made.pem")
    return raised(lambda: pemlang.load(adapter).measure("2 * a"))


@made
def PEM0301_evaluated(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    adapter = write_recipe(root, 'adapter a = "adapters/a"\n', "made.pem")
    return raised(lambda: pemlang.load(adapter).evaluate("2 * norm(a)"))


@made
def PEM0600_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    write_recipe(root, "let x = 1\n", "made.pem")
    return told("doc", "made.pem")


@made
def PEM0115_tensors(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked("adapters/a/adapter_model.safetensors")


@made
def PEM0105_turned(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, "let x = 1  # \u202egnorw\n")


@made
def PEM0109_brackets(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, f"let x = {'(' * 101}1{')' * 101}\n")


@made
def PEM0109_expression(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, f"let x = {'-' * 101}1\n")


@made
def PEM0205_large(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    for i in range(5):
        write_recipe(root / "large", f"let x = {i}\n" + "#" * 250_000, f"f{i}.pem")
    lines = [f'import "large/f{i}.pem" as f{i}\n' for i in range(5)]
    return text_checked(root, "".join(lines))


@made
def PEM0333_numbers(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr("pemlang.graph.dag.MAX_NUMBERS", 3)
    return text_checked(
        root, 'adapter a = "adapters/a"\nlet x = ramp(1, 0.5) * a + ramp(0.5, 1) * a\n'
    )


@made
def PEM0205_link(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "link.pem").symlink_to("/proc/self/environ")
    return text_checked(root, 'import "link.pem" as link\n')


@made
def PEM0205_many(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    for i in range(200):
        write_recipe(root / "many", f"let x = {i}\n", f"f{i}.pem")
    return text_checked(root, "\n".join(f'import "many/f{i}.pem" as f{i}' for i in range(200)))


@made
def PEM0206_evaluate(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipe = loaded(root, 'adapter alpha = "adapters/a"\n')
    return raised(lambda: recipe.evaluate("alpah"))


@made
def PEM0105_evaluate(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipe = loaded(root, "let x = 1\n")
    return raised(lambda: recipe.evaluate("\x1b[31m"))


@made
def PEM0206_evaluate_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipe = loaded(root, "let x = 1\n")
    return raised(lambda: recipe.evaluate("beta"))


@made
def PEM0212_set_no_string(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, 'param name: string = "x"\n', name=0.5)


@made
def PEM0301_evaluate(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipe = loaded(root, 'adapter alpha = "adapters/a"\nlet x = norm(alpha)\n')
    return raised(lambda: recipe.evaluate("x"))


@made
def PEM0410_home(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setenv("HOME", "/home/reader")
    return text_checked(root, 'adapter a = "~/adapters/chat"\n')


@made
def PEM0347_sweep(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text = 'adapter a = "adapters/a"\nparam w: number = 1\nsave w * a to "out/a"\n'
    recipe, sweep = pemlang.load(write_recipe(root, text)), pemlang.Sweep("w", ("1", "2"))
    return raised(lambda: recipe.build(sweep=sweep))


# --- live models -----------------------------------------------------------------------------


def applied(
    root: Path, sites: dict[str, tuple[int, int]], called: str | None = None
) -> Diagnostics:
    """What applying an adapter of one module, query, says for a model of some modules."""
    recipe = loaded(root, 'adapter small = "adapters/no_layers"\n')
    modules = {name: torch.nn.Linear(*shape) for name, shape in sites.items()}
    config = LoraConfig(target_modules=list(sites))
    model = get_peft_model(torch.nn.ModuleDict(modules), config)
    return raised(lambda: pemlang.apply(model, recipe, "small", called))


@made
def PEM0520_other_shape(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return applied(root, {"query": (8, 12)})


@made
def PEM0520_other_modules(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return applied(root, {"key": (16, 12)})


@made
def PEM0520_name(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return applied(root, {"query": (16, 12)}, "a.b")


@made
def PEM0520_plain_model(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    model: Any = torch.nn.ModuleDict({"query": torch.nn.Linear(16, 12)})
    return raised(lambda: pemlang.apply(model, loaded(root, 'adapter a = "adapters/a"\n'), "a"))


@made
def PEM0520_other_type(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    config = IA3Config(target_modules=["query"], feedforward_modules=[])
    model = get_peft_model(torch.nn.ModuleDict({"query": torch.nn.Linear(16, 12)}), config)
    recipe = loaded(root, 'adapter small = "adapters/no_layers"\n')
    return raised(lambda: pemlang.apply(model, recipe, "small"))
