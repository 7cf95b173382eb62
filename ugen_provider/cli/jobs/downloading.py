# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs download`: the files of jobs, whole or not at all, where the user wants them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode, worst
from ugen_provider.cli.frame import CommandFailedError, command, failure_of
from ugen_provider.cli.printing import Listing, busy
from ugen_provider.cli.session import Session
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.config import is_loopback
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import Job
from ugen_provider.core.jobs.summary import keyframes_of
from ugen_provider.core.media.manifest import Manifest
from ugen_provider.core.media.naming import DEFAULT_TEMPLATE
from ugen_provider.core.media.outputs import INCLUDE, Coming, Include, download_outputs, outputs_of

include_option = click.option(
    "--include",
    type=click.Choice(INCLUDE),
    multiple=True,
    default=INCLUDE,
    show_default=True,
    help="What to fetch; may be repeated.",
)
template_option = click.option(
    "--template", default=DEFAULT_TEMPLATE, show_default=True, help="Where each file goes, below the destination."
)
private_option = click.option(
    "--allow-private/--no-allow-private",
    default=None,
    help="Whether links may lead to private addresses; default: only where the API itself is on this machine.",
)


def may_be_private(given: bool | None, *, base_url: str) -> bool:
    """Whether links may lead to private addresses: as told, else as a local U-Gen needs it.

    Examples:
        >>> may_be_private(None, base_url="http://127.0.0.1:8000/api/v1")
        True
    """
    from urllib.parse import urlsplit

    return is_loopback(urlsplit(base_url).hostname or "") if given is None else given


class Arriving:
    """Says how much of a job's files has come.

    Args:
        label: What is fetched.
        say: Shows a text; it is called only when the text is another one.

    Examples:
        >>> arriving = Arriving("fetching j1 (1/1)", print)
        fetching j1 (1/1)
        >>> arriving.tell(Coming("final", None, 600_000, 2_400_000))
        fetching j1 (1/1): 0.6 of 2.4 MB, 25 %
        >>> arriving.tell(Coming("thumbnail", None, 100_000, None))
        fetching j1 (1/1): 0.7 MB
    """

    def __init__(self, label: str, say: Callable[[str], None]) -> None:
        self._label = label
        self._say = say
        self._files: dict[tuple[str, int | None], Coming] = {}
        self._told = label
        say(label)

    def tell(self, coming: Coming) -> None:
        """A piece of a file came; from any thread."""
        self._files = {**self._files, (coming.kind, coming.index): coming}
        files = self._files.values()
        come = sum(file.bytes for file in files)
        totals = [file.total for file in files if file.total is not None]
        text = f"{self._label}: {come / 1e6:.1f} MB"
        if len(totals) == len(files) and (whole := sum(totals)):
            text = f"{self._label}: {come / 1e6:.1f} of {whole / 1e6:.1f} MB, {100 * come / whole:.0f} %"
        if text != self._told:
            self._told = text
            self._say(text)


def files_listing(manifests: list[Manifest]) -> Listing:
    """What was stored."""
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
    """Bring the files of jobs home: streamed, checked, and moved into place only when they are whole.

    Beside them a manifest.json says everything that is known. What is there already is not fetched again. Costs no
    credits, and the API key is never sent to where the files are.
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
        say = stack.enter_context(busy("asking for the jobs"))
        wanted = list(dict.fromkeys(job_ids))
        for number, job_id in enumerate(wanted, 1):
            shown = Arriving(f"fetching {job_id} ({number}/{len(wanted)})", say)
            try:
                manifests.append(_download(client, job_id, destination, {**options, "on_progress": shown.tell}))
            except (UGenError, CommandFailedError) as error:
                if len(wanted) == 1:
                    raise
                errors[job_id] = error
    session.out.show(files_listing(manifests))
    failures = {job_id: failure_of(error) for job_id, error in errors.items()}
    for job_id, failure in failures.items():
        session.out.note(f"{job_id}: {failure}. {failure.advice}")
    return worst(failure.code for failure in failures.values())


def _download(client: UGenClient, job_id: str, destination: str, options: dict[str, Any]) -> Manifest:
    job = client.jobs.get(job_id)
    keyframes = client.run(keyframes_of(client.caller, job)) if "keyframes" in options["include"] else job.keyframes
    if not outputs_of(job, keyframes=keyframes, include=options["include"]):
        raise nothing_to_fetch(job)
    return download_outputs(
        job,
        destination,
        keyframes=keyframes,
        refresh=lambda: client.jobs.get(job_id),
        refresh_keyframes=lambda: client.jobs.list_keyframes(job_id),
        **options,
    )


def nothing_to_fetch(job: Job) -> CommandFailedError:
    """The failure for a job that has nothing of what was asked for."""
    message = f"job {job.job_id} is {job.status} and has nothing of that kind to fetch"
    if job.ended:
        advice = f"`ugen jobs get {job.job_id}` shows why"
        return CommandFailedError(message, code=ExitCode.JOB_FAILED, advice=advice, kind="nothing_there")
    return CommandFailedError(message, code=ExitCode.TIMEOUT, advice=f"ugen jobs wait {job.job_id}", kind="not_yet")
