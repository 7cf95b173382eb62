# SPDX-License-Identifier: Apache-2.0
"""The key is in no variable of a frame that an error leaves, and in no text: reports of errors show both."""

import asyncio
import pickle
import traceback

import httpx
import pytest

from ugen_provider import AsyncUGenClient, CreateJob, RetryPolicy, UGenClient, UGenError
from ugen_provider.core.api.config import resolve

KEY = "ugen_sk_f4r7-quite-a-secret"
DEPTH = 4
LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=1)
FATES = {
    "refused connection": httpx.ConnectError("refused"),
    "lost": httpx.ReadTimeout("lost"),
    "reset": httpx.ReadError("reset"),
    "protocol": httpx.LocalProtocolError(f"Illegal header value b'{KEY}'"),
    "pool": httpx.PoolTimeout("none free"),
    "redirect": httpx.Response(302, headers={"location": f"https://else.example/?key={KEY}"}),
    "packed": httpx.Response(200, headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"x")),
    "page": httpx.Response(200, content=f"<p>{KEY}</p>".encode()),
    "wrong json": httpx.Response(200, json={"said": KEY}),
    "other job": httpx.Response(200, json={"job_id": "other"}),
    **{
        str(status): httpx.Response(
            status, json={"error": {"code": "X", "message": f"{KEY} may not", "details": {"k": KEY}}}
        )
        for status in (400, 401, 402, 403, 404, 405, 409, 413, 418, 422, 429, 500, 503)
    },
    "422 with fields": httpx.Response(422, json={"detail": [{"loc": ["header", "x"], "msg": f"{KEY} is wrong"}]}),
}


def holds(value, depth=DEPTH, seen=None):
    """Return whether the key is in what a reporter of errors would show of a value."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return False
    seen.add(id(value))
    try:
        if KEY in repr(value):
            return True
    except Exception:
        pass
    if depth == 0:
        return False
    parts = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [*value]
    elif isinstance(value, bytes):
        return KEY.encode() in value
    parts += [getattr(value, "__dict__", None) or {}]
    parts += [getattr(value, name, None) for name in getattr(type(value), "__slots__", ()) if isinstance(name, str)]
    return any(holds(part, depth - 1, seen) for part in parts if part is not None)


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def leaks(error):
    """Where an error shows the key: in frames that are not this test's, in its text, in its attributes."""
    found = []
    for link in chain(error):
        for frame, line in traceback.walk_tb(link.__traceback__):
            if frame.f_code.co_filename == __file__:
                continue
            found += [
                f"{frame.f_code.co_qualname}:{line} {name}" for name, value in frame.f_locals.items() if holds(value)
            ]
        if KEY in f"{link} {link!r} {vars(link)}":
            found.append(f"text of {type(link).__name__}")
    return found


class Fate(httpx.BaseTransport, httpx.AsyncBaseTransport):
    def __init__(self, fate):
        self._fate = fate

    def handle_request(self, request):
        assert request.headers["X-API-Key"] == KEY
        fate = self._fate
        if isinstance(fate, Exception):
            raise type(fate)(str(fate), request=request)
        # A response is read once; each call gets its own.
        return httpx.Response(fate.status_code, headers=fate.headers, stream=httpx.ByteStream(fate.read()))

    async def handle_async_request(self, request):
        return self.handle_request(request)


CALLS = {
    "create": lambda client: client.jobs.create(LAMP),
    "get": lambda client: client.jobs.get("j"),
    "cancel": lambda client: client.jobs.cancel("j"),
    "retry": lambda client: client.jobs.retry("j"),
    "balance": lambda client: client.credits.balance(),
    "scan": lambda client: client.jobs.scan(),
    "upload": lambda client: client.uploads.create_product_image(b"\xff\xd8\xff1", filename="a.jpg"),
}
POLICY = RetryPolicy(attempts=1)
CASES = [(fate, name) for fate in FATES for name in CALLS if (fate, name) != ("other job", "create")]
"""All but one: the job that answers a create is its job."""


@pytest.mark.parametrize(("fate", "name"), CASES)
def test_no_frame_of_a_blocking_call_holds_the_key(fate, name):
    http = httpx.Client(transport=Fate(FATES[fate]))
    client = UGenClient(api_key=KEY, http_client=http, retries=POLICY)
    with pytest.raises(UGenError) as caught:
        CALLS[name](client)
    assert leaks(caught.value) == []
    assert KEY.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize(("fate", "name"), CASES)
def test_no_frame_of_an_awaited_call_holds_the_key(fate, name):
    async def run():
        async with httpx.AsyncClient(transport=Fate(FATES[fate])) as http:
            await CALLS[name](AsyncUGenClient(api_key=KEY, http_client=http, retries=POLICY))

    with pytest.raises(UGenError) as caught:
        asyncio.run(run())
    assert leaks(caught.value) == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_frame_over_real_connections_holds_the_key(ugen_emulator, kind):
    """The emulator refuses the key: by then its connections are open."""
    given = {"api_key": KEY, "base_url": ugen_emulator.base_url, "retries": POLICY}

    async def awaited():
        async with AsyncUGenClient(**given) as client:
            await client.credits.balance()

    def blocking():
        with UGenClient(**given) as client:
            client.credits.balance()

    with pytest.raises(UGenError) as caught:
        asyncio.run(awaited()) if kind == "async" else blocking()
    assert leaks(caught.value) == []


@pytest.mark.parametrize("kind", [UGenClient, AsyncUGenClient, resolve])
@pytest.mark.parametrize("wrong", [{"base_url": "ftp://x"}, {"spending": "perhaps"}, {"timeout": 0}, {"retries": -1}])
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_no_frame_of_a_wrong_setting_holds_the_key(kind, wrong, where, monkeypatch):
    if where == "environment":
        monkeypatch.setenv("UGEN_API_KEY", KEY)
    with pytest.raises(UGenError) as caught:
        kind(**({"api_key": KEY} if where == "argument" else {}), **wrong)
    assert leaks(caught.value) == []


@pytest.mark.parametrize("key", [f"{KEY} x", f"{KEY}\x00", f"{KEY}\x7f", f"{KEY}é"])
def test_a_key_with_a_strange_character_is_refused_unshown(key):
    with pytest.raises(UGenError, match="character that no key has") as caught:
        UGenClient(api_key=key)
    assert leaks(caught.value) == []


def test_nothing_of_a_client_shows_the_key():
    for client in (UGenClient(api_key=KEY), AsyncUGenClient(api_key=KEY)):
        assert not holds(client, depth=6)


def test_the_test_sees_a_key_where_there_is_one():
    def leak():
        headers = {"X-API-Key": KEY}
        raise UGenError(str(len(headers)))

    code = leak.__code__.replace(co_filename="elsewhere.py")
    with pytest.raises(UGenError) as caught:
        type(leak)(code, {"KEY": KEY, "UGenError": UGenError, "str": str, "len": len})()
    assert leaks(caught.value)
