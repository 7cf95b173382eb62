# SPDX-License-Identifier: Apache-2.0
"""Outputs of jobs in the user's own storage: fetched, checked, named, described, shown.

`download_outputs` brings one job's files to any fsspec destination and describes them in a `manifest.json`;
`gallery.write_gallery` makes one page of all manifests below a folder. Links of the service are read without the API
key, and never trusted for names, types or lengths.

Allowed here: one more kind of output, one more thing a manifest says. Whether a job is good is not judged here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.media.errors import DownloadError
    from ugen_provider.core.media.gallery import write_gallery
    from ugen_provider.core.media.manifest import Manifest, ManifestFile
    from ugen_provider.core.media.outputs import PendingOutput, download_outputs

__all__ = ["DownloadError", "Manifest", "ManifestFile", "PendingOutput", "download_outputs", "write_gallery"]

_HOMES = {
    "DownloadError": "errors",
    "Manifest": "manifest",
    "ManifestFile": "manifest",
    "PendingOutput": "outputs",
    "download_outputs": "outputs",
    "write_gallery": "gallery",
}

__getattr__ = on_first_use(__name__, _HOMES)
