"""What pre-commit runs: a command of pem over the recipes among the files that changed.

Certificates share the extension .pem, and no pattern of names tells them apart. Given by name one
is a mistake, of which pem says so; among the changed files of a repository it is none, and is
left out here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pemlang.cli.main import main
from pemlang.syntax.files import is_certificate


def run(words: Sequence[str]) -> NoReturn:
    """Run a command of pem.

    Args:
        words: the command, its options, and files; options are what begins with a dash.
    """
    files = [word for word in words[1:] if not word.startswith("-")]
    left_out = {file for file in files if is_certificate(Path(file))}
    if files and left_out.issuperset(files):
        sys.exit(0)
    main([word for word in words if word not in left_out])


if __name__ == "__main__":
    run(sys.argv[1:])
