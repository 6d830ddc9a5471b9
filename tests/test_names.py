"""Names, imports, functions, params and types: what a file may say of another and of itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import codes, lora, recipe

import pemlang


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


DECLARED = 'adapter a = "a"\nadapter b = "b"\n'


def same(folder: Path, text: str, other: str, **params: object) -> bool:
    """Whether two texts give `x` the same tensors."""
    x, y = (
        pemlang.load(recipe(folder, DECLARED + lets), params).evaluate("x")  # type: ignore[arg-type]
        for lets in (text, other)
    )
    return x.keys() == y.keys() and all((x[key] == y[key]).all() for key in x)


# --- functions -----------------------------------------------------------------------------


CALLS = [
    ("def f(x: adapter, by: number = 2) -> adapter = by * x\n", "f(a)", "2 * a"),
    ("def f(x: adapter, by: number = 2) -> adapter = by * x\n", "f(by=3, x=a)", "3 * a"),
    ("def f(x: adapter, by: number = 2) -> adapter = by * x\n", "f(a, 4)", "4 * a"),
    ("let k = 3\ndef f(x: adapter) = k * x\n", "f(a)", "3 * a"),
    ("def g(x: adapter) = -x\ndef f(x: adapter) = g(x) + b\n", "f(a)", "b - a"),
    ("def f(xs: schedule, x: adapter) = xs * x\n", "f(ramp(1, 2), a)", "ramp(1, 2) * a"),
    ("def f(xs: schedule, x: adapter) = xs * x\n", "f(2, a)", "2 * a"),
    ("def f(w: [number], x: adapter) = steps(w) * x\n", "f([1, 2], a)", "steps([1, 2]) * a"),
    ('def f(s: string, x: adapter) = x["*.{s}"]\n', 'f("query", a)', 'a["*.query"]'),
    ("def f(x: lora(rank=4)) -> lora(rank=4) = 2 * x\n", "f(a)", "2 * a"),
]


@pytest.mark.parametrize(("defs", "call", "means"), CALLS)
def test_a_call_means_its_body(folder: Path, defs: str, call: str, means: str) -> None:
    assert same(folder, f"{defs}let x = {call}", f"let x = {means}")


WRONG_CALLS = [
    ("def f(x: adapter) = f(x)", "PEM0207"),
    ("def f(x: adapter) = g(x)\ndef g(x: adapter) = f(x)", "PEM0207"),
    ("def f(x: adapter, x: number) = x", "PEM0201"),
    ("def f(a: adapter) = a", "PEM0201"),
    ("def norm(x: adapter) = x", "PEM0202"),
    ("def f(x: adapter) = nothing + x", "PEM0206"),
    ("def f(x: adapter) -> number = x", "PEM0301"),
    ("def f(x: adapter) = x * x", "PEM0302"),
    ("def f(x: thing) = x", "PEM0317"),
    ("def f(x: adapter) = x\nlet y = f(1)", "PEM0301"),
    ("def f(x: adapter) = x\nlet y = f()", "PEM0318"),
    ("def f(x: adapter) = x\nlet y = f(a, b)", "PEM0318"),
    ("def f(x: adapter) = x\nlet y = f(a, x=b)", "PEM0318"),
    ("def f(x: adapter) = x\nlet y = f(z=b)", "PEM0319"),
    ("def f(x: lora(rank=8)) = x\nlet y = f(a)", "PEM0316"),
    ("def f(x: adapter) = x\nlet y = f + a", "PEM0302"),
    ("def f(x: adapter) = x\nlet y = f", "PEM0301"),
    ("def f(x: adapter, by: number = a) = x", "PEM0301"),
    ("let y = a(b)", "PEM0302"),
]


@pytest.mark.parametrize(("text", "code"), WRONG_CALLS)
def test_a_wrong_function_or_call_is_said(folder: Path, text: str, code: str) -> None:
    assert codes(folder, DECLARED + text) == [code]


def test_a_recipe_that_would_grow_without_end_is_refused_at_once(folder: Path) -> None:
    """A billion laughs: each function calls the one before twice, sixty times over."""
    text = DECLARED + "def f0(x: adapter) = x\n"
    for level in range(1, 60):
        text += f"def f{level}(x: adapter) = f{level - 1}(x) + f{level - 1}(x)\n"
    start = time.monotonic()
    assert codes(folder, text + "let y = f59(a)") == ["PEM0333"]
    assert time.monotonic() - start < 10  # 2^59 calls would take longer than anyone has


def test_text_that_would_grow_without_end_is_refused(folder: Path) -> None:
    text = 'let s0 = "0123456789"\n'
    text += "".join(f'let s{i} = "{{s{i - 1}}}{{s{i - 1}}}"\n' for i in range(1, 60))
    assert codes(folder, text) == ["PEM0333"]


def test_numbers_that_would_grow_without_end_are_refused(folder: Path) -> None:
    text = "let n0 = 10\n" + "".join(f"let n{i} = n{i - 1} * n{i - 1}\n" for i in range(1, 60))
    assert codes(folder, text) == ["PEM0331"]


def test_a_value_that_is_deep_is_refused(folder: Path) -> None:
    text = DECLARED + "let x0 = a\n"
    text += "".join(f"let x{i} = compress(x{i - 1} + b, rank=4)\n" for i in range(1, 300))
    assert codes(folder, text) == ["PEM0332"]


def doubled(first: str, step: str, times: int, last: str) -> str:
    """A value, then values made of the one before: `{}` is its name."""
    lines = [f"let v0 = {first}"]
    lines += [f"let v{i} = " + step.replace("{}", f"v{i - 1}") for i in range(1, times + 1)]
    return "\n".join([*lines, last.replace("{}", f"v{times}"), ""])


GROWN = [
    (doubled("norm(a) < 1", "{} and {}", 40, "assert {}"), "PEM0333"),
    (doubled("norm(a) < 1", "not {}", 3000, "assert {}"), "PEM0333"),
    (doubled("ramp(0, 1)", "{} + {}", 40, 'save {} * a to "o"'), "PEM0333"),
    (doubled("ramp(0, 1)", "-{}", 3000, 'save {} * a to "o"'), "PEM0333"),
    (doubled("[1]", "[{}, {}]", 40, ""), "PEM0301"),
    (doubled("[1]", "[{}]", 3000, ""), "PEM0301"),
    (
        "def f0(x: adapter) = x\n"
        + "".join(f"def f{i}(x: adapter) = f{i - 1}(x)\n" for i in range(1, 400))
        + "let y = f399(a)",
        "PEM0333",
    ),
    (
        f"let l = [{', '.join('1' for _ in range(8_000))}]\ndef f(xs: [number]) = 1\n"
        + "".join(f"let k{i} = f(l)\n" for i in range(500)),
        "PEM0333",
    ),
    ("".join(f"let u{i} = w{i}\n" for i in range(2000)), "PEM0206"),
    (
        "".join(f'save a to "o{i}"\n' for i in range(2000)) + 'save a to "o7/in"',
        "PEM0344",
    ),
]


@pytest.mark.parametrize(("text", "code"), GROWN, ids=range(len(GROWN)))
def test_a_recipe_that_asks_for_much_work_is_soon_answered(
    folder: Path, text: str, code: str
) -> None:
    start = time.monotonic()
    assert set(codes(folder, DECLARED + text)) == {code}
    assert time.monotonic() - start < 60  # a second or so: without bounds, minutes or for ever


def test_a_failed_assert_shows_only_what_decided(folder: Path) -> None:
    text = DECLARED + 'assert norm(0 * a) > 0 and cosine(a, 0 * a) > 0.5\nsave a to "o"\n'
    with pytest.raises(pemlang.PemError) as error:
        pemlang.load(recipe(folder, text)).build()
    assert [d.code for d in error.value.diagnostics] == ["PEM0501"]


def test_a_mistake_inside_a_call_says_where_the_call_is(folder: Path) -> None:
    text = DECLARED + "def f(x: adapter) = compress(x, rank=99)\nlet y = f(a)\n"
    [diagnostic] = pemlang.load(recipe(folder, text)).check()
    assert diagnostic.code == "PEM0310"
    notes = [note for note in diagnostic.notes if "in the call of `f`" in note]
    assert any("recipe.pem:4:9" in note for note in notes)


def test_a_pattern_of_a_schedule_says_where_it_is_used(folder: Path) -> None:
    text = DECLARED + "import std.schedules as s\nlet y = s.attention(1, 2) * a\n"
    [diagnostic] = pemlang.load(recipe(folder, text)).check()
    assert diagnostic.code == "PEM0320" and diagnostic.span is not None
    assert diagnostic.span.text == '"*attn*"'
    assert any(note.endswith("recipe.pem:4:9") for note in diagnostic.notes)


# --- names ---------------------------------------------------------------------------------


WRONG_NAMES = [
    ("let x = y", "PEM0206"),
    ("let x = y\nlet y = 1", "PEM0207"),
    ("let x = x", "PEM0207"),
    ("let x = 1\nlet x = 2", "PEM0201"),
    ("let a = 1", "PEM0201"),
    ("let norm = 1", "PEM0202"),
    ("let else = 1", "PEM0202"),
    ("let with = 1", "PEM0202"),
    ("let x = a.b", "PEM0206"),
]


@pytest.mark.parametrize(("text", "code"), WRONG_NAMES)
def test_a_wrong_name_is_said(folder: Path, text: str, code: str) -> None:
    assert codes(folder, DECLARED + text) == [code]


def test_a_name_is_the_same_in_every_unicode_form(folder: Path) -> None:
    assert same(folder, "let \u00e9 = 2\nlet x = e\u0301 * a", "let x = 2 * a")


def test_a_mistake_is_said_once(folder: Path) -> None:
    assert codes(folder, DECLARED + 'let x = y\nlet z = x + x\nsave z to "q"') == ["PEM0206"]
    assert codes(folder, DECLARED + "def f(x: adapter) = x +\nlet z = f(a)") == ["PEM0108"]


def test_all_mistakes_are_said_in_order(folder: Path) -> None:
    text = 'adapter c = "nowhere"\nlet x = y\nlet z = a * b\nsave a to "../x"\n'
    diagnostics = pemlang.load(recipe(folder, DECLARED + text)).check()
    assert [d.code for d in diagnostics] == ["PEM0410", "PEM0206", "PEM0302", "PEM0345"]
    places = [d.span.start for d in diagnostics if d.span]
    assert places == sorted(places)


# --- imports -------------------------------------------------------------------------------


def test_a_file_is_imported_under_a_name_or_by_its_names(folder: Path) -> None:
    (folder / "lib").mkdir()
    recipe(folder / "lib", "def twice(x: adapter) = 2 * x\nlet half = 0.5\n", "w.pem")
    for text in (
        'import "lib/w.pem" as w\nlet x = w.twice(w.half * a)',
        'import "lib/w.pem" (twice, half)\nlet x = twice(half * a)',
    ):
        assert same(folder, text, "let x = 2 * (0.5 * a)")


def test_paths_are_relative_to_the_file_that_names_them(folder: Path) -> None:
    (folder / "lib").mkdir()
    lora(folder / "lib" / "own", 7)
    recipe(folder / "lib", 'adapter own = "own"\n', "w.pem")
    assert codes(folder, 'import "lib/w.pem" (own)\nsave own to "out"') == []


def test_a_file_imported_twice_is_one_file(folder: Path) -> None:
    recipe(folder, 'adapter c = "a"\n', "base.pem")
    recipe(folder, 'import "base.pem" as one\nlet left = one.c\n', "left.pem")
    recipe(folder, 'import "base.pem" as one\nlet right = one.c\n', "right.pem")
    text = 'import "left.pem" as l\nimport "right.pem" as r\nlet x = l.left - r.right + a'
    assert same(folder, text, "let x = a")


def test_an_imported_file_has_its_own_names(folder: Path) -> None:
    recipe(folder, "let secret = 3\ndef f(x: adapter) = secret * x\n", "lib.pem")
    text = 'import "lib.pem" (f)\nlet secret = 5\nlet x = f(a)'
    assert same(folder, text, "let x = 3 * a")
    assert codes(folder, DECLARED + 'import "lib.pem" (f)\nlet x = secret * a') == ["PEM0206"]


WRONG_IMPORTS = [
    ('import "self.pem" as me', "PEM0204"),
    ('import "one.pem" as one', "PEM0204"),
    ('import "nowhere.pem" as n', "PEM0203"),
    ("import std.papper as p", "PEM0203"),
    ("import std.paper (merg)", "PEM0206"),
    ("import other.paper as p", "PEM0203"),
    ('import "lib.txt" as l', "PEM0205"),
    ('import "/etc/lib.pem" as l', "PEM0205"),
    ('import "saves.pem" as s', "PEM0215"),
    ('import "lib.pem" (k, k)', "PEM0201"),
    ('import "lib.pem" as a', "PEM0201"),
    ('import "lib.pem" as norm', "PEM0202"),
    ('import "lib.pem" (k)\nlet k = 1', "PEM0201"),
    ('import "wrong.pem" as w', "PEM0206"),
]


@pytest.mark.parametrize(("text", "code"), WRONG_IMPORTS)
def test_a_wrong_import_is_said(folder: Path, text: str, code: str) -> None:
    recipe(folder, 'import "two.pem" as two\n', "one.pem")
    recipe(folder, 'import "one.pem" as one\n', "two.pem")
    recipe(folder, 'adapter z = "a"\nsave z to "out/z"\n', "saves.pem")
    recipe(folder, "let k = 1\n", "lib.pem")
    recipe(folder, "let w = nothing\n", "wrong.pem")
    recipe(folder, 'import "self.pem" as me\n', "self.pem")
    assert codes(folder, DECLARED + text) == [code]


def test_a_chain_of_too_many_files_is_refused(folder: Path) -> None:
    for i in range(250):
        recipe(folder, f'import "f{i + 1}.pem" as f\n', f"f{i}.pem")
    recipe(folder, "let k = 1\n", "f250.pem")
    assert "PEM0205" in codes(folder, 'import "f0.pem" as f\n')


# --- params --------------------------------------------------------------------------------


PARAM = "param w: number in 0..1 = 0.5\nlet x = w * a"


@pytest.mark.filterwarnings("ignore:.*`x` is zero")
@pytest.mark.parametrize(
    ("value", "means"), [("0.25", "0.25"), (0.25, "0.25"), (1, "1"), ("1e-1", "0.1"), (" 0 ", "0")]
)
def test_a_param_is_set_from_outside(folder: Path, value: object, means: str) -> None:
    assert same(folder, PARAM, f"param w: number = 9\nlet x = {means} * a", w=value)


@pytest.mark.parametrize(
    ("text", "params", "code"),
    [
        (PARAM, {"w": 2}, "PEM0214"),
        (PARAM, {"w": "-0.1"}, "PEM0214"),
        (PARAM, {"w": "much"}, "PEM0212"),
        (PARAM, {"w": "1/0"}, "PEM0212"),
        (PARAM, {"w": "--1"}, "PEM0212"),
        (PARAM, {"w": float("nan")}, "PEM0212"),
        (PARAM, {"w": "1" * 99}, "PEM0110"),
        (PARAM, {"w": True}, "PEM0212"),
        (PARAM, {"v": 1}, "PEM0211"),
        ("param w: number", {}, "PEM0213"),
        ("param w: number in 0..1 = 2", {}, "PEM0214"),
        ('param w: number = "x"', {}, "PEM0301"),
        ("param w: adapter = a", {}, "PEM0212"),
        ("param w: number = norm(a)", {}, "PEM0212"),
        ("param b2: bool = true", {"b2": "maybe"}, "PEM0212"),
        ('param s: string in 0..1 = "a"', {}, "PEM0212"),
    ],
)
def test_a_wrong_param_is_said(
    folder: Path, text: str, params: dict[str, object], code: str
) -> None:
    assert codes(folder, DECLARED + text, **params) == [code]


def test_params_of_an_imported_file_are_its_own(folder: Path) -> None:
    recipe(folder, "param w: number = 3\n", "lib.pem")
    text = 'import "lib.pem" as lib\nparam w: number = 0\nlet x = lib.w * a + w * b'
    assert same(folder, text, "param w: number = 9\nlet x = 3 * a + 2 * b", w=2)


def test_a_param_stands_in_text(folder: Path) -> None:
    text = DECLARED + 'param w: number = 0.5\nparam n: string = "m"\nsave a to "out/{n}-{w}"\n'
    result = pemlang.load(recipe(folder, text), {"n": "x", "w": 0.125}).build()
    assert result.outputs[0].path == folder / "out/x-0.125"


@pytest.mark.parametrize("name", ["../out", "/etc/x", "..", "a/../../b", "x\0y", ""])
def test_a_param_cannot_lead_an_output_out_of_the_folder(folder: Path, name: str) -> None:
    text = DECLARED + 'param n: string = "m"\nsave a to "{n}"\n'
    assert codes(folder, text, n=name) == ["PEM0345"]
