"""`pem graph`: pictures of the quickstart as written once, hostile names, and what is too large."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support import Done, lora, pem, recipe
from support.processes import with_imports

from pemlang.show import Edge, Picture, Vertex, as_dot, as_mermaid, as_svg, text_width

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart" / "quickstart.pem"
GOLDEN = Path(__file__).parent / "graphs"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    '</script><script>window.hacked=1</script>',
    '"><img src=x onerror=alert(1)>',
    "end",
    'a"]; n0 --> n9; %%{init: {}}%% | x',
    "two\nlines\x1b[31m",
    "\\",
    "`code` [box] {brace} #quot; &amp;",
)  # fmt: skip


def graph(*words: str | Path) -> Done:
    return pem("graph", *words)


@pytest.mark.parametrize(("form", "ending"), [("mermaid", "mmd"), ("dot", "dot"), ("svg", "svg")])
def test_the_quickstart_as_drawn_before(
    request: pytest.FixtureRequest, form: str, ending: str
) -> None:
    done = graph(QUICKSTART, "--format", form)
    assert done.code == 0
    golden = GOLDEN / f"quickstart.{ending}"
    if request.config.getoption("--rewrite"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(done.out, encoding="utf-8")
    assert done.out == golden.read_text(encoding="utf-8")


def test_mermaid_is_the_form_when_none_is_asked_for() -> None:
    assert graph(QUICKSTART).out == graph(QUICKSTART, "--format", "mermaid").out


def test_coefficients_and_types_stand_on_the_lines() -> None:
    shown = graph(QUICKSTART, "--set", "weight=0.25", "--format", "dot").out
    for label in (
        "0.25 · LoRA, rank 8, 12 sites",
        "0.75 · LoRA, rank 8, 12 sites",
        "0.25 ⊗ LoRA, rank 8, 12 sites",
        "0.75 · (IA)³, 24 sites",
        "LoRA, rank 16, 12 sites",
    ):
        assert f'[label="{label}"]' in shown


def test_every_kind_of_node(tmp_path: Path) -> None:
    for name in "abc":
        lora(tmp_path / name, ord(name))
    text = "".join(f'adapter {name} = "{name}"\n' for name in "abc") + (
        'save ties([a, b], density=0.5, weights=[1, 0.5], rank=full) to "ties"\n'
        'save cosine(a, b) * a + ramp(0.1, 1) * c to "measured"\n'
        'save a ⊖ b to "turned"\n'
        'save pad(rescale(a, like=b), rank=6) to "padded"\n'
        'save a - a to "zero" with dtype=bf16\n'
    )
    shown = graph(recipe(tmp_path, text), "--format", "dot").out
    for wanted in (
        '"weight 0.5 · LoRA, rank 4, 4 sites"',
        '"(0.1 … 1 by site) · LoRA, rank 4, 4 sites"',
        '"1 A, −1 B · LoRA, rank 4, 4 sites"',
        r'"cosine\ncosine(',
        'style="rounded,dashed"',
        '[label="number"]',
        r'"pad to rank 6\n',
        r'"zero\n0"',
        r'"zero\na - a, bf16"',
    ):
        assert wanted in shown, wanted


def test_a_picture_does_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    text = "".join(f'adapter {name} = "{name}"\n' for name in "abcde")
    text += 'save a + 2 * b + 3 * c to "x"\nsave 0.5 ⊗ d ⊕ compress(e - c, rank=4) to "y"\n'
    drawn = set()
    for place in ("one", "other/deeper", "third"):
        for name in "abcde":
            lora(tmp_path / place / name, ord(name))
        drawn.add(graph(recipe(tmp_path / place, text), "--format", "svg").out)
    assert len(drawn) == 1


def hostile() -> Picture:
    boxes = [Vertex("adapter", name, name) for name in HOSTILE]
    boxes += [Vertex("operator", "sum", ""), Vertex("output", HOSTILE[0], HOSTILE[1])]
    many = len(HOSTILE)
    lines = [Edge(i, many, name) for i, name in enumerate(HOSTILE)]
    return Picture(tuple(boxes), (*lines, Edge(many, many + 1, "x")))


def test_hostile_names_stay_inside_their_quotes_in_mermaid() -> None:
    shape = re.compile(
        r'  n\d+(?:\(\["|\["|\("|\[\[")(?:[^"<>{}\[\]|%`\\]|<br/>)*(?:"\]\)|"\]|"\)|"\]\])'
        r'|  n\d+ -->\|"[^"<>{}\[\]|%`\\]*"\| n\d+'
    )
    head, *lines = as_mermaid(hostile()).splitlines()
    assert head == "flowchart LR"
    assert len(lines) == len(hostile().vertices) + len(hostile().edges)
    for line in lines:
        assert shape.fullmatch(line), line


def test_hostile_names_stay_inside_their_quotes_in_dot() -> None:
    label = r'label="(?:[^"\\]|\\[\\"n])*"'
    for line in as_dot(hostile()).splitlines()[4:-1]:
        assert re.fullmatch(rf"  n\d+(?: -> n\d+)? \[{label}(?:, shape=.*)?\];", line), line


def test_hostile_names_are_text_in_svg() -> None:
    root = ET.fromstring(as_svg(hostile()))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert {element.tag for element in root.iter()} == {
        SVG + tag for tag in ("svg", "style", "g", "rect", "text", "path")
    }


def test_a_recipe_with_hostile_paths_is_drawn(tmp_path: Path) -> None:
    lora(tmp_path / "<b>&'`", 1)
    path = recipe(tmp_path, 'adapter end = "<b>&\'`"\nsave 2 * end to "out/<i>"\n')
    assert "&lt;b&gt;" in graph(path, "--format", "svg").out
    assert "<b>" not in graph(path).out


def test_no_label_lies_on_a_box_or_another_label() -> None:
    root = ET.fromstring(graph(QUICKSTART, "--format", "svg").out)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
    ]
    for group in root.iter(f"{SVG}g"):
        text = group.find(f"{SVG}text")
        if group.attrib["class"] == "line" and text is not None:
            wide = text_width(text.text or "", 11)
            x, y = float(text.attrib["x"]) - wide / 2, float(text.attrib["y"])
            boxes.append((x, y - 10, wide, 12))
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_a_graph_that_is_too_large_says_so(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    text = 'adapter a = "a"\n' + "".join(f'save {i} * a to "x{i}"\n' for i in range(2, 210))
    path = recipe(tmp_path, text)
    done = graph(path)
    assert (done.code, done.out) == (2, "")
    assert "417 boxes" in done.err


def test_a_recipe_that_is_wrong_is_not_drawn(tmp_path: Path) -> None:
    done = graph(recipe(tmp_path, "let x = b\n"))
    assert (done.code, done.out) == (1, "")
    assert "PEM0206" in done.err


def test_written_to_a_file_and_never_over_the_recipe(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    path = recipe(tmp_path, 'adapter a = "a"\nsave 2 * a to "out"\n')
    out = tmp_path / "graph.svg"
    done = graph(path, "--format", "svg", "-o", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    assert ET.fromstring(out.read_text(encoding="utf-8")).tag == f"{SVG}svg"
    assert "take the place" in graph(path, "-o", path).err
    assert "cannot be written" in graph(path, "-o", tmp_path / "no" / "x").err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "graph.svg", "recipe.pem"]


def test_a_picture_needs_neither_torch_nor_numpy(tmp_path: Path) -> None:
    words = ("graph", QUICKSTART, "--format", "svg")
    done = with_imports(*words, folder=tmp_path, of=("torch", "numpy"))
    assert (done.code, done.err) == (0, "[]\n")


def test_only_a_picture_is_replaced(tmp_path: Path) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"tensors")
    assert graph(QUICKSTART, "-o", weights).code == 2
    assert weights.read_bytes() == b"tensors"
    picture = tmp_path / "recipe.svg"
    for _ in range(2):
        assert graph(QUICKSTART, "--format", "svg", "-o", picture).code == 0
