# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: one HTML file that shows jobs live, as a client of the public API like any other.

Allowed here: what a person wants to see of the account, by requests that any client could send.
"""

from functools import cache
from importlib.resources import files


@cache
def html() -> bytes:
    """Return the emulator's page as HTML."""
    return files(__name__).joinpath("index.html").read_bytes()
