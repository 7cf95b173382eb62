# SPDX-License-Identifier: Apache-2.0
"""Make `.peers`: one environment with the package and the real peers that the benchmarks measure beside.

A peer that cannot be installed does not stop the others: each peer is then tried alone, at its locked version,
and `.peers/missing.json` says which are not there, and why; the benchmarks read it out, and the next call tries again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".peers"
ASKED, LOCKED = ROOT / "requirements/bench.in", ROOT / "requirements/bench.txt"
STAMP, MISSING = HOME / ".installed-from", HOME / "missing.json"
UV = str(Path(sys.executable).with_name("uv"))


def peers(asked: str) -> list[str]:
    """The names that `bench.in` asks for, without the package itself."""
    return [line for line in asked.splitlines() if re.match(r"[a-z]", line)]


def installs(*what: str) -> str:
    """Install into `.peers`; gives what was said against it."""
    command = [UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(HOME / "bin/python"), *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    # The page names missing packages, never the address of their index.
    return re.sub(r"\S*://\S*", "...", " ".join(done.stderr.split())) if done.returncode else ""


def make() -> dict[str, str]:
    """Fill the environment; gives the peers that are not there, each with the reason."""
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)], check=True)
    against = installs("--requirements", str(LOCKED))
    if not against:
        return {}
    print(f"peers: not all at once, so one after the other: {against}", flush=True)
    # An editable package cannot be a constraint.
    versions = HOME / "versions.txt"
    versions.write_text("".join(line for line in LOCKED.open() if not line.startswith("-e")))
    within = ("--constraints", str(versions))
    itself = installs(*within, "--editable", ".[airflow,dagster,emulator]")
    if itself:
        raise SystemExit(f"peers: not even the package itself can be installed: {itself}")
    tried = {name: installs(*within, name) for name in peers(ASKED.read_text())}
    return {name: against for name, against in tried.items() if against}


def main() -> None:
    newest = max(path.stat().st_mtime for path in (LOCKED, ROOT / "pyproject.toml"))
    if STAMP.exists() and STAMP.stat().st_mtime >= newest:
        return
    print(f"peers: installing what is measured beside into {HOME.name}", flush=True)
    missing = make()
    MISSING.write_text(json.dumps(missing, indent=1))
    for name, why in missing.items():
        print(f"peers: {name} is not there: {why}", flush=True)
    if not missing:
        STAMP.touch()


if __name__ == "__main__":
    main()
