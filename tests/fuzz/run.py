"""Drive a target with bytes that cover more and more of it: `run.py TARGET CORPUS [OPTIONS]`.

OPTIONS are libFuzzer's, such as -max_total_time=60. Bytes that lead somewhere new are kept in the
folder CORPUS, those that crash in `crashes/`. It ends with 0 where nothing was found.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]

with atheris.instrument_imports(include=["pemlang"]):
    from targets import hold

LIMITS = ("-max_len=20000", "-timeout=10", "-rss_limit_mb=3000")


def main() -> None:
    """Run the command line."""
    from seeds import seeds

    name, corpus, *options = sys.argv[1:]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (folder / f"seed-{number}").write_bytes(seed)
    crashes = f"-artifact_prefix={HERE / 'crashes' / name}-"
    atheris.Setup([sys.argv[0], corpus, crashes, *LIMITS, *options], lambda data: hold(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
