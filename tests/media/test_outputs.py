# SPDX-License-Identifier: Apache-2.0
"""What `download_outputs` leaves behind, against a storage host that does everything storage hosts do."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem

from ugen_provider.core.api.errors import ConfigError
from ugen_provider.core.api.models import Job, Keyframe
from ugen_provider.core.media import DownloadError, Manifest, download_outputs
from ugen_provider.core.media.outputs import Downloader
from ugen_provider.core.media.stores import Store

from .conftest import Answer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Retries wait on the downloader's own clock; here it does not move."""
    real = Downloader.__init__
    monkeypatch.setattr(
        Downloader, "__init__", lambda self, client, policy: real(self, client, policy, sleep=lambda _: None)
    )


def a_job(**links) -> Job:
    return Job.model_validate(
        {"job_id": "j1", "status": "completed", "product_name": "Lamp", "credits_consumed": 86, **links}
    )


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_outputs_of_a_job_are_stored_and_described(storage, mp4, png, tmp_path):
    job = a_job(
        final_video_url=storage.serve("/final", mp4) + "?token=secret",
        thumbnail_url=storage.serve("/thumb", png, content_type="image/png"),
        segments=[{"index": 0, "video_url": storage.serve("/s0", mp4), "qai_score": 0.77, "status": "completed"}],
        updated_at="2026-11-24T12:00:00Z",
    )
    keyframes = [
        Keyframe(index=0, image_url=storage.serve("/k0", png, content_type="image/png"), qai_score=0.82),
        Keyframe(index=1, image_url=storage.serve("/k1", png, content_type="binary/octet-stream"), qai_score=0.51),
    ]
    manifest = download_outputs(
        job, tmp_path, keyframes=keyframes, product_id="LL-1001", request={"segment_count": 1}, allow_private=True
    )
    folder = tmp_path / "LL-1001" / "j1"
    assert files_below(folder) == [
        "final.mp4", "keyframe-0.png", "keyframe-1.png", "manifest.json", "segment-0.mp4", "thumbnail.png",
    ]  # fmt: skip
    assert (folder / "final.mp4").read_bytes() == mp4
    assert manifest.uri("final") == str(folder / "final.mp4")
    text = (folder / "manifest.json").read_text()
    assert "secret" not in text
    written = json.loads(text)
    final = written["files"][0]
    assert final["sha256"] == hashlib.sha256(mp4).hexdigest()
    assert (final["width"], final["height"], final["duration"], final["codec"]) == (90, 160, 1.0, "h264")
    assert written["schema_version"] == 1
    assert written["request"] == {"segment_count": 1}
    assert written["credits"]["consumed"] == 86
    assert written["scores"] == {"keyframes": [0.82, 0.51], "segments": [0.77], "lowest": 0.51}
    assert Manifest.model_validate_json(text).file("keyframe", index=1).score == 0.51


def test_a_file_with_the_right_digest_is_not_fetched_again(storage, mp4, tmp_path):
    job = a_job(final_video_url=storage.serve("/final", mp4))
    first = download_outputs(job, tmp_path, allow_private=True)
    before = (tmp_path / "j1" / "manifest.json").stat()
    again = download_outputs(job, tmp_path, allow_private=True)
    assert len(storage.asked("/final")) == 1
    assert again == first
    assert (tmp_path / "j1" / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "j1" / "final.mp4").write_bytes(mp4[:-1] + b"!")
    download_outputs(job, tmp_path, allow_private=True)
    assert len(storage.asked("/final")) == 2
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == mp4


def test_a_job_that_was_worked_on_since_is_fetched_again(storage, mp4, tmp_path):
    link = storage.serve("/final", mp4)
    download_outputs(a_job(final_video_url=link, updated_at="2026-11-24T12:00:00Z"), tmp_path, allow_private=True)
    download_outputs(a_job(final_video_url=link, updated_at="2026-11-24T13:00:00Z"), tmp_path, allow_private=True)
    assert len(storage.asked("/final")) == 2


def test_a_broken_connection_continues_where_it_broke(storage, mp4, tmp_path):
    block = 40_007  # wherever it breaks, every byte that came counts
    body = mp4 + (4 * block).to_bytes(4, "big") + b"free" + bytes(4 * block - 8)

    def script(count, headers):
        kind = {"Content-Type": "video/mp4", "ETag": '"v1"'}
        if count == 0:
            return Answer(200, body, kind, sent=block)
        begin = int(headers["range"].removeprefix("bytes=").rstrip("-"))
        span = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        return Answer(206, body[begin:], {**kind, "Content-Range": span}, sent=block if count == 1 else None)

    download_outputs(a_job(final_video_url=storage.serve("/final", script)), tmp_path, allow_private=True)
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == body
    asked = storage.asked("/final")
    assert [headers.get("range") for headers in asked] == [None, f"bytes={block}-", f"bytes={2 * block}-"]
    assert asked[1]["if-range"] == '"v1"'


KILLED = """
import os, signal, sys
from ugen_provider.core.api.models import Job
from ugen_provider.core.media import download_outputs, outputs
def die(self, part, family, url):
    os.kill(os.getpid(), signal.SIGKILL)
outputs.Downloader._finish = die
job = Job.model_validate({"job_id": "j1", "status": "completed", "final_video_url": sys.argv[1]})
download_outputs(job, sys.argv[2], allow_private=True)
"""


@pytest.mark.parametrize("destination", ["{tmp}", "memory://swept"])
def test_files_of_killed_writers_go_and_files_of_live_ones_stay(storage, mp4, tmp_path, monkeypatch, destination):
    link, temporary = storage.serve("/final", mp4), tmp_path / "temporary"
    temporary.mkdir()
    destination = destination.format(tmp=tmp_path)
    place = temporary if "memory" in destination else tmp_path / "j1"
    env = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", KILLED, link, destination], env=env, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = place.glob("*.part")
    assert left.read_bytes() == mp4
    mine = place / ".mine.part"
    mine.write_text("no file of ours")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with Store(destination).spool("j1/final") as written:
        download_outputs(a_job(final_video_url=link), destination, allow_private=True)
        assert not left.exists()
        assert written.exists()
    assert mine.exists()


KILLED_BEFORE_THE_MOVE = """
import os, signal, sys
from types import SimpleNamespace
from fsspec.implementations.dirfs import DirFileSystem
from ugen_provider.core.api.models import Job
from ugen_provider.core.media import download_outputs
class Remote(DirFileSystem):
    def mv(self, *paths, **options):
        os.kill(os.getpid(), signal.SIGKILL)
job = Job.model_validate({"job_id": "j1", "status": "completed", "final_video_url": sys.argv[1]})
download_outputs(job, SimpleNamespace(fs=Remote(sys.argv[2], auto_mkdir=True), path="shop"), allow_private=True)
"""


def test_leftovers_in_a_remote_store_go_with_a_later_download(storage, mp4, tmp_path):
    link = storage.serve("/final", mp4)
    command = [sys.executable, "-c", KILLED_BEFORE_THE_MOVE, link, str(tmp_path)]
    killed = subprocess.run(command, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.rglob("*.part")
    assert left.parent == tmp_path / "shop" / ".ugen-parts"
    assert left.read_bytes() == mp4
    mine = left.with_name("mine.part")
    mine.write_text("no file of ours")
    destination = SimpleNamespace(fs=DirFileSystem(str(tmp_path), auto_mkdir=True), path="shop")
    other = a_job(final_video_url=link).model_copy(update={"job_id": "j2"})
    download_outputs(other, destination, allow_private=True)
    assert left.exists()  # another process may be about to move it
    for path in (left, mine):
        os.utime(path, (path.stat().st_mtime - 90_000,) * 2)
    download_outputs(other, destination, allow_private=True)
    assert (left.exists(), mine.exists()) == (False, True)
    assert (tmp_path / "shop" / "j2" / "final.mp4").read_bytes() == mp4


def test_a_store_that_cannot_be_tidied_up_takes_what_comes(storage, mp4, tmp_path):
    class NoDates(DirFileSystem):
        def modified(self, path):
            raise RuntimeError("an error of this store's own")

    link = storage.serve("/final", mp4)
    left = tmp_path / "shop" / ".ugen-parts" / f"ugen-{'0' * 32}.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    destination = SimpleNamespace(fs=NoDates(str(tmp_path), auto_mkdir=True), path="shop")
    download_outputs(a_job(final_video_url=link), destination, allow_private=True)
    assert (tmp_path / "shop" / "j1" / "final.mp4").read_bytes() == mp4
    assert left.exists()


def test_progress_is_reported_over_a_broken_connection_too(storage, mp4, tmp_path):
    def script(count, headers):
        kind = {"Content-Type": "video/mp4", "ETag": '"v1"'}
        if count == 0:
            return Answer(200, mp4, kind, sent=700)
        return Answer(206, mp4[700:], {**kind, "Content-Range": f"bytes 700-{len(mp4) - 1}/{len(mp4)}"})

    reported = []
    link = storage.serve("/final", script)
    download_outputs(a_job(final_video_url=link), tmp_path, allow_private=True, on_progress=reported.append)
    assert {(coming.kind, coming.index, coming.total) for coming in reported} == {("final", None, len(mp4))}
    assert 700 in {coming.bytes for coming in reported}  # no byte that came is held back
    assert reported[-1].bytes == len(mp4)
    reported.clear()
    download_outputs(a_job(final_video_url=link), tmp_path, allow_private=True, on_progress=reported.append)
    assert not reported  # what is there is not fetched


def test_a_file_that_changed_in_between_is_never_glued_together(storage, mp4, tmp_path):
    block = 1 << 16
    other = bytes(3 * block)

    def script(count, headers):
        if count == 0:
            return Answer(200, other, {"Content-Type": "video/mp4", "ETag": '"old"'}, sent=block)
        if "range" in headers:
            span = f"bytes {block}-{3 * block - 1}/{3 * block}"
            return Answer(206, other[block:], {"Content-Type": "video/mp4", "ETag": '"new"', "Content-Range": span})
        return Answer(200, mp4, {"Content-Type": "video/mp4", "ETag": '"new"'})

    download_outputs(a_job(final_video_url=storage.serve("/final", script)), tmp_path, allow_private=True)
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == mp4


def test_without_a_validator_it_begins_again(storage, mp4, tmp_path):
    def script(count, headers):
        return Answer(200, mp4, {"Content-Type": "video/mp4"}, sent=700 if count == 0 else None)

    download_outputs(a_job(final_video_url=storage.serve("/final", script)), tmp_path, allow_private=True)
    assert "range" not in storage.asked("/final")[1]
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == mp4


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_link_is_asked_for_anew(storage, mp4, png, tmp_path, status):
    old = storage.serve("/old", lambda count, headers: Answer(status, b"expired"))
    storage.serve("/new", mp4)
    calls = []

    def refresh():
        calls.append(threading.get_ident())
        return a_job(
            final_video_url=storage.url + "/new", thumbnail_url=storage.serve("/t", png, content_type="image/png")
        )

    manifest = download_outputs(
        a_job(final_video_url=old, thumbnail_url=old), tmp_path, refresh=refresh, allow_private=True
    )
    assert len(manifest.files) == 2
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (Answer(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}), "wrong_type", "text/html where a video"),
        (Answer(200, b"<html>Sign in</html>", {"Content-Type": "video/mp4"}), "wrong_type", "the content is no video"),
        (Answer(200, b"", {"Content-Type": "video/mp4"}), "wrong_type", "the content is no video"),
        (Answer(200, b"\x89PNG\r\n\x1a\n", {"Content-Type": "image/png"}), "wrong_type", "an? image where a video"),
        (Answer(500, b"oops"), "network", "5 attempts, at last: the server answered 500"),
        (Answer(451, b"no"), "refused", "the server answered 451"),
        (Answer(404, b"gone"), "expired", "gives no fresh one"),
        (Answer(302, b"", {"Location": "ftp://elsewhere/x"}), "refused", "is no http"),
        (Answer(302, b"", {"Location": "/final"}), "refused", "redirects more than 5 times"),
    ],
)
def test_an_output_that_cannot_be_stored_is_a_clear_error(storage, tmp_path, answer, reason, message):
    job = a_job(final_video_url=storage.serve("/final", lambda count, headers: answer))
    with pytest.raises(DownloadError, match=message) as caught:
        download_outputs(job, tmp_path, allow_private=True)
    assert (caught.value.reason, caught.value.job_id) == (reason, "j1")
    assert files_below(tmp_path) == ["j1/manifest.json"]
    assert json.loads((tmp_path / "j1/manifest.json").read_text())["missing"][0]["reason"] == reason


@pytest.mark.parametrize("promised", [True, False])
def test_a_video_that_ends_in_the_middle_never_gets_its_name(storage, mp4, tmp_path, promised):
    answer = Answer(200, mp4[:-500], {"Content-Type": "video/mp4"}, length=promised)
    job = a_job(final_video_url=storage.serve("/final", lambda count, headers: answer))
    with pytest.raises(DownloadError, match="ends in the middle"):
        download_outputs(job, tmp_path, allow_private=True)
    assert files_below(tmp_path) == ["j1/manifest.json"]


def test_a_server_error_in_between_is_survived(storage, mp4, tmp_path):
    def script(count, headers):
        return Answer(503, b"") if count < 2 else Answer(200, mp4, {"Content-Type": "video/mp4"})

    download_outputs(a_job(final_video_url=storage.serve("/final", script)), tmp_path, allow_private=True)
    assert (tmp_path / "j1" / "final.mp4").read_bytes() == mp4


def test_one_bad_file_does_not_cost_the_others(storage, mp4, png, tmp_path):
    good = storage.serve("/final", mp4)
    job = a_job(final_video_url=good, thumbnail_url=storage.url + "/gone")
    with pytest.raises(DownloadError, match="1 of 2 files are stored") as caught:
        download_outputs(job, tmp_path, allow_private=True)
    assert caught.value.manifest.file("final").bytes == len(mp4)
    storage.serve("/gone", png, content_type="image/png")
    download_outputs(job, tmp_path, allow_private=True)
    assert len(storage.asked("/final")) == 1
    assert files_below(tmp_path) == ["j1/final.mp4", "j1/manifest.json", "j1/thumbnail.png"]


def test_a_file_above_the_limit_is_refused_before_it_is_read(storage, mp4, tmp_path):
    job = a_job(final_video_url=storage.serve("/final", mp4))
    with pytest.raises(DownloadError, match=r"larger than max_bytes \(1,000\)"):
        download_outputs(job, tmp_path, max_bytes=1000, allow_private=True)


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:9/x", "http://[::1]/x", "http://10.0.0.7/x", "http://169.254.169.254/x"]
)
def test_private_addresses_are_refused_unless_allowed(tmp_path, link):
    with pytest.raises(DownloadError, match="private address") as caught:
        download_outputs(a_job(final_video_url=link), tmp_path)
    assert caught.value.reason == "private_address"


def test_a_redirect_into_the_private_network_is_refused_too(storage, mp4, internet, tmp_path):
    internet.host("cdn.example", storage)
    inner = storage.serve("/inner", mp4)
    storage.serve("/final", lambda count, headers: Answer(302, b"", {"Location": inner}))
    with pytest.raises(DownloadError, match="private address 127"):
        download_outputs(a_job(final_video_url="http://cdn.example/final"), tmp_path)
    assert (len(storage.asked("/final")), len(storage.asked("/inner"))) == (1, 0)


def test_no_key_and_no_cookie_reaches_the_storage_host(storage, mp4, tmp_path, monkeypatch):
    monkeypatch.setenv("UGEN_API_KEY", "ugen_sk_secret")
    download_outputs(a_job(final_video_url=storage.serve("/final", mp4)), tmp_path, allow_private=True)
    (headers,) = storage.asked("/final")
    assert not {"x-api-key", "authorization", "cookie"} & set(headers)
    assert "ugen_sk_secret" not in str(headers)


@pytest.mark.parametrize("product_id", ["../../etc", "/abs", "a\\b:c*?", "..", ".", "con", "ä/ö", "x" * 500])
def test_no_name_leads_outside_the_destination(storage, mp4, tmp_path, product_id):
    job = a_job(final_video_url=storage.serve("/final", mp4))
    target = tmp_path / "inside"
    manifest = download_outputs(job, target, product_id=product_id, allow_private=True)
    (final, _) = files_below(tmp_path)
    assert final.startswith("inside/")
    assert len(final.split("/")) == 4
    assert manifest.product_id == product_id


def test_names_that_differ_stay_different(storage, mp4, tmp_path):
    job = a_job(final_video_url=storage.serve("/final", mp4))
    folders = {
        download_outputs(job, tmp_path, product_id=name, allow_private=True).location for name in ("a/b", "a_b", "a b")
    }
    assert len(folders) == 3


@pytest.mark.parametrize(
    "template", ["{name}", "{job_id}", "../{job_id}/{name}", "/{job_id}/{name}", "{job_id}/{x}/{name}", "{"]
)
def test_a_template_that_could_lose_files_is_refused(tmp_path, template):
    with pytest.raises(ConfigError, match="template"):
        download_outputs(a_job(), tmp_path, template=template)


def test_any_fsspec_destination(storage, mp4, png):
    job = a_job(
        final_video_url=storage.serve("/f", mp4), thumbnail_url=storage.serve("/t", png, content_type="image/png")
    )
    manifest = download_outputs(job, "memory://shop/videos", product_id="p", allow_private=True)
    assert manifest.uri("final") == "memory:///shop/videos/p/j1/final.mp4"
    filesystem = fsspec.filesystem("memory")
    assert filesystem.cat_file("/shop/videos/p/j1/final.mp4") == mp4
    assert not [path for path in filesystem.find("/shop") if path.endswith(".part")]
    download_outputs(job, "memory://shop/videos", product_id="p", allow_private=True)
    assert len(storage.asked("/f")) == 1


def test_a_path_that_knows_its_filesystem_is_a_destination(storage, mp4, tmp_path):
    from airflow.sdk import ObjectStoragePath

    job = a_job(final_video_url=storage.serve("/f", mp4))
    manifest = download_outputs(job, ObjectStoragePath(f"file://{tmp_path}/out"), allow_private=True)
    assert (tmp_path / "out" / "j1" / "final.mp4").read_bytes() == mp4
    assert manifest.file("final").bytes == len(mp4)


def test_a_destination_that_may_not_be_written_is_reported(storage, mp4, tmp_path):
    (tmp_path / "file").write_text("in the way")
    job = a_job(final_video_url=storage.serve("/f", mp4))
    with pytest.raises(DownloadError, match="check that the destination may be written") as caught:
        download_outputs(job, tmp_path / "file" / "below", allow_private=True)
    assert caught.value.reason == "storage"


def test_an_unknown_scheme_is_reported(tmp_path):
    with pytest.raises(ConfigError, match="destination 'nosuch://x' cannot be used"):
        download_outputs(a_job(), "nosuch://x")


def test_stored_files_are_readable_like_any_other_file(storage, mp4, tmp_path):
    download_outputs(a_job(final_video_url=storage.serve("/f", mp4)), tmp_path, allow_private=True)
    (tmp_path / "other").write_text("")
    mode = stat.S_IMODE((tmp_path / "j1" / "final.mp4").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "other").stat().st_mode)
