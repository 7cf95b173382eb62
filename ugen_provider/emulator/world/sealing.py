# SPDX-License-Identifier: Apache-2.0
"""Keeps webhook secrets out of the database in clear.

A reader of the file does not come upon them by accident. Whoever has the emulator's seed too can read them: it is a
local fake, and needs no more.
"""

import hashlib


def seal(secret: str, *, seed: int) -> str:
    """Return a secret as it is stored."""
    return _mixed(secret.encode(), seed).hex()


def unseal(stored: str, *, seed: int) -> str:
    """Return a secret that was stored."""
    return _mixed(bytes.fromhex(stored), seed).decode()


def _mixed(content: bytes, seed: int) -> bytes:
    stream = hashlib.shake_256(f"ugen-emulator/{seed}".encode()).digest(len(content))
    return bytes(left ^ right for left, right in zip(content, stream, strict=True))
