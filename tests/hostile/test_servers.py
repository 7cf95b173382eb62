# SPDX-License-Identifier: Apache-2.0
"""A server that is not what it should be: it never ends, it leads elsewhere, its certificate is wrong.

After any answer, memory stays small, the error is one of ours, and the key reaches no other host.
"""

import asyncio
import gzip
import itertools
import socket
import tracemalloc

import httpx
import pytest

from tests.hostile.servers import Authority, chunked_forever, endless, serving, whole
from ugen_provider import (
    AsyncUGenClient,
    CreateJob,
    Job,
    ResponseError,
    RetryPolicy,
    TransportError,
    UGenClient,
)
from ugen_provider.core.feeds import FeedError, read_feed
from ugen_provider.core.feeds.sources import Bounds
from ugen_provider.core.media import DownloadError, download_outputs
from ugen_provider.core.media.http import MediaClient
from ugen_provider.core.media.outputs import Downloader, DownloadPolicy

KEY = "ugen_sk_very_secret"
ONCE = RetryPolicy(attempts=1)
LAMP = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.png", segment_count=1)
MOST = 96 << 20
"""Bytes of memory that no hostile answer may cost."""


def balance(base_url, kind, **settings):
    settings = {"api_key": KEY, "base_url": base_url, "retries": ONCE, **settings}
    if kind == "sync":
        with UGenClient(**settings) as client:
            return client.credits.balance()

    async def ask():
        async with AsyncUGenClient(**settings) as client:
            return await client.credits.balance()

    return asyncio.run(ask())


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ENDLESS = {
    "without a length": endless(b" " * (1 << 20)),
    "chunked": chunked_forever(b" " * (1 << 20)),
    "with a false length": endless(b" " * (1 << 20), headers=f"Content-Length: {1 << 40}"),
    "packed": endless(gzip.compress(b" " * (4 << 20)) + bytes(1 << 18), headers="Content-Encoding: gzip"),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("how", ENDLESS)
def test_an_answer_without_an_end_is_given_up(kind, how):
    with serving(ENDLESS[how]) as server:

        def ask():
            with pytest.raises(TransportError, match="larger than"):
                balance(server.url, kind)

        assert peak_of(ask) < MOST


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_that_drips_is_given_up(kind):
    """Each byte comes in time, and the answer never does: the whole has a limit too."""
    moments = itertools.count(0, 20)

    class Hurried:
        def now(self):
            return 0.0

        def tick(self):
            return float(next(moments))

        def sleep(self, seconds):
            raise AssertionError("nothing to wait for")

        async def asleep(self, seconds):
            raise AssertionError("nothing to wait for")

    with (
        serving(endless(b" ")) as server,
        pytest.raises(TransportError, match="took longer"),
    ):
        balance(server.url, kind, clock=Hurried(), timeout=30)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["sync", "async", "with the caller's own client"])
def test_a_redirect_to_another_host_never_gets_the_key(kind, status):
    with serving(whole(b"{}")) as other:
        away = whole(b"", status=f"{status} Elsewhere", headers=f"Location: {other.url}/api/v1/jobs")
        with serving(away) as server:
            own = httpx.Client(follow_redirects=True) if kind.startswith("with") else None
            more = {"http_client": own} if own else {}
            with pytest.raises(ResponseError, match="redirect"):
                balance(server.url, "async" if kind == "async" else "sync", **more)
            with (
                UGenClient(api_key=KEY, base_url=server.url, retries=ONCE, **more) as client,
                pytest.raises(ResponseError, match="redirect"),
            ):
                client.jobs.create(LAMP)
        assert (other.connections, KEY.encode() in server.heard) == (0, True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


CERTIFICATES = {
    "of another host": {"host": "elsewhere.example"},
    "out of date": {"age_in_days": 30},
    "not yet good": {"age_in_days": -30},
}


def reached(url, how, tmp_path):
    """Ask a server by each of the ways that ask servers."""
    if how == "feed":
        return list(read_feed(f"{url}/feed.csv"))
    if how == "download":
        downloader = Downloader(MediaClient(), DownloadPolicy(allow_private=True), sleep=lambda _: None)
        return downloader.download(f"{url}/v.mp4", tmp_path / "part", family="video", refresh_url=lambda _: None)
    return balance(url, how)


@pytest.mark.parametrize("how", ["sync", "async", "feed", "download"])
@pytest.mark.parametrize("wrong", [*CERTIFICATES, "of an unknown authority"])
def test_a_wrong_certificate_ends_it_before_anything_is_said(authority, tmp_path, monkeypatch, wrong, how):
    stranger = Authority(tmp_path) if wrong not in CERTIFICATES else authority
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    context = stranger.context("wrong", **CERTIFICATES.get(wrong, {}))
    refused = {"feed": FeedError, "download": DownloadError}.get(how, TransportError)
    with serving(whole(b"{}"), tls=context) as server:
        with pytest.raises(refused, match=r"(?i)certificate"):
            reached(server.url, how, tmp_path)
        assert server.heard == b""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_good_certificate_is_taken(authority, monkeypatch, kind):
    """Else the test above would show nothing."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    body = b'{"credit_balance": 5, "available_credits": 5}'
    with serving(whole(body), tls=authority.context("good")) as server:
        assert balance(server.url, kind).available_credits == 5


# Feeds over http, and storage hosts.


@pytest.mark.parametrize(
    "script",
    [
        endless((b"1," + b"a" * 1000 + b"\n") * 100, begin=b"id,title\n", headers="Content-Type: text/csv"),
        endless(b"A" * (1 << 16), begin=b"id,title\n1,", headers="Content-Type: text/csv"),
        endless(b"<a>" * 10_000, begin=b"<rss><channel><item>", headers="Content-Type: text/xml"),
        endless(b'{"id":1,"title":"' + b"a" * 1000 + b'"},', begin=b"[", headers="Content-Type: application/json"),
    ],
    ids=["rows", "one line", "tags", "items"],
)
def test_a_feed_without_an_end_is_given_up_with_little_memory(script):
    with serving(script) as server:

        def read():
            with pytest.raises(FeedError, match=r"larger than|longer than|more than"):
                for _ in read_feed(f"{server.url}/feed", bounds=Bounds(most_bytes=8 << 20)):
                    pass

        assert peak_of(read) < MOST
        assert server.sent < 64 << 20


def test_a_video_without_an_end_is_cut_at_the_limit(tmp_path):
    with serving(endless(b"\x00" * (1 << 16), headers="Content-Type: video/mp4")) as server:
        job = Job.model_validate({"job_id": "j1", "status": "completed", "final_video_url": f"{server.url}/v.mp4"})
        with pytest.raises(DownloadError, match=r"larger than max_bytes \(3,000,000\)"):
            download_outputs(job, tmp_path, max_bytes=3_000_000, allow_private=True)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert left == []


def test_a_video_that_drips_is_given_up_at_the_deadline(tmp_path):
    moments = itertools.count(0, 100)
    policy = DownloadPolicy(deadline=1000, allow_private=True)
    downloader = Downloader(MediaClient(), policy, sleep=lambda _: None, tick=lambda: float(next(moments)))
    with (
        serving(endless(b"\x00", headers="Content-Type: video/mp4")) as server,
        pytest.raises(DownloadError, match="took longer than 1000 s"),
    ):
        downloader.download(f"{server.url}/v.mp4", tmp_path / "part", family="video", refresh_url=lambda _: None)


def test_a_storage_host_that_leads_to_another_gets_no_key_either(tmp_path, monkeypatch):
    monkeypatch.setenv("UGEN_API_KEY", KEY)
    with serving(whole(b"no", status="400 No")) as other:
        away = whole(b"", status="302 Elsewhere", headers=f"Location: {other.url}/v.mp4\r\nSet-Cookie: a={KEY}")
        with serving(away) as server:
            job = Job.model_validate({"job_id": "j1", "status": "completed", "final_video_url": f"{server.url}/v.mp4"})
            with pytest.raises(DownloadError, match="answers 400"):
                download_outputs(job, tmp_path, allow_private=True)
            heard = server.heard + other.heard
    assert other.connections == 1
    assert KEY.encode() not in heard
    assert b"cookie" not in other.heard.lower()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.7]",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.7",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "user@127.0.0.1",
        "127.0.0.1:80@127.0.0.1",
    ],
)
def test_no_spelling_of_a_private_address_gets_through(host, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: tried.append(address))
    downloader = Downloader(MediaClient(), DownloadPolicy(), sleep=lambda _: None)
    with pytest.raises(DownloadError) as caught:
        downloader.download(f"http://{host}/v.mp4", tmp_path / "part", family="video", refresh_url=lambda _: None)
    assert caught.value.reason in {"private_address", "network"}  # some resolvers do not read every spelling
    assert not tried


@pytest.mark.parametrize(
    "link",
    [
        "file:///etc/passwd",
        "ftp://h/x",
        "gopher://h/x",
        "data:video/mp4,x",
        "//h/x",
        "",
        "http://[::1",
        "http://h:99999/x",
    ],
)
def test_a_link_that_is_no_web_address_is_refused(link, tmp_path):
    job = Job.model_validate({"job_id": "j1", "status": "completed", "thumbnail_url": link or "http://"})
    with pytest.raises(DownloadError, match="is no http") as caught:
        download_outputs(job, tmp_path, allow_private=True)
    assert caught.value.reason == "refused"
