"""The trials of `pem tune`: built in batches, sharing what they read, measured once, removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lark import Lark
from lark.utils import TextSlice
from support import Done, pem
from support.reads import counted_reads
from support.tuning import TEXT, calls, script, stocked

from pemlang.artifact import Built

WHOLE = 4 * 4 * (16 * 4 + 4 * 12)
"""Bytes of the tensors of an adapter."""

COUNT = 'ls -d "$1"/../../*/output | wc -l'
"""How many outputs there are."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stocked(tmp_path)
    return tmp_path


def tune(folder: Path, body: str, *words: str) -> Done:
    """Tune by a script of the shell."""
    options = ("--metric", script(folder, body), "--maximize", "s", "--format", "json")
    return pem("tune", "recipe.pem", *options, *words, folder=folder)


def trials(done: Done) -> list[dict[str, object]]:
    """The trials, as JSON tells them."""
    return json.loads(done.out)["trials"]  # type: ignore[no-any-return]


def counts(done: Done) -> list[float]:
    """What COUNT gave."""
    return [x["numbers"]["s"] for x in json.loads(done.out)["trials"]]


def test_equal_meanings_are_measured_once(folder: Path) -> None:
    stocked(folder, TEXT.replace("w * a + (1 - w) * b", "(if w > 0.1 then a else b)"))
    done = trials(tune(folder, "echo 1", "--sampler", "grid", "--trials", "11"))
    assert len({x["hash"] for x in done}) == 2
    assert all(x["numbers"] == {"s": 1.0} for x in done)
    assert calls(folder) == ["0", "0.2"]  # the first alone, and the others in one go


def test_trials_share_what_they_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemlang.pipeline.jobs.verify", lambda *_: [])
    read = counted_reads(monkeypatch)
    assert tune(folder, "echo 1", "--sampler", "grid", "--trials", "11").code == 0
    for name in "ab":  # the first is built alone, to learn how large an output is
        assert sum(size for of, _, size in read if of == name) <= 2 * WHOLE


def test_what_holds_at_all_values_is_measured_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, sizes = counted_reads(monkeypatch), []
    for study, asserted in (("without", ""), ("with", "assert cosine(a, b) < 2\n")):
        stocked(folder, TEXT + asserted)
        assert tune(folder, "echo 1", "--trials", "8", "--study", f"{study}.study").code == 0
        sizes.append(sum(size for *_, size in read))
        read.clear()
    assert sizes[1] - sizes[0] == 2 * WHOLE  # of a and of b


def test_a_recipe_is_parsed_once_for_all_values(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TEXT.replace("w * a + (1 - w) * b", "merge(a, b, most * w)").replace("out/x", "out/x{w}")
    stocked(folder, f'import std.paper (merge)\nimport "own.pem" (most)\n{text}')
    (folder / "own.pem").write_text("let most = 0.5\n")
    parsed: list[str] = []
    parse = Lark.parse

    def counting(self: Lark, text: TextSlice[str]) -> object:
        parsed.append(text.text[text.start : text.end])
        return parse(self, text)

    monkeypatch.setattr(Lark, "parse", counting)
    assert len(trials(tune(folder, "echo 1", "--trials", "7"))) == 7
    assert len(parsed) == len(set(parsed)) > 0
    parsed.clear()
    assert pem("build", "recipe.pem", "--sweep", "w=0,0.5,1", folder=folder).code == 0
    assert len(parsed) == len(set(parsed)) > 0


def test_outputs_are_removed_and_never_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr("os.fsync", flushed.append)
    there = counts(tune(folder, COUNT, "--sampler", "grid", "--trials", "11"))
    left = (1, *range(10, 0, -1))
    assert all(x - y in (0, 1) for x, y in zip(there, left, strict=True))  # one on its way out
    assert not flushed
    assert pem("build", "recipe.pem", folder=folder).code == 0
    assert flushed


def test_no_more_than_four_gibibytes_of_outputs_are_there_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = property(lambda self: 3 << 29, lambda self, size: None)
    monkeypatch.setattr(Built, "size", size, raising=False)
    assert max(counts(tune(folder, COUNT, "--sampler", "grid", "--trials", "7"))) == 2


def test_a_build_keeps_within_the_memory_that_it_is_given(folder: Path) -> None:
    done = tune(folder, "echo 1", "--trials", "1", "--memory", "1KB")
    assert [x["code"] for x in trials(done)] == ["PEM0521"]


def test_once_an_adapter_changes_nothing_more_is_made_of_it(folder: Path) -> None:
    copy = 'cat "$here/b/adapter_model.safetensors" > "$here/a/adapter_model.safetensors"'
    done = trials(tune(folder, f"{copy}; echo 1", "--trials", "6"))
    assert [x["code"] for x in done] == ["", *["PEM0412"] * 5]
    assert '"code": "PEM0923"' in tune(folder, "echo 1").out


@pytest.mark.parametrize("of_weights", [False, True])
def test_a_recipe_that_refuses_the_values_it_begins_with_is_tuned_all_the_same(
    folder: Path, of_weights: bool
) -> None:
    refuses = "norm(w * a) > 0.6 * norm(a)" if of_weights else "w > 0.6"
    stocked(folder, TEXT.replace("= 0.5 ", "") + f"assert {refuses}\n")
    done = tune(folder, "echo 1", "--values", "w=0.1,0.7,0.5,0.9")
    assert (done.code, sorted(calls(folder))) == (0, ["0.7", "0.9"])
    codes = {str(x["settings"]): x["code"] for x in trials(done)}
    assert codes == {str({"w": w}): "PEM0501" * (w < "0.6") for w in ("0.1", "0.5", "0.7", "0.9")}


def test_where_a_recipe_refuses_by_now_what_was_measured_it_has_changed(folder: Path) -> None:
    assert tune(folder, "echo 1", "--trials", "2").code == 0
    stocked(folder, TEXT + 'assert w > 0.8 else "more of it"\n')
    assert '"code": "PEM0923"' in tune(folder, "echo 1", "--trials", "2").out
