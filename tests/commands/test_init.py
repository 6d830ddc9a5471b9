"""`pem init`: a recipe from folders of adapters, which checks, is laid out, and builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import Done, delta, ia3, lora, pem
from support.hub_server import serving

from pemlang.syntax import formatted, read_source

HEAD = {"base_model.model.classifier.weight": np.ones((2, 12), "f4")}
OTHER = {"encoder.layer.0.attention.self.key": (12, 16)}


def written(folder: Path, *places: str, name: str = "merge.pem") -> str:
    """The recipe that is written for some places; it is right, and laid out."""
    done = pem("init", *places, "-o", name, folder=folder)
    assert done == Done(0, f"{name}\n", "")
    path = folder / name
    assert pem("check", name, folder=folder) == Done(0, "", "")
    assert formatted(read_source(path)) == path.read_text(encoding="utf-8")
    return path.read_text(encoding="utf-8")


def test_two_adapters_of_a_base(tmp_path: Path) -> None:
    lora(tmp_path / "adapters/chat-v2", 1, base_model_name_or_path="org/Llama-7B")
    lora(tmp_path / "adapters/code", 2, rank=8, base_model_name_or_path="org/Llama-7B")
    text = written(tmp_path, "adapters/chat-v2", "adapters/code/")
    assert text == (
        "language 1\n"
        "\n"
        'base llama_7b = "org/Llama-7B"\n'
        "\n"
        'adapter chat_v2: lora(rank=4) on llama_7b = "adapters/chat-v2"\n'
        'adapter code: lora(rank=8) on llama_7b = "adapters/code"\n'
        "\n"
        "## How much of the result is chat_v2.\n"
        "param weight: number in 0..1 = 0.5\n"
        "\n"
        "let merged = weight * chat_v2 + (1 - weight) * code\n"
        "\n"
        "# Exactly that, of rank 12; `with rank=8` cuts it, and loses as little as can be.\n"
        'save merged to "out/merged"\n'
    )
    assert pem("build", "merge.pem", folder=tmp_path).code == 0
    made, chat, code = (
        delta(tmp_path / at) for at in ("out/merged", "adapters/chat-v2", "adapters/code")
    )
    assert all(np.allclose(made[site], (chat[site] + code[site]) / 2, atol=1e-5) for site in made)


def test_a_folder_of_adapters_of_several_kinds_and_bases(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "mean")):
        lora(tmp_path / "all" / name, seed)
    ia3(tmp_path / "all/gains", 3)
    lora(tmp_path / "all/zoo", 4, base_model_name_or_path="org/Zoo")
    (tmp_path / "all/notes").mkdir()
    text = written(tmp_path, "all")
    assert "let merged_base_2_lora = mean([a, b, mean_2])" in text  # no name hides an operator
    assert "let merged_base_2_ia3 = gains" in text
    assert 'base zoo = "org/Zoo"' in text
    assert "let merged_zoo = zoo_2" in text
    assert pem("build", "merge.pem", folder=tmp_path).code == 0


def test_adapters_of_other_modules_are_joined(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2, OTHER)
    lora(tmp_path / "c", 3, OTHER)
    assert "join(weight * a, (1 - weight) * b)" in written(tmp_path, "a", "b", name="two.pem")
    assert "1 / 3 * join(a, b, c)" in written(tmp_path, "a", "b", "c", name="three.pem")


def test_heads_of_some_adapters_are_kept(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2, extra=HEAD, modules_to_save=["classifier"])
    assert 'to "out/merged" with heads=b' in written(tmp_path, "a", "b")


def test_two_names_of_a_base_are_one_model_or_so_it_seems(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, base_model_name_or_path="meta/Llama-7b")
    lora(tmp_path / "b", 2, base_model_name_or_path="/data/llama-7b/")
    lora(tmp_path / "c", 3, base_model_name_or_path=None)
    text = written(tmp_path, "a", "b", "c")
    assert 'base llama_7b = ["meta/Llama-7b", "/data/llama-7b/"]' in text
    assert "if these are two models, declare them apart" in text
    assert 'adapter c: lora(rank=4) = "c"' in text


@pytest.mark.parametrize(
    "name", ["1st try", 'so "good"', "{x}", "save", "λ-α", "—", "_", "a.b", "\\"]
)
def test_any_name_of_a_folder_becomes_a_name(tmp_path: Path, name: str) -> None:
    lora(tmp_path / name, 1)
    lora(tmp_path / "deep" / name, 2)
    written(tmp_path, name, f"deep/{name}")


def test_paths_are_seen_from_the_recipe(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    (tmp_path / "recipes").mkdir()
    assert '= "../a"' in written(tmp_path, "a", "./a/", name="recipes/new.pem")


def test_an_adapter_on_the_hub(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    with serving({"org/a-lora": {"main": tmp_path / "a"}}) as hub:
        env = hub.env(tmp_path / "cache")
        done = pem("init", "hf://org/a-lora@main", folder=tmp_path, process=True, **env)
        assert done.code == 0, done
        assert (
            'adapter a_lora: lora(rank=4) on base_2 = "hf://org/a-lora@main"'
            in (tmp_path / "merge.pem").read_text()
        )


def test_what_cannot_be_taken_is_told(tmp_path: Path) -> None:
    lora(tmp_path / "all/a", 1)
    lora(tmp_path / "all/b", 2, use_qalora=True)
    done = pem("init", "all", folder=tmp_path)
    assert (done.code, done.out) == (0, "merge.pem\n")
    assert "warning[PEM0421]" in done.err
    assert "all/b" not in (tmp_path / "merge.pem").read_text()
    for place in ("all/b", "nowhere", "all/a/adapter_config.json", "new\nline"):
        done = pem("init", "all/a", place, "-o", "other.pem", folder=tmp_path)
        assert (done.code, "error[PEM0" in done.err) == (1, True), done
        assert not (tmp_path / "other.pem").exists()


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    (tmp_path / "merge.pem").write_text("mine")
    done = pem("init", "a", folder=tmp_path)
    assert (done.code, "is there already" in done.err) == (2, True)
    assert (tmp_path / "merge.pem").read_text() == "mine"


def test_a_folder_of_nothing_that_can_be_taken_is_a_mistake(tmp_path: Path) -> None:
    for name in "ab":
        lora(tmp_path / "all" / name, 1, use_qalora=True)
    done = pem("init", "all", folder=tmp_path)
    assert (done.code, done.out, done.err.count("error[PEM0421]")) == (1, "", 2)
    assert not (tmp_path / "merge.pem").exists()


def test_the_rank_of_a_sum_is_said_as_it_is(tmp_path: Path) -> None:
    sites = {"q_proj": (32, 32), "v_proj": (32, 32)}
    lora(tmp_path / "a", 1, sites, rank={"q_proj": 8, "v_proj": 2})
    lora(tmp_path / "b", 2, sites, rank={"q_proj": 1, "v_proj": 4})
    assert "# Exactly that, of rank 9; `with rank=8` cuts it" in written(tmp_path, "a", "b")


def test_only_what_fits_is_summed(tmp_path: Path) -> None:
    """Adapters that differ in the shape of a site are of two sums."""
    lora(tmp_path / "a", sites={"q": (12, 16), "k": (12, 16)})
    lora(tmp_path / "b", 1, sites={"q": (12, 18)})
    lora(tmp_path / "c", 2, sites={"q": (12, 16)})
    text = written(tmp_path, "a", "b", "c")
    assert text.count("save ") == 2


def test_a_recipe_too_long_to_be_read_is_not_written(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, base_model_name_or_path=f"{name}/" + "x" * 150_000)
    done = pem("init", "a", "b", folder=tmp_path)
    assert (done.code, "PEM0101" in done.err) == (1, True)
    assert not (tmp_path / "merge.pem").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    lora(tmp_path / "a")
    done = pem("init", "a", "-o", "nosuch/x.pem", folder=tmp_path)
    assert (done.code, "There is no folder nosuch" in done.err) == (2, True)
