# SPDX-License-Identifier: Apache-2.0
"""Make the sync client from the async one. With --check, only tell whether it is up to date.

Each rule must match somewhere: one that no longer does is an error, so that the list never grows stale.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "ugen_provider/core/api/_async_client.py"
TARGET = ROOT / "ugen_provider/core/api/_sync_client.py"
RULES = [
    (
        r"The async client\. .*",
        "The sync client, made from `_async_client.py` by `scripts/unasync.py`; change that one.",
    ),
    (r"The U-Gen API, awaited\.", "The U-Gen API, blocking."),
    (r"\basync def __aenter__", "def __enter__"),
    (r"\basync def __aexit__", "def __exit__"),
    (r"\basync def aclose", "def close"),
    (r"\.aclose\(\)", ".close()"),
    (r"\basync def ", "def "),
    (r"\basync for ", "for "),
    (r"\bawait ", ""),
    (r"\bAsyncUGenClient\b", "UGenClient"),
    (r"\bAsyncDriver\b", "SyncDriver"),
    (r"\bAsyncHTTPClient\b", "HTTPClient"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Jobs|Credits|Webhook|Uploads|Templates|Music|Models)\b", r"\1"),
]


def main(*, check: bool = False) -> int:
    text = SOURCE.read_text()
    for pattern, replacement in RULES:
        text, count = re.subn(pattern, replacement, text)
        if not count:
            sys.exit(f"scripts/unasync.py: the rule {pattern!r} matches nothing any more; remove it")
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--fix", "--exit-zero", "-q", "--select", "I"], ["format", "-q"]):
        text = subprocess.run(
            [ruff, *command, "--stdin-filename", TARGET, "-"],
            input=text,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
    if check:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.exit(f"{TARGET.relative_to(ROOT)} is not what {SOURCE.relative_to(ROOT)} makes: run `make format`")
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
