# SPDX-License-Identifier: Apache-2.0
"""`make release-check`: builds the wheel and the sdist, and checks that a user can work with them.

Contents, metadata, entry points, the licence, an import in an empty environment that pulls in neither orchestrator, the
list of public names, the changelog's fragments, published advisories against the locked versions, and `ugen demo` from
the wheel, far from this folder, with the Airflow and Dagster that a user would get today. That last part takes
minutes and wants a package index; where there is none, `--leave-out-demo REASON` leaves it out, and says so.
"""

from __future__ import annotations

import argparse
import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".venv" / "bin" / "uv"
Command = list[str | Path]
KINDS = ("feature", "bugfix", "doc", "removal", "misc")

IN_THE_WHEEL = (
    "ugen_provider/py.typed",
    "dagster_ugen/py.typed",
    "ugen_provider/get_provider_info.py",
    "ugen_provider/plugins/job.html",
    "ugen_provider/cli/demo/files/feed.xml",
    "ugen_provider/cli/demo/files/feed_to_videos.py",
    "ugen_provider/cli/demo/files/dagster_feed_to_videos.py",
)
IN_THE_SDIST = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "Makefile",
    "pyproject.toml",
    "requirements/dev.txt",
    "scripts/find-python",
    "tests/conftest.py",
    "airflow/README.md",
    "example_dags/one_job.py",
    "docs/index.md",
)
ENTRY_POINTS = {
    "console_scripts": "ugen = ugen_provider.__main__:run",
    "apache_airflow_provider": "provider_info = ugen_provider.get_provider_info:get_provider_info",
    "airflow.plugins": "ugen = ugen_provider.plugins.ugen:UGenPlugin",
    "dagster_dg_cli.registry_modules": "dagster_ugen = dagster_ugen",
    "pytest11": "ugen_emulator = ugen_provider.emulator.pytest_plugin",
}
EMPTY = """
import importlib.util, sys
from ugen_provider import CreateJob, UGenClient, buy, __version__
import ugen_provider.core.batch, ugen_provider.core.feeds, ugen_provider.core.media
from ugen_provider.get_provider_info import get_provider_info
from ugen_provider.cli import main
assert get_provider_info()["versions"] == [__version__]
there = [name for name in ("airflow", "dagster", "starlette", "av", "PIL", "pyarrow") if importlib.util.find_spec(name)]
sys.exit(f"the base install brings {there}" if there else 0)
"""


def build(into: Path) -> tuple[Path, Path]:
    """The wheel, built from the sdist as pip would, and the sdist."""
    subprocess.run([UV, "build", "--quiet", "--out-dir", into, ROOT], check=True)
    (wheel,) = into.glob("*.whl")
    (sdist,) = into.glob("*.tar.gz")
    return wheel, sdist


def about(wheel: Path) -> tuple[Message, str]:
    """The wheel's metadata and its entry points."""
    with zipfile.ZipFile(wheel) as opened:
        names = {name.rpartition("/")[2]: name for name in opened.namelist() if ".dist-info/" in name}
        return (
            email.message_from_bytes(opened.read(names["METADATA"])),
            opened.read(names["entry_points.txt"]).decode(),
        )


def contents(wheel: Path, sdist: Path) -> Iterator[str]:
    """Return what is missing, and what should not be there."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "ugen_provider", "dagster_ugen"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    yield from (f"wheel: {name} is missing" for name in (*IN_THE_WHEEL, *tracked) if name not in names)
    for name in names:
        top = name.split("/", 1)[0]
        if top not in {"ugen_provider", "dagster_ugen"} and not top.endswith(".dist-info"):
            yield f"wheel: {name} should not be there"
        if name.endswith((".pyc", ".db", ".log", ".env")):
            yield f"wheel: {name} should not be there"
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        yield "wheel: the licence is missing"
    with tarfile.open(sdist) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    yield from (f"sdist: {name} is missing" for name in IN_THE_SDIST if name not in inside)
    yield from (
        f"sdist: {name} should not be there"
        for name in inside
        if (name.startswith("airflow/") and name.endswith(".py"))
        or name.endswith((".pyc", ".db", ".log"))
        or "/.env" in f"/{name}"
    )


def metadata(wheel: Path) -> Iterator[str]:
    """Return what the package says of itself, against pyproject.toml and the one place of the version."""
    said, entry_points = about(wheel)
    sys.path.insert(0, str(ROOT))
    from ugen_provider.__about__ import __version__

    expected = {
        "Name": "ugen-provider",
        "Version": __version__,
        "License-Expression": "Apache-2.0",
        "Requires-Python": ">=3.11",
    }
    yield from (f"metadata: {key} is {said[key]!r}" for key, value in expected.items() if said[key] != value)
    extras = set(said.get_all("Provides-Extra") or ())
    wanted = {"airflow", "dagster", "emulator", "excel", "media", "parquet", "postgres", "all", "demo"}
    if extras != wanted:
        yield f"metadata: extras are {sorted(extras)}"
    for requirement in said.get_all("Requires-Dist") or ():
        if "extra ==" not in requirement and requirement.startswith(("apache-airflow", "dagster")):
            yield f"metadata: {requirement} is asked for by the base install"
    yield from (
        f"entry points: {line} is missing from [{group}]"
        for group, line in ENTRY_POINTS.items()
        if f"[{group}]" not in entry_points or line not in entry_points
    )


def installed(wheel: Path, home: Path) -> Iterator[str]:
    """The wheel in an environment with nothing else in it."""
    environment = home / "empty"
    subprocess.run([UV, "venv", "--quiet", "--no-project", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([UV, "pip", "install", "--quiet", "--python", python, wheel], check=True)
    asked: tuple[Command, ...] = ([python, "-P", "-c", EMPTY], [environment / "bin" / "ugen", "--help"])
    for command in asked:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"installed: {command[-1]!r} fails: {(done.stdout + done.stderr).strip()}"
    # Without their extras, these say what to install, and start nothing.
    for name in ("demo", "emulator"):
        command = [environment / "bin" / "ugen", name]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode == 0 or f"ugen-provider[{name}]" not in done.stderr or "Traceback" in done.stderr:
            yield f"installed: ugen {name} does not name its extra: {done.stdout + done.stderr}"


def demo(wheel: Path, home: Path) -> Iterator[str]:
    """The main job, from the wheel alone: its feed, DAG and definitions are those that are packed with it."""
    environment, output = home / "demo", home / "demo-output"
    subprocess.run([UV, "venv", "--quiet", "--no-project", "--python", sys.executable, environment], check=True)
    install: Command = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        environment / "bin" / "python",
    ]
    if subprocess.run([*install, f"ugen-provider[demo] @ {wheel.as_uri()}"], check=False).returncode:
        yield "demo: the extra [demo] cannot be installed; --leave-out-demo REASON leaves this part out"
        return
    listed: Command = [UV, "pip", "list", "--python", environment / "bin" / "python", "--format", "freeze"]
    frozen = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    print("demo with", *(line for line in frozen if line.startswith(("apache-airflow==", "dagster=="))), flush=True)
    ours = ("AIRFLOW", "DAGSTER", "UGEN", "PYTHON", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env |= {"HOME": str(home), "PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}"}
    command: Command = [environment / "bin" / "ugen", "demo", "--output", output]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        yield f"demo: ugen demo ends with {done.returncode}: {said[-3000:]}"
        return
    bought = [each["bought"] for each in json.loads((output / "report.json").read_text())["passes"]]
    videos = list(output.glob("*/*/*/final.mp4"))
    if len(bought) != 2 or bought[0] == 0 or bought[1] or len(videos) != bought[0]:
        yield f"demo: it bought {bought}, and left {len(videos)} videos"
    print(f"demo: {said.splitlines()[-1]}")


def public_names() -> Iterator[str]:
    """The list of public names."""
    compared: Command = [sys.executable, ROOT / "scripts" / "public_api.py"]
    done = subprocess.run(compared, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"public names: {(done.stdout + done.stderr).strip()}"


def fragments() -> Iterator[str]:
    """The changelog."""
    for path in sorted((ROOT / "changelog.d").glob("*.md")):
        parts = path.name.split(".")
        if path.name != "README.md" and (len(parts) < 3 or parts[1] not in KINDS or not path.read_text().strip()):
            yield f"changelog: {path.name} is not NUMBER.KIND.md with KIND one of {', '.join(KINDS)}"


def audit(home: Path) -> Iterator[str]:
    """Published advisories against the locked versions; where their data cannot be had, this says so and finds none."""
    for name in ("dev.txt", "bench.txt"):
        lines = (ROOT / "requirements" / name).read_text().splitlines(keepends=True)
        locked = home / name
        locked.write_text("".join(line for line in lines if not line.startswith("-e ")))
        asked: Command = [
            Path(sys.executable).with_name("pip-audit"), "--requirement", locked, "--require-hashes", "--disable-pip",
            "--format", "json", "--progress-spinner", "off", "--timeout", "15",
        ]  # fmt: skip
        try:
            done = subprocess.run(asked, cwd=home, capture_output=True, text=True, check=False, timeout=600)
            dependencies = json.loads(done.stdout)["dependencies"]
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            print(f"audit: {name} was not checked, since the advisories could not be had ({type(error).__name__})")
            continue
        unknown = sum("skip_reason" in each for each in dependencies)
        if unknown == len(dependencies):
            print(f"audit: {name} was not checked, since the package index here has no advisories")
            continue
        print(f"audit: {name}: {len(dependencies) - unknown} packages checked, {unknown} unknown to the advisories")
        yield from (
            f"audit: {name}: {each['name']} {each['version']} has {flaw['id']}; fixed in {flaw['fix_versions']}"
            for each in dependencies
            for flaw in each.get("vulns", ())
        )


def main() -> int:
    """Build and look.

    Returns:
        The exit code: 1 if something is not as it should be.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leave-out-demo", metavar="REASON", help="why the demo cannot run here")
    asked = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="ugen-release-"))
    found: list[str] = []
    try:
        wheel, sdist = build(home / "dist")
        found = [
            *contents(wheel, sdist),
            *metadata(wheel),
            *installed(wheel, home),
            *public_names(),
            *fragments(),
            *audit(home),
            *(() if asked.leave_out_demo else demo(wheel, home)),
        ]
        print(*found, sep="\n", end="\n" if found else "")
        if not found:
            if not about(wheel)[0].get_all("Project-URL"):
                print("note: no [project.urls] yet; on a package index the links and the picture of the README need it")
            left_out = f"; the demo was left out: {asked.leave_out_demo}" if asked.leave_out_demo else ""
            print(f"release-check: {wheel.name} and {sdist.name} are as they should be{left_out}")
        return int(bool(found))
    finally:
        if any(line.startswith("demo: ") for line in found):
            print(f"what the demo left is in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
