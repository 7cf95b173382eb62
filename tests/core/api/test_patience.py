# SPDX-License-Identifier: Apache-2.0
"""Calls are repeated by time: faulty answers, limits, bodies that end early, compressed in any usual way."""

import asyncio
import gzip
import json
import random
import zlib

import httpx
import pytest

from tests.core.api.test_client import LAMP, Both
from ugen_provider import AsyncUGenClient, ConfigError, RateLimitError, ResponseError, TransportError, UGenClient
from ugen_provider.core.api.errors import ServerError, UGenError
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import LOCAL_KEY, Settings

PAGE = b"<html><body>One moment</body></html>"


@pytest.fixture(params=["sync", "async"])
def call(request, local):
    return Both(local, request.param)


def cut(response):
    return httpx.Response(response.status_code, content=response.content[: len(response.content) // 2])


def cut_gzip(response):
    packed = gzip.compress(response.content)
    return httpx.Response(response.status_code, headers={"content-encoding": "gzip"}, stream=Raw(packed[:-9]))


class Raw(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body as it is on the wire."""

    def __init__(self, content, size=7):
        self._pieces = [content[begin : begin + size] for begin in range(0, len(content), size)]

    def __iter__(self):
        return iter(self._pieces)

    async def __aiter__(self):
        for piece in self._pieces:
            yield piece


AFTER = {
    "lost": lambda answer: (answer(), raise_(httpx.ReadError("connection reset"))),
    "cut": lambda answer: cut(answer()),
    "cut gzip": lambda answer: cut_gzip(answer()),
    "empty": lambda answer: (answer(), httpx.Response(200))[1],
    "page": lambda answer: (answer(), httpx.Response(200, content=PAGE))[1],
    "504": lambda answer: (answer(), httpx.Response(504, content=PAGE))[1],
}
BEFORE = {
    **{
        str(status): lambda answer, status=status: httpx.Response(status)
        for status in (500, 502, 503, *range(520, 530))
    },
    "429": lambda answer: httpx.Response(429, headers={"retry-after": "2"}),
    "refused": lambda answer: raise_(httpx.ConnectError("refused")),
    "408": lambda answer: httpx.Response(408),
}
FAULTS = {**AFTER, **BEFORE}


def raise_(error):
    raise error


@pytest.mark.parametrize("seed", range(3))
def test_of_105_creates_under_faults_come_105_jobs(call, local, seed):
    """40 % of the answers are faulty; each order is sent once by its caller, and paid once."""
    chance = random.Random(seed)

    def meddle(asked, answer):
        return FAULTS[chance.choice(list(FAULTS))](answer) if chance.random() < 0.4 else answer()

    local.transport.meddle = meddle
    ids = {call("jobs.create", LAMP).job_id for _ in range(105)}
    assert (len(ids), local.created) == (105, 105)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["jobs.create", "credits.balance", "jobs.list"])
def test_a_fault_of_sixty_seconds_is_borne(call, local, fault, name):
    began = local.world.now()
    few = iter(range(3)) if fault in {"refused", "page"} else None  # these show no sign of the service

    def meddle(asked, answer):
        over = local.world.now() - began > 60 if few is None else next(few, None) is None
        return answer() if over else FAULTS[fault](answer)

    local.transport.meddle = meddle
    call(name, *([LAMP] if name == "jobs.create" else []))
    assert local.created == (name == "jobs.create")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_without_end_is_reported_in_time(call, local, caplog, fault):
    local.transport.meddle = lambda asked, answer: FAULTS[fault](answer)
    began = local.world.now()
    with pytest.raises(UGenError) as caught:
        call("jobs.create", LAMP)
    assert local.world.now() - began <= 180
    assert isinstance(caught.value, TransportError | ServerError | RateLimitError | ResponseError) or fault == "408"
    assert caught.value.idempotency_key
    assert fault in {"refused", "page"} or "is repeated until" in caplog.text


def test_a_429_uses_no_attempt(call, local):
    left = [429] * 20

    def meddle(asked, answer):
        return httpx.Response(left.pop(), headers={"retry-after": "1"}) if left else answer()

    local.transport.meddle = meddle
    call("credits.balance", settings={"retries": 1})
    assert not left


BODY = {"credit_balance": 70, "credit_reserved": 0, "available_credits": 70, "note": "x" * 50}
JSON = json.dumps(BODY).encode()
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
PACKINGS = {
    "identity": ("identity", JSON),
    "Identity": ("Identity", JSON),
    "none": ("none", JSON),
    "utf-8": ("utf-8", JSON),
    "empty": ("", JSON),
    "gzip": ("gzip", gzip.compress(JSON)),
    "GZIP": ("GZIP", gzip.compress(JSON)),
    "x-gzip": ("x-gzip", gzip.compress(JSON)),
    "gzip, identity": ("gzip, identity", gzip.compress(JSON)),
    "two members": ("gzip", gzip.compress(JSON[:20]) + gzip.compress(JSON[20:])),
    "many members": ("gzip", b"".join(gzip.compress(bytes([one])) for one in JSON)),
    "padding": ("gzip", gzip.compress(JSON) + b"\0" * 40),
    "deflate": ("deflate", zlib.compress(JSON)),
    "raw deflate": ("deflate", RAW.compress(JSON) + RAW.flush()),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("size", [1, 7, 5000])
def test_every_usual_compression_is_read(call, local, packing, size):
    name, content = PACKINGS[packing]
    headers = {"content-encoding": name} if name else {}
    local.transport.meddle = lambda asked, answer: httpx.Response(200, headers=headers, stream=Raw(content, size))
    assert call("credits.balance").available_credits == 70


@pytest.mark.parametrize("packing", ["br", "zstd", "gzip, br"])
def test_another_compression_is_an_error(call, local, packing):
    headers = {"content-encoding": packing}
    local.transport.meddle = lambda asked, answer: httpx.Response(200, headers=headers, stream=Raw(JSON))
    with pytest.raises(TransportError, match="compressed as"):
        call("credits.balance")


ENVIRONMENTS = {
    "socks": {"ALL_PROXY": "socks5://user:sesame@127.0.0.1:9"},
    "no proxy with ipv6": {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "::1,[::1],fe80::1%eth0,[2001:db8::]/32"},
    "proxy of another kind": {"HTTPS_PROXY": "gopher://127.0.0.1:9"},
    "proxy that is none": {"HTTPS_PROXY": "http://[::1"},
    "missing certificates": {"SSL_CERT_FILE": "/nowhere/ca.pem"},
    "certificates that are none": {"SSL_CERT_FILE": __file__},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_unusable_environment_ends_inside_the_error_tree(monkeypatch, environment, kind):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, value)
    settings = {"api_key": "ugen_sk_x", "base_url": "https://127.0.0.1:1/api/v1", "retries": 0, "timeout": 1}

    async def ask():
        async with AsyncUGenClient(**settings) as client:
            await client.credits.balance()

    def ask_blocking():
        with UGenClient(**settings) as client:
            client.credits.balance()

    with pytest.raises((ConfigError, TransportError)) as caught:
        ask_blocking() if kind == "sync" else asyncio.run(ask())
    assert "sesame" not in str(caught.value)


def test_a_client_is_used_by_a_second_event_loop():
    with EmulatorServer(Settings(speed=0)) as server:
        client = AsyncUGenClient(api_key=LOCAL_KEY, base_url=server.base_url)
        for _ in range(3):
            assert asyncio.run(client.credits.balance()).available_credits


MALFORMED = {
    "bad header line": b"HTTP/1.1 200 OK\r\nthis is no header\r\n\r\n{}",
    "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "not http": b"SSH-2.0-OpenSSH_9\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", MALFORMED)
def test_malformed_answers_end_inside_the_error_tree(answer):
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(MALFORMED[answer])

        thread = threading.Thread(target=serve)
        thread.start()
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}/api/v1"
        with UGenClient(api_key="k", base_url=base_url, retries=0) as client, pytest.raises(TransportError):
            client.credits.balance()
        thread.join()
