# SPDX-License-Identifier: Apache-2.0
"""Pages of other sites, and other machines: neither steers an emulator on this one."""

import http.client
import re
import subprocess
import sys

import pytest

from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings

ROUTES = [("GET", "/_emulator/clock"), ("PUT", "/_emulator/clock"), ("POST", "/_emulator/reset"),
          ("POST", "/_emulator/clock/advance"), ("GET", "/_emulator/state"), ("POST", "/_emulator/faults")]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with EmulatorServer(Settings(speed=0, admin=True, public_url="https://ugen.example")) as opened:
        yield opened


def asked(server, method, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{server.port}", "Content-Length": "0", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost.evil.example", "a.local:{port}",
     "EVIL.example.", "[::1].evil.example", "rebind.internal", ""],
)  # fmt: skip
def test_admin_route_under_a_foreign_host_is_refused(server, method, path, host):
    name = host.format(port=server.port)
    assert asked(server, method, path, Host=name) in {400, 403}
    assert asked(server, method, path, Host=name, Origin=f"http://{name}") in {400, 403}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_admin_route_from_a_foreign_page_is_refused(server, method, path, origin):
    assert asked(server, method, path, Origin=origin) == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "u.localhost", "emulator:80",
                                  "192.168.1.7:80", "ugen.example"])  # fmt: skip
def test_admin_route_under_an_own_host_is_answered(server, host):
    assert asked(server, "GET", "/_emulator/clock", Host=host.format(port=server.port)) == 200


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("127.0.0.2", False), ("0.0.0.0", True)])
def test_emulator_bound_beyond_loopback_warns(host, warned):
    command = [sys.executable, "-c", "from ugen_provider.emulator.cli import emulator_command as run; run()"]
    process = subprocess.Popen(
        [*command, "--host", host, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "listening on" in process.stdout.readline()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert bool(re.search(r"listens on .*everyone who reaches", errors)) == warned


def test_emulator_by_default_listens_on_loopback():
    with EmulatorServer(Settings(speed=0)) as opened:
        assert opened.url.startswith("http://127.0.0.1:")
