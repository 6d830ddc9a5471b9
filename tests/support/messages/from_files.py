"""Messages about files, the hub, memory and devices that no recipe can show."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.errors
import pytest
import torch

import pemlang
from pemlang import BuildOptions
from pemlang.execute import Gpu, open_gpu
from pemlang.formats import Adapter, read_adapter
from pemlang.tensorfiles import TensorReader, file_digest, read_header, read_numbers
from support import build, lora
from support import recipe as write_recipe
from support.messages.case import Diagnostics, loaded, made, raised, text_checked, told

ONE_SAVE = 'adapter a = "adapters/a"\nsave a to "out/a"\n'


def read_all(adapter: Adapter) -> None:
    """Read all tensors of an adapter."""
    with TensorReader() as reader:
        for key, entry in adapter.header.entries.items():
            reader.tensor(adapter.reference(key), entry.dtype, entry.shape)


@made
def PEM0410_recipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "made.pem").write_text("language 1\n")
    return told("inspect", "made.pem")


@made
def PEM0410_file_on_the_hub(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    class Library:
        """A hub whose files have no tensors."""

        errors = huggingface_hub.errors

        def try_to_load_from_cache(self, *asked: object, **more: object) -> None:
            return None

        def HfApi(self) -> Library:
            return self

        def parse_safetensors_file_metadata(self, *asked: object, **more: object) -> object:
            return SimpleNamespace(tensors={})

    patch.setattr("pemlang.inputs.hub._library", Library)
    return text_checked(root, 'adapter a = "hf://org/run/adapter_model.safetensors@main"\n')


@made
def PEM0411_pipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    os.mkfifo(root / "pipe")
    try:
        return told("inspect", "pipe")
    finally:
        (root / "pipe").unlink()


@made
def PEM0411_gone_before_digest(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return raised(lambda: file_digest(root / "gone.safetensors"))


def numbers_after(change: Callable[[Path], object], root: Path) -> Diagnostics:
    """What is said of the α of a file that changes once its header is read."""
    file = Path(shutil.copy(root / "styles/ink.safetensors", root / "changed.safetensors"))
    header = read_header(file)
    change(file)
    keys = [key for key in header.entries if key.endswith(".alpha")]
    return raised(lambda: read_numbers(file, header, keys))


@made
def PEM0411_gone_before_its_numbers(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return numbers_after(lambda file: file.unlink(), root)


@made
def PEM0412_cut_before_its_numbers(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return numbers_after(lambda file: os.truncate(file, 64), root)


@made
def PEM0810_file_without_provenance(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("verify", "styles/ink.safetensors")


@made
def PEM0810_file_of_another_kind(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("verify", "made.pem")


@made
def PEM0411_gone_before_reading(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    adapter = read_adapter(lora(root / "gone"))
    adapter.weights.unlink()
    return raised(lambda: read_all(adapter))


@made
def PEM0412_shrank(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    adapter = read_adapter(lora(root / "shrank"))
    adapter.weights.write_bytes(adapter.weights.read_bytes()[:-8])
    return raised(lambda: read_all(adapter))


@made
def PEM0441_unreachable(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    class Library:
        def __getattr__(self, name: str) -> object:
            raise ConnectionError("\nno route\x1b[31m to the host\nand more")

    patch.setattr("pemlang.inputs.hub._library", Library)
    return text_checked(root, 'adapter a = "hf://org/name@main"\n')


@made
def PEM0430_file_on_the_hub(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, 'model m = "hf://org/name/model.safetensors@main"\n')


@made
def PEM0441_below(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    class Library:
        """A hub whose repository has adapters in folders alone."""

        errors = huggingface_hub.errors

        def try_to_load_from_cache(self, **asked: object) -> None:
            return None

        def hf_hub_url(self, **asked: object) -> None:
            return None

        def get_hf_file_metadata(self, url: None) -> None:
            raise self.errors.EntryNotFoundError

        def HfApi(self) -> Library:
            return self

        def list_repo_tree(self, repo: str, **asked: object) -> list[SimpleNamespace]:
            folders = ("checkpoint-1000", "checkpoint-500", "run/default")
            return [SimpleNamespace(path=f"{x}/adapter_config.json") for x in folders]

    patch.setattr("pemlang.inputs.hub._library", Library)
    return text_checked(root, 'adapter a = "hf://org/run@main"\n')


@made
def PEM0442_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setitem(sys.modules, "huggingface_hub", None)
    return text_checked(root, 'adapter a = "hf://org/name@main"\n')


@made
def PEM0510_changed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    [built] = build(root, ONE_SAVE).outputs
    with (built.path / "README.md").open("a") as card:
        card.write("and more")
    try:
        return raised(lambda: build(root, ONE_SAVE))
    finally:
        shutil.rmtree(built.path)


def full(*_: object) -> None:
    """What writing to a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


@made
def PEM0512_full(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr("pemlang.artifact.staging.Stage.flush", full)
    return raised(lambda: build(root, ONE_SAVE))


@made
def PEM0512_no_permission(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(os, "access", lambda *_: False)
    (root / "out").mkdir(exist_ok=True)  # another case may have made it
    return text_checked(root, ONE_SAVE)


@made
def PEM0100_pipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    os.mkfifo("pipe.pem")
    return told("fmt", "pipe.pem")


@made
def PEM0100_locked_folder(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    def locked(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    patch.setattr(os, "scandir", locked)
    return told("fmt", "adapters")


@made
def PEM0100_no_recipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("check", "adapters")


@made
def PEM0111_unseen(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("build", "-e", "a", "a=new\nline", "--to", "out/x")


@made
def PEM0344_two_recipes(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipes = [
        write_recipe(root, f'adapter a = "adapters/a"\nsave {save} to "out/apart"\n', name).name
        for save, name in (("a", "one.pem"), ("-a", "two.pem"))
    ]
    return told("build", *recipes)


@made
def PEM0523_torch(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(importlib.util, "find_spec", lambda name: None)
    return raised(lambda: loaded(root, ONE_SAVE).evaluate("a"))


@made
def PEM0512_recipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(os, "fsync", full)
    return told("fmt", write_recipe(root, "let  x = 1", "made.pem").name)


@made
def PEM0530_process(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    folder = root / "tested"
    for name in ("one.pem", "two.pem"):
        write_recipe(folder, 'test "it" { assert true }\n', name)
    patch.setattr(pemlang.Recipe, "test", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    return told("test", "tested", "--format", "json")


@made
def PEM0530_memory(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    def too_much(*_: object) -> None:
        raise MemoryError

    patch.setattr("pemlang.cli.main._code_of", too_much)
    write_recipe(root, ONE_SAVE, "made.pem")
    return told("main", "check", "made.pem")


@made
def PEM0521_memory(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    recipe = loaded(root, ONE_SAVE)
    return raised(lambda: recipe.build(options=BuildOptions(memory=1000)))


@made
def PEM0521_site(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr("pemlang.pipeline.reading.default_budget", lambda: 1000)
    return told("inspect", root / "adapters" / "a")


@made
def PEM0522_no_triton(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else name)
    return raised(open_gpu)


@made
def PEM0522_no_gpu(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.setattr(torch.cuda, "is_available", lambda: False)
    return raised(open_gpu)


@made
def PEM0522_no_interpreter(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.delenv("TRITON_INTERPRET", raising=False)
    return raised(lambda: open_gpu("cpu"))


@made
def PEM0522_out_of_order(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    def broken(gpu: Gpu) -> None:
        raise RuntimeError("the driver is too old\x1b[31m\nand more")

    patch.setattr(Gpu, "try_out", broken)
    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.setenv("TRITON_INTERPRET", "1")
    return raised(lambda: open_gpu("cpu"))
