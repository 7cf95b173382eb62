# SPDX-License-Identifier: Apache-2.0
"""Files that only their owner may read: ledgers, orders and manifests hold addresses that give access by themselves.

The modes are upper bounds: the umask takes more away. An existing file keeps its mode, since its owner chose it.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner alone, with the folders above it that are missing.

    Args:
        folder: The folder; one that exists is left unchanged.

    Raises:
        OSError: It cannot be made.
    """
    missing = []
    above = folder
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    for path in reversed(missing):
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")


def make_private_file(path: Path) -> None:
    """Make an empty file for its owner alone; one that exists is left unchanged.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be made.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
