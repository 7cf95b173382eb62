# SPDX-License-Identifier: Apache-2.0
"""The service: answers and links, and thereby never reaches a private host, writes outside, or forges what is shown."""

import logging

import pytest

from ugen_provider import Job
from ugen_provider.core.jobs.actions import digest_reader
from ugen_provider.core.media import DownloadError, download_outputs, write_gallery
from ugen_provider.core.media.origins import OriginError
from ugen_provider.core.text import get_logger


def job_of(link, *, job_id="j1", **more):
    return Job.model_validate({"job_id": job_id, "status": "completed", "final_video_url": link, **more})


def test_output_at_a_private_address_is_refused(canary, mp4, tmp_path):
    links = [canary.serve("/v.mp4", mp4), f"http://localhost:{canary.port}/v.mp4", f"http://0x7f.1:{canary.port}/v.mp4"]
    for link in links:
        with pytest.raises(DownloadError) as caught:
            download_outputs(job_of(link), tmp_path)
        assert caught.value.reason in {"private_address", "network"}
    assert canary.requests == []


def test_keyframe_at_a_private_address_is_refused(canary, png):
    link = canary.serve("/k.png", png, content_type="image/png")
    with pytest.raises(OriginError, match="private address"):
        digest_reader("https://api.u-gen.ai/api/v1")(link)
    assert canary.requests == []
    assert len(digest_reader("http://127.0.0.1:1/api/v1")(link)) == 64


@pytest.mark.parametrize("job_id", ["../../etc/cron.d/x", "/etc/passwd", "a/../../b", "..", "~", "\\\\host\\x", "CON"])
def test_output_of_an_odd_job_stays_below_the_destination(canary, mp4, tmp_path, job_id):
    folder = tmp_path / "videos"
    manifest = download_outputs(job_of(canary.serve("/v.mp4", mp4), job_id=job_id), folder, allow_private=True)
    assert manifest.files
    assert [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents] == []


def test_text_of_the_service_in_the_gallery_is_text(canary, mp4, tmp_path):
    text = '"><script>alert(1)</script>\u202e'
    job = job_of(canary.serve("/v.mp4", mp4), product_name=text, error_message=text, video_model=text)
    download_outputs(job, tmp_path, allow_private=True)
    page = write_gallery(tmp_path, title=text).read_text()
    assert "<script>alert" not in page


def test_text_of_the_service_in_the_log_is_one_entry(capfd):
    logger = get_logger("ugen_provider.principals")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    logger.warning("job %s: %s", "j1", "moderation\nWARNING forged\x1b[2J")
    logger.removeHandler(handler)
    assert capfd.readouterr().err == "job j1: moderation WARNING forged[2J\n"


def test_manifest_of_a_cut_file_is_named_and_written_again(canary, mp4, tmp_path, caplog):
    job = job_of(canary.serve("/v.mp4", mp4))
    whole = download_outputs(job, tmp_path, allow_private=True)
    path = tmp_path / "j1" / "manifest.json"
    path.write_text(path.read_text()[:100])
    with caplog.at_level(logging.WARNING):
        again = download_outputs(job, tmp_path, allow_private=True)
    assert str(path) in caplog.text
    assert again.files == whole.files
