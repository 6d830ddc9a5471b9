"""`python -m pemlang` is `pem`."""

from pemlang.cli.entry import run

run()
