"""Every message as a reader sees it.

A case is a recipe, `messages/CODE-what.pem`, and what is said of it, `CODE-what.txt` beside it.
Lines at its top that start with `#!` say more:

    #! build              the message comes only when the recipe is built
    #! set weight=3       a value for a param
    #! paste              the help, put in the place of the marked text, makes the recipe right
    #! instead let x = 1  this line, put in the place of the marked one, makes the recipe right

What no recipe can show is a function here. `pytest --rewrite` writes the texts anew.
"""

from __future__ import annotations

import ast
import dataclasses
import errno
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import shelf
import support
from click.testing import CliRunner

import pemlang
from pemlang.artifact import sign as signing
from pemlang.artifact import verify as verifying
from pemlang.artifact.provenance import read_provenance
from pemlang.cli.main import cli
from pemlang.compare.compare import compare
from pemlang.compare.sides import opened
from pemlang.diagnostics import Diagnostic, Fault, render
from pemlang.execute.cuda import open_gpu
from pemlang.formats.peft import read_adapter
from pemlang.inputs import hub
from pemlang.inputs import lock as lock_file
from pemlang.inputs.lock import write_lock
from pemlang.pipeline import build as build_run
from pemlang.tensorfiles.digests import file_digest
from pemlang.tensorfiles.reader import Files, source

fmt = importlib.import_module("pemlang.cli.fmt")
HERE = Path(__file__).parent / "messages"
SOURCES = Path(pemlang.__file__).parent

Found = tuple[Diagnostic, ...]
MADE: dict[str, Callable[[Path, pytest.MonkeyPatch], Iterable[Diagnostic]]] = {}


def made(function: Callable[[Path, pytest.MonkeyPatch], Iterable[Diagnostic]]) -> None:
    """A case in Python; PEM0100_missing is the case PEM0100-missing."""
    MADE[function.__name__.replace("_", "-")] = function


# --- cases that no recipe can show ---------------------------------------------------------


def said(path: Path | str, **params: Any) -> Found:
    """What checking a recipe says."""
    try:
        return pemlang.load(path, params).check()
    except pemlang.PemError as error:
        return error.diagnostics


def raised(action: Callable[[], object]) -> Found:
    """What an action raises."""
    try:
        action()
    except pemlang.PemError as error:
        return error.diagnostics
    except Fault as fault:
        return (fault.at(None),)
    raise AssertionError("nothing was raised")


def recipe(root: Path, text: str) -> Found:
    return said(support.recipe(root, text, "made.pem").name)


@made
def PEM0100_missing(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return said("nowhere.pem")


@made
def PEM0100_folder(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return said("adapters")


@made
def PEM0100_not_a_path(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return said("a\0b.pem")


@made
def PEM0101_large(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return recipe(root, "#" * (1 << 20) + "\n")


@made
def PEM0102_latin(root: Path, patch: pytest.MonkeyPatch) -> Found:
    (root / "made.pem").write_bytes("# été\n".encode("latin-1"))
    return said("made.pem")


@made
def PEM0105_turned(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return recipe(root, "let x = 1  # \u202egnorw\n")


@made
def PEM0109_brackets(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return recipe(root, f"let x = {'(' * 101}1{')' * 101}\n")


@made
def PEM0109_expression(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return recipe(root, f"let x = {'-' * 101}1\n")


@made
def PEM0205_many(root: Path, patch: pytest.MonkeyPatch) -> Found:
    folder = root / "many"
    for i in range(200):
        support.recipe(folder, f"let x = {i}\n", f"f{i}.pem")
    lines = [f'import "many/f{i}.pem" as f{i}' for i in range(200)]
    return recipe(root, "\n".join(lines))


@made
def PEM0206_evaluate(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = pemlang.load(support.recipe(root, 'adapter alpha = "adapters/a"\n', "made.pem"))
    return (*raised(lambda: found.evaluate("alpah")), *raised(lambda: found.evaluate("\x1b[31m")))


@made
def PEM0206_evaluate_none(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = pemlang.load(support.recipe(root, "let x = 1\n", "made.pem"))
    return raised(lambda: found.evaluate("beta"))


@made
def PEM0212_set_no_string(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return said(support.recipe(root, 'param name: string = "x"\n', "made.pem").name, name=0.5)


@made
def PEM0301_evaluate(root: Path, patch: pytest.MonkeyPatch) -> Found:
    text = 'adapter alpha = "adapters/a"\nlet x = norm(alpha)\n'
    found = pemlang.load(support.recipe(root, text, "made.pem"))
    return raised(lambda: found.evaluate("x"))


@made
def PEM0411_gone_before_digest(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return raised(lambda: file_digest(root / "gone.safetensors"))


@made
def PEM0411_gone_before_reading(root: Path, patch: pytest.MonkeyPatch) -> Found:
    adapter = read_adapter(support.lora(root / "gone"))
    adapter.weights.unlink()
    return raised(lambda: read_all(adapter))


@made
def PEM0412_shrank(root: Path, patch: pytest.MonkeyPatch) -> Found:
    adapter = read_adapter(support.lora(root / "shrank"))
    adapter.weights.write_bytes(adapter.weights.read_bytes()[:-8])
    return raised(lambda: read_all(adapter))


def read_all(adapter: Any) -> None:
    with Files() as files:
        for key, entry in adapter.header.entries.items():
            files.tensor(source(adapter, key), entry.dtype, entry.shape)


@made
def PEM0441_unreachable(root: Path, patch: pytest.MonkeyPatch) -> Found:
    class Library:
        def __getattr__(self, name: str) -> object:
            raise ConnectionError("\nno route\x1b[31m to the host\nand more")

    patch.setattr(hub, "_library", Library)
    return recipe(root, 'adapter a = "hf://org/name@main"\n')


@made
def PEM0442_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Found:
    patch.setitem(sys.modules, "huggingface_hub", None)
    return recipe(root, 'adapter a = "hf://org/name@main"\n')


@made
def PEM0512_full(root: Path, patch: pytest.MonkeyPatch) -> Found:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(build_run, "flush", full)
    text = 'adapter a = "adapters/a"\nsave a to "out/a"\n'
    return raised(lambda: support.build(root, text))


def laid_out(patch: pytest.MonkeyPatch, path: str) -> Found:
    """What `pem fmt` says."""
    said: list[Diagnostic] = []
    patch.setattr(fmt, "say", lambda found, form: said.extend(found))
    CliRunner().invoke(cli, ["fmt", path])
    return tuple(said)


@made
def PEM0100_pipe(root: Path, patch: pytest.MonkeyPatch) -> Found:
    os.mkfifo("pipe.pem")
    return laid_out(patch, "pipe.pem")


@made
def PEM0100_locked_folder(root: Path, patch: pytest.MonkeyPatch) -> Found:
    def locked(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    patch.setattr(os, "scandir", locked)
    return laid_out(patch, "adapters")


@made
def PEM0512_recipe(root: Path, patch: pytest.MonkeyPatch) -> Found:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", full)
    return laid_out(patch, support.recipe(root, "let  x = 1", "made.pem").name)


SWEEP = build_run.Sweep("w", ("1", "2"))


@made
def PEM0347_sweep(root: Path, patch: pytest.MonkeyPatch) -> Found:
    text = 'adapter a = "adapters/a"\nparam w: number = 1\nsave w * a to "out/a"\n'
    return raised(lambda: pemlang.load(support.recipe(root, text)).build(sweep=SWEEP))


@made
def PEM0521_memory(root: Path, patch: pytest.MonkeyPatch) -> Found:
    text = 'adapter a = "adapters/a"\nsave a to "out/a"\n'
    return raised(
        lambda: pemlang.load(support.recipe(root, text)).build(how=build_run.How(memory=1000))
    )


@made
def PEM0522_no_triton(root: Path, patch: pytest.MonkeyPatch) -> Found:
    patch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else name)
    return raised(open_gpu)


@made
def PEM0522_no_gpu(root: Path, patch: pytest.MonkeyPatch) -> Found:
    import torch

    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.setattr(torch.cuda, "is_available", lambda: False)
    return raised(open_gpu)


@made
def PEM0522_no_interpreter(root: Path, patch: pytest.MonkeyPatch) -> Found:
    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.delenv("TRITON_INTERPRET", raising=False)
    return raised(lambda: open_gpu("cpu"))


def applied(root: Path, sites: dict[str, tuple[int, int]], called: str | None = None) -> Found:
    """What applying an adapter of one module, query, says for a model of some modules."""
    import torch
    from peft import LoraConfig, get_peft_model

    path = support.recipe(root, 'adapter small = "adapters/no_layers"\n', "made.pem")
    modules = {name: torch.nn.Linear(*shape) for name, shape in sites.items()}
    config = LoraConfig(target_modules=list(sites))
    model = get_peft_model(torch.nn.ModuleDict(modules), config)
    return raised(lambda: pemlang.apply(model, path, "small", called))


@made
def PEM0520_other_shape(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return applied(root, {"query": (8, 12)})


@made
def PEM0520_other_modules(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return applied(root, {"key": (16, 12)})


@made
def PEM0520_name(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return applied(root, {"query": (16, 12)}, "a.b")


# --- locks, provenance and git -------------------------------------------------------------

USES_LIBRARY = 'import "library/parts.pem" (part)\nadapter a = "kept"\nsave part * a to "out/a"\n'


def lockable(root: Path, text: str = 'adapter a = "kept"\nsave a to "out/a"\n') -> pemlang.Recipe:
    """A recipe in a folder of its own, with an adapter and a file to import."""
    folder = root / "locked"
    shutil.rmtree(folder, ignore_errors=True)
    support.lora(folder / "kept")
    support.recipe(folder / "library", "let part = 0.5\n", "parts.pem")
    return pemlang.load(support.recipe(folder, text, "made.pem"))


def locked(found: pemlang.Recipe, text: str | None = None) -> pemlang.Recipe:
    """The recipe once its lock is written; with another text, one that was not locked."""
    path = write_lock(found.lock())
    return found if text is None else pemlang.load(support.recipe(path.parent, text, "made.pem"))


def built_by_lock(found: pemlang.Recipe) -> Found:
    return raised(lambda: found.build(how=build_run.How(lock=found.lock_beside())))


def edited(found: pemlang.Recipe, change: Callable[[dict[str, Any]], object]) -> Found:
    """What a check says once the lock was edited."""
    path = write_lock(found.lock())
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    try:
        return found.check(locked=True)
    except pemlang.PemError as error:
        return error.diagnostics


@made
def PEM0801_none(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = lockable(root)
    return raised(lambda: found.check(locked=True))


@made
def PEM0801_unreadable(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = lockable(root)
    in_conflict = "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n"
    (root / "locked/pem.lock").write_text(in_conflict)
    return (
        *raised(lambda: found.check(locked=True)),
        *edited(found, lambda said: said.update(lock=2)),
        *edited(found, lambda said: said.pop("imports")),
        *edited(found, lambda said: said["recipes"].update({"made.pem": ["kept"]})),
        *edited(found, lambda said: said["imports"].update({"a.pem": 7})),
        *edited(found, lambda said: said["adapters"]["kept"].update(files={})),
        *edited(found, lambda said: said["adapters"]["kept"].update(tensors={"x": "F32 [-1]"})),
    )


@made
def PEM0802_adapter(root: Path, patch: pytest.MonkeyPatch) -> Found:
    text = 'adapter a = "other"\nsave a to "out/a"\n'
    return locked(lockable(root), text).check(locked=True)


@made
def PEM0802_import(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return locked(lockable(root), USES_LIBRARY).check(locked=True)


@made
def PEM0803_adapter(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = locked(lockable(root))
    support.lora(root / "locked/kept", 9)
    return built_by_lock(found)


@made
def PEM0803_import(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = locked(lockable(root, USES_LIBRARY))
    (root / "locked/library/parts.pem").write_text("let part = 0.25\n")
    return built_by_lock(found)


@made
def PEM0804_version(root: Path, patch: pytest.MonkeyPatch) -> Found:
    found = lockable(root)
    patch.setattr(lock_file, "__version__", "0.0.1")
    lock = dataclasses.replace(found.lock(), tool="0.0.1")
    return raised(lambda: found.build(how=build_run.How(lock=lock)))


@made
def PEM0810_unreadable(root: Path, patch: pytest.MonkeyPatch) -> Found:
    [built] = lockable(root).build().outputs
    found = list(raised(lambda: read_provenance(root / "locked/kept")))
    (built.path / "provenance.json").write_text('{"_type": "https://in-toto.io/Statement/v1"}')
    found += raised(lambda: read_provenance(built.path))
    (built.path / "provenance.json").unlink()
    (built.path / "provenance.json").mkdir()
    return (*found, *raised(lambda: read_provenance(built.path)))


@made
def PEM0810_other_output(root: Path, patch: pytest.MonkeyPatch) -> Found:
    [built] = lockable(root).build().outputs

    def moved(said: Any) -> None:
        said["predicate"]["buildDefinition"]["externalParameters"]["output"] = "out/b"

    support.edit(built.path, moved)
    found = verifying.verify(built.path)
    how = build_run.How()
    return raised(lambda: verifying.rebuild(built.path, found, root / "locked", how))


@made
def PEM0811_moved(root: Path, patch: pytest.MonkeyPatch) -> Found:
    [built] = lockable(root).build().outputs
    moved = built.path.rename(root / "locked/elsewhere")
    return raised(lambda: verifying.rebuild(moved, verifying.verify(moved), None, build_run.How()))


@made
def PEM0812_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Found:
    [built] = lockable(root).build().outputs
    patch.setitem(sys.modules, "model_signing.signing", None)
    patch.setitem(sys.modules, "model_signing", None)
    return raised(lambda: signing.sign(built.path, root / "key.pem"))


@made
def PEM0813_no_key(root: Path, patch: pytest.MonkeyPatch) -> Found:
    """Whatever the library says of a key."""

    class Library:
        def __getattr__(self, name: str) -> Any:
            raise ValueError("Unable to load PEM file.\x1b[31m\nSee the manual.")

    [built] = lockable(root).build().outputs
    patch.setattr(signing, "_library", lambda part: Library())
    return raised(lambda: signing.sign(built.path, root / "key.pem"))


@made
def PEM0304_compared(root: Path, patch: pytest.MonkeyPatch) -> Found:
    return raised(lambda: compare("adapters/a", "adapters/ia3"))


@made
def PEM0820_unknown(root: Path, patch: pytest.MonkeyPatch) -> Found:
    lockable(root)
    folder = root / "locked"
    patch.chdir(folder)
    patch.setenv("GIT_CEILING_DIRECTORIES", str(root))

    def compared(place: str) -> Found:
        def look() -> None:
            with opened(place, {}):
                raise AssertionError("it opened")

        return raised(look)

    found = list(compared("HEAD:made.pem"))
    who = ("-c", "user.name=x", "-c", "user.email=x")
    for words in (["init", "-q"], ["add", "made.pem"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], check=True)
    for place in ("nowhere:made.pem", "-x:made.pem", "HEAD:absent.pem"):
        found += compared(place)
    patch.setenv("PATH", str(root))
    commit = re.compile(r"[0-9a-f]{12}\b")
    return tuple(
        dataclasses.replace(one, message=commit.sub("0123456789ab", one.message))
        for one in (*found, *compared("HEAD:made.pem"))
    )


# --- running them --------------------------------------------------------------------------


@dataclass
class Case:
    """One message, or a few of one code."""

    name: str
    text: str = ""
    options: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def code(self) -> str:
        return self.name.partition("-")[0]

    def run(self, text: str) -> Found:
        """What is said of the recipe in the folder it lies in."""
        support.recipe(Path(), text, f"{self.name}.pem")
        params = dict(value.split("=", 1) for value in self.options.get("set", ()))
        try:
            found = pemlang.load(f"{self.name}.pem", params)
            return found.build().warnings if "build" in self.options else found.check()
        except pemlang.PemError as error:
            return error.diagnostics
        finally:
            shelf.clear(Path())

    def mended(self, found: Found) -> str:
        """The recipe with the help, or what the case names, in the place of the mistake."""
        text = self.text
        for one in sorted(found, key=lambda d: -d.span.start if d.span else 0):
            assert one.span is not None
            start, end, new = one.span.start, one.span.end, one.help
            if "instead" in self.options:
                start, end = text.rfind("\n", 0, start) + 1, text.find("\n", start)
                [new] = self.options["instead"]
            assert new is not None
            text = text[:start] + new + text[end:]
        return text


def read_case(path: Path) -> Case:
    text = path.read_text(encoding="utf-8")
    options: dict[str, list[str]] = {}
    for line in re.findall(r"^#! (.+)$", text, re.MULTILINE):
        word, _, rest = line.partition(" ")
        options.setdefault(word, []).append(rest)
    assert set(options) <= {"build", "set", "paste", "instead"}, path
    return Case(path.stem, text, options)


CASES = {path.stem: read_case(path) for path in sorted(HERE.glob("*.pem"))}
CASES |= {name: Case(name) for name in MADE}


@dataclass
class Ran:
    """The folder of adapters in which all cases run, each once, and what they said."""

    root: Path
    said: dict[str, Found] = field(default_factory=dict)
    reached: set[tuple[str, int]] = field(default_factory=set)

    def of(self, case: Case) -> Found:
        if case.name not in self.said:
            with pytest.MonkeyPatch.context() as patch, self._noting():
                patch.chdir(self.root)
                found = MADE[case.name](self.root, patch) if case.name in MADE else None
                self.said[case.name] = case.run(case.text) if found is None else tuple(found)
        return self.said[case.name]

    def again(self, case: Case, text: str) -> Found:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            return case.run(text)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the lines at which faults are made."""
        begin = Fault.__init__

        def noted(fault: Fault, *args: Any, **kwargs: Any) -> None:
            frame = sys._getframe(1)
            self.reached.add((frame.f_code.co_filename, frame.f_lineno))
            begin(fault, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Fault, "__init__", noted)
            yield

    def shown(self, found: Found, colour: bool = False) -> str:
        text = "\n\n".join(render(one, colour) for one in found) + "\n"
        return text.replace(str(self.root), "/here")


@pytest.fixture(scope="module")
def ran(stocked: Path) -> Ran:
    return Ran(stocked)


def hold(name: str, text: str, request: pytest.FixtureRequest) -> None:
    """Hold a text to what was written down for it."""
    golden = HERE / f"{name}.txt"
    if request.config.getoption("--rewrite"):
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), "no such text yet: write it with pytest --rewrite"
    assert text == golden.read_text(encoding="utf-8")


# --- the tests -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_message(case: Case, ran: Ran, request: pytest.FixtureRequest) -> None:
    found = ran.of(case)
    assert {one.code for one in found} == {case.code}
    text = ran.shown(found)
    assert all(char == "\n" or char.isprintable() for char in text)
    hold(case.name, text, request)


MENDED = {n: case for n, case in CASES.items() if {"paste", "instead"} & set(case.options)}


@pytest.mark.parametrize("case", MENDED.values(), ids=MENDED)
def test_help_mends_the_recipe(case: Case, ran: Ran) -> None:
    mended = case.mended(ran.of(case))
    assert ran.shown(ran.again(case, mended)) == "\n"


def test_every_fault_is_shown(ran: Ran) -> None:
    """Each place in the compiler that makes a message is reached by a case."""
    for case in CASES.values():
        ran.of(case)
    missed = [
        f"{path.relative_to(SOURCES)}:{call.lineno}"
        for path in sorted(SOURCES.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Fault"
        if (str(path), call.lineno) not in ran.reached
    ]
    assert "\n".join(missed) == ""


def test_no_text_is_left_over() -> None:
    texts = {path.stem for path in HERE.glob("*.txt")}
    assert texts == set(CASES) | {"shown-in-colour", "shown-as-json"}


def test_in_colour(ran: Ran, request: pytest.FixtureRequest) -> None:
    found = ran.of(CASES["PEM0306-add"])
    hold("shown-in-colour", ran.shown(found, colour=True).replace("\x1b", "␛"), request)


def test_as_json(ran: Ran, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran.root)
    case = CASES["PEM0306-add"]
    path = support.recipe(ran.root, case.text, f"{case.name}.pem")
    result = CliRunner().invoke(cli, ["check", "--format", "json", path.name])
    assert json.loads(result.stdout)[0]["code"] == case.code
    hold("shown-as-json", result.stdout, request)
