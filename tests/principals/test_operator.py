# SPDX-License-Identifier: Apache-2.0
"""Other users of the operator's machine: they read no secret from the screen, a log, a file or the process list."""

import stat

import httpx
import pytest

from ugen_provider import CreateJob, UGenClient, UGenError, buy
from ugen_provider.cli.demo.airflow import AirflowApi, AirflowApiError
from ugen_provider.emulator.settings import LOCAL_KEY
from ugen_provider.ledger import Ledger

PASSWORD = "hidden-pass"
ADDRESS = f"postgresql://me:{PASSWORD}@127.0.0.1:1/shop?sslpassword={PASSWORD}"
ODD = (f"postgresql://me:{PASSWORD}@127.0.0.1:port/shop", f"postgresql+none://me:{PASSWORD}@h/shop",
       f"mysql://me:{PASSWORD}@h/shop", f"postgresql://me:{PASSWORD}:x@h:1:2/shop")  # fmt: skip
RUN = ("feed", "run", "feed.csv", "--catalogue", "shop", "--budget", 1, "--segment-count", 1, "--run-id", "a")
COMMANDS = [("doctor",), ("ledger", "show", "shop"), ("ledger", "list"), ("feed", "report", "shop"), RUN]


@pytest.fixture
def feed(tmp_path):
    path = tmp_path / "feed.csv"
    path.write_text("id,title,image_link\n1,Lamp,https://shop.example/lamp.jpg\n")
    return path


@pytest.mark.parametrize("address", [ADDRESS, *ODD], ids=["away", "port", "driver", "kind", "colons"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: "-".join(map(str, words[:2])))
@pytest.mark.usefixtures("feed")
def test_password_of_a_ledger_is_never_printed(ugen, command, address):
    for more in ((), ("--json",)):
        ran = ugen(*command, *more, UGEN_LEDGER=address)
        assert PASSWORD not in ran.stdout + ran.stderr
        if "doctor" not in command:
            named = ugen(*command, "--ledger", address, *more)
            assert PASSWORD not in named.stdout + named.stderr


@pytest.mark.usefixtures("feed")
def test_password_in_an_argument_is_warned_of(ugen):
    ran = ugen(*RUN, "--ledger", ADDRESS)
    assert "process list" in ran.stderr


@pytest.mark.usefixtures("feed")
def test_password_is_absent_from_the_advice_to_continue(ugen, tmp_path):
    (tmp_path / "feed.csv").write_text("id,title,image_link\n1,Lamp,https://shop.example/lamp.jpg\n")
    ran = ugen(*RUN, "--to", f"ftp://me:{PASSWORD}@127.0.0.1:1/x", "--assume-credits", 5)
    assert PASSWORD not in ran.stdout + ran.stderr


@pytest.mark.parametrize("address", [ADDRESS, *ODD])
def test_password_of_a_ledger_is_in_no_error(address):
    with pytest.raises(UGenError) as caught:
        Ledger(address)
    error = caught.value
    while error is not None:
        assert PASSWORD not in f"{error!r}{error}{vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o000, 0o077, 0o027], ids=oct)
def test_files_of_orders_are_for_their_owner_alone(ugen, feed, tmp_path, umask):
    ledger = tmp_path / "ledgers" / "shop.db"
    made = ugen("ledger", "init", ledger, "--allow-ephemeral", umask=umask)
    assert made.returncode == 0, made.stderr
    ran = ugen("feed", "run", feed, "--catalogue", "shop", "--budget", 100_000, "--segment-count", 1, "--run-id", "a",
               "--to", "videos", "--allow-private", "--interval", 5, "--ledger", ledger, umask=umask)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert mode(ledger.parent) == 0o700
    files = [*ledger.parent.rglob("*"), *tmp_path.glob("videos/**/manifest.json")]
    assert {path.name for path in files} >= {"shop.db", "manifest.json"}
    assert {mode(path) for path in files if path.is_file()} == {0o600}


def test_default_ledger_of_a_script_is_for_its_owner_alone(server, tmp_path, monkeypatch):
    server.emulator.reset()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("UGEN_LEDGER", raising=False)
    lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.png", segment_count=1)
    with UGenClient(api_key=LOCAL_KEY, base_url=server.base_url) as client:
        buy(client, lamp, name="lamp", interval=0.01)
    folder = tmp_path / "data" / "ugen"
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["/auth/token", "/api/v2/dags/shop"])
def test_login_of_airflow_follows_no_redirect(canary, monkeypatch, status, path):
    """The demo's client of Airflow's REST API sends its login and its token to the address that it was given."""
    monkeypatch.setattr(httpx.Client, "__init__", redirecting(httpx.Client.__init__, path, status, canary.url))
    with pytest.raises(AirflowApiError):
        AirflowApi("http://airflow.example", user="admin", password=PASSWORD).dag_known("shop")
    assert canary.requests == []


def redirecting(init, path, status, target):
    """Let clients reach an Airflow that leads one of its paths to another host."""

    def answer(request):
        if request.url.path == path:
            return httpx.Response(status, headers={"Location": f"{target}/stolen"})
        return httpx.Response(201, json={"access_token": "token"})

    def with_transport(self, **settings):
        mounts = {"http://airflow.example": httpx.MockTransport(answer)}
        init(self, **settings, mounts=mounts)

    return with_transport
