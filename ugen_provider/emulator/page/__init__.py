# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: one HTML file that shows jobs live, as a client of the public API like any other."""

from functools import cache
from importlib.resources import files


@cache
def html() -> bytes:
    """Return the page."""
    return files(__name__).joinpath("index.html").read_bytes()
