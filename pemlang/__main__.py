"""`python -m pemlang` is `pem`."""

from pemlang.cli.main import main

main()
