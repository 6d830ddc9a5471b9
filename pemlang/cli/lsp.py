"""`pem lsp`: recipes in an editor."""

from __future__ import annotations

import importlib.util

import click

from pemlang.cli.common import importing, say
from pemlang.diagnostics import Fault


@click.command(hidden=True)
@click.option("--stdio", is_flag=True, help="Talk on standard input and output, as it always does.")
def lsp(stdio: bool) -> int:
    """Answer an editor, by the language server protocol.

    The editor starts it: docs/editors.md says how. It needs the packages of pemlang[lsp].
    """
    if importlib.util.find_spec("pygls") is None:
        missing = Fault(
            "PEM0384",
            "the language server needs the package pygls, which is not installed",
            'pip install "pemlang[lsp]"',
        )
        return say([missing.at(None)], "text")
    with importing():
        from pemlang.disk import temporary
        from pemlang.lsp.server import serve
    with temporary("lsp") as folder:
        serve(folder)
    return 0
