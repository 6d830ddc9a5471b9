"""Where the benchmarks run: their data, recipes, and processes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import LAYERS, recipe
from timing import Sample, run

HERE = Path(__file__).parent


@dataclass
class Bench:
    """Where the benchmarks run.

    Attributes:
        folder: for data, recipes and outputs.
        peers: the Python of the peers' environment.
    """

    folder: Path
    peers: str

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def adapters(self, name: str, count: int, rank: int, layers: int) -> list[Path]:
        """Adapters of 7B shapes; made when they are not there yet."""
        print(f"  data: {count} × {name}", file=sys.stderr, flush=True)
        folder = self.folder / "data" / name
        # In a process of its own: the most memory that a child of this one is said to have had
        # is never less than what this one has.
        words = (str(folder), str(count), str(rank), str(layers))
        run([sys.executable, str(HERE / "data.py"), *words])
        return [folder / f"{number:03}" for number in range(count)]

    def three(self) -> list[Path]:
        """The three of 160 MB."""
        return self.adapters("160MB", 3, 32, LAYERS)

    def recipe(self, name: str, adapters: Sequence[Path], *lines: str) -> Path:
        """A recipe over some adapters: what stands before the save, and the save."""
        return recipe(self.folder / f"{name}.pem", adapters, "\n".join(lines[:-1]), lines[-1])

    def process(self, recipe: Path, *options: str, out: Path | None = None) -> Sample:
        """`pem build`, the whole process, with no output there yet."""
        place = out or self.out
        shutil.rmtree(place, ignore_errors=True)
        pem = str(Path(sys.executable).with_name("pem"))
        return run([pem, "build", str(recipe), "--out", str(place), *options], self.env)

    def phases(self, recipe: Path, *threads: int) -> Sample:
        """A build in a process of its own that tells its phases."""
        shutil.rmtree(self.out, ignore_errors=True)
        words = [str(recipe), str(self.out), *map(str, threads)]
        return run([sys.executable, str(HERE / "ours.py"), *words], self.env)

    def work(self, recipe: Path, *threads: int) -> list[float]:
        """The seconds of its work."""
        return self.phases(recipe, *threads).said["work"]

    def peer(self, script: str, *words: str | Path) -> Sample:
        """A script of a peer."""
        shutil.rmtree(self.folder / "peer", ignore_errors=True)
        (self.folder / "peer").mkdir()
        return run([self.peers, str(HERE / "peers" / script), *map(str, words)])

    @property
    def env(self) -> dict[str, str]:
        """Digests are remembered in a place of their own."""
        return {"XDG_CACHE_HOME": str(self.folder / "cache")}
