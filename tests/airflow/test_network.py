# SPDX-License-Identifier: Apache-2.0
"""The proxy and the certificates of a connection: every request and download uses them, and no password is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.deferring import run
from tests.hostile.servers import Authority, Proxy, serving, whole
from ugen_provider.core.api.errors import ConfigError, TransportError
from ugen_provider.core.media.http import shared_client
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.operators.jobs import UGenCreateJobOperator
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS

PASSWORD = "hidden-word"
BALANCE = b'{"available_credits": 7, "reserved_credits": 0}'


@pytest.fixture
def proxy(ugen_emulator: Any) -> Iterator[Proxy]:
    """A proxy that passes everything on to the emulator, under any name."""
    made = Proxy(ugen_emulator.port)
    yield made
    made.close()


def store(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    stored = {"conn_type": "ugen", "password": "ugen_sk_local", "extra": {"retries": 0, **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))


def by_proxy(proxy: Proxy) -> dict[str, Any]:
    return {
        "base_url": "http://ugen.example/api/v1",
        "allow_insecure": True,
        "proxy": f"http://me:{PASSWORD}@{proxy.address}",
    }


@pytest.mark.parametrize("prefix", ["", "extra__ugen__"])
@pytest.mark.parametrize("form", ["json", "uri"])
def test_network_extras_count_in_every_form(monkeypatch: pytest.MonkeyPatch, prefix: str, form: str) -> None:
    from airflow.models.connection import Connection

    network = {f"{prefix}proxy": "http://me:p%40ss@proxy.example:3128", f"{prefix}ca_bundle": "/etc/ca.pem"}
    stored = {"conn_type": "ugen", "password": "k", "extra": network}
    value = json.dumps(stored)
    if form == "uri":
        value = Connection(conn_id="x", **{**stored, "extra": json.dumps(network)}).get_uri()
    monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", value)
    for settings in (UGenHook().get_settings(), asyncio.run(UGenHook().aget_settings())):
        found = settings.config.network
        assert found.proxy is not None
        assert (found.proxy.reveal(), found.ca_bundle) == ("http://me:p%40ss@proxy.example:3128", "/etc/ca.pem")
        assert "p%40ss" not in repr(settings)


@pytest.mark.parametrize("deferrable", [False, True])
def test_task_with_proxy_sends_everything_through_it(
    monkeypatch: pytest.MonkeyPatch,
    ugen_emulator: Any,
    proxy: Proxy,
    attempts: Any,
    moving_clock: Any,
    tmp_path: Path,
    logged: Any,
    deferrable: bool,
) -> None:
    store(monkeypatch, **by_proxy(proxy))
    task = UGenCreateJobOperator(
        task_id="job",
        product_name="Lamp",
        product_image_url="https://shop.example/lamp.png",
        segment_count=1,
        deferrable=deferrable,
        output_path=str(tmp_path),
    )
    result = run(task, attempts.next())
    assert Path(result["manifest_uri"]).is_file()
    targets = [head.split(" ")[1] for head in proxy.heads]
    assert any(target.startswith("http://ugen.example/api/v1/jobs") for target in targets), targets
    assert any(target.startswith(f"http://127.0.0.1:{ugen_emulator.port}/") for target in targets), targets
    assert all("Proxy-Authorization" in head for head in proxy.heads)
    assert PASSWORD not in logged()


def test_proxy_that_refuses_is_reported_without_password(monkeypatch: pytest.MonkeyPatch, logged: Any) -> None:
    masker = "airflow.sdk._shared.secrets_masker" if AIRFLOW_3_1_PLUS else "airflow.sdk.execution_time.secrets_masker"
    redact = pytest.importorskip(masker).redact
    with serving(whole(b"no", status="407 Who Are You")) as server:
        extra = {"base_url": "https://ugen.example/api/v1", "proxy": f"http://me:{PASSWORD}@127.0.0.1:{server.port}"}
        store(monkeypatch, **extra)
        worked, message = UGenHook().test_connection()
    assert (worked, "407" in message) == (False, True), message
    assert PASSWORD not in message + logged()
    assert PASSWORD not in str(redact(extra)) + str(redact(f"the password was {PASSWORD}"))


def test_ca_bundle_is_trusted_beside_the_usual_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with serving(whole(BALANCE), tls=authority.context("api")) as server:
        base_url = f"{server.url}/api/v1"
        store(monkeypatch, base_url=base_url)
        with UGenHook().get_conn() as client, pytest.raises(TransportError, match=r"(?i)certificate"):
            client.credits.balance()
        store(monkeypatch, base_url=base_url, ca_bundle=str(authority.certificate))
        with UGenHook().get_conn() as client:
            assert client.credits.balance().available_credits == 7
            network = client.config.network

        async def read() -> int:
            async with await UGenHook().get_async_conn() as client:
                return (await client.credits.balance()).available_credits

        assert asyncio.run(read()) == 7
        with shared_client(network).open(server.url, allow_private=True) as stream:
            assert b"".join(stream.chunks()) == BALANCE


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_ca_bundle_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    store(monkeypatch, base_url="https://ugen.example/api/v1", ca_bundle=str(path))
    with pytest.raises(ConfigError, match=f"ca_bundle: {path} holds no certificates"):
        UGenHook().get_conn()
