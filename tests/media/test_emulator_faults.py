# SPDX-License-Identifier: Apache-2.0
"""Downloads through every fault that the emulator knows: the right bytes, or a clear error and no file."""

import hashlib
import json
from collections.abc import Iterator

import av
import pytest

from ugen_provider import CreateJob, UGenClient
from ugen_provider.core.media import DownloadError, download_outputs
from ugen_provider.core.media.outputs import Downloader
from ugen_provider.emulator.server import EmulatorServer
from ugen_provider.emulator.settings import Settings


@pytest.fixture(scope="module")
def server() -> Iterator[EmulatorServer]:
    with EmulatorServer(Settings(speed=1, admin=True)) as opened:
        yield opened


@pytest.fixture
def client(server, monkeypatch) -> Iterator[UGenClient]:
    server.emulator.reset()
    server.emulator.set_readings({})
    real = Downloader.__init__
    monkeypatch.setattr(
        Downloader, "__init__", lambda self, client, policy: real(self, client, policy, sleep=lambda _: None)
    )
    with UGenClient(api_key="ugen_sk_local", base_url=server.base_url) as opened:
        yield opened


@pytest.fixture
def job(server, client):
    """A finished job of two segments."""
    made = client.jobs.create(
        CreateJob(product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=2)
    )
    server.emulator.advance(3600)
    return client.jobs.get(made.job_id)


def store(client, job, folder, **options):
    keyframes = client.jobs.list_keyframes(job.job_id)
    refresh = lambda: client.jobs.get(job.job_id)  # noqa: E731
    again = lambda: client.jobs.list_keyframes(job.job_id)  # noqa: E731
    return download_outputs(
        job, folder, keyframes=keyframes, refresh=refresh, refresh_keyframes=again, allow_private=True, **options
    )


def test_all_outputs_of_a_job_play_and_are_described(client, job, tmp_path):
    manifest = store(client, job, tmp_path)
    names = sorted(path.name for path in (tmp_path / job.job_id).iterdir())
    assert names == [
        "final.mp4", "keyframe-0.png", "keyframe-1.png", "keyframe-2.png", "manifest.json", "segment-0.mp4",
        "segment-1.mp4", "thumbnail.png",
    ]  # fmt: skip
    with av.open(manifest.uri("final")) as video:
        stream = video.streams.video[0]
        assert (stream.width * 16, stream.codec_context.name) == (stream.height * 9, "h264")
    final = manifest.file("final")
    assert final.duration == pytest.approx(16.0, abs=0.2)
    assert [file.score for file in manifest.files if file.kind == "keyframe"] == [
        frame.qai_score for frame in client.jobs.list_keyframes(job.job_id)
    ]
    assert manifest.credits.consumed == job.credits_consumed > 0


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "truncate", "keep": 0.5},
        {"kind": "truncate", "keep": 0.01, "times": 3},
        {"kind": "status", "status": 500, "times": 2},
        {"kind": "status", "status": 429, "retry_after": 1},
        {"kind": "bad_gateway", "times": 3},
        {"kind": "reset"},
        {"kind": "expired"},
        {"kind": "slow", "seconds": 0.05},
        {"kind": "slow_body", "seconds": 0.05},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('times', 1)}",
)
@pytest.mark.parametrize("output", ["*final*", "*segment-1*", "*keyframe-0*", "*thumbnail*"])
def test_a_passing_fault_ends_in_the_right_bytes(server, client, job, tmp_path, fault, output):
    good = store(client, job, tmp_path / "good")
    server.emulator.faults.add({"path": f"/media/*/{output}", **fault})
    manifest = store(client, job, tmp_path / "through")
    assert [(file.path, file.sha256) for file in manifest.files] == [(file.path, file.sha256) for file in good.files]
    for file in manifest.files:
        content = (tmp_path / "through" / job.job_id / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ({"kind": "wrong_type"}, {"wrong_type"}),
        ({"kind": "cut_short", "keep": 0.5}, {"cut_short"}),
        ({"kind": "cut_short", "keep": 0.0}, {"wrong_type"}),
        ({"kind": "truncate", "keep": 0.0}, {"network"}),
        ({"kind": "status", "status": 500}, {"network"}),
        ({"kind": "expired"}, {"expired"}),
        ({"kind": "reset"}, {"network"}),
        ({"kind": "malformed"}, {"wrong_type"}),
    ],
    ids=lambda value: f"{value['kind']}-{value.get('keep', '')}" if isinstance(value, dict) else "",
)
def test_a_lasting_fault_is_a_clear_error_and_never_a_wrong_file(server, client, job, tmp_path, fault, reasons):
    server.emulator.faults.add({"path": "/media/*/*final*", "times": None, **fault})
    with pytest.raises(DownloadError, match=f"job {job.job_id}: .*6 of 7 files are stored") as caught:
        store(client, job, tmp_path)
    assert caught.value.reason in reasons
    folder = tmp_path / job.job_id
    assert not (folder / "final.mp4").exists()
    assert not list(folder.glob(".*"))
    assert json.loads((folder / "manifest.json").read_text())["missing"][0]["kind"] == "final"
    server.emulator.faults.rules.clear()
    assert store(client, job, tmp_path).file("final") is not None


def test_signed_links_that_ran_out_are_asked_for_anew(server, client, tmp_path):
    server.emulator.set_readings({"output_urls": "expiring", "url_lifetime": 60.0})
    made = client.jobs.create(
        CreateJob(product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=1)
    )
    server.emulator.advance(3600)
    job = client.jobs.get(made.job_id)
    server.emulator.advance(3600)
    manifest = store(client, job, tmp_path)
    assert manifest.file("final") is not None
    assert "?" not in "".join(file.source for file in manifest.files)


def test_a_stopped_job_has_its_keyframe_and_no_video(server, client, tmp_path):
    made = client.jobs.create(
        CreateJob(
            product_name="Lamp", product_image_url="https://s.example/l.jpg", segment_count=1, stop_at_stage="init"
        )
    )
    server.emulator.advance(3600)
    manifest = store(client, client.jobs.get(made.job_id), tmp_path)
    assert [file.path for file in manifest.files] == ["keyframe-0.png"]
