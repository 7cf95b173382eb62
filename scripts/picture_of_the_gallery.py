# SPDX-License-Identifier: Apache-2.0
"""Take the picture that the README shows: the gallery that `make demo` left, in a headless Chromium.

Call it after `make demo`: `.venv/bin/python scripts/picture_of_the_gallery.py`.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

GALLERY = Path("demo-output/index.html")
PICTURE = Path("docs/images/gallery.png")
SHOW_FRAMES = """() => document.querySelectorAll('video').forEach(video => {
  video.controls = false; video.removeAttribute('poster'); video.preload = 'auto'; video.currentTime = 1; })"""
ALL_SHOWN = "() => [...document.querySelectorAll('video')].every(video => video.readyState >= 2 && !video.seeking)"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Take it.

    Returns:
        The exit code.
    """
    gallery = Path(sys.argv[1]) if len(sys.argv) > 1 else GALLERY
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not gallery.exists() or browser is None:
        print("run `make demo` first" if browser else "no Chromium found; say CHROMIUM=/path/to/chromium")
        return 1
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1200, "height": 760}, device_scale_factor=1.5)
        page.goto(gallery.resolve().as_uri())
        page.evaluate(SHOW_FRAMES)
        page.wait_for_function(ALL_SHOWN)
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(PICTURE))
        chromium.close()
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
