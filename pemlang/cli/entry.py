"""Where `pem` starts: the surroundings are made safe before anything is imported that takes long.

Until a command has its own way of ending, a signal ends the process at once and in silence.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line of this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for handle in (0, 1, 2):  # a file opened later could have the number of one that is closed
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    from pemlang.cli.ending import (
        exit_code_of_signal,
        leave,
        listen,
        make_writable,
        was_asked,
    )
    from pemlang.cli.main import main

    make_writable()
    try:
        listen()
        main()
    except KeyboardInterrupt:  # before there was anything to leave half-made
        leave(exit_code_of_signal())
    except SystemExit as end:
        if was_asked():
            leave(end.code)
        raise
