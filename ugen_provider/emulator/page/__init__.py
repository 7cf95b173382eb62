# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: one HTML file that shows jobs live, as a client of the public API like any other.

What may come in: what a person wants to see of the account, by requests that any client could send.
"""

from functools import cache
from importlib.resources import files


@cache
def html() -> bytes:
    """Return the page."""
    return files(__name__).joinpath("index.html").read_bytes()
