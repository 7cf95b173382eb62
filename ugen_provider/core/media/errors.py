# SPDX-License-Identifier: Apache-2.0
"""Errors of outputs that cannot be downloaded or stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ugen_provider.core.api.errors import UGenError

if TYPE_CHECKING:
    from ugen_provider.core.media.manifest import Manifest

_PASSING = frozenset({"expired", "cut_short", "network", "storage"})

Reason = Literal["expired", "refused", "cut_short", "wrong_type", "too_large", "private_address", "storage", "network"]
"""A stable word for programs: why a file was not stored."""


class DownloadError(UGenError):
    """A file was not stored. No half file has its name; what else was fetched is kept, and is not fetched again.

    Args:
        message: What went wrong and what to do next.
        reason: A stable word for programs.
        url: The link, without query, where one file is meant.
        job_id: The job, once known.
        manifest: What was stored all the same, once known.
    """

    reason: Reason
    job_id: str | None

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        url: str | None = None,
        job_id: str | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.reason = reason
        self.retryable = reason in _PASSING
        self.url = url
        self.job_id = job_id
        self.manifest = manifest
        super().__init__(message)
