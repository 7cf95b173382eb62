# SPDX-License-Identifier: Apache-2.0
import io

import av
import httpx
import pytest
from PIL import Image

from ugen_provider.emulator.media import Recipe, render


def fetch(job, name, **options):
    return httpx.get(job[name], **options)


def finished(api, ugen_clock, **changes):
    job = api.create(**changes)
    ugen_clock.advance_until_idle()
    return api.job(job["job_id"])


@pytest.mark.parametrize(
    ("changes", "seconds", "size"),
    [
        ({"segment_count": 3}, 24, (360, 640)),
        ({"segment_count": 1, "aspect_ratio": "16:9"}, 8, (640, 360)),
        (
            {"segment_count": 2, "video_model": "kling3_std", "segment_duration": 3, "aspect_ratio": "1:1"},
            6,
            (360, 360),
        ),
    ],
)
def test_videos_play_with_the_right_length_and_size(api, ugen_clock, changes, seconds, size):
    job = finished(api, ugen_clock, **changes)
    videos = [(job["final_video_url"], seconds)]
    videos += [(item["video_url"], item["duration"]) for item in job["segments"]]
    assert sum(length for _, length in videos[1:]) == seconds
    for url, length in videos:
        with av.open(io.BytesIO(httpx.get(url).content)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", *size)
            assert container.duration == length * 1_000_000
            assert sum(1 for _ in container.decode(stream)) == length * 6
        with av.open(io.BytesIO(httpx.get(url).content)) as container:
            sounds = list(container.decode(container.streams.audio[0]))
            assert length - 0.2 < sum(sound.samples / sound.sample_rate for sound in sounds) <= length
            assert any(bytes(sounds[-1].planes[0]))


def test_pictures_are_png_of_the_same_size_and_differ(api, ugen_clock):
    job = finished(api, ugen_clock)
    frames = api.get(f"/jobs/{job['job_id']}/keyframes").json()
    contents = [httpx.get(url).content for url in [job["thumbnail_url"], *(frame["image_url"] for frame in frames)]]
    for content in contents:
        picture = Image.open(io.BytesIO(content))
        assert (picture.format, picture.size) == ("PNG", (360, 640))
    assert len(set(contents)) == len(contents)


def test_a_letter_with_an_accent_is_drawn_without_it():
    plain, accented = (Recipe("keyframe", "9:16", title, (), 0, 1, "x") for title in ("Solene", "Solène"))
    assert render(plain) == render(accented)


def test_range_etag_and_length(api, ugen_clock):
    job = finished(api, ugen_clock)
    whole = fetch(job, "final_video_url")
    size, etag = len(whole.content), whole.headers["etag"]
    assert (whole.headers["content-length"], whole.headers["content-type"]) == (str(size), "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    ranges = [
        ("bytes=0-99", 0, 100),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        ("bytes=10-99999999999999999999", 10, size),
    ]
    for asked, begin, end in ranges:
        part = fetch(job, "final_video_url", headers={"Range": asked})
        assert (part.status_code, part.content) == (206, whole.content[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
    assert fetch(job, "final_video_url", headers={"Range": f"bytes={size}-"}).status_code == 416
    assert fetch(job, "final_video_url", headers={"Range": "bytes=5-2"}).status_code == 416
    for ignored in ("bytes=-", "lines=1-2", "bytes=0-1,5-9"):
        assert fetch(job, "final_video_url", headers={"Range": ignored}).status_code == 200
    assert fetch(job, "final_video_url", headers={"If-None-Match": etag}).status_code == 304
    changed = fetch(job, "final_video_url", headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (changed.status_code, len(changed.content)) == (200, size)
    head = httpx.head(job["final_video_url"])
    assert (head.headers["content-length"], head.content) == (str(size), b"")
    assert httpx.post(job["final_video_url"]).status_code == 405


def test_outputs_that_do_not_exist_are_not_found(api, ugen_emulator, ugen_clock):
    job = api.create()
    base = f"{ugen_emulator.url}/media/{job['job_id']}"
    for name in ("final-0.mp4", "keyframe-0-0-0.png", "segment-0-0-0.mp4", "thumbnail-0.png"):
        assert httpx.get(f"{base}/{name}").status_code == 404
    ugen_clock.advance_until_idle()
    for name in ("final-1.mp4", "keyframe-9-0-0.png", "segment-0-0-9.mp4", "x", "final-0.mp4/x", ""):
        assert httpx.get(f"{base}/{name}").status_code == 404
    assert httpx.get(f"{ugen_emulator.url}/media/nothing/final-0.mp4").status_code == 404


def test_an_output_can_be_truncated_expired_or_mistyped(api, ugen_clock, ugen_faults):
    job = finished(api, ugen_clock)
    whole = fetch(job, "final_video_url").content
    ugen_faults.add("cut_short", path="/media/*", keep=0.3)
    ugen_faults.add("truncate", path="/media/*", keep=0.3)
    ugen_faults.add("wrong_type", path="/media/*")
    ugen_faults.add("expired", path="/media/*")
    assert fetch(job, "final_video_url").content == whole[: int(len(whole) * 0.3)]
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(job, "final_video_url")
    assert fetch(job, "final_video_url").headers["content-type"] == "text/html"
    assert fetch(job, "final_video_url").status_code == 403
    assert fetch(job, "final_video_url").content == whole


def test_a_forged_signature_opens_nothing(api, ugen_emulator, ugen_clock):
    ugen_emulator.emulator.set_readings({"output_urls": "expiring"})
    url = httpx.URL(finished(api, ugen_clock)["final_video_url"])
    assert httpx.get(url).status_code == 200
    for params in ({}, {"expires": "99999999999", "signature": url.params["signature"]}, {"expires": "x"}):
        assert httpx.get(url.copy_with(params=params)).status_code == 403
