# SPDX-License-Identifier: Apache-2.0
"""A unique key, and the search for it in everything that was written.

A finding could only have come from us.
"""

from __future__ import annotations

import base64
from pathlib import Path

KEY = "ugen_sk_3b1f9d_nobody_else_has_this_one"
FORMS = (KEY.encode(), base64.b64encode(KEY.encode()).rstrip(b"=")[:-1], KEY.encode().hex().encode())


def nowhere(folder: Path, *said: object) -> None:
    """Every byte of every file of a folder, and what was said, without the key in any form."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert not [form for form in FORMS if form in content], path
    for each in said:
        text = each if isinstance(each, str) else repr(each)
        assert not [form for form in FORMS if form.decode() in text]
