"""`git diff` after `pem git-setup`, in repositories made for it, by git itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import Done, lora, pem
from support.git import commit, git
from support.processes import pem_on_the_path

TEXT = 'adapter a = "a"\nparam w: number = 0.5\nsave w * a to "out"\n'
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, and a `pem` on the path that is the one under test."""
    outside = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for name, value in (pem_on_the_path(tmp_path) | outside).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


def setup(folder: Path, *words: str) -> Done:
    return pem("git-setup", *words, folder=folder)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def state(folder: Path) -> dict[str, bytes]:
    files = (folder / ".git/config", folder / ".git/info/attributes")
    return {path.name: path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("before", [None, b"", b"*.bin diff=hex", b"*.bin diff=hex\n"])
def test_twice_is_once_and_removed_is_as_before(repo: Path, before: bytes | None) -> None:
    attributes = repo / ".git/info/attributes"
    if before is not None:
        attributes.write_bytes(before)
    git(repo, "config", "diff.safetensors.xfuncname", "x")
    start = state(repo)
    assert setup(repo).code == 0
    once = state(repo)
    assert before is None or once["attributes"].endswith(before)
    assert "diff: pem" in git(repo, "check-attr", "diff", "x.pem")
    assert setup(repo).code == 0
    assert state(repo) == once
    assert setup(repo, "--remove").code == 0
    assert {k: v for k, v in state(repo).items() if v} == {k: v for k, v in start.items() if v}
    assert setup(repo, "--remove").code == 0


def test_another_driver_is_not_overwritten(repo: Path) -> None:
    git(repo, "config", "diff.pem.command", "other")
    start = state(repo)
    done = setup(repo)
    assert (done.code, state(repo)) == (2, start)
    assert "diff.pem.command is `other`" in done.err
    assert setup(repo, "--remove").code == 0
    assert state(repo) == start


def test_outside_a_repository(tmp_path: Path, repo: Path) -> None:
    done = setup(tmp_path)
    assert done.code == 1
    assert "error[PEM0821]: git cannot be set up here: not a git repository" in done.err
    assert "git init" in done.err
    assert "fatal" not in done.err


def test_worktrees_and_submodules(repo: Path, tmp_path: Path) -> None:
    write(repo, "r.pem", TEXT)
    commit(repo)
    git(repo, "worktree", "add", "-q", str(tmp_path / "tree"))
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    for folder in (tmp_path / "tree", other / "sub"):
        assert setup(folder).code == 0
        write(folder, "r.pem", TEXT.replace("0.5", "0.75"))
        assert "+param w: number = 0.75" in git(folder, "diff")
        assert "diff: pem" in git(folder, "check-attr", "diff", "r.pem")
        assert setup(folder, "--remove").code == 0
        assert "diff: unspecified" in git(folder, "check-attr", "diff", "r.pem")


def test_a_changed_recipe_has_its_lines_and_its_meaning(repo: Path) -> None:
    lora(repo / "a", 1)
    write(repo, "r.pem", TEXT)
    commit(repo)
    setup(repo)
    write(repo, "r.pem", TEXT.replace("0.5", "0.75"))
    shown = git(repo, "diff")
    assert shown.startswith("diff --git a/r.pem b/r.pem\nindex ")
    assert "\n--- a/r.pem\n+++ b/r.pem\n@@ -1,3 +1,3 @@\n" in shown
    assert "-param w: number = 0.5\n+param w: number = 0.75\n" in shown
    meaning = [line for line in shown.splitlines() if line.startswith("# ")]
    assert "a 0.5 → 0.75" in "\n".join(meaning), shown
    write(repo, "r.pem", TEXT.replace("w * a", "a * w"))
    assert "no change" in git(repo, "diff").splitlines()[-1], git(repo, "diff")
    write(repo, "r.pem", TEXT.replace("0.5", "0.75"))
    colour = git(repo, "-c", "color.diff=always", "diff")
    assert "\x1b[31m-param" in colour
    assert "\x1b[1mdiff --git" in colour


def named(diff: str) -> list[str]:
    """The lines of a diff that say which files it is of."""
    return [line for line in diff.splitlines() if line.startswith("diff --git ")]


@pytest.mark.parametrize("name", ["r.pem", 'a b/it\'s "x" $(y).pem', "-r.pem", "été/λ\t.pem"])
def test_what_is_shown_can_be_applied(repo: Path, name: str) -> None:
    write(repo, "keep.pem", TEXT)
    write(repo, name, TEXT)
    commit(repo)
    setup(repo)
    write(repo, name, TEXT.replace("0.5", "0.75") + "# no end of line")
    write(repo, "new " + name, TEXT)
    (repo / "keep.pem").unlink()
    git(repo, "add", "-A")
    shown = git(repo, "diff", "HEAD")
    plain = git(repo, "diff", "--no-ext-diff", "HEAD").replace("\\t", "\\011")  # a tab, both
    assert named(shown) == named(plain)
    write(repo, "../patch", shown)
    git(repo, "reset", "-q", "--hard")
    git(repo, "apply", "../patch")
    assert (repo / name).read_text().endswith("# no end of line")
    assert (repo / ("new " + name)).read_text() == TEXT
    assert not (repo / "keep.pem").exists()


def test_modes_and_renames(repo: Path) -> None:
    write(repo, "a.pem", TEXT)
    write(repo, "b.pem", TEXT + "let x = 1\n")
    commit(repo)
    setup(repo)
    (repo / "a.pem").chmod(0o755)
    git(repo, "mv", "b.pem", "c d.pem")
    write(repo, "c d.pem", TEXT + "let x = 2\n")
    git(repo, "add", "-A")
    shown = git(repo, "diff", "--cached", "-M")
    assert "old mode 100644\nnew mode 100755\n" in shown
    assert "rename from b.pem\nrename to c d.pem\n" in shown
    assert "-let x = 1\n+let x = 2\n" in shown
    write(repo, "../patch", shown)
    git(repo, "reset", "-q", "--hard")
    git(repo, "apply", "../patch")
    assert (repo / "c d.pem").read_text().endswith("let x = 2\n")


def test_an_unmerged_recipe(repo: Path) -> None:
    write(repo, "r.pem", TEXT)
    commit(repo)
    for branch, weight in (("one", "0.6"), ("other", "0.7")):
        git(repo, "checkout", "-qb", branch, "HEAD" if branch == "one" else "HEAD^")
        write(repo, "r.pem", TEXT.replace("0.5", weight))
        commit(repo)
    git(repo, "merge", "one", code=1)
    setup(repo)
    assert "<<<<<<< HEAD" in git(repo, "diff")
    shown = git(repo, "diff", "--ours")
    assert shown.startswith("* Unmerged path r.pem\n")
    assert "+<<<<<<< HEAD\n" in shown


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (CERTIFICATE.format("MIIB"), CERTIFICATE.format("MIIC"), "# a certificate or key"),
        (TEXT, TEXT + "let = 1\n", "the new recipe does not parse: line 4, "),
        (TEXT + "let = 1\n", TEXT, "the old recipe does not parse: line 4, "),
        (TEXT, " \n", "the new recipe cannot be read (PEM0104)"),
    ],
)
def test_what_is_no_recipe_is_shown_as_text(repo: Path, before: str, after: str, note: str) -> None:
    write(repo, "x.pem", before)
    commit(repo)
    setup(repo)
    write(repo, "x.pem", after)
    shown = git(repo, "diff")
    assert "\n@@ " in shown
    assert note in shown.splitlines()[-1]


def test_bytes_that_are_no_text(repo: Path) -> None:
    (repo / "x.pem").write_bytes(b"\x00\x01")
    commit(repo)
    setup(repo)
    (repo / "x.pem").write_bytes(b"\x00\x02")
    assert "Binary files differ\n" in git(repo, "diff")


def test_what_is_not_there_leaves_the_lines(repo: Path) -> None:
    write(repo, "r.pem", TEXT)
    commit(repo)
    setup(repo)
    write(repo, "r.pem", TEXT.replace("0.5", "0.75"))
    shown = git(repo, "diff").splitlines()
    assert "+param w: number = 0.75" in shown
    assert shown[-1].startswith("# what this means cannot be told: ")
    assert shown[-1].endswith("(PEM0410)")


def test_a_tensor_that_changed_is_shown_by_its_norm(repo: Path) -> None:
    lora(repo / "a", 1)
    file = repo / "a" / "adapter_model.safetensors"
    commit(repo)
    setup(repo)
    lora(repo / "a", 1, alpha=16)
    assert git(repo, "diff", "--", str(file)) == ""
    lora(repo / "a", 2)
    shown = git(repo, "diff", "--", str(file))
    changed = [line for line in shown.splitlines() if line[:1] in "+-" and line[1:4] == "   "]
    assert len(changed) == 2 * 8
    assert all(" norm " in line and " mean " in line for line in changed)


def test_tensors_as_lines(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = torch.as_tensor(rng.normal(size=(300, 1000)))
    tensors = {f"m.{i}.w": first.to(torch.bfloat16) for i in (0, 1, 2, 10)}
    tensors |= {"{odd}": torch.arange(5), "yes": torch.tensor([True, False]), "none": first[:0]}
    tensors |= {"nan.1.x": torch.tensor([float("nan")]), "f8": first.to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt", "a\x1b": "b"})
    lines = pem("git-tensors", tmp_path / "x.safetensors").out.splitlines()
    assert lines[:2] == ["a\\u001b: b", "format: pt"]
    at = lines.index("m.{0..2,10}.w  BF16 [300, 1000]")
    exact = tensors["m.0.w"].double()
    numbers = f"norm {exact.norm().item():.6g}  mean {exact.mean().item():.6g}"
    assert lines[at + 1 : at + 5] == [f"    {i}  {numbers}" for i in (0, 1, 2, 10)]
    for pattern, told in {
        "{{odd}}  I64 [5]": "norm 5.47723  mean 2",
        "yes  BOOL [2]": "norm 1  mean 0.5",
        "none  F64 [0, 1000]": "norm 0  mean 0",
        "nan.{1}.x  F32 [1]": "norm nan  mean nan",
    }.items():
        assert lines[lines.index(pattern) + 1] == f"    {told}"


def test_a_pointer_and_a_damaged_file(repo: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n"
    write(repo, "x.safetensors", pointer.format("1" * 64))
    write(repo, "y.safetensors", "nothing of the kind")
    write(repo, "z.safetensors", "")
    commit(repo)
    setup(repo)
    write(repo, "x.safetensors", pointer.format("2" * 64))
    write(repo, "y.safetensors", "nothing of that kind")
    write(repo, "z.safetensors", "\x80\x04pickle")
    shown = git(repo, "diff")
    assert " Git LFS pointer; its content has not been fetched\n" in shown
    assert f"+oid sha256:{'2' * 64}\n" in shown
    assert shown.count("is not a whole safetensors file") >= 3
    assert "+20 bytes, blake3 " in shown
    done = pem("git-tensors", repo / "nowhere")
    assert done.out == "cannot be read: No such file or directory\n"


def test_recipes_that_a_rule_for_certificates_leaves_out_are_told(repo: Path) -> None:
    write(repo, ".gitignore", "*.pem\nbuilt/\n")
    for name in ("top.pem", "recipes/a.pem", "recipes/b.pem", "built/c.pem"):
        write(repo, name, TEXT)
    write(repo, "keys/key.pem", CERTIFICATE)
    told = setup(repo).out
    assert ".gitignore:1 (*.pem) has git leave out recipes" in told
    assert "recipes/a.pem, recipes/b.pem, top.pem.\n" in told
    offered = [line.strip() for line in told.splitlines() if line.startswith("    !")]
    assert offered == ["!/recipes/*.pem", "!/*.pem"]
    write(repo, ".gitignore", "\n".join(["*.pem", "built/", *offered, "keys/"]))
    git(repo, "add", "-A")
    assert git(repo, "ls-files", "*.pem").split() == ["recipes/a.pem", "recipes/b.pem", "top.pem"]
    assert "leave out" not in setup(repo).out


def taken(folder: Path) -> set[str]:
    """What git would take of all that ends like a recipe."""
    names = git(folder, "ls-files", "-z", "-o", "--exclude-standard", "--", "*.pem")
    return {name for name in names.split("\0") if name}


def test_the_lines_are_written_where_that_is_asked_for(repo: Path) -> None:
    """In the file of the rule; keys that lie among recipes stay out; and it can be taken back."""
    write(repo, ".gitignore", "*.pem\nout/")
    write(repo, "sub/.gitignore", "x\n*.pem\n")
    recipes = {"top.pem", "a [b] *?/r.pem", "sub/r.pem", "sub/deep/r.pem", "mixed/r.pem"}
    for name in recipes:
        write(repo, name, TEXT)
    keys = {"keys/k.pem", "mixed/k.pem", "a b/k.pem"}
    for name in keys:
        write(repo, name, CERTIFICATE)
    before = {path: path.read_text() for path in repo.rglob(".gitignore")}
    told = setup(repo).out
    assert "`pem git-setup --unignore` writes this." in told
    assert {path: path.read_text() for path in repo.rglob(".gitignore")} == before
    done = setup(repo, "--unignore")
    assert (done.code, taken(repo)) == (0, recipes)
    assert "!/deep/*.pem\n" in (repo / "sub/.gitignore").read_text()
    assert setup(repo, "--unignore").code == 0
    write(repo, "later/r.pem", TEXT)
    assert setup(repo / "sub", "--unignore").code == 0
    assert taken(repo) == {*recipes, "later/r.pem"}
    assert (repo / ".gitignore").read_text().count("what pem git-setup wrote") == 1
    assert setup(repo, "--remove").code == 0
    after = {path: path.read_text().rstrip("\n") for path in repo.rglob(".gitignore")}
    assert after == {path: text.rstrip("\n") for path, text in before.items()}


def test_a_rule_of_this_machine_alone(repo: Path, tmp_path: Path) -> None:
    """It is no file of the repository: what is written is a .gitignore there."""
    write(tmp_path, "ignored", "*.pem\n")
    git(repo, "config", "core.excludesFile", str(tmp_path / "ignored"))
    write(repo, "r.pem", TEXT)
    write(repo, "odd\nname/r.pem", TEXT)
    assert setup(repo, "--unignore").code == 0
    assert taken(repo) == {"r.pem", "odd\nname/r.pem"}
    assert (tmp_path / "ignored").read_text() == "*.pem\n"
    assert setup(repo, "--remove").code == 0
    assert not (repo / ".gitignore").exists()


def test_a_link_is_not_written_through(repo: Path, tmp_path: Path) -> None:
    write(tmp_path, "theirs", "")
    (repo / ".gitignore").symlink_to(tmp_path / "theirs")
    write(repo, ".git/info/exclude", "*.pem\n")
    write(repo, "r.pem", TEXT)
    done = setup(repo, "--unignore")
    assert (done.code, "is a link" in done.err) == (1, True), done
    assert (tmp_path / "theirs").read_text() == ""
    assert setup(repo, "--unignore", "--remove").code == 2


@pytest.mark.parametrize(
    "text",
    [
        "Bag Attributes\n    localKeyID: 01\n" + CERTIFICATE,
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAA\n---- END",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\nggSjAgEAAoIBAQ==\n",
        "",
    ],
)
def test_a_key_of_any_form_stays_out(repo: Path, text: str) -> None:
    write(repo, ".gitignore", "*.pem\n")
    write(repo, "key.pem", text)
    write(repo, "merge.pem", TEXT)
    assert setup(repo, "--unignore").code == 0
    assert taken(repo) & {"key.pem", "merge.pem"} == {"merge.pem"}


OURS = "# what pem git-setup wrote\n{}# to here\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# what pem git-setup wrote\n*.pem\nsecret\n",) * 2,
        ("*.pem\n# to here\nsecret\n# what pem git-setup wrote\n",) * 2,
        ("*.pem\nx # what pem git-setup wrote\nsecret\n# to here\n",) * 2,
        ("*.pem\n" + OURS.format("!/old/*.pem\n").replace("\n", "\r\n"), "*.pem\n"),
        ("*.pem\n" + OURS.format("!/old/*.pem\n").rstrip(), "*.pem\n"),
    ],
)
def test_what_a_user_wrote_stays_where_comments_were_moved(
    repo: Path, before: str, after: str
) -> None:
    (repo / ".gitignore").write_bytes(before.encode())
    write(repo, "merge.pem", TEXT)
    assert setup(repo, "--unignore").code == 0
    assert "merge.pem" in taken(repo)
    assert "!/old/*.pem" not in before or "\n!/old/*.pem\n" in (repo / ".gitignore").read_text()
    assert setup(repo, "--remove").code == 0
    assert (repo / ".gitignore").read_bytes().decode() == after


def test_twice_is_once_where_a_name_has_a_line_of_another_kind(repo: Path) -> None:
    write(repo, ".gitignore", "*.pem\n")
    for folder in ("a\u2028b", "c\vd", "e\x85f"):
        write(repo, f"{folder}/merge.pem", TEXT)
    assert setup(repo, "--unignore").code == 0
    once = (repo / ".gitignore").read_bytes()
    write(repo, "new/merge.pem", TEXT)
    assert setup(repo, "--unignore").code == 0
    twice = (repo / ".gitignore").read_bytes()
    assert set(twice.splitlines()) == {*once.splitlines(), b"!/new/*.pem"}
