"""Every benchmark in one go: ours and the peer's, on the same files, in the same minute.

    python benchmarks/run.py --peers PYTHON [--only merge,svd] [--folder DIR] [--write results.md]

`make bench` calls it. Peers run in an environment of their own; their scripts are in peers/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import HERE, Bench
from data import LAYERS
from images import IMAGE_ROWS
from models import MODEL_ROWS
from report import Row, Table, as_markdown, as_terminal
from timing import Sample, in_turn, run

TIMES = 7
WEIGHTS = "adapter_model.safetensors"
WEIGHTED = "0.4 {x} a0 {plus} 0.35 {x} a1 {plus} 0.25 {x} a2"
PARAMETERWISE = WEIGHTED.format(x="⊗", plus="⊕")
EXACT = WEIGHTED.format(x="*", plus="+")


def merge(bench: Bench) -> Iterator[Row]:
    """⊕ of three adapters of 160 MB, against plain torch and against a copy."""
    adapters = bench.three()
    path = bench.recipe("merge", adapters, f'save {PARAMETERWISE} to "merged"')
    files = [adapter / WEIGHTS for adapter in adapters]
    peer = bench.folder / "peer"
    bench.process(path)  # digests and the files' pages are warm on both sides
    ours, flush, copy, copy_flush, torch = in_turn(
        "merge",
        TIMES,
        lambda: _both(bench.phases(path)),
        lambda: _both(bench.peer("copy_bytes.py", peer / "copied", *files)),
        lambda: bench.peer("torch_merge.py", peer / WEIGHTS, *files).said["work"],
    )
    shutil.copy(bench.out / "merged" / "adapter_config.json", peer)
    _same(bench.out / "merged", peer)
    what = "⊕ of three adapters of 160 MB"
    yield Row(f"{what}, work", ours, "plain torch", torch, least=6, recipe=path, copied=copy)
    yield Row(f"{what}, work", ours, "copying the bytes", copy, most=2, recipe=path)
    yield Row(
        f"{what}, work, flushed to disk", _sums(ours, flush), "copying the bytes, flushed",
        _sums(copy, copy_flush), most=2, recipe=path,
    )  # fmt: skip


def process(bench: Bench) -> Iterator[Row]:
    """The same merge as a whole process, against PEFT and against importing torch."""
    adapters = bench.three()
    path = bench.recipe("merge", adapters, f'save {PARAMETERWISE} to "merged"')
    bench.process(path)
    import_torch = [bench.peers, "-c", "import torch"]
    ours, torch = in_turn(
        "process",
        TIMES,
        lambda: bench.process(path).seconds,
        lambda: run(import_torch).seconds,
    )
    again, peft = in_turn(
        "process, PEFT",
        TIMES,
        lambda: bench.process(path).seconds,
        lambda: bench.peer("peft_linear.py", bench.folder / "peer", *adapters).seconds,
    )
    _same(bench.out / "merged", bench.folder / "peer" / "merged")
    what = "⊕ of three adapters of 160 MB, whole process"
    yield Row(what, again, "PEFT, add_weighted_adapter linear", peft, least=12, recipe=path)
    yield Row(what, ours, "import torch", torch, most=0.6, recipe=path)


def cold(bench: Bench) -> Iterator[Row]:
    """The merge when no digest of the inputs is remembered."""
    adapters = bench.three()
    path = bench.recipe("merge", adapters, f'save {PARAMETERWISE} to "merged"')
    files = [adapter / WEIGHTS for adapter in adapters]

    def hashed() -> list[float]:
        """Work, and what taking the digests adds to the process."""
        warm = bench.process(path).seconds
        shutil.rmtree(bench.folder / "cache", ignore_errors=True)
        fresh = bench.process(path).seconds
        return [fresh - warm + bench.phases(path).said["work"]]

    bench.process(path)
    ours, copy = in_turn(
        "cold",
        TIMES,
        hashed,
        lambda: bench.peer("copy_bytes.py", bench.folder / "peer" / "x", *files).said["work"],
    )
    what = "⊕ of three adapters of 160 MB, work and digests, none remembered"
    yield Row(what, ours, "copying the bytes", copy, most=3, recipe=path)


def svd(bench: Bench) -> Iterator[Row]:
    """`+` of three cut to rank 32 at one site, against PEFT's svd."""
    adapters = bench.adapters("square", 3, 32, 0)
    path = bench.recipe("square", adapters, f'save {EXACT} to "cut" with rank=32')
    bench.process(path)
    ours, peft = in_turn(
        "svd",
        TIMES,
        lambda: bench.phases(path).said["work"],
        lambda: bench.peer("peft_svd.py", bench.folder / "peer", *adapters).said["work"],
    )
    _same(bench.out / "cut", bench.folder / "peer" / "merged")
    what = "+ of three at rank 32, one site 4096×4096, work"
    yield Row(what, ours, "PEFT, add_weighted_adapter svd", peft, least=500, recipe=path)


def whole(bench: Bench) -> Iterator[Row]:
    """`+` cut to rank 32 over all sites, against our own ⊕ and the linear algebra alone."""
    adapters = bench.three()
    cut = bench.recipe("cut", adapters, f'save {EXACT} to "cut" with rank=32')
    path = bench.recipe("merge", adapters, f'save {PARAMETERWISE} to "merged"')
    bench.process(path)
    ours, merged, calls = in_turn(
        "whole",
        TIMES,
        lambda: bench.phases(cut).said["work"],
        lambda: bench.phases(path).said["work"],
        lambda: bench.peer("low_rank_calls.py", "32", "96", str(LAYERS)).said["work"],
    )
    what = "+ of three at rank 32, 224 sites, work"
    yield Row(what, ours, "our own ⊕ of them", merged, most=10, recipe=cut)
    yield Row(what, ours, "NumPy's calls that it consists of, alone", calls, most=1.3, recipe=cut)


def factors(bench: Bench) -> Iterator[Row]:
    """ties and dare of two adapters on their factors, over all sites, against PEFT's."""
    adapters = bench.three()[:2]
    for ours_name, kind in (("ties", "ties"), ("dare", "dare_linear")):
        call = f"{ours_name}([a0, a1], density=0.5, over=factors)"
        path = bench.recipe(ours_name, adapters, f'save {call} to "merged"')
        bench.process(path)
        ours, peft = in_turn(
            f"factors, {ours_name}",
            3,
            lambda path=path: bench.phases(path).said["work"],
            lambda kind=kind: bench.peer(
                "peft_factors.py", kind, "0.5", bench.folder / "peer" / "merged", *adapters
            ).said["work"],
        )
        what = f"{ours_name} over factors of two of 160 MB, 224 sites, work"
        yield Row(what, ours, f"PEFT, add_weighted_adapter {kind}", peft, least=4, recipe=path)


ENTRIES = {"ties": 3, "dare": 3, "della": 5, "breadcrumbs": 5}
"""Methods on entries, and how many times as long as ⊕ of the same files each may take."""


def entries(bench: Bench) -> Iterator[Row]:
    """Methods on the factors of two adapters, against our own ⊕ of them."""
    adapters = bench.three()[:2]
    plus = bench.recipe("plus", adapters, 'save 0.5 ⊗ a0 ⊕ 0.5 ⊗ a1 to "merged"')
    for name, most in ENTRIES.items():
        call = f"{name}([a0, a1], density=0.5, over=factors)"
        path = bench.recipe(name, adapters, f'save {call} to "merged"')
        bench.process(path)
        ours, merged = in_turn(
            f"entries, {name}",
            TIMES,
            lambda path=path: bench.work(path),
            lambda: bench.work(plus),
        )
        what = f"{name} over factors of two of 160 MB, work"
        yield Row(what, ours, "our own ⊕ of them", merged, most=most, recipe=path)


SCALING = {
    "+ cut to rank 32": "0.4 * a0 + 0.35 * a1 + 0.25 * a2",
    "ties over factors": "ties([a0, a1], density=0.5, over=factors)",
    "dare over factors": "dare([a0, a1], density=0.5, over=factors)",
    "ties over Δ": "ties([a0, a1], density=0.5)",
    "dare over Δ": "dare([a0, a1], density=0.5)",
    "knots": "knots([a0, a1], density=0.5)",
    "tsv": "tsv([a0, a1])",
    "iso_c": "iso_c([a0, a1])",
    "slerp": "slerp(a0, a1, t=0.5)",
}
"""What two threads should do in half the time of one; over Δ at 14 sites, else at all 224."""


def threads(bench: Bench) -> Iterator[Row]:
    """Two threads against one."""
    whole, few = bench.three(), bench.adapters("two layers", 3, 32, 2)
    for what, call in SCALING.items():
        cut = " with rank=32" if "Δ" in what or what.startswith("+") else ""
        adapters = few if "Δ" in what else whole
        path = bench.recipe("threads", adapters, f'save {call} to "merged"{cut}')
        bench.process(path)
        two, one = in_turn(
            f"threads, {what}",
            3,
            lambda path=path: bench.work(path, 2),
            lambda path=path: bench.work(path, 1),
        )
        yield Row(f"{what} on two threads, work", two, "on one", one, most=0.55, recipe=path)


def ties(bench: Bench) -> Iterator[Row | Table]:
    """ties over Δ cut to rank 32: one site against PEFT's ties_svd, and all 224 against what PEFT
    would take by a site of each shape."""
    call = 'save ties([a0, a1], density=0.5, rank=32) to "merged"'
    square, tall = bench.adapters("square", 2, 32, 0), bench.adapters("tall", 2, 32, -1)
    path = bench.recipe("ties", square, call)
    bench.process(path)
    peer = "peft_ties_svd.py"
    ours, one = in_turn(
        "ties",
        3,
        lambda: bench.phases(path).said["work"],
        lambda: bench.peer(peer, "4096", "4096", *square).said["work"],
    )
    what = "ties over Δ of two at rank 32"
    yield Row(f"{what}, one site 4096×4096, work", ours, "PEFT, ties_svd", one, least=40)
    large = bench.peer(peer, "11008", "4096", *tall).said["work"]
    whole = bench.process(bench.recipe("ties", bench.three()[:2], call))
    theirs = [4 * LAYERS * seconds + 3 * LAYERS * large for seconds in one]
    peft = "PEFT, ties_svd, extrapolated from one site of each shape"
    yield Row(f"{what}, 224 sites, process", [whole.seconds], peft, theirs, least=20)
    yield Table(f"most resident memory of {what}, 224 sites",
                [("2 × 160MB", [whole.megabytes])], below=500)  # fmt: skip


def sweep(bench: Bench) -> Iterator[Row]:
    """Eleven points, against one build; on the disk, and in memory where there is such a place."""
    adapters = bench.three()
    path = bench.recipe(
        "sweep",
        adapters,
        "param w: number in 0..1 = 0.5",
        'save w ⊗ a0 ⊕ 0.35 ⊗ a1 ⊕ (1 - w) ⊗ a2 to "w{w}"',
    )
    places = [("on the disk", bench.out)]
    if shutil.disk_usage("/dev/shm").free > 4 << 30 if Path("/dev/shm").is_dir() else False:
        places.append(("in memory", Path("/dev/shm/pemlang-bench")))
    bench.process(path)
    for where, out in places:
        try:
            many, one = in_turn(
                f"sweep {where}",
                TIMES,
                lambda out=out: bench.process(path, "--sweep", "w=0:1:0.1", out=out).seconds,
                lambda out=out: bench.process(path, out=out).seconds,
            )
        finally:
            shutil.rmtree(out, ignore_errors=True)
        yield Row(f"sweep of 11 points, {where}, process", many, "one build", one, most=5,
                  recipe=path)  # fmt: skip


def many(bench: Bench) -> Iterator[Row]:
    """⊕ of 100 adapters of 8 MB, against ten of them."""
    adapters = bench.adapters("8MB", 100, 8, 6)
    paths = [
        bench.recipe(f"of{n}", adapters[:n],
                     f'save {" ⊕ ".join(f"{1 / n!r} ⊗ a{i}" for i in range(n))} to "merged"')
        for n in (100, 10)
    ]  # fmt: skip
    for path in paths:
        bench.process(path)
    for what, measured in (
        ("work", lambda path: bench.phases(path).said["work"]),
        ("process", lambda path: bench.process(path).seconds),
    ):
        large, small = in_turn(
            f"many, {what}", TIMES, lambda m=measured: m(paths[0]), lambda m=measured: m(paths[1])
        )
        yield Row(f"⊕ of 100 adapters of 8 MB, {what}", large, "of ten of them", small, most=11,
                  recipe=paths[0])  # fmt: skip


def memory(bench: Bench) -> Iterator[Table]:
    """The most memory of a merge, by number and size of the adapters."""
    found: list[tuple[str, list[float]]] = []
    for name, rank, layers in (("16MB", 32, 3), ("160MB", 32, LAYERS)):
        adapters = bench.adapters(name, 30, rank, layers)
        for count in (3, 30):
            terms = " ⊕ ".join(f"{1 / count!r} ⊗ a{i}" for i in range(count))
            path = bench.recipe("memory", adapters[:count], f'save {terms} to "merged"')
            samples = [bench.process(path).megabytes for _ in range(5)]
            print(f"  memory: {count} × {name}", file=sys.stderr, flush=True)
            found.append((f"{count} × {name}", samples))
    yield Table("most resident memory of ⊕, whole process", found, most=1.15)


ROWS: dict[str, Callable[[Bench], Iterator[Row | Table]]] = {
    "merge": merge, "process": process, "cold": cold, "svd": svd, "whole": whole,
    "factors": factors, "entries": entries, "threads": threads, "ties": ties,
    "sweep": sweep, "many": many, "memory": memory, **MODEL_ROWS, **IMAGE_ROWS,
}  # fmt: skip


def _both(sample: Sample) -> list[float]:
    return [sample.said["work"], sample.said["flush"]]


def _sums(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(one, other, strict=True)]


def _same(ours: Path, peer: Path) -> None:
    """Raise unless our merge is the peer's, up to bf16. A wrong merge is not fast."""
    run([sys.executable, str(HERE / "same.py"), str(ours), str(peer)])


@contextmanager
def _folder(given: str | None) -> Iterator[Path]:
    if given:
        Path(given).mkdir(parents=True, exist_ok=True)
        yield Path(given).absolute()
    else:
        with tempfile.TemporaryDirectory(prefix="pemlang-bench-") as made:
            yield Path(made)


def main() -> None:
    """Run the rows asked for, show them, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peers", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--only", default=",".join(ROWS), help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--folder", help="keep data and outputs here")
    parser.add_argument("--write", type=Path, help="write the table to this file")
    args = parser.parse_args()
    found: list[Row | Table] = []
    with _folder(args.folder) as folder:
        bench = Bench(folder, args.peers)
        for name in args.only.split(","):
            for row in ROWS[name](bench):
                found.append(row)
                print(as_terminal(row), flush=True)
        text = as_markdown(found, args.peers, bench.env)
    if args.write:
        new = args.write.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(args.write)


if __name__ == "__main__":
    main()
