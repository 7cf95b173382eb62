# SPDX-License-Identifier: Apache-2.0
"""From an empty home on each kind of disk: the README's examples and a feed, twice, then at another origin.

One purchase for each order and origin, and no run fails; the emulators' journals say what was bought.
"""

import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.local import live_by
from ugen_provider.core.ledger.database import ephemeral_filesystem_of, filesystem_of
from ugen_provider.emulator.pytest_plugin import ClockControl
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings
from ugen_provider.ledger import EphemeralLedgerWarning

from .conftest import Ugen

ROOT = Path(__file__).parents[2]
EXAMPLES = dict(
    re.findall(r"^## (\w+)\n+```(?:python|sh)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
)
PRODUCTS = 5


@pytest.fixture(params=["ext4", "tmpfs", "overlay"])
def home(request, tmp_path) -> Iterator[Path]:
    """An empty home on a disk of each kind."""
    match request.param:
        case "ext4":
            if ephemeral_filesystem_of(tmp_path):
                pytest.skip(f"the folder for tests is on {filesystem_of(tmp_path)}")
            yield tmp_path
        case "tmpfs":
            if filesystem_of(Path("/dev/shm")) != "tmpfs":
                pytest.skip("/dev/shm is no temporary disk here")
            folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="ugen-home-"))
            yield folder
            shutil.rmtree(folder)
        case _:
            yield from overlay(tmp_path)


def overlay(folder: Path) -> Iterator[Path]:
    """A folder on an overlay, as in a container."""
    lower, upper, work, merged = (folder / name for name in ("lower", "upper", "work", "merged"))
    for each in (lower, upper, work, merged):
        each.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no overlay can be mounted: mount is not installed")
    if done.returncode:
        pytest.skip(f"no overlay can be mounted: {done.stderr.strip()}")
    try:
        yield merged
    finally:
        subprocess.run(["umount", "--lazy", str(merged)], check=True)


@pytest.fixture
def origins() -> Iterator[tuple[EmulatorServer, EmulatorServer]]:
    """Two local U-Gens, each at its own port."""
    with EmulatorServer(Settings(speed=0, admin=True)) as one, EmulatorServer(Settings(speed=0, admin=True)) as two:
        yield one, two


@pytest.fixture
def at(home, monkeypatch):
    """Go to an origin: a newcomer's environment, in which waiting moves that origin's clock."""
    monkeypatch.chdir(home)
    shutil.copy(ROOT / "examples" / "feed.xml", home)
    for name in [name for name in os.environ if name.startswith(("UGEN_", "XDG_"))]:
        monkeypatch.delenv(name)

    def go(server: EmulatorServer) -> Ugen:
        environ = {"HOME": str(home), "UGEN_API_KEY": LOCAL_KEY, "UGEN_BASE_URL": server.base_url}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        live_by(ClockControl(server), monkeypatch)
        return Ugen(home, server, environ)

    return go


def purchases(server: EmulatorServer) -> int:
    return len(server.emulator.journal.find_purchases())


def test_readme_has_an_example_for_each_entry_point():
    assert sorted(EXAMPLES) == ["Airflow", "Dagster", "Python", "Shell"]


def python_example() -> None:
    # The one difference to the real service: the outputs of this one are on this machine.
    program = EXAMPLES["Python"].replace('"videos")', '"videos", allow_private=True)')
    assert program != EXAMPLES["Python"]
    exec(compile(program, "README.md", "exec", dont_inherit=True), {"__name__": "example"})


def test_python_example_buys_once_for_each_origin(home, at, origins, capsys):
    ephemeral = bool(ephemeral_filesystem_of(home / "x"))
    for server in origins:
        at(server)
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", EphemeralLedgerWarning)
                python_example()
            assert any(issubclass(each.category, EphemeralLedgerWarning) for each in caught) is ephemeral
    assert [purchases(server) for server in origins] == [1, 1]
    assert Path(capsys.readouterr().out.splitlines()[0]).exists()


def test_named_create_buys_once_for_each_origin(home, at, origins):
    create = ("jobs", "create", "--order", "lamp", "--product-name", "Lamp", "--segment-count", 1, "--wait",
              "--product-image-url", "https://images.example.com/lamp.jpg")  # fmt: skip
    for server in origins:
        ugen = at(server)
        first, again = (ugen(*create) for _ in range(2))
        assert "nothing was sent" in again.stderr
        warned = "on a temporary disk" in first.stderr
        assert warned is bool(ephemeral_filesystem_of(home / "x"))
    assert [purchases(server) for server in origins] == [1, 1]


def test_shell_example_buys_once_for_each_origin(home, at, origins):
    init, run = (line.removeprefix("ugen ").split() for line in EXAMPLES["Shell"].splitlines())
    ugen = at(origins[0])
    if ephemeral_filesystem_of(home / "x"):
        assert "ugen ledger init --allow-ephemeral" in ugen(*init, code=2).stderr
        assert not (home / "shop.db").exists()
        init.append("--allow-ephemeral")
    ugen(*init)
    for server in origins:
        ugen = at(server)
        bought = [ugen.json(*run)["bought"] for _ in range(2)]
        assert bought == [PRODUCTS, 0]
    assert [purchases(server) for server in origins] == [PRODUCTS, PRODUCTS]
    # Back at the first origin its purchases are still known.
    assert at(origins[0]).json(*run)["bought"] == 0
    assert [purchases(server) for server in origins] == [PRODUCTS, PRODUCTS]


@pytest.mark.filterwarnings("ignore:the default ledger:UserWarning")
def test_dagster_example_buys_once_for_each_origin(home, at, origins):
    dg = pytest.importorskip("dagster")
    for server in origins:
        at(server)
        module: dict = {"__name__": "example"}
        exec(compile(EXAMPLES["Dagster"], "README.md", "exec", dont_inherit=True), module)
        job = module["defs"].resolve_implicit_global_asset_job_def()
        with dg.instance_for_test(temp_dir=str(home)) as instance:
            instance.add_dynamic_partitions("ugen_products", ["LL-1001"])
            for _ in range(2):
                assert job.execute_in_process(instance=instance, partition_key="LL-1001").success
    assert [purchases(server) for server in origins] == [1, 1]
