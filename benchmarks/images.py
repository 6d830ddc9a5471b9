"""Rows on LoRAs of image models: a sum beside a script, and a cut to a rank beside sd-scripts'."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import HERE, Bench
from image_data import modules
from report import Row, Table
from timing import Sample, in_turn, run

TIMES = 5
PEER_TIMES = 3
RANK = 64
SUM = "0.7 * a + 0.3 * b"
OUTPUT = "merged.safetensors"


def _files(bench: Bench) -> list[Path]:
    """Two LoRAs of SDXL; made when they are not there yet."""
    print("  data: 2 LoRAs of SDXL", file=sys.stderr, flush=True)
    folder = bench.folder / "data" / f"SDXL-{RANK}"
    run([sys.executable, str(HERE / "image_data.py"), str(folder), str(RANK)])
    return sorted(folder.glob("*.safetensors"))


def _recipe(bench: Bench, files: list[Path], options: str = "") -> Path:
    path = bench.folder / "images.pem"
    adapters = [f'adapter {name} = "{file}"' for name, file in zip("ab", files, strict=True)]
    lines = ["language 1", *adapters, f'save {SUM} to "{OUTPUT}"{options}', ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def image_sum(bench: Bench) -> Iterator[Row]:
    """The sum of two as a whole process, against sd-scripts' steps, and the shortest script."""
    files, peer = _files(bench), bench.folder / "peer" / OUTPUT
    path = _recipe(bench, files)
    bench.process(path)
    what = "+ of two SDXL LoRAs of 456 MB, whole process"
    for script, other, least in (
        ("kohya_merge.py", "sd-scripts' steps in torch", 5),
        ("kohya_concat.py", "the shortest script in torch", None),
    ):
        ours, memory, theirs, their_memory = in_turn(
            f"image sum, {script}",
            TIMES,
            lambda: _costs(bench.process(path)),
            lambda script=script: _costs(bench.peer(script, peer, *files)),
        )
        for merged in (bench.out / OUTPUT, peer):
            if _lacks(merged, files) > 1e-3:
                raise RuntimeError(f"{merged} is not {SUM}")
        yield Row(what, ours, other, theirs, least=least, recipe=path)
        yield Row(f"{what}, most memory", memory, other, their_memory, least=10, unit="MB")


def image_cut(bench: Bench) -> Iterator[Row]:
    """The same at rank 32 as a whole process, against what sd-scripts' method takes for all modules
    by one of each shape."""
    files, peer = _files(bench), bench.folder / "peer" / OUTPUT
    path = _recipe(bench, files, " with rank=32")
    bench.process(path)
    one_of = {(in_, out): name for name, in_, out in modules()}
    times = Counter(one_of[in_, out] for _, in_, out in modules())

    def theirs() -> float:
        said = bench.peer("kohya_svd.py", peer, "32", *files, *times).said
        return sum(number * said[name] for name, number in times.items())

    ours, whole = in_turn("image cut", PEER_TIMES, lambda: bench.process(path).seconds, theirs)
    what = "+ of two SDXL LoRAs of 456 MB at rank 32"
    svd = "sd-scripts' SVD of each module whole, extrapolated from one of each shape"
    yield Row(f"{what}, whole process", ours, svd, whole, least=100, recipe=path)
    lacks = [_lacks(merged, files, *times) for merged in (bench.out / OUTPUT, peer)]
    yield Row(
        "what that cut lacks of the sum, in a module of each shape", [lacks[0]],
        "sd-scripts' method", [lacks[1]], most=1.0001, unit="of ‖Δ‖",
    )  # fmt: skip


def _costs(sample: Sample) -> list[float]:
    return [sample.seconds, sample.megabytes]


def _lacks(merged: Path, files: list[Path], *names: str) -> float:
    words = [str(HERE / "image_residual.py"), str(merged), *map(str, files), *names]
    return run([sys.executable, *words]).said["residual"]


IMAGE_ROWS: dict[str, Callable[[Bench], Iterator[Row | Table]]] = {
    "image_sum": image_sum, "image_cut": image_cut,
}  # fmt: skip
