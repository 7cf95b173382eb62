# SPDX-License-Identifier: Apache-2.0
"""`UGenCreateJobOperator`: one video, bought once."""

from __future__ import annotations

import html
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from ugen_provider.core.api.errors import JobError, JobTimeoutError, PurchaseError
from ugen_provider.operators.arguments import seconds, to_number
from ugen_provider.operators.base import backstop
from ugen_provider.operators.closing import learn
from ugen_provider.operators.errors import failing_for_good
from ugen_provider.operators.ordering import UGenOrderOperator
from ugen_provider.operators.state import store_of
from ugen_provider.triggers.jobs import UGenJobTrigger, UGenSlotTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ugen_provider.core.api._sync_client import UGenClient
    from ugen_provider.core.api.polling import Outcome
    from ugen_provider.core.jobs.intent import Intent, IntentStore
    from ugen_provider.core.jobs.purchase import Order, Purchase
    from ugen_provider.operators.resolving import NoSlot


class UGenCreateJobOperator(UGenOrderOperator):
    """Make one video, and pay for it once.

    A retry, a cleared task, a lost worker or a restarted triggerer never buys a second video: whatever an earlier
    attempt bought is found again and waited for, or taken where it is finished already. Another one is bought only
    where `regenerate` asks for it by a new value.

    Costs the credits of one job, reserved when it is created. Stands on `POST /jobs` and `GET /jobs/{jobId}`.

    Args:
        job: The request's fields as one dict; the arguments of the same names below go before it.
        product_image: A picture that the service cannot reach, instead of `product_image_url`: a path, an fsspec URL or
            an `ObjectStoragePath`. It is uploaded once per content.
        ugen_conn_id: The connection.
        wait_for_completion: Whether to wait until the job has ended, or stands at `stop_at_stage`.
        deferrable: Whether to wait in the triggerer, where waiting holds no worker slot.
        poll_interval: Seconds between looks; the service asks for 5 to 10.
        timeout: Seconds to wait for the job, or a timedelta; None waits as long as it takes. Waiting for a free slot
            of the account does not count. The job is left, and the next attempt attaches to it.
        output_path: Where the finished job's files go: a path, a URL or an `ObjectStoragePath`. The result then has
            the address of the manifest.
        product_id: The product, for the folder below `output_path`; default is `scope_key`.
        idempotency: What is ordered once: this `task_instance`, or a product of a catalogue by its `content`, whoever
            orders it and however often. The second needs `catalogue`, `product_id` and `ledger_conn_id`.
        catalogue: What the product belongs to.
        ledger_conn_id: The connection of the ledger's database: PostgreSQL, or SQLite for one machine.
        scope_key: What this task instance orders, instead of its map index: for mapped rows that may change places.
        regenerate: A value by which another video is asked for; each new value buys once. Also by
            `dag_run.conf["ugen_regenerate"]`.
        on_earlier_failure: For a job that failed in an earlier attempt for a reason that a repeat can mend:
            `retry_stage` runs it again from the stage that failed, `resubmit` buys another one, `fail` fails.
        max_stage_retries: Stage retries in all, over all attempts.
        on_paused: For a job that somebody else paused: `wait` until they let it go on, or `fail`.
        slot_timeout: Seconds to wait for a free slot of the account; None waits as long as it takes.
        cancel_on_kill: Whether the job is cancelled where a person ends the task instance or its run, or the run times
            out. A cleared task, a lost worker or a stopped node never cancels: the next attempt attaches. Default: yes,
            and no with `content`.
        cancel_on_timeout: Whether `timeout` also cancels the job.
        max_credits: Most credits that the job may reserve.
        min_score: The lowest quality score that is good enough, 0 to 1.
        on_low_quality: For a job below it: `warn` says so in the result, `fail` fails.

    The remaining arguments are the fields of `CreateJob`, all templated.

    Returns:
        A small dict: `job_id`, `status`, `final_video_url`, `credits_consumed`, `keyframe_scores`, `manifest` and how
        the job came to be (`how`, `generation`, `request_changed`, `notes`).

    Examples:
        >>> UGenCreateJobOperator(
        ...     task_id="make_video",
        ...     product_name="Lamp",
        ...     product_image_url="https://shop.example/lamp.jpg",
        ...     segment_count=2,
        ...     deferrable=True,
        ... )
        <Task(UGenCreateJobOperator): make_video>
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Buy, or find what was bought, and wait."""
        with (
            failing_for_good(self.ugen_conn_id),
            self.hook.get_conn() as client,
            self.storing(context, client.config) as store,
        ):
            return self._pursue(context, client, self.order_of(context, client), store)

    def execute_slot(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for a slot again."""
        with (
            failing_for_good(self.ugen_conn_id),
            self.hook.get_conn() as client,
            self.storing(context, client.config) as store,
        ):
            since = event["carry"]["slot_since"]
            return self._pursue(context, client, self.order_of(context, client), store, slot_since=since)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Read the job again, believe only that, and go on from there."""
        from ugen_provider.core.api.polling import Outcome, judge, timed_out
        from ugen_provider.core.jobs.purchase import How, Purchase, goal_of

        with (
            failing_for_good(self.ugen_conn_id),
            self.hook.get_conn() as client,
            self.storing(context, client.config) as store,
        ):
            order = self.order_of(context, client)
            job_id, carry = event["job_id"], event["carry"]
            job = client.jobs.get(job_id)
            intent = store.read(order.intent_scope) or _kept_nowhere(order, job_id, generation=carry["generation"])
            if intent.armed:
                # We came back, so nobody cancelled in our name; a later attempt is to see that.
                intent = replace(intent, armed=False)
                store.write(intent)
            bought = Purchase(job, intent, How(carry["how"]), carry["request_changed"], tuple(carry["notes"]))
            reason = judge(job, goal=goal_of(order))
            if reason is None and event["status"] == "timeout":
                self._timed_out(client, order, store, timed_out(job_id, job))
            if reason is None:
                self.log.warning("job %s goes on: %s", job_id, event.get("message") or "waiting again")
                outcome = self._wait(context, client, order, store, bought, deadline=carry["deadline"])
            else:
                outcome = Outcome(job, reason)
            return self._pursue(context, client, order, store, waited=(bought, outcome))

    def _pursue(
        self,
        context: Context,
        client: UGenClient,
        order: Order,
        store: IntentStore,
        *,
        waited: tuple[Purchase, Outcome] | None = None,
        slot_since: float | None = None,
    ) -> dict[str, Any]:
        """Step by step until the job is there; where the task may defer, a wait ends this process's part."""
        from ugen_provider.operators.resolving import NoSlot, Ready, resolve

        if self.idempotency == "task_instance":
            learn(context, store, order.intent_scope)
        while True:
            try:
                step = client.run(resolve(client.caller, order, store=store, waited=waited))
            except (PurchaseError, JobError) as error:
                if waited is None and error.job_id is not None:
                    # For the page and the links of an attempt that got no further; it holds nothing to be cancelled.
                    self.announce(context, job_id=error.job_id, scope=order.intent_scope, cancel_on_kill=False)
                raise
            match step:
                case NoSlot():
                    waited, slot_since = None, self._wait_for_slot(client, step, slot_since)
                case Ready(bought):
                    bought = self._of_this_product(context, order, bought)
                    self._tell(context, order, bought, after_waiting=waited is not None)
                    return self._deliver(context, client, bought)
                case _:
                    bought = self._of_this_product(context, order, step.bought)
                    self._tell(context, order, bought, after_waiting=False)
                    if not self.wait_for_completion:
                        return self._result(context, client, bought)
                    waited = bought, self._wait(context, client, order, store, bought)

    def _of_this_product(self, context: Context, order: Order, bought: Purchase) -> Purchase:
        """What the service holds under our key may have been ordered for another product, which nobody wrote down here.

        Raises:
            PurchaseError: Another mapped instance ordered it, by the same scope key.
        """
        made_for, wanted = bought.job.product_name, order.body.get("product_name")
        if bought.request_changed or not made_for or _same_name(made_for, str(wanted)):
            return bought
        if self.by_scope_key(context):
            raise PurchaseError(
                f"{order.scope.label}: job {bought.job.job_id} under this key is for {made_for!r}, and {wanted!r} is "
                "wanted; give each mapped instance a scope_key of its own",
                scope=str(order.scope),
                reason="key_conflict",
                job_id=bought.job.job_id,
            )
        note = f"it was made for {made_for!r}; `regenerate` buys one for {wanted!r}"
        return replace(bought, request_changed=True, notes=(*bought.notes, note))

    def _tell(self, context: Context, order: Order, bought: Purchase, *, after_waiting: bool) -> None:
        job = bought.job
        self.announce(context, job_id=job.job_id, scope=order.intent_scope)
        if not after_waiting:
            self.log.info("job %s: %s, status %s", job.job_id, bought.how.value, job.status)
        if after_waiting and not job.ended:
            self.log.info("job %s: %s in stage %s", job.job_id, job.status, job.current_stage)
        if job.ended:
            spent = "" if job.credits_consumed is None else f", {job.credits_consumed} credits consumed"
            self.log.info("job %s: %s%s, %s", job.job_id, job.status, spent, job.final_video_url or "no final video")
        for note in bought.notes:
            self.log.warning("job %s: %s", job.job_id, note)

    def by_scope_key(self, context: Context) -> bool:
        """Whether another mapped instance may have the same scope key."""
        index = context["ti"].map_index
        return self.scope_key is not None and index is not None and index >= 0

    def _wait_for_slot(self, client: UGenClient, full: NoSlot, since: float | None) -> float:
        now = client.clock.now()
        since = now if since is None else since
        limit = seconds(self.slot_timeout)
        if limit is not None and now - since >= limit:
            raise full.error
        # The service may say hours; who may not wait that long asks once more when the time is up.
        pause = full.pause if limit is None else min(full.pause, since + limit - now)
        self.log.info("the account has no free slot (%s); asking again in %.0f s", full.error.message, pause)
        if self.deferrable:
            trigger = UGenSlotTrigger(
                ugen_conn_id=self.ugen_conn_id, not_before=now + pause, carry={"slot_since": since}
            )
            self.defer(trigger=trigger, method_name="execute_slot")
        client.run(_sleep(pause))
        return since

    def _wait(
        self,
        context: Context,
        client: UGenClient,
        order: Order,
        store: IntentStore,
        bought: Purchase,
        *,
        deadline: float | None = None,
    ) -> Outcome:
        from ugen_provider.core.jobs.purchase import waiting

        if deadline is None:
            deadline = self._deadline(context, client)
        if self.deferrable:
            if self.cancel_on_kill and not bought.intent.armed:
                store.write(replace(bought.intent, armed=True))
            self._defer(context, client, order, bought, deadline)
        wait = waiting(client.caller, order, interval=self.poll_interval, deadline=deadline)
        try:
            with self.holding(context, bought.job.job_id, client.config, store, order.intent_scope):
                return client.run(wait(bought))
        except JobTimeoutError as error:
            self._timed_out(client, order, store, error)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Come back from the triggerer; where Airflow itself gave up on the trigger, the job was left."""
        came_back = next_method in {"execute_complete", "execute_slot"}
        if not came_back and self.idempotency == "task_instance":
            with failing_for_good(self.ugen_conn_id):
                store = store_of(context)
                intent = store.read(str(self.scope_in(context, self.hook.config)))
                if intent is not None and intent.armed:
                    store.write(replace(intent, armed=False))
        return super().resume_execution(next_method, next_kwargs, context)

    def _deadline(self, context: Context, client: UGenClient) -> float | None:
        """Absolute; Airflow does not enforce `execution_timeout` while a task is deferred, so it counts here."""
        limits = []
        if (limit := seconds(self.timeout)) is not None:
            limits.append(client.clock.now() + limit)
        started = context["ti"].start_date
        if self.execution_timeout is not None and started is not None:
            limits.append((started + self.execution_timeout).timestamp())
        return min(limits, default=None)

    def _defer(
        self, context: Context, client: UGenClient, order: Order, bought: Purchase, deadline: float | None
    ) -> NoReturn:
        from ugen_provider.core.jobs.purchase import goal_of

        goal, stale = goal_of(order), bought.stale
        trigger = UGenJobTrigger(
            job_id=bought.job.job_id,
            ugen_conn_id=self.ugen_conn_id,
            poll_interval=self.poll_interval,
            end_time=deadline,
            stopped=goal.stopped,
            through_pauses=goal.through_pauses,
            stale=None if stale is None else (stale.status, stale.stage, stale.updated_at),
            cancel_on_kill=self.cancel_on_kill,
            by_scope_key=self.by_scope_key(context),
            carry={
                "how": bought.how.value,
                "notes": list(bought.notes),
                "request_changed": bought.request_changed,
                "generation": bought.intent.generation,
                "deadline": deadline,
            },
        )
        limit = backstop(deadline, now=client.clock.now(), poll_interval=self.poll_interval)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=limit)
        raise AssertionError("defer raises")

    def _timed_out(self, client: UGenClient, order: Order, store: IntentStore, error: JobTimeoutError) -> NoReturn:
        from ugen_provider.core.jobs.cancelling import cancel

        if self.cancel_on_timeout:
            client.run(cancel(client.caller, error.job_id, reason="timeout", store=store, scope=order.intent_scope))
            self.log.warning("job %s was cancelled, since cancel_on_timeout is set", error.job_id)
        raise error

    # Delivering.

    def _deliver(self, context: Context, client: UGenClient, bought: Purchase) -> dict[str, Any]:
        from ugen_provider.core.api.models import JobState

        if bought.job.state is not JobState.COMPLETED:
            return self._result(context, client, bought)
        from ugen_provider.core.jobs.summary import Scores, check_quality, keyframes_of

        job = bought.job
        keyframes = client.run(keyframes_of(client.caller, job))
        scores = Scores.of(job, keyframes=keyframes)
        manifest = None
        if self.output_path is not None:
            from ugen_provider.operators.media import store_outputs

            stored = store_outputs(
                client,
                job,
                self.output_path,
                keyframes=keyframes,
                product_id=self.given("product_id") or self.given("scope_key"),
                request=bought.intent.body,
            )
            manifest = stored["manifest"]
        low = check_quality(
            job, scores, min_score=to_number("min_score", self.min_score), on_low_quality=self.on_low_quality
        )
        if low is not None:
            self.log.warning("%s", low)
        return self._result(context, client, bought, scores=scores, manifest=manifest, low_quality=low)

    def _result(
        self,
        context: Context,
        client: UGenClient,  # noqa: ARG002
        bought: Purchase,
        *,
        scores: Any = None,
        manifest: str | None = None,
        low_quality: str | None = None,
    ) -> dict[str, Any]:
        from ugen_provider.core.jobs.summary import Scores, summarize

        result = summarize(bought, scores=scores or Scores.of(bought.job), manifest=manifest, low_quality=low_quality)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"ugen": result}
        body = bought.intent.body
        return self.told(result, picture=body.get("product_image_url"), video_model=body.get("video_model"))


def _same_name(one: str, other: str) -> bool:
    """Whether two names are one, however the service trims, cuts, cases, escapes or strips them.

    Examples:
        >>> _same_name("Salt & Pepper\u2122 Mill", "salt &amp; pepper mill"), _same_name("Lamp", "Mug")
        (True, False)
    """
    first, second = (
        "".join(filter(str.isalnum, unicodedata.normalize("NFC", html.unescape(name)).casefold()))
        for name in (one, other)
    )
    return first.startswith(second) or second.startswith(first)


def _sleep(pause: float) -> Any:
    from ugen_provider.core.api.effects import Sleep

    yield Sleep(seconds=pause)


def _kept_nowhere(order: Order, job_id: str, *, generation: int) -> Intent:
    """What a store would hold, where there is none."""
    intent = order.intent(generation=generation, written_at=time.time(), regenerate=order.policy.regenerate)
    return replace(intent, job_id=job_id)
