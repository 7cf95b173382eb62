# SPDX-License-Identifier: Apache-2.0
"""The program `ugen`, also `python -m ugen_provider`. It ends with 130 at Ctrl-C, also while it is being loaded.

Allowed here: what must happen before the first import. The commands are in `ugen_provider.cli`.
"""

import os
import signal
import sys
from types import FrameType


def run() -> None:
    """Run the command line, and end the process with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    from ugen_provider.cli import main
    from ugen_provider.cli.frame import INTERRUPTS

    INTERRUPTS.install()
    main(prog_name="ugen")


def _stop(number: int, frame: FrameType | None) -> None:
    """End while the program is still being loaded: nothing has begun."""
    del number, frame
    as_json = "--json" in sys.argv
    said = '{"exit_code": 130, "error": "KeyboardInterrupt", "message": "stopped", "next": ""}' if as_json else ""
    os.write(2, f"{said or 'Error: stopped'}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    run()
