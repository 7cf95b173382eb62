# SPDX-License-Identifier: Apache-2.0
"""Pictures and videos that are made on request: small, real, and with the product's name drawn in.

The same recipe gives the same PNG or H.264 MP4. The codecs are loaded with the first of them.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
import textwrap
import unicodedata
from array import array
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import av
    from PIL import Image, ImageFont

SIZES = {"9:16": (360, 640), "16:9": (640, 360), "1:1": (360, 360)}
FPS = 6
_RATE = 16_000
_SAMPLES = 1024
"""Of one frame of AAC; eight periods of the hum, so that it repeats without a click."""
_HUM = array("f", (0.02 * math.sin(2 * math.pi * 8 * n / _SAMPLES) for n in range(_SAMPLES))).tobytes()
_CACHED = 256


class Recipe(NamedTuple):
    """Content of a picture or video to draw.

    Attributes:
        kind: `keyframe`, `thumbnail`, `segment` or `final`.
        aspect_ratio: `9:16`, `16:9` or `1:1`.
        title: The product's name.
        lines: Smaller text under it.
        seconds: Length of a video; 0 for a picture.
        scenes: How many scenes the video is cut into.
        tint: What the colours are chosen by.
    """

    kind: str
    aspect_ratio: str
    title: str
    lines: tuple[str, ...]
    seconds: int
    scenes: int
    tint: str


@lru_cache(maxsize=_CACHED)
def render(recipe: Recipe) -> bytes:
    """Render the picture or video of a recipe."""
    return _video(recipe) if recipe.seconds else _png(_scene(recipe, 0))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def _colours(recipe: Recipe, scene: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    hue = hashlib.sha256(recipe.tint.encode()).digest()[0] / 255 + scene * 0.07
    dark = colorsys.hls_to_rgb(hue % 1, 0.30, 0.55)
    light = colorsys.hls_to_rgb((hue + 0.08) % 1, 0.72, 0.60)
    return tuple(int(255 * part) for part in dark), tuple(int(255 * part) for part in light)  # type: ignore[return-value]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _scene(recipe: Recipe, scene: int) -> Image.Image:
    from PIL import Image, ImageDraw

    width, height = SIZES[recipe.aspect_ratio]
    dark, light = _colours(recipe, scene)
    image = Image.new("RGB", (width, height), dark)
    draw = ImageDraw.Draw(image)
    # A person holding something, as far as circles can.
    centre, size = width / 2, height / 640
    draw.ellipse(_box(centre, height, size, (-60, -300, 60, -170)), fill=light)
    draw.ellipse(_box(centre, height, size, (-120, -165, 120, 120)), fill=light)
    thing = _box(centre, height, size, (30, -150, 100, -60))
    draw.rounded_rectangle(thing, radius=8 * size, fill=(250, 250, 250))
    text = "\n".join(textwrap.wrap(_plain(recipe.title[:160]), width=max(8, width // 16))[:4])
    draw.multiline_text((20, 24), text, font=_font(28), fill=(255, 255, 255), spacing=6)
    below = 40 + 36 * (text.count("\n") + 1)
    for line in recipe.lines:
        draw.text((20, below), line, font=_font(16), fill=(235, 235, 235))
        below += 22
    return image


def _plain(title: str) -> str:
    """A title without accents: Pillow's own font, the only one that is everywhere, has hardly a letter with one."""
    return "".join(each for each in unicodedata.normalize("NFKD", title) if not unicodedata.combining(each))


def _box(
    centre: float, low: float, size: float, corners: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    left, top, right, bottom = corners
    return centre + left * size, low + top * size, centre + right * size, low + bottom * size


def _video(recipe: Recipe) -> bytes:
    import av
    from PIL import Image

    out = io.BytesIO()
    frames = recipe.seconds * FPS
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = SIZES[recipe.aspect_ratio]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        # One thread, so that the same recipe gives the same bytes, and the same ETag, on every start.
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "30", "tune": "animation"}
        voice = container.add_stream("aac", rate=_RATE)
        voice.layout = "mono"
        voice.bit_rate = 24_000
        voice.codec_context.thread_count = 1
        scene, image = -1, Image.new("RGB", (2, 2))
        for number in range(frames):
            if (now := number * recipe.scenes // frames) != scene:
                scene, image = now, _scene(recipe, now)
            frame = _frame(_marked(image, number, frames))
            frame.pts = number
            frame.time_base = Fraction(1, FPS)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
        # The rest in the encoder is left out: a sound that outlasts the picture would make the video longer.
        for sound in _sounds(recipe.seconds):
            for packet in voice.encode(sound):
                container.mux(packet)
    return out.getvalue()


def _sounds(seconds: int) -> Iterator[av.AudioFrame]:
    """A hum that is hardly heard, where the service's videos have a voice."""
    import av

    for number in range(seconds * _RATE // _SAMPLES):
        frame = av.AudioFrame(format="fltp", layout="mono", samples=_SAMPLES)
        frame.planes[0].update(_HUM)
        frame.sample_rate = _RATE
        frame.pts = number * _SAMPLES
        frame.time_base = Fraction(1, _RATE)
        yield frame


def _frame(image: Image.Image) -> av.VideoFrame:
    import av

    frame: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
    return frame


def _marked(image: Image.Image, number: int, frames: int) -> Image.Image:
    """Draw how far the video is, so that a person sees that it plays."""
    from PIL import ImageDraw

    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    width, height = marked.size
    draw.rectangle((0, height - 12, int(width * (number + 1) / frames), height), fill=(255, 255, 255))
    draw.text((width - 70, height - 36), f"{number / FPS:4.1f} s", font=_font(16), fill=(255, 255, 255))
    return marked
