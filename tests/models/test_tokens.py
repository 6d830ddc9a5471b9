"""Files of tokenizers as anyone may have written them: a coded error or the tokens they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import build, codes, pem, recipe
from support.models import SHAPES, away, model, weights_of

import pemlang

WIDER = {key: (33, *shape[1:]) if shape[:1] == (30,) else shape for key, shape in SHAPES.items()}
TEXT = 'base b = "b"\nmodel m on b = "m"\n'
WORDS = {f"t{number}": number for number in range(30)}
TURNED = {f"t{29 - number}": number for number in range(30)}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A base of 30 tokens, and a model of three more."""
    model(tmp_path / "b", vocab_size=30)
    model(tmp_path / "m", tuned=1, shapes=WIDER)
    write(tmp_path / "b", {"model": {"vocab": WORDS}})
    added = [{"id": 30 + n, "content": f"<{n}>", "special": True} for n in range(3)]
    write(tmp_path / "m", {"model": {"vocab": WORDS}, "added_tokens": added})
    return tmp_path


def write(at: Path, told: object) -> None:
    (at / "tokenizer.json").write_text(told if isinstance(told, str) else json.dumps(told))


@pytest.mark.parametrize(
    "told",
    [
        "", "[]", "{", "null", "[" * 100_000, '{"model": 3}', '{"model": {"vocab": {"a": "b"}}}',
        '{"model": {"vocab": {"a": -1}}}', '{"model": {"vocab": {"a": 1e99}}}',
        '{"model": {"vocab": {"a": true}}}', '{"model": {"vocab": {"a": 99999999999}}}',
        '{"model": {"vocab": {"a": 0}}, "added_tokens": [3]}',
        '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1, "content": []}]}',
        '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": "x", "content": "y"}]}',
        '{"model": {"vocab": {"\\ud800": 0}}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["m[like b]", "join(b, m)", "b[like m]"])
def test_what_is_no_tokenizer_is_said(two: Path, told: str, value: str) -> None:
    for name in "bm":
        before = (two / name / "tokenizer.json").read_text()
        write(two / name, told)
        found = codes(two, f'{TEXT}save {value} to "out"\n')
        assert found == ["PEM0357"], found
        write(two / name, before)
    assert not (two / "out").exists()


def test_tokens_of_older_files(two: Path) -> None:
    """vocab.txt, and vocab.json with added_tokens.json, tell the same rows."""
    made = []
    for name in ("tokenizer.json", "vocab.txt", "vocab.json"):
        for old in (two / "m").glob("*ok*.json"):
            old.unlink()
        if name == "tokenizer.json":
            write(two / "m", {"model": {"vocab": {**TURNED, "<0>": 30}}})
        elif name == "vocab.txt":
            (two / "m" / name).write_text("".join(f"{word}\n" for word in [*TURNED, "<0>"]))
        else:
            (two / "m" / "vocab.txt").unlink()
            (two / "m" / name).write_text(json.dumps(TURNED))
            (two / "m" / "added_tokens.json").write_text('{"<0>": 30}')
        out = build(two, f'{TEXT}save b + 0.5 * (m[like b] - b) to "{name}-out"\n').outputs[0].path
        made.append(weights_of(out))
    assert away(made[0], made[1]) == away(made[0], made[2]) == 0
    b, m = (weights_of(two / name)["lm_head.weight"] for name in "bm")
    assert abs(made[0]["lm_head.weight"] - (b + m[29::-1]) / 2).max() < 1e-6


def test_rows_beyond_the_tokens_stay(two: Path) -> None:
    """Padding of an embedding: new tokens take its rows, and the others stay as they are."""
    write(two / "b", {"model": {"vocab": {f"t{n}": n for n in range(26)}}})
    out = build(two, f'{TEXT}save join(b, m) to "out"\n').outputs[0].path
    rows, b, m = (weights_of(x)["lm_head.weight"] for x in (out, two / "b", two / "m"))
    assert rows.shape == (33, 12)
    assert (rows[:26] == b[:26]).all() and (rows[26:33] == m[26:33]).all()
    like = build(two, f'{TEXT}save m[like b] to "like"\n').outputs[0].path
    rows = weights_of(like)["lm_head.weight"]
    assert (rows[:26] == m[:26]).all() and (rows[26:] == b[26:]).all()


def test_an_output_of_joined_tokens_is_verified_and_the_same_on_any_threads(two: Path) -> None:
    text = f'{TEXT}let all = join(b, m)\nsave all + 0.5 * (m[like all] - all) to "out"\n'
    made = set()
    for threads in (1, 4):
        options = pemlang.BuildOptions(threads=threads, force=True)
        pemlang.load(recipe(two, text)).build(options=options)
        made.add((two / "out" / "model.safetensors").read_bytes())
    assert len(made) == 1
    assert pem("verify", "--rebuild", "out", folder=two).code == 0
    recipe(two, text)
    assert pem("lock", "recipe.pem", folder=two).code == 0
    assert pem("build", "--locked", "recipe.pem", folder=two).code == 0
    write(two / "m", {"model": {"vocab": WORDS}})
    assert (
        "PEM0803"
        in pem("check", "--locked", "recipe.pem", folder=two).text
        + pem("build", "--locked", "recipe.pem", folder=two).text
    )


def test_a_lock_checks_without_the_models(two: Path) -> None:
    recipe(two, f'{TEXT}save b + 0.5 * (m[like b] - b) to "out"\n')
    assert pem("lock", "recipe.pem", folder=two).code == 0
    for name in "bm":
        (two / name).rename(two / f"{name}-elsewhere")
    assert pem("check", "--locked", "recipe.pem", folder=two).code == 0
    done = pem("plan", "--locked", "recipe.pem", folder=two)
    assert done.code == 0, done.text
