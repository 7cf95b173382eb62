# SPDX-License-Identifier: Apache-2.0
"""`ugen jobs create`, and the commands about jobs that exist, such as `get`, `list`, `cancel` and `retry`.

An order is recorded in the ledger before it is sent, so that it is bought once.
"""

from __future__ import annotations

import hashlib
import shlex
import uuid
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import click

from ugen_provider.cli.exits import ExitCode, exit_of, worst
from ugen_provider.cli.exits import next_step as advice_on
from ugen_provider.cli.frame import CommandFailedError, command, did_you_mean, failure_of
from ugen_provider.cli.jobs.waits import JobProgress, left_running, show_waited, wait_for
from ugen_provider.cli.options import (
    field_options,
    interval_option,
    ledger_option,
    on_earlier_failure_option,
    timeout_option,
)
from ugen_provider.cli.printer import Sheet, data_of, job_sheet, jobs_listing, keyframes_listing, segments_listing
from ugen_provider.cli.session import Session
from ugen_provider.cli.signals import StopFlag, StoppableWorld, StoppedError, run_stoppable
from ugen_provider.core.api import endpoints, rules
from ugen_provider.core.api.async_client import AsyncUGenClient
from ugen_provider.core.api.errors import InsufficientCreditsError, PurchaseError, UGenError
from ugen_provider.core.api.models import CreateJob, Job, JobState
from ugen_provider.core.api.polling import EarlierState, Goal
from ugen_provider.core.jobs.actions import cancel_job, cancel_order, pause_job, resume_job_once, retry_job_once
from ugen_provider.core.jobs.order import Order, Purchase, PurchaseOutcome, name_key, origin_of
from ugen_provider.core.jobs.policy import PurchasePolicy
from ugen_provider.core.jobs.purchase import next_step, purchase_and_wait
from ugen_provider.core.jobs.results import ActionResult, WaitForSlot
from ugen_provider.core.jobs.threads import in_thread
from ugen_provider.core.jobs.watcher import JobWatcher
from ugen_provider.core.jobs.world import AsyncWorld
from ugen_provider.core.ledger.errors import LedgerUnavailableError
from ugen_provider.core.ledger.record import KeyOnlyStore, OrderRecord, OrderStore

STATUSES = ("pending", "processing", "paused", "completed", "failed", "cancelled")


@command("get", examples=("ugen jobs get JOB", "ugen jobs get JOB --json | jq -r .[].final_video_url"))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
def get_command(session: Session, *, job_ids: tuple[str, ...]) -> None:
    """Show jobs as the service describes them."""
    with session.client() as client:
        jobs = [client.jobs.get(job_id) for job_id in job_ids]
    session.out.show_each(job_sheet(jobs[0]) if len(jobs) == 1 else jobs_listing(jobs, nothing=""))


def _statuses(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Complete a status; the service may know others."""
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
    """List the account's jobs, in the order of the service."""
    if status is not None:
        named = session.chosen.profile.service_profile.as_dict().get("status_map", {})
        known = sorted({*STATUSES, *map(str, named)})
        if status not in known:
            raise click.UsageError(
                f"--status: the service has no status {status!r}.{did_you_mean(status, known)} "
                f"The known ones are {', '.join(known)}; `status_map` in the service profile names others"
            )
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


# Requests that change a job. Each reads the job before it sends.

Verdict = tuple[Job | None, ExitCode, str]
"""The job as it is now, the exit code, and a sentence for a person."""


class _JobWorld(AsyncWorld):
    """A world in which nothing that could cost credits is sent after a signal."""

    def __init__(self, client: AsyncUGenClient, store: OrderStore, *, stop: StopFlag) -> None:
        super().__init__(client, store, is_stopping=lambda: stop.is_set)
        self._stop = stop

    def with_store(self, store: OrderStore) -> _JobWorld:
        """Return the same world with another store."""
        return _JobWorld(self.client, store, stop=self._stop)


Act = Callable[[_JobWorld, str], Awaitable[Verdict]]

_UNKNOWN = "the service does not know this job; check the account"


def after_cancel(job: Job | None) -> Verdict:
    """Judge the job after a cancel.

    Examples:
        >>> after_cancel(Job(job_id="j", status="completed"))[1:]
        (<ExitCode.REFUSED: 3>, 'it was completed first; its result stays')
    """
    if job is None:
        return None, ExitCode.REFUSED, _UNKNOWN
    if job.state is JobState.CANCELLED:
        return job, ExitCode.DONE, "cancelled; its reservation is released"
    if job.ended:
        return job, ExitCode.REFUSED, f"it was {job.status} first; its result stays"
    return job, ExitCode.REFUSED, f"it is still {job.status}: the service did not cancel it; try again"


def after_pause(job: Job | None) -> Verdict:
    """Judge the job after a pause."""
    if job is None:
        return None, ExitCode.REFUSED, _UNKNOWN
    if job.ended:
        return job, ExitCode.REFUSED, f"it was {job.status} already"
    if job.state is JobState.PAUSED:
        return job, ExitCode.DONE, "paused"
    return job, ExitCode.DONE, "it pauses after its current stage"


def after_resume(result: ActionResult) -> Verdict:
    """Judge the job after a resume."""
    job = result.job
    if job.ended and result.outcome == "already":
        return job, ExitCode.REFUSED, f"it is not paused: its status is {job.status}"
    return job, ExitCode.DONE, "it continues" if result.outcome == "done" else "it is not paused; nothing was sent"


def after_retry(result: ActionResult) -> Verdict:
    """Judge the job after a retry."""
    sentence = "it runs again" if result.outcome == "done" else "it is running; nothing was sent"
    return result.job, ExitCode.DONE, sentence


def _act_on_each(
    session: Session, job_ids: Sequence[str], act: Act, *, ledger: str | None = None, show: bool = True
) -> ExitCode:
    """Act on each job; a refusal for one does not stop the others.

    Raises:
        CommandFailedError: Ctrl-C or SIGTERM; it names the jobs that were not acted on.
    """
    verdicts: dict[str, Verdict] = {}
    wanted = list(dict.fromkeys(job_ids))

    async def work(stop: StopFlag) -> None:
        async with session.async_client() as client:
            store = session.order_store(opened) if opened is not None else KeyOnlyStore()
            world = _JobWorld(client, store, stop=stop)
            for job_id in wanted:
                if stop.is_set:
                    raise StoppedError("stopped")
                try:
                    verdicts[job_id] = await act(world, job_id)
                except UGenError as error:
                    if len(wanted) == 1:
                        raise
                    verdicts[job_id] = None, exit_of(error), f"{error}. {advice_on(error)}"

    with session.known_ledger(ledger) or nullcontext() as opened:
        try:
            run_stoppable(work, note=session.out.note)
        except (StoppedError, KeyboardInterrupt):
            left = " ".join(job_id for job_id in wanted if job_id not in verdicts)
            raise CommandFailedError(
                f"stopped; nothing more was sent for: {left}" if left else "stopped",
                code=ExitCode.INTERRUPTED,
                kind="KeyboardInterrupt",
            ) from None
    return _show_verdicts(session, verdicts, show=show)


def _show_verdicts(session: Session, verdicts: dict[str, Verdict], *, show: bool) -> ExitCode:
    jobs = [job for job, _, _ in verdicts.values() if job is not None]
    if session.out.as_json and show:
        data = [
            {
                **(data_of(job) if job is not None else {"job_id": job_id}),
                "exit_code": int(code),
                "result": sentence,
            }
            for job_id, (job, code, sentence) in verdicts.items()
        ]
        session.out.json(data)
        return worst(code for _, code, _ in verdicts.values())
    if jobs and show:
        session.out.show(jobs_listing(jobs, nothing=""))
    for job_id, (_, _, sentence) in verdicts.items():
        session.out.note(f"{job_id}: {sentence}")
    return worst(code for _, code, _ in verdicts.values())


async def _record_of(world: AsyncWorld, job_id: str) -> OrderRecord | None:
    """Return the record of the order that a job belongs to; None if the ledger knows none, or does not answer."""
    from ugen_provider.core.ledger.orders import LedgerOrderStore

    if not isinstance(world.store, LedgerOrderStore):
        return None
    try:
        return await in_thread(world.store.of_job, job_id)
    except LedgerUnavailableError:
        return None


@command("cancel", examples=("ugen jobs cancel JOB",))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@ledger_option
def cancel_command(session: Session, *, job_ids: tuple[str, ...], ledger: str | None) -> ExitCode:
    """Cancel jobs that have not ended; their reservations are released. An ended job is never deleted.

    The ledger records the cancel with the order that the job belongs to, so that no later attempt buys it again. A
    cancel is sent also if it cannot be recorded.
    """
    return _act_on_each(session, job_ids, _cancel, ledger=ledger)


async def _cancel(world: _JobWorld, job_id: str) -> Verdict:
    record = await _record_of(world, job_id)
    result = None
    if record is not None:
        # If the process ends after the record of the cancel, the reconciler sends it.
        result = await cancel_order(world, record.order_key, reason="cli", job_id=job_id)
    if result is None:
        result = await cancel_job(world, job_id)
    return after_cancel(result.job)


@command("pause", examples=("ugen jobs pause JOB",))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
def pause_command(session: Session, *, job_ids: tuple[str, ...]) -> ExitCode:
    """Pause jobs after their current stage. They keep their reservations."""
    return _act_on_each(session, job_ids, _pause)


async def _read(world: _JobWorld, job_id: str) -> Job:
    return await world.send(endpoints.get_job(job_id))


async def _pause(world: _JobWorld, job_id: str) -> Verdict:
    job = await _read(world, job_id)
    if job.ended or job.state is JobState.PAUSED:
        return after_pause(job)
    await pause_job(world, job_id)
    return after_pause(await _read(world, job_id))


@command("resume", examples=("ugen jobs resume JOB", "ugen jobs resume JOB --wait"))
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help="Wait until they have ended.")
@ledger_option
@interval_option
@timeout_option
def resume_command(
    session: Session,
    *,
    job_ids: tuple[str, ...],
    wait: bool,
    ledger: str | None,
    interval: float,
    timeout: float | None,
) -> ExitCode:
    """Resume paused jobs; a job that is not paused stays unchanged."""
    stale: dict[str, EarlierState] = {}

    async def act(world: _JobWorld, job_id: str) -> Verdict:
        await _withdraw_actions(world, job_id, only_if=lambda job: job.state is JobState.PAUSED)
        result = await resume_job_once(
            world, job_id, request_key="ugen jobs resume", spending=world.client.config.spending
        )
        if result.stale is not None:
            stale[job_id] = result.stale
        return after_resume(result)

    code = _act_on_each(session, job_ids, act, ledger=ledger, show=not wait)
    if not wait or code:
        return code
    waited = wait_for(session, job_ids, goal=Goal(), interval=interval, timeout=timeout, stale=stale)
    return show_waited(session, job_ids, waited)


class _OneRequestStore(KeyOnlyStore):
    """Holds the record of one retry for as long as the command runs: each call of the command is a new request."""

    durable = True


@command("retry", examples=("ugen jobs retry JOB --wait", "ugen jobs retry JOB --from-stage generation"))
@click.argument("job_id", metavar="JOB")
@click.option(
    "--from-stage", type=click.Choice(rules.STAGES), help="First stage to run again; default: the failed one."
)
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@ledger_option
@interval_option
@timeout_option
def retry_command(
    session: Session,
    *,
    job_id: str,
    from_stage: str | None,
    wait: bool,
    ledger: str | None,
    interval: float,
    timeout: float | None,
) -> ExitCode:
    """Run an ended job again from a stage. Reserves credits again.

    A running job stays unchanged. If an answer is lost, the job and its transactions show whether the retry was
    applied, so that credits are not reserved twice.
    """
    stale: dict[str, EarlierState] = {}

    async def act(world: _JobWorld, job_id: str) -> Verdict:
        job = await _read(world, job_id)
        if from_stage is None and job.state is JobState.COMPLETED:
            raise CommandFailedError(
                f"job {job_id} has completed; nothing was sent",
                code=ExitCode.USAGE,
                advice="name the stage to run again: --from-stage generation. It costs credits",
                kind="completed",
            )
        await _withdraw_actions(world, job_id, only_if=lambda job: job.ended)
        result = await retry_job_once(
            world.with_store(_OneRequestStore()),
            job_id,
            request_key=f"ugen jobs retry {uuid.uuid4()}",
            attempt="ugen jobs retry",
            restart_from_stage=from_stage,
            spending=world.client.config.spending,
        )
        if result.stale is not None:
            stale[job_id] = result.stale
        return after_retry(result)

    code = _act_on_each(session, [job_id], act, ledger=ledger, show=not wait)
    if not wait or code:
        return code
    waited = wait_for(session, [job_id], goal=Goal(), interval=interval, timeout=timeout, stale=stale)
    return show_waited(session, [job_id], waited)


async def _withdraw_actions(world: _JobWorld, job_id: str, *, only_if: Callable[[Job], bool]) -> None:
    """Withdraw what the ledger still owes a job that a person wants to continue: an old cancel must not hit it."""
    record = await _record_of(world, job_id)
    if record is None or not only_if(await _read(world, job_id)):
        return
    for action in await world.actions(record.order_key):
        if action.kind != "collect" and action.concerns(record) and action.state != "withdrawn":
            await world.mark_action(action, "withdrawn")


_OUTCOMES = {
    PurchaseOutcome.CREATED: "bought",
    PurchaseOutcome.REATTACHED: "this order was bought before and its job is running; nothing was sent",
    PurchaseOutcome.REUSED: "this order was bought before and its job is complete; nothing was sent",
    PurchaseOutcome.RECOVERED: "the service had a job under this order's key; nothing was bought",
    PurchaseOutcome.ADOPTED: "an equal request was bought before; nothing was bought",
    PurchaseOutcome.RESUMED: "resumed",
    PurchaseOutcome.STAGE_RETRIED: "the job of an earlier attempt failed; it runs again from the failed stage",
    PurchaseOutcome.AWAITING_APPROVAL: "the job has stopped at the requested stage",
}


@command(
    "create",
    examples=(
        "ugen jobs create --product-name Lamp --image lamp.jpg --segment-count 2 --wait",
        "ugen jobs create --order lamp-spring --product-name Lamp --product-image-url https://shop.example/lamp.jpg \\",
        "    --segment-count 2    # buys one video, however often you run it",
    ),
)
@click.option(
    "--order", "--name", metavar="NAME", help="Name of the order; default: a new name, and so a new key, each time."
)
@ledger_option
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture on this machine; it is uploaded.",
)
@click.option("--regenerate", metavar="VALUE", help="Buy another video for the order; each new value buys once.")
@on_earlier_failure_option
@click.option("--max-credits", type=click.IntRange(min=0), help="Buy nothing, or cancel the job, if it reserves more.")
@click.option("--wait", is_flag=True, help="Wait until the video is complete.")
@interval_option
@timeout_option
@click.option(
    "--queue-timeout",
    type=click.FloatRange(min=0),
    help="Seconds to wait while the account's job limit is reached; default 0, with --wait no limit.",
)
@field_options()
def create_command(
    session: Session,
    *,
    fields: dict[str, Any],
    order: str | None,
    ledger: str | None,
    image: Path | None,
    regenerate: str | None,
    on_earlier_failure: Any,
    max_credits: int | None,
    wait: bool,
    interval: float,
    timeout: float | None,
    queue_timeout: float | None,
) -> ExitCode:
    """Buy a video. Costs the credits of one job; `ugen credits estimate` shows them first.

    The order is recorded in the ledger before it is sent. If an answer is lost, or this command is killed, run it again
    with the same --order: it finds the purchase and buys nothing twice.
    """
    if image is not None and "product_image_url" in fields:
        raise click.UsageError("give --image or --product-image-url, not both")
    name = order if order is not None else f"ugen-{uuid.uuid4()}"
    policy = PurchasePolicy(
        on_earlier_failure=on_earlier_failure,
        regenerate=regenerate,
        max_credits=max_credits,
        spending=session.config.spending,
    )
    with session.ledger(ledger) as opened:
        store = session.order_store(opened)
        wanted = _order(session, name, fields=fields, image=image, policy=policy)
        if order is None:
            session.out.note(f"order {name} (idempotency key {wanted.key.idempotency_key(0, fingerprint='')})")
        try:
            bought = _purchase(
                session, wanted, store, wait=wait, interval=interval, timeout=timeout, queue_timeout=queue_timeout
            )
        except (StoppedError, KeyboardInterrupt):
            raise _stopped(store, wanted, name) from None
        except UGenError as error:
            raise _failed(_with_figures(session, error, wanted), store, wanted, name) from error
    _show(session, bought, name)
    return ExitCode.DONE


def _order(
    session: Session, name: str, *, fields: Mapping[str, Any], image: Path | None, policy: PurchasePolicy
) -> Order:
    """Return the order; its request is checked before a picture is uploaded for it."""
    config = session.config
    checked = checked_body(session, fields, image=image, model=config.video_model)
    digest = None
    if image is not None:
        content = image.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        with session.client() as client:
            checked["product_image_url"] = client.uploads.create_product_image(content, filename=image.name).url
    return Order(
        key=name_key(name, namespace=config.namespace),
        body=checked,
        policy=policy,
        # One attempt for each call: a later call may follow a cancel of this one.
        attempt=f"ugen {uuid.uuid4().hex}",
        origin=origin_of(config.base_url),
        image_identity=digest,
    )


def checked_body(
    session: Session, fields: Mapping[str, Any], *, image: Path | None, model: str | None
) -> dict[str, Any]:
    """Return the request that these fields make; fields that the service will ignore are reported.

    Raises:
        InvalidRequestError: A documented rule is broken.
    """
    # The address is not known before the upload, and must look like one until then.
    filled = {**fields, "product_image_url": "https://upload.invalid/"} if image is not None else dict(fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        body = CreateJob.model_validate(filled).with_model(model).body()
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        session.out.note(f"Note: {text}")
    return body


def _purchase(
    session: Session,
    order: Order,
    store: OrderStore,
    *,
    wait: bool,
    interval: float,
    timeout: float | None,
    queue_timeout: float | None,
) -> Purchase:
    """Purchase the order, and wait for its job if asked to."""

    async def work(stop: StopFlag) -> Purchase:
        async with session.async_client() as client:
            watcher = JobWatcher(client, on_answer=progress.show)
            world = StoppableWorld(watcher, store, stop=stop)
            try:
                if not wait:
                    return await _purchase_when_free(world, order, queue_timeout=queue_timeout or 0.0)
                return await purchase_and_wait(
                    world,
                    order,
                    interval=interval,
                    timeout=timeout,
                    queue_timeout=queue_timeout,
                    on_purchase=lambda bought: progress.show(bought.job),
                )
            except UGenError as error:
                if stop.is_set and getattr(error, "reason", "") == "stopping":
                    raise StoppedError("stopped") from None
                raise
            finally:
                await watcher.aclose()

    with JobProgress(session.out) as progress:
        bought = run_stoppable(work, note=session.out.note)
        if wait:
            progress.show(bought.job)
    return bought


async def _purchase_when_free(world: AsyncWorld, order: Order, *, queue_timeout: float) -> Purchase:
    """Purchase the order without waiting for its job; wait while the account's job limit is reached.

    Raises:
        RateLimitError: `queue_timeout` passed; nothing was bought.
    """
    deadline = world.now() + queue_timeout
    while True:
        step = await next_step(world, order)
        if not isinstance(step, WaitForSlot):
            return step.purchase
        left = deadline - world.now()
        if left <= 0:
            raise step.error
        await world.sleep(min(step.pause, left))


def _show(session: Session, bought: Purchase, name: str) -> None:
    for note in (_OUTCOMES[bought.outcome], *bought.warnings):
        session.out.note(note)
    sheet = job_sheet(bought.job)
    data = {
        "order": name,
        "order_key": bought.record.order_key,
        "key": bought.record.key,
        "outcome": bought.outcome.value,
        "purchase_number": bought.record.purchase_number,
        "request_changed": bought.request_changed,
        "warnings": list(bought.warnings),
        **data_of(bought.job),
    }
    facts = [*sheet.facts[:1], ("order", name), ("key", bought.record.key), *sheet.facts[1:]]
    session.out.show(Sheet(facts, data=data))


def _with_figures(session: Session, error: UGenError, order: Order) -> UGenError:
    """Add to a 402 the required and the available credits, where the service did not say them. Free."""
    if not isinstance(error, InsufficientCreditsError) or None not in (error.required, error.available):
        return error
    with suppress(UGenError), session.client() as client:
        available = client.credits.balance().available_credits
        required = client.credits.estimate(CreateJob.model_validate(dict(order.body))).total_credits
        error.details = {**error.details, "required": required, "available": available}
    return error


def _failed(error: UGenError, store: OrderStore, order: Order, name: str) -> CommandFailedError:
    """Return the failure for an error, with the order's key, and how to continue if a video may have been bought."""
    record = _recorded(store, order)
    if record is not None and error.idempotency_key is None:
        error.idempotency_key = record.key
    failure = failure_of(error)
    failure.details["order"] = name
    if record is not None and record.job_id is None and record.maybe_bought and not isinstance(error, PurchaseError):
        again = (
            f"run the command again with --order {shlex.quote(name)}: it finds the job that the service may have "
            "created, and buys nothing twice"
        )
        failure.advice = "; ".join(filter(None, (failure.advice, again)))
    return failure


def _stopped(store: OrderStore, order: Order, name: str) -> CommandFailedError:
    """Return the failure for Ctrl-C or SIGTERM: the job that still runs, and how to continue."""
    record = _recorded(store, order)
    if record is None or record.surely_not_bought:
        return CommandFailedError("stopped; nothing was bought", code=ExitCode.INTERRUPTED, kind="KeyboardInterrupt")
    if record.job_id is None:
        return CommandFailedError(
            f"stopped while order {name} was being sent; nothing is lost",
            code=ExitCode.INTERRUPTED,
            advice=f"run the command again with --order {shlex.quote(name)}: it finds the job, and buys nothing twice",
            kind="KeyboardInterrupt",
            details={"order": name, "idempotency_key": record.key},
        )
    return left_running([record.job_id])


def _recorded(store: OrderStore, order: Order) -> Any:
    """Return the order's record; None if it has none or the ledger does not answer."""
    try:
        return store.read(order.record_key)
    except UGenError:
        return None
