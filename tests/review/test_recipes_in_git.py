"""`pem diff` of recipes of git revisions: which adapters and imports stand for what was there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import lora, pem, recipe, tensors_of
from support.comparing import SUM
from support.git import commit, git

ROOT = Path(__file__).parents[2]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NOTES = [
    f"note: adapters/{name} is not in git and not in pem.lock of the revision: what lies there "
    "now stands for it"
    for name in "ab"
]


def diff(old: str, new: str = "r.pem") -> list[str]:
    """The lines of a comparison that succeeds."""
    done = pem("diff", "--", old, new)
    assert done.code == 0, done.text
    return done.text.splitlines()


def refused(old: str, new: str = "r.pem", code: str = "PEM0820") -> str:
    """What is said of a comparison that fails with a code."""
    done = pem("diff", "--", old, new)
    assert (done.code, f"error[{code}]" in done.text) == (1, True), done.text
    return done.text


def meaning(old: Path | None, new: Path | None, path: str) -> list[str]:
    """What is said below the lines of a file in two states, as git's external diff gives them."""
    sides = [
        word
        for file in (old, new)
        for word in ((str(file), "0" * 40, "100644") if file else ("/dev/null", ".", "."))
    ]
    shown = pem("git-diff", "--", path, *sides).out.splitlines()
    return [line.removeprefix("# ") for line in shown if line.startswith("# ")]


def test_a_revision_and_the_working_tree(repo: Path) -> None:
    assert diff("main:r.pem") == ["no change of meaning in 1 output", *NOTES]
    recipe(repo, SUM.replace("0.6", "0.75"), "r.pem")
    assert diff("main:r.pem") == ["safe: b −0.6 → −0.75", *NOTES]
    assert diff("r.pem", "main:r.pem") == ["safe: b −0.75 → −0.6", *NOTES]
    commit(repo)
    assert diff("HEAD~1:r.pem", "HEAD:r.pem") == ["safe: b −0.6 → −0.75", *NOTES]
    tagged = git(repo, "rev-parse", "HEAD~1")[:10]
    assert diff(f"{tagged}:r.pem")[0] == "safe: b −0.6 → −0.75"


def test_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a change through a review: a weight, a refactoring, and a swapped file."""
    home = shutil.copytree(ROOT / "examples/quickstart", tmp_path / "q")
    shutil.rmtree(home / "out", ignore_errors=True)
    monkeypatch.chdir(home)
    name = "quickstart.pem"
    assert pem("lock", name).code == 0
    git(home, "init", "-qb", "main")
    (home / ".gitignore").write_text("adapters\n")
    commit(home)
    shutil.move(home / "adapters", tmp_path / "adapters")
    text = (home / name).read_text()
    (home / name).write_text(text.replace("in 0..1 = 0.5", "in 0..1 = 0.7"))
    lines = diff(f"main:{name}", name)
    assert lines[0] == "out/exact-lora: movies 0.5 → 0.7; products 0.5 → 0.3"
    assert len(lines) == 4
    sum_ = "let both = weight * movies + (1 - weight) * products"
    mixed = "def mixed(x: adapter, y: adapter, w: number) -> adapter = y - y * w + w * x\n"
    assert sum_ in text
    moved = text.replace(sum_, f"{mixed}let total = mixed(products, movies, 1 - weight)")
    (home / name).write_text(moved.replace("save both", "save total"))
    assert diff(f"main:{name}", name) == ["no change of meaning in 4 outputs"]
    (home / name).write_text(text)
    shutil.move(tmp_path / "adapters", home / "adapters")
    assert pem("build", "--locked", name).code == 0
    lora_a, lora_b = home / "adapters/movies-lora", home / "adapters/products-lora"
    shutil.copyfile(lora_b / WEIGHTS, lora_a / WEIGHTS)
    done = pem("build", "--locked", name)
    assert done.code == 1
    assert f"{WEIGHTS} of adapters/movies-lora is not what pem.lock has" in done.text


def test_a_path_from_a_folder_and_from_the_top(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SUM.replace('"adapters', '"../adapters')
    recipe(repo / "deep", text, "d.pem")
    commit(repo)
    recipe(repo / "deep", text.replace("0.6", "0.5"), "d.pem")
    monkeypatch.chdir(repo / "deep")
    for path in (
        "HEAD:./d.pem",
        "HEAD:deep/d.pem",
        "HEAD:../deep/d.pem",
        "HEAD:deep/../deep/d.pem",
    ):
        assert diff(path, "d.pem")[0] == "safe: b −0.6 → −0.5"
    assert diff("HEAD:../r.pem", "d.pem")[0] == "safe: b −0.6 → −0.5"
    refused("HEAD:d.pem", "d.pem")
    refused("HEAD:../../r.pem", "d.pem")
    refused("HEAD:/etc/passwd", "d.pem")


@pytest.mark.parametrize(
    "name",
    ["a b.pem", "ä'\".pem", "$(touch x).pem", "a:b.pem", "-x.pem", "tab\t.pem", "e\u0301.pem"],
)
def test_a_path_of_any_name(repo: Path, name: str) -> None:
    recipe(repo, SUM, name)
    commit(repo)
    recipe(repo, SUM.replace("0.6", "0.5"), name)
    assert diff(f"main:{name}", name)[0] == "safe: b −0.6 → −0.5"
    assert not (repo / "x").exists()


@pytest.mark.parametrize(
    "place",
    [
        "nowhere:r.pem", "-x:r.pem", "--help:r.pem", ":r.pem", "main:absent.pem", "main:",
        "main:adapters", "main^{tree}:r.pem", "ma in:r.pem", "\x1b[31m:r.pem", "main:a\x1b[31m",
    ],
)  # fmt: skip
def test_what_git_does_not_have_is_told(repo: Path, place: str) -> None:
    shown = refused(place)
    assert "\x1b" not in shown
    assert "Traceback" not in shown


def test_outside_a_repository_and_without_git(
    tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    recipe(outside, "let x = 1\n", "r.pem")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(outside)
    assert "not a git repository" in refused("main:r.pem")
    assert diff("r.pem") == ["nothing is saved on either side: compare the recipes that import it"]
    monkeypatch.setenv("PATH", str(outside))
    assert "git is not installed" in refused("main:r.pem")


def test_an_import_that_changed_is_a_change(repo: Path) -> None:
    recipe(repo / "lib", "let by = 0.6\n", "w.pem")
    text = 'import "lib/w.pem" (by)\n' + SUM.replace("0.6", "by")
    recipe(repo, text, "r.pem")
    commit(repo)
    assert diff("HEAD:r.pem")[0] == "no change of meaning in 1 output"
    recipe(repo / "lib", "let by = 0.5\n", "w.pem")
    assert diff("HEAD:r.pem")[0] == "safe: b −0.6 → −0.5"
    (repo / "lib/w.pem").unlink()
    assert diff("HEAD:r.pem", "HEAD:r.pem")[0] == "no change of meaning in 1 output"


def test_a_wrong_recipe_is_told_by_its_place(repo: Path) -> None:
    recipe(repo, SUM.replace("0.6 * b", "0.6 * d"), "r.pem")
    commit(repo)
    shown = refused("HEAD:r.pem", "HEAD~1:r.pem", "PEM0206")
    assert "--> HEAD:r.pem:3" in shown
    assert "pem-diff-" not in shown


def test_adapters_that_git_keeps_are_those_of_the_revision(repo: Path) -> None:
    (repo / ".gitignore").write_text("")
    commit(repo)
    lora(repo / "adapters/b", 9)
    [told] = diff("main:r.pem")
    assert re.fullmatch(r"safe: b: other content, [0-9a-f]{12} → [0-9a-f]{12}", told)
    commit(repo)
    shutil.rmtree(repo / "adapters")
    assert diff("HEAD:r.pem", "HEAD:r.pem") == ["no change of meaning in 1 output"]
    assert diff("HEAD~1:r.pem", "HEAD:r.pem") == [told]


def test_a_lock_of_the_revision_is_what_it_had(repo: Path) -> None:
    assert pem("lock", "r.pem").code == 0
    commit(repo)
    lora(repo / "adapters/b", 9)
    assert diff("main:r.pem")[0].startswith("safe: b: other content, ")
    assert pem("lock", "r.pem").code == 0
    shutil.rmtree(repo / "adapters")
    assert diff("main:r.pem")[0].startswith("safe: b: other content, ")
    (repo / "pem.lock").unlink()
    refused("main:r.pem", code="PEM0410")


def test_adapters_that_are_nowhere_are_told(repo: Path) -> None:
    shutil.rmtree(repo / "adapters")
    shown = refused("main:r.pem", code="PEM0410")
    assert str(repo / "adapters/a") in " ".join(shown.split())
    assert "pem-diff-" not in shown


def pointer(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"


@pytest.mark.parametrize("pickled", [False, True])
def test_what_git_lfs_keeps(repo: Path, pickled: bool) -> None:
    """A revision has a pointer; the tensors are in the working tree, if they are still the same."""
    (repo / ".gitignore").write_text("")
    at, name = repo / "adapters/b", WEIGHTS
    if pickled:
        name = "adapter_model.bin"
        torch.save(tensors_of(at), at / name)
        (at / WEIGHTS).unlink()
    data, config = (at / name).read_bytes(), json.loads((at / CONFIG).read_text())
    (at / name).write_text(pointer(data))
    commit(repo)
    (at / name).write_bytes(data)
    assert diff("main:r.pem") == ["no change of meaning in 1 output"]
    # The config is the revision's own, whatever lies there now.
    (at / CONFIG).write_text(json.dumps(config | {"lora_alpha": 16}))
    assert diff("main:r.pem")[0].startswith("safe: b: other content, ")
    (at / name).write_bytes(data[:-1] + b"x")
    assert "Git LFS" in refused("main:r.pem", "main:r.pem")


def test_an_adapter_of_a_link_and_outside(repo: Path, tmp_path: Path) -> None:
    lora(tmp_path / "outside/a", 5)
    (repo / "linked").symlink_to(tmp_path / "outside/a")
    text = SUM.replace("adapters/a", "linked").replace("adapters/b", "../outside/a")
    recipe(repo, text, "r.pem")
    commit(repo)
    assert diff("main:r.pem")[0] == "no change of meaning in 1 output"


def test_a_link_to_an_adapter_that_git_keeps(repo: Path) -> None:
    (repo / ".gitignore").write_text("")
    (repo / "linked").symlink_to("adapters/b")
    recipe(repo, SUM + 'adapter again = "linked"\nsave b + again to "y"', "r.pem")
    commit(repo)
    assert diff("main:r.pem") == ["no change of meaning in 2 outputs"]
    lora(repo / "adapters/b", 9)
    assert len(diff("main:r.pem")) == 2


def test_models_of_a_revision_are_those_that_lie_there(repo: Path) -> None:
    for name in ("base", "chat"):
        (repo / "adapters" / name).mkdir()
        save_file({"w": torch.zeros(4, 4)}, repo / "adapters" / name / "model.safetensors")
    text = 'base m = "adapters/base"\nmodel chat on m = "adapters/chat"\n'
    recipe(repo, text + 'save m + 0.5 * (chat - m) to "x"', "m.pem")
    commit(repo)
    assert diff("main:m.pem", "m.pem") == ["no change of meaning in 1 output"]


def test_a_param_is_set_on_both_sides(repo: Path) -> None:
    text = "param w: number = 0.6\n" + SUM.replace("0.6", "w")
    recipe(repo, text, "r.pem")
    commit(repo)
    recipe(repo, text.replace("= 0.6", "= 0.5"), "r.pem")
    assert diff("main:r.pem")[0] == "safe: b −0.6 → −0.5"
    done = pem("diff", "main:r.pem", "r.pem", "--set", "w=0.1")
    assert done.out.startswith("no change")


def test_a_recipe_and_an_adapter_are_not_compared(repo: Path) -> None:
    done = pem("diff", "r.pem", "adapters/a")
    assert (done.code, "not one with the other" in done.text) == (2, True)


def test_states_of_a_file(repo: Path, tmp_path: Path) -> None:
    old = recipe(tmp_path / "tmp", SUM.replace("0.6", "0.5"), "old")
    assert meaning(old, repo / "r.pem", "r.pem") == ["safe: b −0.5 → −0.6"]
    [added] = meaning(None, repo / "r.pem", "r.pem")
    assert added.startswith("safe: added, ")
    [removed] = meaning(repo / "r.pem", None, "r.pem")
    assert removed.startswith("safe: removed, ")


def test_a_tree_that_names_a_file_elsewhere_writes_nothing_there(
    repo: Path, tmp_path: Path
) -> None:
    """Git makes no such tree; one that is fetched may have been made by hand."""
    away = tmp_path / "away.pem"
    blob = git(repo, "hash-object", "-w", "r.pem").strip()
    rows = [(name, bytes.fromhex(blob)) for name in (str(away), "r.pem")]
    tree = b"".join(b"100644 " + name.encode() + b"\0" + sha for name, sha in sorted(rows))
    (tmp_path / "tree").write_bytes(tree)
    words = ("hash-object", "-t", "tree", "-w", "--literally", str(tmp_path / "tree"))
    made = git(repo, *words).strip()
    revision = git(repo, "commit-tree", "-m", "x", made).strip()
    assert diff(f"{revision}:r.pem") == ["no change of meaning in 1 output", *NOTES]
    assert not away.exists()


def test_an_import_from_outside_the_repository_is_refused(repo: Path) -> None:
    outside = recipe(repo.parent, "let w = 0.5\n", "outside.pem")
    text = (repo / "r.pem").read_text()
    (repo / "r.pem").write_text(f'import "../{outside.name}" (w)\n{text}')
    commit(repo, "r.pem")
    done = pem("diff", "main:r.pem", "r.pem")
    assert done.code == 1
    assert "outside" in done.text


def test_git_says_that_imports_are_taken_as_they_are(repo: Path, tmp_path: Path) -> None:
    recipe(repo, "let w = 0.3\n", "lib.pem")
    text = (repo / "r.pem").read_text()
    new = recipe(repo, f'import "lib.pem" (w)\n{text}', "r.pem")
    old = recipe(tmp_path / "old", new.read_text().replace("import", "# before\nimport"), "o.pem")
    assert meaning(old, new, str(new)) == [
        "no change of meaning in 1 output",
        "with lib.pem on both sides as it is now",
    ]


def test_an_adapter_without_its_tensors_is_as_in_the_lock(repo: Path) -> None:
    assert pem("lock", "r.pem").code == 0
    commit(repo, "r.pem", "pem.lock")
    for weights in repo.rglob(WEIGHTS):
        weights.unlink()
    assert diff("main:r.pem") == ["no change of meaning in 1 output"]
