"""Rows on whole models: merges beside mergekit and beside a copy, memory, extraction."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import HERE, Bench
from report import Row, Table
from timing import Sample, cached, in_turn, run

TIMES = 5
PEER_TIMES = 3
WEIGHTS = "model.safetensors"
MEMORY = 256
BESIDE = 200
"""Megabytes of `--memory` for the sharded build, and what may come to it."""

SIZES = {"0.3 GB": (1024, 8, 1), "2 GB": (2048, 19, 1), "4 GB": (2048, 39, 5)}
"""Hidden size, layers and shards of models, by what their weights take."""

SUM = "b + 0.5 * (m1 - b) + 0.3 * (m2 - b)"
DELTAS = "[m1 - b, m2 - b]"
WEIGHTED = f"{DELTAS}, weights=[0.5, 0.3]"


@dataclass(frozen=True)
class Method:
    """A merge that mergekit does too.

    Attributes:
        expression: ours.
        settings: theirs for all models, with the method's name.
        each: theirs for a model, by the model.
        how: what the merges agree in, see same_models.py.
        least: how many times less time than theirs.
    """

    expression: str
    settings: str
    each: Callable[[str], str]
    how: str
    least: float

    def configuration(self, models: Path) -> str:
        """mergekit's."""
        lines = [f"base_model: {models / 'base'}", "dtype: bfloat16", *self.settings.splitlines()]
        lines.append("models:")
        for name in ("base", "m1", "m2"):
            parameters = self.each(name)
            if parameters != "none":
                lines += [f"  - model: {models / name}", f"    parameters: {{{parameters}}}"]
        return "\n".join([*lines, ""])


def _weight(name: str) -> str:
    return {"base": "none", "m1": "weight: 0.5", "m2": "weight: 0.3"}[name]


def _sparse(name: str) -> str:
    return _weight(name) if name == "base" else f"{_weight(name)}, density: 0.2"


def _between(name: str) -> str:
    return "none" if name == "m2" else ""


METHODS = {
    "ties": Method(
        f"b + ties({WEIGHTED}, density=0.2, normalize=weights)",
        "merge_method: ties\nparameters: {normalize: true}",
        _sparse, "trimmed", 20,
    ),
    "task_arithmetic": Method(
        f"b + task_arithmetic({WEIGHTED})", "merge_method: task_arithmetic", _weight, "exact", 5
    ),
    "dare_linear": Method(
        f"b + dare_linear({WEIGHTED}, density=0.2, rescale=l1)",
        "merge_method: dare_linear", _sparse, "drawn", 5,
    ),
    "slerp": Method(
        "slerp(b, m1, t=0.4)", "merge_method: slerp\nparameters: {t: 0.4}", _between, "exact", 5
    ),
}  # fmt: skip

BESIDE_A_COPY = {
    SUM: 1.25,
    f"b + ties({DELTAS}, density=0.2)": 2.0,
    f"b + dare({DELTAS}, density=0.2)": 2.0,
}
"""Merges, and how many times as long as a copy of the same bytes each may take."""


def _models(bench: Bench, size: str) -> Path:
    """The folder of the models of a size; made when they are not there yet."""
    print(f"  data: models of {size}", file=sys.stderr, flush=True)
    folder = bench.folder / "data" / size.replace(" ", "")
    words = [str(folder), *map(str, SIZES[size])]
    run([sys.executable, str(HERE / "model_data.py"), *words])
    return folder


def _recipe(bench: Bench, models: Path, expression: str) -> Path:
    path = bench.folder / "models.pem"
    tuned = (f'model {name} on b = "{models / name}"' for name in ("m1", "m2"))
    lines = ["language 1", f'base b = "{models / "base"}"', *tuned]
    path.write_text("\n".join([*lines, f'save {expression} to "merged"', ""]), encoding="utf-8")
    return path


def mergekit(bench: Bench) -> Iterator[Row]:
    """Merges of models of 239 MB as whole processes, against mergekit."""
    models = _models(bench, "0.3 GB")
    command = str(Path(bench.peers).with_name("mergekit-yaml"))
    peer, configuration = bench.folder / "peer", bench.folder / "merge.yml"

    def theirs() -> Sample:
        shutil.rmtree(peer, ignore_errors=True)
        return run([command, str(configuration), str(peer), "--no-copy-tokenizer", "--quiet"])

    for name, method in METHODS.items():
        path = _recipe(bench, models, method.expression)
        configuration.write_text(method.configuration(models), encoding="utf-8")
        bench.process(path)
        numbers = in_turn(
            f"mergekit, {name}",
            PEER_TIMES,
            lambda path=path: _costs(bench.process(path)),
            lambda: _costs(theirs()),
        )
        inputs = [models / model for model in ("base", "m1", "m2")]
        words = [method.how, *inputs, bench.out / "merged", peer]
        run([sys.executable, str(HERE / "same_models.py"), *map(str, words)])
        what = f"{name} of models of 239 MB, whole process"
        wall, cpu, memory, their_wall, their_cpu, their_memory = numbers
        yield Row(what, wall, f"mergekit {name}", their_wall, least=method.least, recipe=path)
        yield Row(f"{what}, processor time", cpu, f"mergekit {name}", their_cpu)
        most = 3 if name == "ties" else None
        yield Row(
            f"{what}, most memory", memory, f"mergekit {name}", their_memory, least=most, unit="MB"
        )


def copied(bench: Bench) -> Iterator[Row]:
    """The work of merges, against a copy of the same bytes: three models read, one written."""
    copy_to = bench.folder / "peer" / "copied"
    for size in ("0.3 GB", "2 GB"):
        models = _models(bench, size)
        files = [models / name / WEIGHTS for name in ("base", "m1", "m2")]
        for expression, most in BESIDE_A_COPY.items():
            path = _recipe(bench, models, expression)
            bench.process(path)
            ours, flush, copy, copy_flush = in_turn(
                f"copy, {size}, {expression}",
                TIMES,
                lambda path=path, files=files: _phases(cached(files, bench.phases, path)),
                lambda files=files: _phases(
                    cached(files, bench.peer, "copy_bytes.py", copy_to, *files)
                ),
            )
            what = f"`{expression}` of models of {size}, work"
            yield Row(what, ours, "copying the bytes", copy, most=most, recipe=path)
            # Ours takes SHA-256 and BLAKE3 of what it wrote meanwhile, which is most of the time.
            yield Row(
                f"{what}, flushed to disk with its digests taken", _sums(ours, flush),
                "copying the bytes, flushed", _sums(copy, copy_flush),
            )  # fmt: skip


def sharded(bench: Bench) -> Iterator[Table]:
    """The most memory of building a sharded model of 4 GB of three."""
    models = _models(bench, "4 GB")
    cells = []
    for expression in (SUM, f"b + ties({DELTAS}, density=0.2)"):
        path = _recipe(bench, models, expression)
        print(f"  sharded: {expression}", file=sys.stderr, flush=True)
        samples = [bench.process(path, "--memory", f"{MEMORY}MB").megabytes for _ in range(2)]
        cells.append((f"`{expression}`", samples))
    what = f"most resident memory of models of 4 GB in shards, `--memory {MEMORY}MB`"
    yield Table(what, cells, below=MEMORY + BESIDE)


def extraction(bench: Bench) -> Iterator[Row]:
    """A LoRA of rank 32 out of a fine-tune, against mergekit."""
    models = _models(bench, "0.3 GB")
    base, tuned, peer = models / "base", models / "low", bench.folder / "peer"
    path = bench.folder / "extract.pem"
    path.write_text(
        f'language 1\nbase b = "{base}"\nmodel low on b = "{tuned}"\n'
        'save compress((low - b)["*_proj.weight"], rank=32) to "merged"\n',
        encoding="utf-8",
    )
    command = [str(Path(bench.peers).with_name("mergekit-extract-lora")), "--quiet"]
    command += ["--model", str(tuned), "--base-model", str(base), "--out-path", str(peer)]
    command += ["--max-rank", "32", "--include-regex", r".*_proj$", "--no-copy-tokenizer"]

    def theirs() -> float:
        shutil.rmtree(peer, ignore_errors=True)
        return run(command).seconds

    bench.process(path)
    ours, mergekit = in_turn("extraction", PEER_TIMES, lambda: bench.process(path).seconds, theirs)
    what = "LoRA of rank 32 out of a model of 239 MB, whole process"
    yield Row(what, ours, "mergekit-extract-lora", mergekit, least=20, recipe=path)
    lacks = [_lacks(base, tuned, lora) for lora in (bench.out / "merged", peer)]
    yield Row(
        "what that LoRA lacks of the fine-tune", [lacks[0]], "mergekit-extract-lora", [lacks[1]],
        most=1.0001, unit="of ‖Δ‖",
    )  # fmt: skip


def _lacks(base: Path, tuned: Path, lora: Path) -> float:
    words = [str(HERE / "residual.py"), str(base), str(tuned), str(lora)]
    return run([sys.executable, *words]).said["residual"]


def _costs(sample: Sample) -> list[float]:
    return [sample.seconds, sample.processor_seconds, sample.megabytes]


def _phases(sample: Sample) -> list[float]:
    return [sample.said["work"], sample.said["flush"]]


def _sums(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(one, other, strict=True)]


MODEL_ROWS: dict[str, Callable[[Bench], Iterator[Row | Table]]] = {
    "mergekit": mergekit, "copied": copied, "sharded": sharded, "extraction": extraction,
}  # fmt: skip
