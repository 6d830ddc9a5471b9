"""pem.lock: what it says, what is held to it, and what goes without the adapters by it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from click.testing import CliRunner
from hub_server import serving
from safetensors.torch import save_file
from support import SITES, build, codes, ia3, lora, recipe, tensors_of

import pemlang
from pemlang.cli.main import cli
from pemlang.inputs.lock import MAX_BYTES

ROOT = Path(__file__).parent.parent
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DECLARED = 'adapter a = "adapters/a"\nadapter b = "adapters/b"\n'
SUM = DECLARED + 'save a + 0.5 * b to "out/x"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    for seed, name in enumerate("ab"):
        lora(found / "adapters" / name, seed)
    recipe(found, SUM)
    monkeypatch.chdir(found)
    return found


def run(*words: str) -> tuple[int, str]:
    """Exit code and all that is said, in this process; what would be a traceback is raised."""
    done = CliRunner().invoke(cli, list(words), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.output


def lock(*recipes: str) -> dict[str, Any]:
    """What a lock says once some recipes are locked."""
    assert run("lock", *(recipes or ("recipe.pem",)))[0] == 0
    found: dict[str, Any] = json.loads(Path("pem.lock").read_text())
    return found


def edit(change: Callable[[Any], object]) -> None:
    said = json.loads(Path("pem.lock").read_text())
    change(said)
    Path("pem.lock").write_text(json.dumps(said))


def built_hash() -> str:
    return pemlang.load("recipe.pem").build().outputs[0].semantic_hash


def planned(name: str = "recipe.pem", **params: Any) -> list[str | None]:
    """The semantic hashes of a plan that goes by the lock alone."""
    found = pemlang.load(name, params).outlook(locked=True)
    return [one.semantic_hash for one in found.outputs]


# --- what it says --------------------------------------------------------------------------


def test_a_lock_has_the_digests_of_all_that_is_read(folder: Path) -> None:
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    recipe(folder, 'import "lib/w.pem" (half)\nimport std.paper (merge)\n' + SUM)
    said = lock()
    assert said["adapters"].keys() == {"adapters/a", "adapters/b"}
    for name, one in said["adapters"].items():
        for file, digest in one["files"].items():
            assert blake3((folder / name / file).read_bytes()).hexdigest() == digest
        assert list(one["files"]) == [CONFIG, WEIGHTS]
    standard = (ROOT / "stdlib/paper.pem").read_bytes()
    assert said["imports"] == {
        "lib/w.pem": blake3(b"let half = 0.5\n").hexdigest(),
        "std.paper": blake3(standard).hexdigest(),
    }
    assert said["recipes"] == {
        "recipe.pem": {
            "adapters": ["adapters/a", "adapters/b"],
            "imports": ["lib/w.pem", "std.paper"],
        }
    }


def test_a_lock_is_the_same_to_the_byte_elsewhere(folder: Path, tmp_path: Path) -> None:
    lock()
    first = Path("pem.lock").read_bytes()
    lock()
    assert Path("pem.lock").read_bytes() == first
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    (elsewhere / "pem.lock").unlink()
    assert run("lock", str(elsewhere / "recipe.pem"))[0] == 0
    assert (elsewhere / "pem.lock").read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in folder.iterdir()) == ["adapters", "pem.lock", "recipe.pem"]


def test_what_a_lock_changed_is_told(folder: Path) -> None:
    assert run("lock", "recipe.pem")[1].splitlines()[1:] == [
        "    + adapters/a",
        "    + adapters/b",
    ]
    assert "nothing has changed" in run("lock", "recipe.pem")[1]
    lora(folder / "adapters/a", 7)
    recipe(folder, 'adapter a = "adapters/a"\nsave a to "out/x"\n')
    lines = run("lock", "recipe.pem")[1].splitlines()[1:]
    assert lines == ["    − adapters/b", f"    ~ adapters/a: {WEIGHTS}"]


def test_recipes_of_a_folder_share_a_lock(folder: Path) -> None:
    lora(folder / "adapters/c", 3)
    recipe(folder, 'adapter c = "adapters/c"\nadapter a = "adapters/a"\nsave a + c to "y"', "o.pem")
    lock("recipe.pem", "o.pem")
    assert planned("o.pem") == [pemlang.load("o.pem").build().outputs[0].semantic_hash]
    # An adapter goes once no recipe needs it.
    recipe(folder, 'adapter a = "adapters/a"\nsave a to "y"', "o.pem")
    assert lock("o.pem")["adapters"].keys() == {"adapters/a", "adapters/b"}
    (folder / "recipe.pem").unlink()
    said = lock("o.pem")
    assert (said["adapters"].keys(), said["recipes"].keys()) == ({"adapters/a"}, {"o.pem"})


def test_recipes_of_two_folders_have_a_lock_each(folder: Path) -> None:
    text = SUM.replace('= "', '= "../')
    recipe(folder / "deep", text)
    assert run("lock", "recipe.pem", "deep/recipe.pem")[0] == 0
    said = json.loads((folder / "deep/pem.lock").read_text())
    assert said["adapters"].keys() == {"../adapters/a", "../adapters/b"}
    shutil.rmtree(folder / "adapters")
    assert run("check", "--locked", "deep/recipe.pem") == (0, "")


def test_a_wrong_recipe_is_not_locked(folder: Path) -> None:
    lock()
    before = Path("pem.lock").read_bytes()
    recipe(folder, DECLARED + "let x = nowhere\n")
    status, said = run("lock", "recipe.pem")
    assert (status, "PEM0206" in said) == (1, True)
    assert Path("pem.lock").read_bytes() == before


def test_a_recipe_behind_a_link_is_locked_where_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(folder / "recipe.pem")
    assert run("lock", str(tmp_path / "link.pem"))[0] == 0
    said = json.loads((folder / "pem.lock").read_text())
    assert said["recipes"].keys() == {"recipe.pem"}
    assert not (tmp_path / "pem.lock").exists()


def test_a_lock_that_cannot_be_written_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    before = Path("pem.lock").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    lora(folder / "adapters/a", 7)
    status, said = run("lock", "recipe.pem")
    assert (status, "PEM0512" in said) == (1, True)
    assert Path("pem.lock").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["adapters", "pem.lock", "recipe.pem"]


# --- what it is enough for -----------------------------------------------------------------


def pickled(folder: Path) -> None:
    at = folder / "adapters/a"
    torch.save(tensors_of(at), at / "adapter_model.bin")
    (at / WEIGHTS).unlink()


def collected(folder: Path) -> None:
    grams = {f"{site}.gram": torch.eye(shape[1]) for site, shape in SITES.items()}
    for name in "ab":
        save_file(grams, folder / "adapters" / name / "statistics.safetensors")
    recipe(folder, DECLARED + 'save regmean([a, b]) to "out/x" with rank=8\n')


def copies(folder: Path) -> None:
    shutil.copytree(folder / "adapters/a", folder / "adapters/copy")
    recipe(folder, DECLARED + 'adapter c = "adapters/copy"\nsave a - c + b to "out/x"\n')


def two_paths(folder: Path) -> None:
    recipe(folder, DECLARED + 'adapter c = "./deep/../adapters/a"\nsave a + c + b to "out/x"\n')


def linked(folder: Path) -> None:
    (folder / "adapters/link").symlink_to("a")
    recipe(folder, DECLARED + 'adapter c = "adapters/link"\nsave a + c + b to "out/x"\n')


def imported(folder: Path) -> None:
    lora(folder / "lib/own", 5)
    recipe(folder / "lib", 'adapter own = "own"\nadapter a = "../adapters/a"\n', "l.pem")
    recipe(folder, 'import "lib/l.pem" (own, a)\nsave own + a to "out/x"\n')


def gained(folder: Path) -> None:
    ia3(folder / "adapters/a", 1)
    ia3(folder / "adapters/b", 2)
    recipe(folder, DECLARED + 'save a ⊕ b to "out/x"\n')


def headed(folder: Path) -> None:
    head = {"base_model.model.classifier.weight": torch.ones(2, 3)}
    lora(folder / "adapters/a", 1, extra=head, modules_to_save=["classifier"])
    recipe(folder, DECLARED + 'save a + b to "out/x" with heads=a, dtype=bf16, energy=0.9\n')


def measured(folder: Path) -> None:
    recipe(folder, DECLARED + 'assert norm(a) < 999\nsave cosine(a, b) * a + b to "out/x"\n')


def set_path(folder: Path) -> None:
    text = 'param which: string = "a"\nadapter a = "adapters/{which}"\nsave a to "out/x"\n'
    recipe(folder, text)


CASES = [
    lambda folder: None, pickled, collected, copies, two_paths, linked, imported, gained, headed,
    measured, set_path,
]  # fmt: skip


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_lock_stands_for_the_adapters(folder: Path, make: Callable[[Path], None]) -> None:
    """Checked and planned without them, the meaning is that of a build; and a build by the lock
    is that of one without."""
    make(folder)
    wanted = built_hash()
    first = (folder / "out/x" / WEIGHTS).read_bytes()
    lock()
    shutil.rmtree(folder / "out")
    assert run("build", "--locked", "recipe.pem")[0] == 0
    assert (folder / "out/x" / WEIGHTS).read_bytes() == first
    shutil.rmtree(folder / "adapters")
    shutil.rmtree(folder / "lib/own", ignore_errors=True)
    assert run("check", "--locked", "recipe.pem") == (0, "")
    assert planned() == [wanted]
    assert codes(folder, (folder / "recipe.pem").read_text()) != []  # they are needed without it


def test_a_param_in_a_path_is_locked_at_its_value(folder: Path) -> None:
    set_path(folder)
    lock()
    assert run("check", "--locked", "recipe.pem", "--set", "which=b")[0] == 1
    assert run("lock", "recipe.pem", "--set", "which=b")[0] == 0
    assert run("check", "--locked", "recipe.pem", "--set", "which=b") == (0, "")
    wanted = pemlang.load("recipe.pem", {"which": "b"}).build().outputs[0].semantic_hash
    assert planned(which="b") == [wanted]


def test_no_torch_and_no_adapter_is_needed(tmp_path: Path) -> None:
    home = shutil.copytree(ROOT / "examples/quickstart", tmp_path / "q")
    shutil.rmtree(home / "out", ignore_errors=True)
    pem = [sys.executable, "-m", "pemlang"]
    subprocess.run([*pem, "lock", "quickstart.pem"], cwd=home, check=True, capture_output=True)
    shutil.rmtree(home / "adapters")
    for words in (
        ["check", "--locked", "quickstart.pem"],
        ["plan", "--locked", "quickstart.pem"],
        ["diff", "quickstart.pem", "quickstart.pem"],
    ):
        code = (
            "import sys, atexit\n"
            "atexit.register(lambda: print({'torch', 'peft'} & set(sys.modules)))\n"
            f"from pemlang.cli.main import main\nmain({words})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.endswith("set()\n")


# --- what is held to it --------------------------------------------------------------------


def other_weights(folder: Path) -> str:
    lora(folder / "adapters/b", 9)
    return f"{WEIGHTS} of adapters/b"


def one_byte(folder: Path) -> str:
    path = folder / "adapters/a" / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return f"{WEIGHTS} of adapters/a"


def other_config(folder: Path) -> str:
    path = folder / "adapters/a" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 9}))
    return f"{CONFIG} of adapters/a"


def other_rank(folder: Path) -> str:
    """Which the recipe could not do with: that it is another adapter is said all the same."""
    recipe(folder, SUM.replace("adapter b", "adapter b: lora(rank=4)"))
    lock()
    lora(folder / "adapters/b", 1, rank=8)
    return f"{CONFIG} of adapters/b"


def other_sites(folder: Path) -> str:
    path = folder / "adapters/b" / CONFIG
    config = path.read_text()
    lora(folder / "adapters/b", 1, sites=dict(list(SITES.items())[:2]))
    path.write_text(config)
    return f"{WEIGHTS} of adapters/b"


def pickled_since(folder: Path) -> str:
    pickled(folder)
    return "adapter_model.safetensors of adapters/a"


def statistics_since(folder: Path) -> str:
    collected(folder)
    recipe(folder, SUM)
    return "statistics.safetensors of adapters/a"


def other_import(folder: Path) -> str:
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    recipe(folder, 'import "lib/w.pem" (half)\n' + SUM)
    lock()
    recipe(folder / "lib", "let half = 0.25\n", "w.pem")
    return "lib/w.pem is not what pem.lock has"


SWAPS = [
    other_weights, one_byte, other_config, other_rank, other_sites, pickled_since,
    statistics_since, other_import,
]  # fmt: skip


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_a_build_by_a_lock_names_what_has_changed(
    folder: Path, swap: Callable[[Path], str]
) -> None:
    lock()
    named = swap(folder)
    status, said = run("build", "--locked", "recipe.pem")
    assert (status, "error[PEM0803]" in said, named in said) == (1, True, True), said
    assert not (folder / "out").exists()
    if run("check", "recipe.pem")[0] == 0:
        lock()
        assert run("build", "--locked", "recipe.pem")[0] == 0


def test_every_adapter_that_changed_is_named(folder: Path) -> None:
    lock()
    other_weights(folder)
    one_byte(folder)
    _, said = run("build", "--locked", "recipe.pem")
    assert said.count("error[PEM0803]") == 2


def test_an_output_that_is_up_to_date_is_held_to_the_lock_too(folder: Path) -> None:
    lock()
    one_byte(folder)
    assert run("build", "recipe.pem")[0] == 0
    assert run("build", "--locked", "recipe.pem")[0] == 1


def test_an_adapter_that_was_not_locked_is_refused(folder: Path) -> None:
    lock()
    lora(folder / "adapters/c", 4)
    recipe(folder, SUM + 'adapter c = "adapters/c"\n')
    for command in ("check", "plan", "build"):
        status, said = run(command, "--locked", "recipe.pem")
        assert (status, "PEM0802" in said) == (1, True)


# --- damaged and hostile -------------------------------------------------------------------

DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "deeply nested": b"[" * 100_000,
    "nested inside": b'{"lock": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a long number": b'{"lock": ' + b"9" * 5000 + b"}",
    "huge": b" " * (MAX_BYTES + 1),
    "true": b'{"lock": true}',
    "merged": b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> x\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_lock_is_told(folder: Path, data: bytes) -> None:
    (folder / "pem.lock").write_bytes(data)
    for words in (
        ["check", "--locked", "recipe.pem"],
        ["plan", "--locked", "recipe.pem"],
        ["build", "--locked", "recipe.pem"],
        ["lock", "recipe.pem"],
        ["diff", "recipe.pem", "recipe.pem"],
    ):
        status, said = run(*words)
        assert (status, "error[PEM0801]" in said) == (1, True), (words, said)
    assert (folder / "pem.lock").read_bytes() == data


def test_a_lock_cut_anywhere_is_told_or_whole(folder: Path) -> None:
    lock()
    data = (folder / "pem.lock").read_bytes()
    for end in range(0, len(data) - 2, 97):
        (folder / "pem.lock").write_bytes(data[:end])
        assert run("check", "--locked", "recipe.pem")[0] == 1


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at] if at else []
    items = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in items.items() if isinstance(items, dict) else ():
        found += paths(inner, (*at, key))
    return found


@pytest.mark.parametrize("junk", [None, 7, "\ud800{0..5}", [], {}, ["x"], {"a": {"b": 1}}, 1e999])
def test_junk_anywhere_in_a_lock_is_no_crash(folder: Path, junk: Any) -> None:
    said = lock()
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    for path in paths(said):
        changed = json.loads(json.dumps(said))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = junk
        (folder / "pem.lock").write_text(json.dumps(changed))
        for words in (["plan", "--locked"], ["build", "--locked"], ["lock"]):
            assert run(*words, "recipe.pem")[0] in (0, 1)


@pytest.mark.parametrize(
    "name", ["../../etc/x", "/etc/passwd", "", "..", ".", "a\0b", "x" * 5000, "a\x1b[31m"]
)
def test_a_lock_leads_nowhere(folder: Path, name: str) -> None:
    """Names in it are compared, and never opened."""
    lock()

    def rename(said: Any) -> None:
        files = said["adapters"]["adapters/a"]["files"]
        said["adapters"]["adapters/a"]["files"] = dict(
            zip([CONFIG, name], files.values(), strict=True)
        )

    edit(rename)
    status, said = run("build", "--locked", "recipe.pem")
    assert (status, "\x1b" in said) == (1, False)
    shutil.rmtree(folder / "adapters")
    assert run("plan", "--locked", "recipe.pem")[0] in (0, 1)


def test_a_lock_cannot_pass_one_adapter_off_as_another(folder: Path) -> None:
    """The order of digests is part of a content, and `same` holds nothing together in a build."""
    lora(folder / "adapters/c", 3)
    recipe(folder, DECLARED + 'adapter c = "adapters/c"\nsave a + b + c to "out/x"\n')
    lock()
    edit(lambda said: said["adapters"]["adapters/c"].update(same="adapters/a"))
    wanted = built_hash()
    assert run("build", "--locked", "recipe.pem")[0] == 0
    assert built_hash() == wanted


def test_a_deeply_nested_config_is_told(folder: Path) -> None:
    path = folder / "adapters/a" / CONFIG
    config = path.read_text().rstrip().removesuffix("}")
    path.write_text(f'{config}, "megatron_config": {"[" * 300}{"]" * 300}}}')
    for command in ("check", "lock", "build"):
        status, said = run(command, "recipe.pem")
        assert (status, "PEM0414" in said) == (1, True)


def test_a_lock_of_another_version_holds_a_check_and_no_build(folder: Path) -> None:
    lock()
    edit(lambda said: said.update(pemlang="0.0.1\x1b[31m"))
    assert run("check", "--locked", "recipe.pem") == (0, "")
    status, said = run("build", "--locked", "recipe.pem")
    assert (status, "PEM0804" in said, "\x1b" in said) == (1, True, False)


# --- the hub -------------------------------------------------------------------------------


def test_a_branch_is_pinned_and_needs_no_network_again(tmp_path: Path) -> None:
    one, two = lora(tmp_path / "source/one", 1), lora(tmp_path / "source/two", 2)
    home = tmp_path / "home"
    recipe(home, 'adapter a = "hf://org/a"\nsave a to "out/x"\n')
    with serving({"org/a": {"main": one}}) as hub:
        env = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0",
        }  # fmt: skip

        def pem(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "pemlang", *words], cwd=home, env=env | more,
                capture_output=True, text=True, check=False,
            )  # fmt: skip

        assert pem("lock", "recipe.pem").returncode == 0
        said = json.loads((home / "pem.lock").read_text())
        commit = hub.commit(one)
        assert said["adapters"]["hf://org/a"]["revision"] == commit
        # The branch moves; what was locked is still there by its commit.
        hub.repos["org/a"] = {"main": two, "old": one}
        shutil.rmtree(tmp_path / "cache")
        assert pem("build", "--locked", "recipe.pem").returncode == 0
        assert all(map(torch.equal, tensors_of(home / "out/x").values(), tensors_of(one).values()))
        hub.sent.clear()
        again = pem("build", "--locked", "--force", "recipe.pem", HF_HUB_OFFLINE="1")
        assert (again.returncode, again.stderr, hub.sent) == (0, "", [])
        assert pem("verify", "--rebuild", "out/x", HF_HUB_OFFLINE="1").returncode == 0
        provenance = (home / "out/x/provenance.json").read_text()
        assert f"hf://org/a@{commit}/{WEIGHTS}" in provenance
        shutil.rmtree(tmp_path / "cache")
        assert pem("check", "--locked", "recipe.pem").returncode == 0
        assert pem("plan", "--locked", "recipe.pem", "--format", "json").returncode == 0
        assert hub.sent == []
        # Without the lock the branch counts.
        assert pem("build", "recipe.pem").returncode == 0
        assert all(map(torch.equal, tensors_of(home / "out/x").values(), tensors_of(two).values()))


def test_build_writes_no_lock(folder: Path) -> None:
    build(folder, SUM)
    assert not (folder / "pem.lock").exists()


# --- what a review found -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "plan", "build"])
def test_what_is_there_is_held_to_the_lock(folder: Path, command: str) -> None:
    lock()
    lora(folder / "adapters/b", 5)
    code, said = run(command, "--locked", "recipe.pem")
    assert (code, "PEM0803" in said, WEIGHTS in said) == (1, True, True)


def test_a_git_lfs_pointer_is_held_to_the_lock(folder: Path) -> None:
    lock()
    weights = folder / "adapters/b" / WEIGHTS
    told = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n"
    own = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_text(told.format(own))
    assert run("check", "--locked", "recipe.pem") == (0, "")
    weights.write_text(told.format("0" * 64))
    code, said = run("check", "--locked", "recipe.pem")
    assert (code, "PEM0803" in said) == (1, True)


def test_a_signature_that_is_not_the_files_is_told(folder: Path) -> None:
    lock()

    def lower(said: Any) -> None:
        entry = said["adapters"]["adapters/a"]
        entry["config"]["r"] = 2
        entry["tensors"] = {
            key: shape.replace("[4, ", "[2, ").replace(", 4]", ", 2]")
            for key, shape in entry["tensors"].items()
        }

    edit(lower)
    code, said = run("build", "--locked", "recipe.pem")
    assert (code, "PEM0803" in said, "signature" in said) == (1, True, True)


def test_layers_that_run_backwards_are_refused(folder: Path) -> None:
    lock()

    def backwards(said: Any) -> None:
        entry = said["adapters"]["adapters/a"]
        entry["tensors"] = {
            key.replace("{0..1}", "{1..0}"): value for key, value in entry["tensors"].items()
        }

    edit(backwards)
    assert "{1..0}" in Path("pem.lock").read_text()
    code, said = run("check", "--locked", "recipe.pem")
    assert (code, "PEM0801" in said) == (1, True)
