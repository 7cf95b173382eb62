# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs get`, `list`, `keyframes`, `videos`: looking, free of charge."""

from __future__ import annotations

from itertools import islice

import click

from ugen_provider.cli.frame import command
from ugen_provider.cli.jobs.views import data_of, job_sheet, jobs_listing, keyframes_listing, segments_listing
from ugen_provider.cli.session import Session

STATUSES = ("pending", "processing", "paused", "completed", "failed", "cancelled")


@command("get", examples=("ugen jobs get JOB", "ugen jobs get JOB --json | jq -r .final_video_url"))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
def get_command(session: Session, *, job_ids: tuple[str, ...]) -> None:
    """Show jobs as the service describes them."""
    with session.client() as client:
        jobs = [client.jobs.get(job_id) for job_id in job_ids]
    if len(jobs) == 1:
        session.out.show(job_sheet(jobs[0]))
    elif session.out.as_json:
        session.out.json([data_of(job) for job in jobs])
    else:
        session.out.show(jobs_listing(jobs, nothing=""))


def _statuses(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Completes a status; the service may know others."""
    del ctx, parameter
    return [word for word in STATUSES if word.startswith(typed)]


@command("list", examples=("ugen jobs list", "ugen jobs list --status failed --all --json"))
@click.option(
    "--status",
    shell_complete=_statuses,
    help=f"Only jobs of this status, such as {', '.join(STATUSES)}.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most jobs that are shown.")
@click.option("--all", "everything", is_flag=True, help="All jobs, over all pages.")
def list_command(session: Session, *, status: str | None, limit: int, everything: bool) -> None:
    """List the account's jobs, in the order in which the service tells them."""
    with session.client() as client:
        found = list(islice(client.jobs.list(status=status), None if everything else limit + 1))
    shown = found if everything else found[:limit]
    session.out.show(jobs_listing(shown, nothing="No jobs."))
    if len(shown) < len(found):
        session.out.note(f"There are more than {limit}: --limit or --all shows them.")


@command("keyframes", examples=("ugen jobs keyframes JOB",))
@click.argument("job_id", metavar="JOB")
def keyframes_command(session: Session, *, job_id: str) -> None:
    """Show the keyframe pictures of a job with their quality scores."""
    with session.client() as client:
        session.out.show(keyframes_listing(client.jobs.list_keyframes(job_id)))


@command("videos", examples=("ugen jobs videos JOB",))
@click.argument("job_id", metavar="JOB")
def videos_command(session: Session, *, job_id: str) -> None:
    """Show the video segments of a job with their quality scores."""
    with session.client() as client:
        session.out.show(segments_listing(client.jobs.list_videos(job_id)))
