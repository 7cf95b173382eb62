# SPDX-License-Identifier: Apache-2.0
"""The origin policy: what a row of a feed, and what the user, may have this process open."""

import ipaddress
import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ugen_provider import ConfigError
from ugen_provider.core.media.origins import (
    STORE_SCHEMES,
    HTTPAddress,
    LocalFile,
    OriginError,
    RowOrigins,
    StoredObject,
    is_public,
    locate_named,
    open_local,
    same_origin,
)

FSSPEC = sorted({*fsspec.available_protocols()} - {"http", "https"})
WRAPPING = ["reference", "filecache", "simplecache", "blockcache", "cached", "dir", "generic", "dask", "zip", "tar",
            "libarchive", "async_wrapper", "asynclocal", "data", "jupyter", "jlab", "pyscript"]  # fmt: skip


def refused(origins: RowOrigins, address: str) -> bool:
    try:
        origins.locate(address)
    except OriginError:
        return True
    return False


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A root with one picture, beside a secret."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    (folder / "lamp.png").write_bytes(b"lamp")
    (folder / "deep" / "cup.png").write_bytes(b"cup")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("scheme", FSSPEC)
def test_row_of_a_protocol_without_root_is_refused(scheme):
    assert refused(RowOrigins(), f"{scheme}://bucket/lamp.png")


@pytest.mark.parametrize("scheme", [*(name for name in FSSPEC if name not in STORE_SCHEMES), "made-up", "data"])
def test_row_of_a_protocol_that_is_no_store_is_refused(scheme, pictures):
    origins = RowOrigins([pictures, "/", *(f"{store}://bucket/" for store in STORE_SCHEMES)])
    for address in (f"{scheme}://{pictures}/lamp.png", f"{scheme}:{pictures}/lamp.png", f"{scheme}://bucket/lamp.png"):
        assert refused(origins, address)
        assert refused(origins, address.replace(scheme, scheme.upper()))


@pytest.mark.parametrize("first", [*FSSPEC, "http", "https"])
def test_row_of_a_chain_is_refused(first, pictures):
    origins = RowOrigins([pictures, "memory://bucket/"])
    inner = (f"file://{pictures}/lamp.png", "http://127.0.0.1/x.png", "memory://bucket/lamp.png")
    for address in (f"{first}::{target}" for target in inner):
        assert refused(origins, address)
    if first not in {"http", "https"}:
        assert refused(origins, f"{first}://bucket/lamp.png::{inner[0]}")


@pytest.mark.parametrize("scheme", sorted(STORE_SCHEMES))
def test_row_of_a_store_below_its_root_is_located(scheme):
    origins = RowOrigins([f"{scheme}://bucket/pictures"])
    address = f"{scheme}://bucket/pictures/2026/lamp 1.png"
    assert origins.locate(address) == StoredObject(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/invoices/1.pdf",
        "s3://bucket/pictures",
        "s3://bucket/pictures-of-others/1.png",
        "s3://bucket/pictures/../invoices/1.pdf",
        "s3://bucket/pictures/./1.png",
        "s3://bucket/pictures//1.png",
        "s3://bucket/pictures/%2e%2e/invoices/1.pdf",
        "s3://bucket/pictures/..%2Finvoices/1.pdf",
        "s3://bucket/pictures/..\\invoices\\1.pdf",
        "s3://bucket/pictures/1.png?versionId=7",
        "s3://bucket/pictures/1.png#x",
        "s3://bucket/pictures/1.png\n",
        "s3://me:secret@bucket/pictures/1.png",
        "s3://other/pictures/1.png",
        "s3:bucket/pictures/1.png",
        "s3a://bucket/pictures/1.png",
        "gs://bucket/pictures/1.png",
    ],
)
def test_row_of_a_store_beside_its_root_is_refused(address):
    assert refused(RowOrigins(["s3://bucket/pictures"]), address)


def test_row_of_a_path_below_a_root_is_read(pictures):
    for roots in ([pictures], [str(pictures) + "/"], [f"file://{pictures}"], ["/nowhere", pictures]):
        for name, content in (("lamp.png", b"lamp"), ("deep/cup.png", b"cup")):
            origin = RowOrigins(roots).locate(str(pictures / name))
            assert isinstance(origin, LocalFile)
            with open_local(origin) as file:
                assert file.read() == content


def test_row_of_a_path_beside_its_root_is_refused(pictures):
    origins = RowOrigins([pictures])
    (pictures / "link.png").symlink_to(pictures.parent / "secret.png")
    (pictures / "away").symlink_to(pictures.parent)
    near = Path(str(pictures) + "-2")
    near.mkdir()
    paths = ("../secret.png", "link.png", "away/secret.png", "deep/../../secret.png", "./lamp.png", "/lamp.png")
    for address in (*(f"{pictures}/{path}" for path in paths), f"{near}/x.png", str(pictures), "/etc/passwd",
                    "lamp.png", "~/lamp.png", f"//host{pictures}/lamp.png", f"file://{pictures}/lamp.png"):  # fmt: skip
        assert refused(origins, address), address


def test_open_local_through_a_link_set_after_the_check_fails(pictures):
    origin = RowOrigins([pictures]).locate(str(pictures / "deep" / "cup.png"))
    assert isinstance(origin, LocalFile)
    (pictures / "deep").rename(pictures / "moved")
    (pictures / "deep").symlink_to(pictures.parent)
    (pictures.parent / "cup.png").write_bytes(b"secret")
    with pytest.raises(OSError, match="deep"):
        open_local(origin)


def test_open_local_of_a_pipe_fails_at_once(pictures):
    os.mkfifo(pictures / "pipe.png")
    origin = RowOrigins([pictures]).locate(str(pictures / "pipe.png"))
    assert isinstance(origin, LocalFile)
    with pytest.raises(OSError, match="no regular file"):
        open_local(origin)


@given(st.text(st.sampled_from("s3:/.\\%2ef~abc \x00\n?#@[]"), max_size=30))
@example("s3://b/p/..")
def test_row_of_any_text_stays_below_its_root(text):
    origins = RowOrigins(["s3://b/p/", "/srv/pictures"])
    for address in (text, f"s3://b/p/{text}", f"/srv/pictures/{text}"):
        try:
            origin = origins.locate(address)
        except OriginError:
            continue
        if isinstance(origin, StoredObject):
            assert os.path.normpath(origin.url.removeprefix("s3:/")).startswith("/b/p/")
        elif isinstance(origin, LocalFile):
            assert os.path.realpath(origin.path).startswith("/srv/pictures/")
        else:
            assert isinstance(origin, HTTPAddress)


@pytest.mark.parametrize(
    "root",
    ["", "pictures", "http://shop.example/", "reference://x/", "simplecache::s3://b/", "sftp://h/x", "zip:///x.zip/",
     "s3://b/../c", "s3://b/x?y", "file://other/x"],
)  # fmt: skip
def test_root_that_bounds_nothing_is_refused(root):
    with pytest.raises((ConfigError, OriginError)):
        RowOrigins([root])


@pytest.mark.parametrize("scheme", WRAPPING)
def test_named_address_that_wraps_others_is_refused(scheme):
    for address in (f"{scheme}://x/y", f"{scheme.upper()}://x/y"):
        with pytest.raises(OriginError):
            locate_named(address)


@pytest.mark.parametrize("address", ["simplecache::s3://b/x", "zip://x.csv::s3://b/x.zip", "sftp://h/x::file:///y"])
def test_named_address_of_a_chain_is_refused(address):
    with pytest.raises(OriginError, match=r"chained|refused"):
        locate_named(address)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("feed.xml", LocalFile("feed.xml")),
        ("/data/feed::1.xml", LocalFile("/data/feed::1.xml")),
        ("feed:2026.csv", LocalFile("feed:2026.csv")),
        (Path("/x/feed.csv"), LocalFile("/x/feed.csv")),
        ("file:///data/feed%201.xml", LocalFile("/data/feed 1.xml")),
        ("https://shop.example/f?a=1::2", HTTPAddress("https://shop.example/f?a=1::2")),
        ("s3://bucket/feed.csv", StoredObject("s3://bucket/feed.csv")),
        ("sftp://h/feed.csv", StoredObject("sftp://h/feed.csv")),
    ],
)
def test_named_address_is_located(address, origin):
    assert locate_named(address) == origin


def test_origin_error_names_no_secret():
    with pytest.raises(OriginError) as caught:
        locate_named("reference://me:hidden@h/x?token=hidden\nlevel=info")
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


PRIVATE = ["127.0.0.1", "10.0.0.7", "100.64.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "0.0.0.0",
           "198.18.0.1", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"]  # fmt: skip
PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_in_each_spelling_is_not_public(address):
    number = int(ipaddress.IPv4Address(address))
    spellings = [address, f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}",
                 str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))]  # fmt: skip
    assert [is_public(spelling) for spelling in spellings] == [False] * len(spellings)


@pytest.mark.parametrize(
    "address",
    ["::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b:1::1",
     "2001:0:1::1", "100::1", "5f00::1"],
)  # fmt: skip
def test_private_ipv6_address_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [*PUBLIC, "2606:4700:4700::1111", "2a00:1450:4001:82a::200e"])
def test_public_address_in_each_spelling_is_public(address):
    spellings = [address] if ":" in address else [address, f"::ffff:{address}", f"64:ff9b::{address}"]
    assert all(map(is_public, spellings))


def test_same_origin_of_another_scheme_host_or_port_is_false():
    assert same_origin("http://a.example/x", "http://A.example:80/y?z")
    others = ("https://a.example/x", "http://b.example/x", "http://a.example:81/x")
    assert not any(same_origin("http://a.example/x", other) for other in others)
