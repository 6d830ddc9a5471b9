"""`pem diff` of recipes: what changed in meaning, and nothing where nothing did."""

from __future__ import annotations

import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from support import ia3, lora, recipe, tensors_of

from pemlang.cli.main import cli
from pemlang.compare.meaning import Meaning, meaning
from pemlang.compare.sides import file_meaning, side
from pemlang.show.meaning_show import NOTHING, as_html, as_json, as_markdown, as_text
from pemlang.syntax.files import read_source

ROOT = Path(__file__).parent.parent
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
HEAD = {"base_model.model.classifier.weight": torch.ones(2, 3)}
NAMES = "abchij"
DECLARED = "".join(f'adapter {name} = "{name}"\n' for name in NAMES) + 'adapter k = "k"\n'


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("diff")
    for seed, name in enumerate("abc"):
        lora(found / name, seed)
    for seed, name in enumerate("hk"):
        lora(found / name, 10 + seed, extra=HEAD, modules_to_save=["classifier"])
    for seed, name in enumerate("ij"):
        ia3(found / name, seed)
    lora(found / "nameless", 9, base_model_name_or_path=...)
    lora(found / "lib/a", 7)
    recipe(found / "lib", 'adapter a = "a"\n', "l.pem")
    for name in ("base", "chat"):
        (found / name).mkdir()
        save_file({"w": torch.zeros(4, 4)}, found / name / "model.safetensors")
    return found


def compared(folder: Path, old: str, new: str) -> Meaning:
    """What changed between two texts in one folder, which declare what they need or all."""
    found = []
    for name, text in (("old.pem", old), ("new.pem", new)):
        whole = text if text.startswith(("adapter ", "base ", "import ")) else DECLARED + text
        path = recipe(folder, whole, name)
        found.append(side(name, path, read_source(path, name), {}).checked)
    return meaning(found[0], found[1], ("old", "new"))


def phrases(folder: Path, old: str, new: str) -> list[str]:
    """The phrases for the one output of two texts, values of which are saved as x."""
    texts = [
        text if "save " in text else f'let x = {text.partition(" with ")[0]}\nsave x to "out"'
        + "".join(text.partition(" with ")[1:]) for text in (old, new)
    ]  # fmt: skip
    [change] = compared(folder, *texts).outputs
    return list(change.changes)


# --- each kind of change -------------------------------------------------------------------

TIES = "ties([a, b], rank=4, density=0.5)"
DARE = "dare([a, b], rank=4, density=0.5, seed={})"
PHRASES: list[tuple[str, str, list[str]]] = [
    ("a - 0.6 * b", "a - 0.75 * b", ["b −0.6 → −0.75"]),
    ("a + b", "a - b", ["b 1 → −1"]),
    ("a / 3 + b", "a / 7 + b", ["a 1/3 → 1/7"]),
    ("a + b", "a + b - 0.5 * c", ["+ −0.5·c", "rank 8 → 12"]),
    ("a + b + c", "a + b", ["− c", "rank 12 → 8"]),
    ("a + b", "a + c", ["+ c", "− b"]),
    ("a", "2 * a", ["a 1 → 2"]),
    ("a", "b", ["+ b", "− a"]),
    ("a - a", "a", ["+ a", "rank 0 → 4"]),
    ("a + b with rank=6", "a + b with rank=4", ["rank 6 → 4"]),
    ("a + b", "a + b with rank=4", ["rank 8 → 4"]),
    ("a + b with energy=0.9", "a + b with energy=0.95", ["energy 0.9 → 0.95"]),
    (
        "a + b with rank=4", "a - b with energy=0.95",
        ["b 1 → −1", "energy none → 0.95", "rank 4 → at most 8"],
    ),
    ("a", "a with dtype=bf16", ["dtype of the inputs → bf16"]),
    ("a with heads=h", "a with heads=k", ["heads of h → of k"]),
    ("a", "a with heads=k", ["heads the inputs' own → of k"]),
    ("a + b", '(a + b)["*.query"]', ["−2 sites"]),
    ('join(a, b["*.query"])', "join(a, b)", ["b at 2 → 4 sites", "ranks 4 to 8 → 8"]),
    ('join(a, b["*.query"])', 'join(a, b["*.value"])', ["b at 2 other sites"]),
    ("ramp(1, 0.5) * a", "ramp(1, 0.25) * a", ["a (0.5 … 1 by site) → (0.25 … 1 by site)"]),
    (
        'ramp(1, 0.5) * a["*.query"]', 'ramp(0.5, 1) * a["*.query"]',  # exactly two sites
        ["a by other weights at some of its sites: (0.5 … 1 by site)"],
    ),
    (
        'ramp(1, 0.5) ⊗ a["*.query"]', 'ramp(1, 0.25) ⊗ a["*.query"]',
        ["(0.5 … 1 by site)⊗a → (0.25 … 1 by site)⊗a"],
    ),
    (
        'ramp(1, 0.5) ⊗ a["*.query"]', 'ramp(0.5, 1) ⊗ a["*.query"]',
        ["a by other weights at some of its sites: (0.5 … 1 by site)"],
    ),
    ("a ⊕ b", "a ⊖ b", ["b → ⊖b"]),
    ("0.5 ⊗ a ⊕ b", "0.7 ⊗ a ⊕ b", ["0.5⊗a → 0.7⊗a"]),
    ("a ⊕ b", "a ⊕ b ⊖ c", ["+ ⊖c"]),
    ("a ⊕ b ⊕ 0.5 ⊗ c", "a ⊕ b", ["− 0.5⊗c"]),
    ("a", "⊖a", ["a → ⊖a"]),
    ("i ⊕ j", "i ⊕ 0.5 ⊗ j", ["j 1 → 0.5"]),
    ("a", "i", ["+ i", "− a", "LoRA → (IA)³", "+4 sites", "−4 sites"]),
    (TIES, TIES.replace("0.5", "0.7"), ["ties: density 0.5 → 0.7"]),
    (TIES, TIES.replace("4,", "4, weights=[1, 2],"), ["ties: b 1 → 2"]),
    (TIES, TIES.replace("b]", "c]"), ["ties: + c", "ties: − b"]),
    (DARE.format(1), DARE.format(2), ["dare: seed 1 → 2"]),
    ("slerp(a, b, t=0.5)", "slerp(b, a, t=0.5)",
     ["slerp([a, b], t=0.5) → slerp([b, a], t=0.5)"]),
    ("pad(a, rank=6)", "pad(a, rank=7)", ["pad(a, rank=6) → pad(a, rank=7)", "rank 6 → 7"]),
    ("cosine(a, b) * a + b", "cosine(a, b) * a + 2 * b", ["b 1 → 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), PHRASES)
def test_a_change_is_told_in_the_algebra(
    shelf: Path, old: str, new: str, wanted: list[str]
) -> None:
    assert phrases(shelf, old, new) == wanted
    assert phrases(shelf, new, old) != []
    for text in (old, new):
        assert phrases(shelf, text, text) == []


def test_a_measured_weight_that_changed_is_told(shelf: Path) -> None:
    [told] = phrases(shelf, "cosine(a, b) * a + b", "norm(b) * a + b")
    assert re.fullmatch(r"a cosine\((a, b|b, a)\) → norm\(b\)", told)


def test_another_method_is_told_whole(shelf: Path) -> None:
    [told] = phrases(shelf, TIES, DARE.format(1))
    assert told.startswith("ties([a, b]") and "→ dare([a, b]" in told


def test_ends_of_outputs(shelf: Path) -> None:
    one, both = 'save a to "x"', 'save a to "x"\nsave b to "y"'
    assert as_text(compared(shelf, one, both)).splitlines() == [
        "a: no change of meaning",
        "b: added, b",
    ]
    assert as_text(compared(shelf, both, one)).splitlines()[1] == "b: removed, b"
    [moved] = compared(shelf, one, 'save a to "z"').outputs
    assert (moved.state, moved.changes) == ("changed", ("saved to z, was x",))
    swapped = compared(shelf, both, 'save b to "x"\nsave a to "y"')
    assert [change.changes for change in swapped.outputs] == [("+ b", "− a"), ("+ a", "− b")]
    assert compared(shelf, both, 'save b to "y"\nsave a to "x"').same
    nothing = compared(shelf, "let z = 1", "let z = 2")  # nothing can be said of it
    assert not nothing.same
    assert as_text(nothing) == NOTHING


def test_assertions(shelf: Path) -> None:
    saved = 'save a to "x"'
    found = compared(shelf, f"assert norm(a) < 3\n{saved}", f"assert norm(a) < 4\n{saved}")
    assert found.assertions == ("− norm(a) < 3", "+ norm(a) < 4")
    assert not found.same
    assert "assertions changed, no output did" in as_markdown(found)
    same = [
        ('assert norm(a) < 3 else "one"', 'assert norm(a) < 3 else "two"'),
        ("assert norm(a) < 3", "let n = norm(a)\nassert n < 1 + 2"),
        ("assert norm(a) < 3\nassert norm(b) < 3", "assert norm(b) < 3\nassert norm(a) < 3"),
    ]
    for one, two in same:
        assert compared(shelf, f"{one}\n{saved}", f"{two}\n{saved}").same
    found = compared(shelf, saved, f"assert norm(a) < 3 and not norm(b) > 2\n{saved}")
    assert found.assertions == ("+ (norm(a) < 3 and not (norm(b) > 2))",)


def test_a_long_assertion_is_compared_to_its_end(shelf: Path) -> None:
    many = " + ".join(TIES.replace("0.5", f"0.{n}") for n in range(100, 140))
    one, two = (f'assert norm({many} + {end}) < 9\nsave a to "x"' for end in ("a", "2 * a"))
    assert compared(shelf, one, one).same
    assert not compared(shelf, one, two).same
    assert len(compared(shelf, one, two).assertions) == 2


def test_an_adapter_under_another_name_is_the_same(shelf: Path) -> None:
    old = 'adapter a = "a"\nadapter b = "b"\nsave a - b to "x"'
    assert compared(shelf, old, 'adapter b = "a"\nadapter a = "b"\nsave b - a to "x"').same


def test_another_adapter_under_the_same_name_is_told(shelf: Path) -> None:
    old = 'adapter a = "a"\nadapter b = "b"\nsave a - 0.5 * b to "x"'
    one, two = phrases(shelf, old, old.replace('"b"', '"c"').replace("0.5", "0.25"))
    assert re.fullmatch(r"b: other content, [0-9a-f]{12} → [0-9a-f]{12}", one)
    assert two == "b −0.5 → −0.25"
    base = 'base m = "one/base"\nadapter a on m = "nameless"\nsave a to "x"'
    told = phrases(shelf, base, base.replace("one/base", "two/base"))
    assert told == ["a: on another base", "base one/base → two/base"]


def test_two_adapters_of_one_name_are_both_told(shelf: Path) -> None:
    head = 'import "lib/l.pem" as l\nadapter a = "a"\nadapter b = "b"\n'
    told = phrases(shelf, f'{head}save a + 2 * l.a to "x"', f'{head}save b to "x"')
    assert sorted(told) == ["+ b", "rank 8 → 4", "− 2·a", "− a"]


def test_models_are_compared_too(shelf: Path) -> None:
    head = 'base m = "base"\nmodel chat on m = "chat"\nadapter a = "a"\n'
    one, two = (f'{head}save m + {by} * (chat - m) to "x"' for by in ("0.5", "0.25"))
    assert compared(shelf, one, one).same
    assert not compared(shelf, one, two).same


REFACTORINGS = [
    'let other = a - 0.6 * b\nsave other to "out"',
    'save -0.6 * b + a to "out"',
    'param w: number = 0.6\nsave a - w * b to "out"',
    'def without(x: adapter, y: adapter) -> adapter = x - 0.6 * y\nsave without(a, b) to "out"',
    'let half = 0.3 * b\n# twice\nsave a - half - half to "out"',
    'save (a + b) - 1.6 * b to "out"',
    'save 0.4 * a + 3 / 5 * (a - b) to "out"',
]


@pytest.mark.parametrize("new", REFACTORINGS)
def test_a_refactoring_is_no_change(shelf: Path, new: str) -> None:
    found = compared(shelf, 'let safe = a - 0.6 * b\nsave safe to "out"', new)
    assert found.same
    assert as_text(found) == "no change of meaning in 1 output"


# --- out of git ----------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, *paths: str) -> str:
    git(folder, "add", *(paths or (".",)))
    git(folder, "commit", "-qm", "x")
    return git(folder, "rev-parse", "HEAD")


SUM = 'adapter a = "adapters/a"\nadapter b = "adapters/b"\nlet safe = a - 0.6 * b\n'
SUM += 'save safe to "out/x"\n'


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a recipe of two adapters that it does not keep."""
    found = tmp_path / "repo"
    for seed, name in enumerate("ab"):
        lora(found / "adapters" / name, seed)
    recipe(found, SUM, "r.pem")
    (found / ".gitignore").write_text("adapters\n")
    git(found, "init", "-qb", "main")
    commit(found)
    monkeypatch.chdir(found)
    return found


def run(*words: str) -> tuple[int, str]:
    """Exit code and all that is said, in this process; what would be a traceback is raised."""
    done = CliRunner().invoke(cli, list(words), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.output


def diff(old: str, new: str = "r.pem") -> list[str]:
    """The lines of a comparison that succeeds."""
    status, said = run("diff", "--", old, new)
    assert status == 0, said
    return said.splitlines()


def refused(old: str, new: str = "r.pem", code: str = "PEM0820") -> str:
    status, said = run("diff", "--", old, new)
    assert (status, f"error[{code}]" in said) == (1, True), said
    return said


STANDS = (
    "note: adapters/{} is not in git and not in pem.lock of the revision: what lies there now "
    "stands for it"
)
NOTES = [STANDS.format(name) for name in "ab"]


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
    assert run("lock", name)[0] == 0
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
    assert run("build", "--locked", name)[0] == 0
    lora_a, lora_b = home / "adapters/movies-lora", home / "adapters/products-lora"
    shutil.copyfile(lora_b / WEIGHTS, lora_a / WEIGHTS)
    status, said = run("build", "--locked", name)
    assert (status, f"{WEIGHTS} of adapters/movies-lora is not what pem.lock has" in said) == (
        1, True,
    )  # fmt: skip


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
    said = refused(place)
    assert "\x1b" not in said and "Traceback" not in said


def test_outside_a_repository_and_without_git(
    tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    recipe(outside, "let x = 1\n", "r.pem")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(outside)
    assert "not a git repository" in refused("main:r.pem")
    assert diff("r.pem") == [NOTHING]
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
    said = refused("HEAD:r.pem", "HEAD~1:r.pem", "PEM0206")
    assert "--> HEAD:r.pem:3" in said
    assert "pem-diff-" not in said


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
    assert run("lock", "r.pem")[0] == 0
    commit(repo)
    lora(repo / "adapters/b", 9)
    assert diff("main:r.pem")[0].startswith("safe: b: other content, ")
    assert run("lock", "r.pem")[0] == 0
    shutil.rmtree(repo / "adapters")
    assert diff("main:r.pem")[0].startswith("safe: b: other content, ")
    (repo / "pem.lock").unlink()
    refused("main:r.pem", code="PEM0410")


def test_adapters_that_are_nowhere_are_told(repo: Path) -> None:
    shutil.rmtree(repo / "adapters")
    said = refused("main:r.pem", code="PEM0410")
    assert str(repo / "adapters/a") in " ".join(said.split())
    assert "pem-diff-" not in said


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
    assert run("diff", "main:r.pem", "r.pem", "--set", "w=0.1")[1].startswith("no change")


def test_a_recipe_and_an_adapter_are_not_compared(repo: Path) -> None:
    done = CliRunner().invoke(cli, ["diff", "r.pem", "adapters/a"])
    assert (done.exit_code, "not one with the other" in done.output) == (2, True)


def test_states_of_a_file(repo: Path, tmp_path: Path) -> None:
    """As git's external diff gives them."""
    old = recipe(tmp_path / "tmp", SUM.replace("0.6", "0.5"), "old")
    assert file_meaning(old, repo / "r.pem", "r.pem") == ["safe: b −0.5 → −0.6"]
    [added] = file_meaning(None, repo / "r.pem", "r.pem")
    assert added.startswith("safe: added, ")
    [removed] = file_meaning(repo / "r.pem", None, "r.pem")
    assert removed.startswith("safe: removed, ")


# --- shown ---------------------------------------------------------------------------------

HOSTILE = "a|b`c``<img src=x onerror=y>[l](javascript:z)*_~</td>&"


@pytest.fixture(scope="module")
def hostile(shelf: Path) -> Meaning:
    shutil.copytree(shelf / "a", shelf / HOSTILE)
    text = f'adapter a = "{HOSTILE}"\nadapter b = "b"\n'
    old = text + f'assert norm(a) < 1\nsave a + b to "out/{HOSTILE}"\nsave a to "{HOSTILE}"'
    new = text + f'save 2 * a + b to "out/{HOSTILE}"\nsave b to "new\\n{HOSTILE}"'.replace(
        "\\n", ""
    )
    found = compared(shelf, old, new)
    return Meaning(
        f"main:{HOSTILE}\x1b[31m", found.new, found.outputs, found.assertions, (HOSTILE,)
    )


class Tags(html.parser.HTMLParser):
    """The tags of a page, held to be well nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"class"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_holds_whatever_names_say(hostile: Meaning) -> None:
    page, tags = as_html(hostile), Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    known = "p code table thead tbody tr th td ul li"
    assert tags.seen <= set(known.split())
    assert page.count("<tr ") == len(hostile.outputs)
    assert "\x1b" not in page


def test_markdown_holds_whatever_names_say(hostile: Meaning) -> None:
    shown = as_markdown(hostile)
    bare = re.sub(r"(`+)(?!`)(?:(?!\1(?!`)).)*?(?<!`)\1(?!`)", "", shown)
    assert "<img" not in bare.replace("\\<", "")
    assert "](" not in bare.replace("\\]", "")
    tags = {"<details", "<summary", "</summary", "</details"}
    assert set(re.findall(r"(?<!\\)</?[a-z]+", bare)) == tags
    assert "\x1b" not in shown
    assert as_markdown(hostile).endswith("\n")


def test_text_and_json_are_all_of_it(hostile: Meaning) -> None:
    shown = as_text(hostile)
    assert "\x1b" not in shown
    assert "\x1b[33m" in as_text(hostile, colour=True)
    found = json.loads(json.dumps(as_json(hostile)))
    assert found["same"] is False
    assert [one["path"] for one in found["outputs"]] == [one.path for one in hostile.outputs]
    assert found["assertions"] == ["− norm(a) < 1"]


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_every_form_from_the_command_line(repo: Path, form: str) -> None:
    recipe(repo, SUM.replace("0.6", "0.75"), "r.pem")
    status, said = run("diff", "main:r.pem", "r.pem", "--format", form)
    assert (status, "b −0.6 → −0.75" in said) == (0, True)


Show = Callable[[Meaning], str]


@pytest.mark.parametrize("show", [as_text, as_markdown, as_html])
def test_nothing_changed_is_said_in_every_form(shelf: Path, show: Show) -> None:
    assert "no change of meaning" in show(compared(shelf, 'save a to "x"', 'save 1 * a to "x"'))


# --- what a review found -------------------------------------------------------------------


def test_a_tree_that_names_a_file_elsewhere_writes_nothing_there(
    repo: Path, tmp_path: Path
) -> None:
    """Git makes no such tree; one that is fetched may have been made by hand."""
    away = tmp_path / "away.pem"
    blob = git(repo, "hash-object", "-w", "r.pem").strip()
    rows = [(name, bytes.fromhex(blob)) for name in (str(away), "r.pem")]
    tree = b"".join(b"100644 " + name.encode() + b"\0" + sha for name, sha in sorted(rows))
    (tmp_path / "tree").write_bytes(tree)
    made = git(
        repo, "hash-object", "-t", "tree", "-w", "--literally", str(tmp_path / "tree")
    ).strip()
    commit_ = git(repo, "commit-tree", "-m", "x", made).strip()
    assert diff(f"{commit_}:r.pem") == ["no change of meaning in 1 output", *NOTES]
    assert not away.exists()


def test_an_import_from_outside_the_repository_is_refused(repo: Path) -> None:
    outside = recipe(repo.parent, "let w = 0.5\n", "outside.pem")
    text = (repo / "r.pem").read_text()
    (repo / "r.pem").write_text(f'import "../{outside.name}" (w)\n{text}')
    commit(repo, "r.pem")
    code, said = run("diff", "main:r.pem", "r.pem")
    assert code == 1
    assert "outside" in said


def test_git_says_that_imports_are_taken_as_they_are(repo: Path, tmp_path: Path) -> None:
    recipe(repo, "let w = 0.3\n", "lib.pem")
    text = (repo / "r.pem").read_text()
    new = recipe(repo, f'import "lib.pem" (w)\n{text}', "r.pem")
    old = recipe(tmp_path / "old", new.read_text().replace("import", "# before\nimport"), "o.pem")
    assert file_meaning(old, new, str(new)) == [
        "no change of meaning in 1 output",
        "with lib.pem on both sides as it is now",
    ]


def test_an_adapter_twice_in_a_merge_is_told_whole(shelf: Path) -> None:
    [told] = phrases(
        shelf,
        "ties([a, a, b], rank=4, density=0.5, weights=[1, 2, 1])",
        "ties([a, a, b], rank=4, density=0.7, weights=[3, 2, 1])",
    )
    assert "→" in told
    assert told.count("ties([") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("norm(a) < 9", "9 > norm(a)"), ("norm(a) >= 0.1", "0.1 <= norm(a)"),
     ("norm(a) != norm(b)", "norm(b) != norm(a)")],
)  # fmt: skip
def test_a_comparison_turned_round_is_the_same(shelf: Path, old: str, new: str) -> None:
    saved = 'save a to "x"\nassert '
    assert compared(shelf, saved + old, saved + new).same
    assert not compared(shelf, saved + "norm(a) < 9", saved + "norm(a) > 9").same


def test_an_assertion_of_other_content_is_told(shelf: Path) -> None:
    one = 'adapter a = "a"\nadapter b = "b"\nsave a to "x"\nassert cosine(a, b) < 0.9\n'
    found = compared(shelf, one, one.replace('b = "b"', 'b = "c"'))
    assert not found.same
    assert found.assertions == ("~ cosine(a, b) < 0.9, of other content",)


def test_copies_in_another_order_are_the_same(shelf: Path) -> None:
    shutil.copytree(shelf / "a", shelf / "copy", dirs_exist_ok=True)
    lines = ['adapter a = "a"\n', 'adapter z = "copy"\n']
    saved = 'save a + 0.5 * z to "x"\n'
    assert compared(shelf, "".join(lines) + saved, "".join(lines[::-1]) + saved).same
    [changed] = compared(
        shelf, "".join(lines) + saved, "".join(lines) + 'save 0.5 * a + z to "x"\n'
    ).outputs
    assert changed.changes == ("a 1 → 0.5", "z 0.5 → 1")


def test_an_adapter_without_its_tensors_is_as_in_the_lock(repo: Path) -> None:
    assert run("lock", "r.pem")[0] == 0
    commit(repo, "r.pem", "pem.lock")
    for weights in repo.rglob(WEIGHTS):
        weights.unlink()
    assert diff("main:r.pem") == ["no change of meaning in 1 output"]
