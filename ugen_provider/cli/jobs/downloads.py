# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs download`: the files of jobs, each stored completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode, worst
from ugen_provider.cli.frame import CommandFailedError, command, failure_of
from ugen_provider.cli.printer import Listing, busy
from ugen_provider.cli.session import Session
from ugen_provider.core.api.client import UGenClient
from ugen_provider.core.api.config import is_loopback
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.profile import state_of
from ugen_provider.core.media.manifest import Manifest
from ugen_provider.core.media.outputs import (
    DEFAULT_TEMPLATE,
    INCLUDE,
    Include,
    PendingOutput,
    download_outputs,
    outputs_of,
)

include_option = click.option(
    "--include",
    type=click.Choice(INCLUDE),
    multiple=True,
    default=INCLUDE,
    show_default=True,
    help="Which files; may be repeated.",
)
template_option = click.option(
    "--template", default=DEFAULT_TEMPLATE, show_default=True, help="Path of each file, below the destination."
)
private_option = click.option(
    "--allow-private/--no-allow-private",
    default=None,
    help="Whether links may lead to private addresses; default: only if the API is on this machine.",
)


def may_be_private(given: bool | None, *, base_url: str) -> bool:
    """Return whether links may lead to private addresses: as given, else only if the API is on this machine.

    Examples:
        >>> may_be_private(None, base_url="http://127.0.0.1:8000/api/v1")
        True
    """
    from urllib.parse import urlsplit

    return is_loopback(urlsplit(base_url).hostname or "") if given is None else given


class DownloadProgress:
    """Shows how many bytes of a job's files have arrived.

    Args:
        label: What is downloaded.
        say: Shows a text; it is called only for a changed text.

    Examples:
        >>> progress = DownloadProgress("downloading j1 (1/1)", print)
        downloading j1 (1/1)
        >>> progress.update(PendingOutput("final", None, 600_000, 2_400_000))
        downloading j1 (1/1): 0.6 of 2.4 MB, 25 %
        >>> progress.update(PendingOutput("thumbnail", None, 100_000, None))
        downloading j1 (1/1): 0.7 MB
    """

    def __init__(self, label: str, say: Callable[[str], None]) -> None:
        self._label = label
        self._say = say
        self._files: dict[tuple[str, int | None], PendingOutput] = {}
        self._shown = label
        say(label)

    def update(self, coming: PendingOutput) -> None:
        """Count a piece of a file; called from any thread."""
        self._files = {**self._files, (coming.kind, coming.index): coming}
        files = self._files.values()
        come = sum(file.bytes for file in files)
        totals = [file.total for file in files if file.total is not None]
        text = f"{self._label}: {come / 1e6:.1f} MB"
        if len(totals) == len(files) and (whole := sum(totals)):
            text = f"{self._label}: {come / 1e6:.1f} of {whole / 1e6:.1f} MB, {100 * come / whole:.0f} %"
        if text != self._shown:
            self._shown = text
            self._say(text)


def files_listing(manifests: list[Manifest]) -> Listing:
    """Return the stored files as a table."""
    rows = [
        (manifest.location + file.path, f"{file.bytes:,}", file.media_type, file.sha256[:12])
        for manifest in manifests
        for file in manifest.files
    ]
    data = [{**manifest.model_dump(mode="json"), "location": manifest.location} for manifest in manifests]
    return Listing(("FILE", "BYTES", "TYPE", "SHA-256"), rows, data=data, nothing="Nothing was stored.")


@command(
    "download",
    examples=(
        "ugen jobs download JOB --to videos",
        "ugen jobs download JOB1 JOB2 --to s3://bucket/videos --include final",
    ),
)
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--to", "destination", required=True, metavar="DEST", help="A folder or any fsspec URL.")
@include_option
@template_option
@click.option("--product-id", help="The product, for the template and the manifest.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="Files at once.")
@private_option
def download_command(
    session: Session,
    *,
    job_ids: tuple[str, ...],
    destination: str,
    include: tuple[Include, ...],
    template: str,
    product_id: str | None,
    parallel: int,
    allow_private: bool | None,
) -> ExitCode:
    """Download the files of one or more jobs. Each is streamed, checked, and moved into place once it is complete.

    A manifest.json beside them describes the job. Files that exist are not downloaded again. Costs no credits, and the
    API key is never sent to the host of the files.
    """
    manifests: list[Manifest] = []
    errors: dict[str, UGenError | CommandFailedError] = {}
    with ExitStack() as stack:
        client = stack.enter_context(session.client())
        options: dict[str, Any] = {
            "include": include,
            "template": template,
            "product_id": product_id,
            "parallel": parallel,
            "allow_private": may_be_private(allow_private, base_url=client.config.base_url),
        }
        say = stack.enter_context(busy("reading the jobs"))
        wanted = list(dict.fromkeys(job_ids))
        for number, job_id in enumerate(wanted, 1):
            shown = DownloadProgress(f"downloading {job_id} ({number}/{len(wanted)})", say)
            try:
                manifests.append(_download(client, job_id, destination, {**options, "on_progress": shown.update}))
            except (UGenError, CommandFailedError) as error:
                if len(wanted) == 1:
                    raise
                errors[job_id] = error
    failures = {job_id: failure_of(error) for job_id, error in errors.items()}
    listing = files_listing(manifests)
    if session.out.as_json:
        session.out.json([*listing.data, *({**one.data, "job_id": job_id} for job_id, one in failures.items())])
    else:
        session.out.show(listing)
        for job_id, failure in failures.items():
            session.out.note(f"{job_id}: {failure}. {failure.advice}")
    for manifest in manifests:
        if still_runs(manifest.status, include=include):
            failures[manifest.job_id] = not_complete(manifest.job_id, manifest.status)
            session.out.note(f"{failures[manifest.job_id]}. Next: {failures[manifest.job_id].advice}")
    return worst(failure.code for failure in failures.values())


def still_runs(status: str, *, include: Collection[str]) -> bool:
    """Return whether a job goes on to make files that were asked for. A paused one has made its keyframes.

    Examples:
        >>> still_runs("processing", include=["final"]), still_runs("paused", include=["keyframes"])
        (True, False)
    """
    state = state_of(status)
    if state is JobState.PAUSED:
        return set(include) != {"keyframes"}
    return state not in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


def not_complete(job_id: str, status: str) -> CommandFailedError:
    """Return the failure for a job of which only some files exist yet."""
    then = f"`ugen jobs resume {job_id} --wait`" if status == "paused" else f"`ugen jobs wait {job_id}`"
    return CommandFailedError(
        f"job {job_id} is {status}: the files that exist were downloaded, and more are to come",
        code=ExitCode.TIMEOUT,
        advice=f"{then}, then download again",
        kind="not_complete",
    )


def _download(client: UGenClient, job_id: str, destination: str, options: dict[str, Any]) -> Manifest:
    job = client.jobs.get(job_id)
    keyframes = job.keyframes
    if "keyframes" in options["include"] and not keyframes:
        keyframes = client.jobs.list_keyframes(job_id)
    if not outputs_of(job, keyframes=keyframes, include=options["include"]):
        raise nothing_to_fetch(job)
    return download_outputs(
        job,
        destination,
        keyframes=keyframes,
        refresh=lambda: client.jobs.get(job_id),
        refresh_keyframes=lambda: client.jobs.list_keyframes(job_id),
        profile=client.config.profile,
        **options,
    )


def nothing_to_fetch(job: Job) -> CommandFailedError:
    """Return the failure for a job that has none of the requested files."""
    message = f"job {job.job_id} is {job.status} and has none of the requested files"
    if job.ended:
        advice = f"`ugen jobs get {job.job_id}` shows why"
        return CommandFailedError(message, code=ExitCode.JOB_FAILED, advice=advice, kind="nothing_there")
    return CommandFailedError(message, code=ExitCode.TIMEOUT, advice=f"ugen jobs wait {job.job_id}", kind="not_yet")
