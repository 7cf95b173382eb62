# SPDX-License-Identifier: Apache-2.0
"""How storage hosts are reached: at the address that was checked, by the name, through proxies, and no other way."""

import base64
import contextlib
import gzip
import itertools
import os
import socket

import pytest

from tests.hostile.servers import Authority, Proxy, chunked_forever, endless, serving, whole
from ugen_provider.core.api.errors import TransportError
from ugen_provider.core.api.models import Job
from ugen_provider.core.media import DownloadError, download_outputs
from ugen_provider.core.media.http import MediaClient, open_named, open_url, shared_client
from ugen_provider.core.media.origins import OriginError, PrivateAddressError
from ugen_provider.core.media.outputs import Downloader, DownloadPolicy

from .conftest import PUBLIC, Answer, Storage

VIDEO = "Content-Type: video/mp4"


def a_job(*links):
    segments = [{"index": index, "video_url": link} for index, link in enumerate(links)]
    return Job.model_validate({"job_id": "j1", "status": "completed", "segments": segments})


def fetch(link, tmp_path, *, client=None, **policy):
    downloader = Downloader(client or MediaClient(), DownloadPolicy(**policy), sleep=lambda _: None)
    return downloader.download(link, tmp_path / "part", family="video", refresh_url=lambda _: None)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# The address.


def test_a_name_that_turns_private_later_is_refused(storage, mp4, internet, tmp_path):
    outside = Storage()
    try:
        outside.serve("/v.mp4", mp4)
        storage.serve("/v.mp4", b"the inside")
        internet.host("cdn.example", outside, "127.0.0.1")
        link = f"http://cdn.example:{storage.port}/v.mp4"
        manifest = download_outputs(a_job(link), tmp_path)
    finally:
        outside.close()
    assert (tmp_path / "j1" / "segment-0.mp4").read_bytes() == mp4
    assert manifest.files[0].source == link
    assert internet.connected == [PUBLIC]
    assert storage.requests == []
    assert [headers["host"] for _, headers in outside.requests] == [f"cdn.example:{storage.port}"]


def test_a_name_with_one_private_address_is_refused(storage, internet, tmp_path, monkeypatch):
    internet.host("cdn.example", storage)
    find = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: find(host, *a, **k) + find("10.0.0.7", *a, **k))
    with pytest.raises(DownloadError, match=r"private address 10\.0\.0\.7"):
        fetch("http://cdn.example/v.mp4", tmp_path)
    assert internet.connected == []


def test_a_private_connection_is_not_reused_where_refused(storage, mp4, tmp_path):
    link = storage.serve("/v.mp4", mp4)
    client = MediaClient()
    fetch(link, tmp_path, client=client, allow_private=True)
    with pytest.raises(DownloadError, match="private address"):
        fetch(link, tmp_path, client=client)
    assert len(storage.requests) == 1


@pytest.mark.parametrize("name", ["cdn.example", "elsewhere.example"])
def test_the_certificate_matches_the_name_at_the_checked_address(mp4, internet, tmp_path, monkeypatch, name):
    authority = Authority(tmp_path)
    context = authority.context("cdn", host="cdn.example")
    asked_for = []
    context.sni_callback = lambda _, server_name, __: asked_for.append(server_name)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with serving(whole(mp4, headers=VIDEO), tls=context) as server:
        internet.host(name, server.port, "127.0.0.1")
        if name == "cdn.example":
            fetch(f"https://{name}/v.mp4", tmp_path)
            assert b"\r\nHost: cdn.example\r\n" in server.heard
        else:
            with pytest.raises(DownloadError, match=r"(?i)certificate.*mismatch"):
                fetch(f"https://{name}/v.mp4", tmp_path, attempts=1)
            assert server.heard == b""
    assert asked_for == [name]
    assert internet.connected == [PUBLIC]


# Connections.


def test_one_connection_serves_many_files(storage, mp4, internet, tmp_path):
    links = [storage.serve(f"/{number}", mp4) for number in range(3)]
    download_outputs(a_job(*links), tmp_path, parallel=1, allow_private=True)
    assert internet.connected == ["127.0.0.1"]
    assert len(storage.requests) == 3


def test_a_connection_closed_by_the_server_costs_no_attempt(mp4, tmp_path):
    head = f"HTTP/1.1 200 OK\r\n{VIDEO}\r\nContent-Length: {len(mp4)}\r\n\r\n".encode()
    client = MediaClient()
    with serving(lambda send, _: send(head + mp4)) as server:
        for number in range(3):
            fetch(f"{server.url}/{number}", tmp_path, client=client, allow_private=True, attempts=1)
        assert server.connections == 3
    client.close()


def test_an_unfinished_answer_does_not_start_the_next(storage, mp4, internet):
    link = storage.serve("/v.mp4", mp4)
    client = MediaClient()
    for _ in range(2):
        with client.open(link, allow_private=True) as stream:
            assert stream.status == 200
    with client.open(link, allow_private=True) as stream:
        assert b"".join(stream.chunks()) == mp4
    assert len(internet.connected) == 3


# Proxies, as the environment names them.


@pytest.fixture
def proxy_to():
    opened = []

    def make(port: int) -> Proxy:
        opened.append(Proxy(port))
        return opened[-1]

    yield make
    for proxy in opened:
        proxy.close()


BASIC = f"Basic {base64.b64encode(b'me:p@ss').decode()}"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_is_asked_for_the_whole_address(mp4, tmp_path, monkeypatch, proxy_to, variable):
    with serving(whole(mp4, headers=VIDEO)) as server:
        proxy = proxy_to(server.port)
        monkeypatch.setenv(variable, f"http://me:p%40ss@{proxy.address}")
        fetch("http://cdn.example:81/a b.mp4?x=1", tmp_path, allow_private=True)
    (head,) = proxy.heads
    assert head.startswith("GET http://cdn.example:81/a%20b.mp4?x=1 HTTP/1.1\r\n")
    assert "\r\nHost: cdn.example:81\r\n" in head
    assert f"\r\nProxy-Authorization: {BASIC}\r\n" in head


def test_a_proxy_passes_https_on_without_seeing_it(mp4, tmp_path, monkeypatch, proxy_to):
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    context = authority.context("cdn", host="cdn.example")
    with serving(whole(mp4, headers=VIDEO), tls=context) as server:
        proxy = proxy_to(server.port)
        monkeypatch.setenv("https_proxy", f"me:p%40ss@{proxy.address}")
        fetch("https://cdn.example/v.mp4?token=secret", tmp_path, allow_private=True)
        assert b"GET /v.mp4?token=secret HTTP/1.1" in server.heard
        assert b"Proxy-Authorization" not in server.heard
    (head,) = proxy.heads
    assert head.startswith("CONNECT cdn.example:443 HTTP/1.")
    assert f"\r\nProxy-Authorization: {BASIC}\r\n" in head
    assert "secret" not in head


def test_a_refusing_proxy_is_reported_without_its_password(tmp_path, monkeypatch):
    with serving(whole(b"no", status="407 Who Are You")) as server:
        monkeypatch.setenv("https_proxy", f"http://me:hidden@127.0.0.1:{server.port}")
        with pytest.raises(DownloadError, match=r"the proxy: .* 407") as caught:
            fetch("https://cdn.example/v.mp4", tmp_path, allow_private=True)
    assert "hidden" not in repr(caught.value)


@pytest.mark.parametrize("spared", ["127.0.0.1", "*", "x.example, 127.0.0.1"])
def test_hosts_that_need_no_proxy_are_reached_without_one(storage, mp4, tmp_path, monkeypatch, spared):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", spared)
    assert fetch(storage.serve("/v.mp4", mp4), tmp_path, allow_private=True).size == len(mp4)


@pytest.mark.parametrize("kind", ["socks5", "https"])
def test_an_unusable_kind_of_proxy_is_reported(storage, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("ALL_PROXY", f"{kind}://me:hidden@127.0.0.1:9")
    with pytest.raises(DownloadError, match=f"a proxy of the kind {kind}://") as caught:
        fetch(storage.url + "/v.mp4", tmp_path, allow_private=True)
    assert "hidden" not in repr(caught.value)


def test_a_name_that_is_private_here_is_refused_behind_a_proxy(storage, internet, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", storage.url)
    internet.names["inside.example"] = ["10.0.0.7"]
    with pytest.raises(DownloadError, match="private address"):
        fetch("http://inside.example/v.mp4", tmp_path)
    assert storage.requests == []


# Requests and reports.


def test_the_credentials_of_a_link_go_to_its_host_only(storage, mp4, internet, tmp_path):
    other = Storage()
    try:
        away = other.serve("/v.mp4", mp4)
        storage.serve("/v.mp4", lambda count, headers: Answer(302, b"", {"Location": away}))
        fetch(f"http://me:p%40ss@127.0.0.1:{storage.port}/v.mp4", tmp_path, allow_private=True)
    finally:
        other.close()
    assert storage.requests[0][1]["authorization"] == BASIC
    assert "authorization" not in other.requests[0][1]


def test_no_error_shows_the_secrets_of_a_link(tmp_path):
    with pytest.raises(DownloadError) as caught:
        fetch("http://me:hidden@127.0.0.1:9/v.mp4?token=hidden", tmp_path, allow_private=True)
    with pytest.raises(TransportError) as inner, open_url("http://me:hidden@127.0.0.1:9/v.mp4?token=hidden"):
        pass
    errors: list[BaseException | None] = [caught.value, inner.value]
    while errors:
        if (error := errors.pop()) is not None:
            assert "hidden" not in repr(error)
            assert "hidden" not in str(vars(error))
            errors += [error.__cause__, error.__context__]
    assert "http://127.0.0.1:9/v.mp4" in str(inner.value)


def test_unrequested_compression_is_not_taken_for_a_video(storage, mp4, tmp_path):
    packed = {"Content-Type": "video/mp4", "Content-Encoding": "gzip"}
    link = storage.serve("/v.mp4", lambda count, headers: Answer(200, gzip.compress(mp4), packed))
    with pytest.raises(DownloadError, match="the content is no video"):
        fetch(link, tmp_path, allow_private=True)
    assert storage.requests[0][1]["accept-encoding"] == "identity"


def test_a_redirect_to_a_name_beyond_ascii_arrives(storage, mp4, tmp_path):
    storage.serve("/%C3%BC%20x.mp4", mp4)
    storage.serve("/v.mp4", lambda count, headers: Answer(302, b"", {"Location": "/\u00c3\u00bc x.mp4"}))
    assert fetch(storage.url + "/v.mp4", tmp_path, allow_private=True).size == len(mp4)


# Answers that are none.

ODD = {
    "two lengths": "Content-Length: 5\r\nContent-Length: 7",
    "a length that is no number": "Content-Length: five",
    "a length below nothing": "Content-Length: -5",
    "a length in other digits": "Content-Length: \u00b2",
    "a length with a sign": "Content-Length: +5",
    "a length of a thousand digits": f"Content-Length: {'9' * 5000}",
    "an unknown encoding": "Transfer-Encoding: gzip, chunked",
    "a header too long": f"X: {'x' * 70_000}",
    "too many headers": "\r\n".join(f"X-{number}: x" for number in range(200)),
}


@pytest.mark.parametrize("how", ODD)
def test_an_answer_that_can_be_read_in_two_ways_is_not_read(tmp_path, how):
    answer = f"HTTP/1.1 200 OK\r\n{VIDEO}\r\n{ODD[how]}\r\n\r\nhello".encode("latin-1")
    with serving(lambda send, _: send(answer)) as server, pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True)
    assert caught.value.reason == "network"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("begin", [b"", b"HTTP/9.9 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x00" * 100_000])
def test_an_answer_that_is_no_http_is_reported(tmp_path, begin):
    with serving(lambda send, _: send(begin)) as server, pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True)
    assert caught.value.reason == "network"
    assert len(str(caught.value)) < 500


def test_a_validator_that_breaks_lines_is_not_said_again(storage, mp4, tmp_path):
    """A file name from a host must not become a header of the next request."""
    answer = f'HTTP/1.1 200 OK\r\n{VIDEO}\r\nETag: "a\r\n  b"\r\nContent-Length: {len(mp4)}\r\n\r\n'.encode()
    with serving(lambda send, _: send(answer + mp4[:-1])) as server, pytest.raises(DownloadError):
        fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True)
    assert b'If-Range: "a b"\r\n' in server.heard
    assert b"\n  b" not in server.heard


TRICKLES = {
    "lines after the last chunk": lambda send: forever(send, b"X: x\r\n", begin=b"0\r\n"),
    "what a chunk is said to be": lambda send: forever(send, b"x" * 4096, begin=b"5;"),
}


def forever(send, piece, *, begin):
    send(f"HTTP/1.1 200 OK\r\n{VIDEO}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + begin)
    while True:
        send(piece)


@pytest.mark.parametrize("how", TRICKLES)
def test_talk_without_an_end_around_the_body_is_given_up(tmp_path, how):
    with serving(lambda send, _: TRICKLES[how](send)) as server, pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True)
    assert caught.value.reason == "network"


def test_a_head_that_drips_is_given_up():
    """Each byte comes in time, and the answer never does."""
    moments = itertools.count(0, 20)
    client = MediaClient(timeout=30, tick=lambda: float(next(moments)))

    def script(send, _):
        while True:
            send(b"H")

    with (
        serving(script) as server,
        pytest.raises(TransportError, match="took longer than 120 s"),
        client.open(f"{server.url}/v.mp4", allow_private=True),
    ):
        pass


def test_pieces_are_handed_on_as_they_come():
    """A server that drips is seen to: nothing waits until a buffer is full."""
    with serving(endless(b"x")) as server, open_url(f"{server.url}/v.mp4") as stream:
        pieces = stream.chunks()
        assert next(pieces)
        assert next(pieces)
    with serving(chunked_forever(b"abc")) as server, open_url(f"{server.url}/v.mp4") as stream:
        assert next(stream.chunks()) == b"abc"


# Answers that are cut in their head.

HEAD = f'HTTP/1.1 200 OK\r\n{VIDEO}\r\nETag: "v1"\r\nContent-Length: {{}}\r\nConnection: close\r\n\r\n'


def test_download_cut_at_each_byte_of_its_head_is_repeated(mp4, tmp_path):
    head = HEAD.format(len(mp4)).encode()
    answers = iter(part for at in range(len(head) + 1) for part in (head[:at], head + mp4))
    with serving(lambda send, _: send(next(answers))) as server:
        for _ in range(len(head) + 1):
            assert fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True, attempts=2).size == len(mp4)


@pytest.mark.parametrize("at", [0, 5, 16, 30, 60])
def test_download_always_cut_in_its_head_is_a_network_error(mp4, tmp_path, at):
    head = HEAD.format(len(mp4)).encode()[:at]
    with serving(lambda send, _: send(head)) as server, pytest.raises(DownloadError) as caught:
        fetch(f"{server.url}/v.mp4", tmp_path, allow_private=True, attempts=3)
    assert caught.value.reason == "network"


# Redirects, and who named the address.


def redirecting(target):
    return whole(b"", status="302 Found", headers=f"Location: {target}")


def test_named_private_address_is_followed_at_its_own_host(storage):
    storage.serve("/feed", b"id,title\n", content_type="text/csv")
    storage.serve("/moved", lambda count, headers: Answer(302, b"", {"Location": "/feed"}))
    with open_url(f"{storage.url}/moved") as stream:
        assert (stream.status, b"".join(stream.chunks())) == (200, b"id,title\n")


@pytest.mark.parametrize("start", ["private", "public"])
def test_named_address_is_not_followed_to_another_private_one(storage, internet, start):
    storage.serve("/feed", b"the inside", content_type="text/csv")
    with serving(redirecting(f"{storage.url}/feed")) as server:
        internet.host("shop.example", server.port)
        url = server.url if start == "private" else f"http://shop.example:{server.port}"
        with pytest.raises(PrivateAddressError), open_url(f"{url}/feed"):
            pass
    assert storage.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://h/x", "http://[::1", "data:text/csv,x"])
def test_redirect_to_no_http_address_is_refused(target):
    with serving(redirecting(target)) as server, pytest.raises(OriginError), open_url(server.url):
        pass


def test_redirect_without_end_is_refused():
    with serving(redirecting("/again")) as server:
        with pytest.raises(OriginError, match="redirects more than 5"), open_url(server.url):
            pass
        assert server.connections == 6


def test_open_named_reads_each_kind_of_address(storage, tmp_path):
    import fsspec

    (tmp_path / "feed.csv").write_bytes(b"id\n")
    storage.serve("/feed.csv", b"id\n", content_type="text/csv")
    fsspec.filesystem("memory").pipe("/feeds/feed.csv", b"id\n")
    for address in (tmp_path / "feed.csv", str(tmp_path / "feed.csv"), f"file://{tmp_path}/feed.csv",
                    f"{storage.url}/feed.csv", "memory://feeds/feed.csv"):  # fmt: skip
        with open_named(address) as file:
            assert file.read() == b"id\n"
    with pytest.raises(OSError, match="404"):
        open_named(f"{storage.url}/gone")


# One pool for a process.


def test_downloads_of_a_process_share_connections(storage, mp4, internet, tmp_path):
    for number in range(3):
        link = storage.serve(f"/{number}", mp4)
        download_outputs(a_job(link), tmp_path / str(number), parallel=1, allow_private=True)
    assert internet.connected == ["127.0.0.1"]


def test_forked_process_has_connections_of_its_own(storage, mp4, tmp_path, monkeypatch):
    accepted = []
    accept = storage._server.get_request
    monkeypatch.setattr(storage._server, "get_request", lambda: (accepted.append(1), accept())[1])
    one, two, three = (storage.serve(f"/{number}", mp4) for number in range(3))
    client = shared_client()
    fetch(one, tmp_path, client=client, allow_private=True, attempts=1)
    client._lock.acquire()  # as if another thread held it during the fork
    child = os.fork()
    if child == 0:
        done = 1
        with contextlib.suppress(BaseException):
            done = int(fetch(two, tmp_path, client=client, allow_private=True).size != len(mp4))
        os._exit(done)
    client._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fetch(three, tmp_path, client=client, allow_private=True, attempts=1)
    assert len(accepted) == 2
