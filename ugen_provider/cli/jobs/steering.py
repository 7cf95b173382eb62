# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs cancel`, `pause`, `resume`, `retry`: each through the flow of `core.jobs` that looks before it sends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import click

from ugen_provider.cli.exits import ExitCode, exit_of, next_step, worst
from ugen_provider.cli.frame import CommandFailedError, command
from ugen_provider.cli.jobs.orders import Orders
from ugen_provider.cli.jobs.views import data_of, jobs_listing
from ugen_provider.cli.jobs.waiting import interval_option, show_waited, timeout_option, wait_for
from ugen_provider.cli.ledger.reading import ledger_option
from ugen_provider.cli.session import Session
from ugen_provider.core.api import rules
from ugen_provider.core.api._sync_client import UGenClient
from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.models import Job, JobState
from ugen_provider.core.api.polling import Goal, Seen
from ugen_provider.core.batch.ledger import Ledger
from ugen_provider.core.batch.repairing import cancel_bought
from ugen_provider.core.jobs.cancelling import cancel, pause
from ugen_provider.core.jobs.intent import MemoryIntentStore
from ugen_provider.core.jobs.repeating import Acted, resume_once, retry_once

Verdict = tuple[Job | None, ExitCode, str]
"""The job as it is now, the exit code, and what a person is told."""

_UNKNOWN = "the service does not know it: is this the right account?"


def after_cancel(job: Job | None) -> Verdict:
    """What a cancel came to.

    Examples:
        >>> after_cancel(Job(job_id="j", status="completed"))[1:]
        (<ExitCode.REFUSED: 3>, 'it was completed first; its result stands')
    """
    if job is None:
        return None, ExitCode.REFUSED, _UNKNOWN
    if job.state is JobState.CANCELLED:
        return job, ExitCode.DONE, "cancelled; its reservation is released"
    if job.ended:
        return job, ExitCode.REFUSED, f"it was {job.status} first; its result stands"
    return job, ExitCode.REFUSED, f"it is still {job.status}: the service did not cancel it; try again"


def after_pause(job: Job | None) -> Verdict:
    """What a pause came to."""
    if job is None:
        return None, ExitCode.REFUSED, _UNKNOWN
    if job.ended:
        return job, ExitCode.REFUSED, f"it was {job.status} already"
    if job.state is JobState.PAUSED:
        return job, ExitCode.DONE, "paused"
    return job, ExitCode.DONE, "it pauses after its current stage"


def after_resume(acted: Acted) -> Verdict:
    """What a resume came to."""
    if acted.job.ended and acted.how == "already":
        return acted.job, ExitCode.REFUSED, f"it is not paused: it has {_past(acted.job)}"
    word = "it goes on" if acted.how == "done" else "it is not paused; nothing was sent"
    return acted.job, ExitCode.DONE, word


def after_retry(acted: Acted) -> Verdict:
    """What a retry came to."""
    word = "it runs again" if acted.how == "done" else "it is on its way; nothing was sent"
    return acted.job, ExitCode.DONE, word


def _past(job: Job) -> str:
    return "been cancelled" if job.state is JobState.CANCELLED else job.status


def _each(
    session: Session, job_ids: Sequence[str], act: Callable[[UGenClient, str], Verdict], *, show: bool = True
) -> ExitCode:
    """Act on each job; one that is refused does not keep the others from it."""
    with session.client() as client:
        return each_of(session, client, job_ids, act, show=show)


def each_of(
    session: Session,
    client: UGenClient,
    job_ids: Sequence[str],
    act: Callable[[UGenClient, str], Verdict],
    *,
    show: bool = True,
) -> ExitCode:
    """Act on each job with a client that is open already."""
    verdicts: dict[str, Verdict] = {}
    for job_id in dict.fromkeys(job_ids):
        try:
            verdicts[job_id] = act(client, job_id)
        except UGenError as error:
            if len(set(job_ids)) == 1:
                raise
            verdicts[job_id] = None, exit_of(error), f"{error}. {next_step(error)}"
    jobs = [job for job, _, _ in verdicts.values() if job is not None]
    if session.out.as_json and show:
        told = [
            {**(data_of(job) if job is not None else {"job_id": job_id}), "exit_code": int(code), "told": words}
            for job_id, (job, code, words) in verdicts.items()
        ]
        session.out.json(told[0] if len(told) == 1 else told)
    elif jobs and show:
        session.out.show(jobs_listing(jobs, nothing=""))
    for job_id, (_, _, words) in verdicts.items():
        session.out.note(f"{job_id}: {words}")
    return worst(code for _, code, _ in verdicts.values())


@command("cancel", examples=("ugen jobs cancel JOB",))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@ledger_option
def cancel_command(session: Session, *, job_ids: tuple[str, ...], ledger: str | None) -> ExitCode:
    """Cancel jobs that have not ended; their reservations are released. An ended job is never touched.

    It is written down with what bought the job, an order or a product of the ledger, so that the next run knows that
    it was you.
    """
    orders = Orders(session.data / "orders")
    with session.known_ledger(ledger) or nullcontext() as opened:
        return _each(session, job_ids, lambda client, job_id: cancel_one(client, job_id, orders, ledger=opened))


def cancel_one(client: UGenClient, job_id: str, orders: Orders, *, ledger: Ledger | None) -> Verdict:
    """Cancel a job, and write it down with the order or the product that it was bought for, if that was from here."""
    if ledger is not None and ledger.known_jobs([job_id]):
        return after_cancel(cancel_bought(ledger, client, job_id, reason="cli").job)
    intent = orders.of_job(job_id)
    scope = intent.scope if intent is not None else None
    done = client.run(cancel(client.caller, job_id, reason="cli", store=orders.store, scope=scope))
    return after_cancel(done.job)


@command("pause", examples=("ugen jobs pause JOB",))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
def pause_command(session: Session, *, job_ids: tuple[str, ...]) -> ExitCode:
    """Ask jobs to pause after their current stage. They keep their reservations."""
    return _each(session, job_ids, lambda client, job_id: after_pause(client.run(pause(client.caller, job_id))))


@command("resume", examples=("ugen jobs resume JOB", "ugen jobs resume JOB --wait"))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until they have ended.")
@interval_option
@timeout_option
def resume_command(
    session: Session, *, job_ids: tuple[str, ...], wait: bool, interval: float, timeout: float | None
) -> ExitCode:
    """Let paused jobs go on; one that is not paused is left on its way."""
    stale: dict[str, Seen] = {}

    def act(client: UGenClient, job_id: str) -> Verdict:
        acted = client.run(
            resume_once(client.caller, job_id, scope="ugen jobs resume", spending=client.config.spending)
        )
        if acted.stale is not None:
            stale[job_id] = acted.stale
        return after_resume(acted)

    code = _each(session, job_ids, act, show=not wait)
    if not wait or code:
        return code
    waited = wait_for(session, job_ids, goal=Goal(), interval=interval, timeout=timeout, stale=stale)
    return show_waited(session, job_ids, waited)


@command("retry", examples=("ugen jobs retry JOB --wait", "ugen jobs retry JOB --from-stage generation"))
@click.argument("job_id", metavar="JOB")
@click.option(
    "--from-stage", type=click.Choice(rules.STAGES), help="First stage to run again; else where the job failed."
)
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@interval_option
@timeout_option
def retry_command(
    session: Session, *, job_id: str, from_stage: str | None, wait: bool, interval: float, timeout: float | None
) -> ExitCode:
    """Run an ended job again from a stage. Reserves credits again.

    One that is on its way is left alone. After an answer that was lost the job and its transactions are looked at, so
    that nothing is reserved twice.
    """
    stale: dict[str, Seen] = {}

    def act(client: UGenClient, job_id: str) -> Verdict:
        if from_stage is None and client.jobs.get(job_id).state is JobState.COMPLETED:
            raise CommandFailedError(
                f"job {job_id} has completed; nothing was sent",
                code=ExitCode.USAGE,
                advice="name the stage to make again: --from-stage generation. It costs credits",
                kind="completed",
            )
        acted = client.run(
            retry_once(
                client.caller,
                job_id,
                store=MemoryIntentStore(),
                scope=f"ugen jobs retry {uuid.uuid4()}",
                restart_from_stage=from_stage,
                spending=client.config.spending,
            )
        )
        if acted.stale is not None:
            stale[job_id] = acted.stale
        return after_retry(acted)

    code = _each(session, [job_id], act, show=not wait)
    if not wait or code:
        return code
    waited = wait_for(session, [job_id], goal=Goal(), interval=interval, timeout=timeout, stale=stale)
    return show_waited(session, [job_id], waited)
