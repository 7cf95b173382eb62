# SPDX-License-Identifier: Apache-2.0
"""The sync client. Generated from `async_client.py` by `scripts/unasync.py`; change that one.

A third of it is code, a line or two per endpoint over `endpoints`; the rest is the reference of 28 endpoints.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, Unpack
from urllib.parse import urlsplit

from ugen_provider.core.api import endpoints, polling
from ugen_provider.core.api.answers import complete_error, error_of, passing_error, read_response
from ugen_provider.core.api.clock import (
    Clock,
    SystemClock,
    calls_in_line,
    clock_of,
    count_wait,
    in_line,
    poll_pause,
)
from ugen_provider.core.api.config import ClientConfig, Secret, is_loopback, resolve
from ugen_provider.core.api.endpoints import (
    MUSIC,
    PRODUCT_IMAGE,
    Endpoint,
    Request,
    Response,
    canonical_id,
    is_same_id,
    read_upload,
    remember_key,
)
from ugen_provider.core.api.errors import (
    APIError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    RequestValidationError,
    ResponseError,
    TransportError,
    UGenError,
    may_have_bought,
)
from ugen_provider.core.api.pagination import Page, PageReader, Params, not_proven
from ugen_provider.core.api.polling import JobCancelledError, JobFailedError, JobPausedError, failure_kind
from ugen_provider.core.api.profile import ServiceProfile
from ugen_provider.core.api.retrying import CallSpan, RateLimitPause, RetryPolicy, call_span, is_fruitless
from ugen_provider.core.api.transport import EndpointSettings, HTTPClient, Transport
from ugen_provider.core.lazily import LazyModule
from ugen_provider.core.text import get_logger

if TYPE_CHECKING:
    import os

    from ugen_provider.core.api import diagnostics, models
    from ugen_provider.core.api.models import (
        Balance,
        CreateJob,
        Estimate,
        Job,
        JobFields,
        JobScan,
        Keyframe,
        Model,
        MusicTrack,
        Segment,
        Suggestion,
        Template,
        Transaction,
        UploadedImage,
        WebhookSettings,
    )
    from ugen_provider.core.media import outputs
    from ugen_provider.core.media.manifest import Manifest
    from ugen_provider.core.media.outputs import Include, PendingOutput
    from ugen_provider.core.media.stores import Destination
else:  # loaded with the first answer, so that creating a client does not import pydantic
    diagnostics = LazyModule("ugen_provider.core.api.diagnostics")
    outputs = LazyModule("ugen_provider.core.media.outputs")
    models = LazyModule("ugen_provider.core.api.models")

_T = TypeVar("_T")
_log = get_logger("ugen_provider.api")
Failure = TransportError | APIError | ResponseError

REPORTED_AFTER = 30.0
"""Seconds after which a call that is still repeated is reported."""


class UGenClient:
    """Client of the U-Gen API for blocking code.

    Args:
        api_key: The key; else the environment variable `UGEN_API_KEY`. It is never shown.
        base_url: Address of the API; else `UGEN_BASE_URL`, else the real service.
        timeout: Seconds for one attempt of one request.
        retries: A `RetryPolicy`, or how often to repeat a request beside the first attempt.
        video_model: The model of requests that name none; None leaves it to the service.
        namespace: Separates the orders of two environments that share one account.
        spending: `allow`, `reuse_only` (wait for existing jobs, buy nothing) or `off`; else `UGEN_SPENDING`.
        allow_insecure: Whether the key may travel over plain http to another machine.
        http_client: An httpx client of your own, for proxies, certificates or tests. You close it.
        clock: The clock, for tests; default the machine's.
        service_profile: Where the service differs from its documentation; see `ServiceProfile`.
        config: Checked settings, instead of all the above but `http_client` and `clock`.

    Raises:
        ConfigError: The key is missing, or a setting is invalid.

    Examples:
        >>> client = UGenClient(api_key="ugen_sk_local", base_url="http://127.0.0.1:8000/api/v1")
        >>> client
        UGenClient(base_url='http://127.0.0.1:8000/api/v1')
    """

    def __init__(
        self,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        video_model: str | None = None,
        namespace: str | None = None,
        spending: str | None = None,
        allow_insecure: bool = False,
        http_client: HTTPClient | None = None,
        clock: Clock | None = None,
        service_profile: ServiceProfile | Mapping[str, Any] | str | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        # The variable must not hold the key in clear: an error leaves this frame, and is reported with its variables.
        api_key = None if api_key is None else Secret.of(api_key)
        self.config = config or resolve(
            api_key=api_key,
            base_url=base_url,
            timeout=timeout,
            retries=retries,
            video_model=video_model,
            namespace=namespace,
            spending=spending,
            allow_insecure=allow_insecure,
            service_profile=service_profile,
        )
        self._clock: Clock = clock or SystemClock()
        transport = Transport(EndpointSettings.of(self.config), http_client=http_client, clock=self._clock)
        self._executor = RequestExecutor(transport, self.config)
        self._closes = True
        self._durations = polling.DurationHistory()
        self._open_parts()

    def _open_parts(self) -> None:
        self.jobs = Jobs(self)
        self.credits = Credits(self)
        self.webhook = Webhook(self)
        self.uploads = Uploads(self)
        self.templates = Templates(self)
        self.music = Music(self)
        self.models = Models(self)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return this client with other options, for one call or for several. Free; it opens no connection.

        It shares the connections, and the pause after a 429, with this client, which alone closes them. An option that
        is not given is that of this client.

        Args:
            timeout: Seconds for one attempt of one request.
            retries: A `RetryPolicy`, or how often to repeat a request beside the first attempt.
            headers: Further headers of each request, such as the id of a trace; none that the client sets itself.

        Raises:
            ConfigError: An option is invalid; nothing was sent.

        Examples:
            >>> job = client.with_options(timeout=5.0, retries=0).jobs.get(job.job_id)
        """
        other = copy(self)
        other._narrow(self.config.with_options(timeout=timeout, retries=retries, headers=headers))  # noqa: SLF001
        return other

    def _narrow(self, config: ClientConfig) -> None:
        """Become a client of its own over the connections of the one that this was copied from."""
        self.config = config
        self._executor = self._executor.with_config(config)
        self._closes = False
        self._open_parts()

    def diagnose(self) -> diagnostics.Diagnosis:
        """Check which assumptions about the service hold for this account. Free; it changes nothing.

        Returns:
            The findings. A refused key or an unreachable service ends it early, with the finding that says so.

        Examples:
            >>> (client.diagnose())["key"].holds
            True
        """
        findings: list[diagnostics.Finding] = []
        for check in diagnostics.CHECKS:
            try:
                answer = self._executor.answer(check.request)
                findings += check.judge(answer, now=self._clock.now(), profile=self.config.profile)
            except UGenError as error:
                findings += check.judge_error(error)
                if check.required:
                    return diagnostics.Diagnosis(tuple(findings))
        jobs, errors = self._sample_jobs()
        purchase, learned = diagnostics.judge_purchase(findings, jobs, errors)
        rows = diagnostics.judge_rows(findings, jobs, learned)
        return diagnostics.Diagnosis((*findings, purchase), learned, rows)

    def _sample_jobs(self) -> tuple[list[Job], list[UGenError]]:
        """Read some jobs of the account one by one, as a wait does."""
        jobs: list[Job] = []
        errors: list[UGenError] = []
        try:
            page = call_endpoint(self, endpoints.list_jobs(page_size=20))
        except UGenError:
            return jobs, errors  # the check of the list reports it
        for job_id in diagnostics.sample_of(page.items):
            try:
                jobs.append(call_endpoint(self, endpoints.get_job(job_id)))
            except UGenError as error:
                errors.append(error)
        return jobs, errors

    def _call(self, endpoint: Endpoint[_T], wait_when_limited: bool, retry: bool) -> _T:
        """Make each call of this client; a subclass may watch them."""
        return self._executor.call(endpoint, wait_when_limited=wait_when_limited, retry=retry)

    def use(self, config: ClientConfig) -> None:
        """Use other settings from the next request on, such as a rotated key; connections are kept."""
        self.config = config
        self._executor.use(config)

    def close(self) -> None:
        """Close the connections, unless the HTTP client is your own, or this client came from `with_options`."""
        if self._closes:
            self._executor.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.config.base_url!r})"


_READINGS = 3
"""How often to read a list that becomes shorter meanwhile, which can hide entries between two pages."""

_BEYOND = (BadRequestError, NotFoundError, RequestValidationError)
"""How a service may refuse a page after the last one."""


def _each(
    client: UGenClient,
    page_of: Callable[[int, Params], Endpoint[Page]],
    read: Callable[[Mapping[str, Any]], _T],
    id_of: Callable[[Mapping[str, Any]], str | None],
    *,
    job_id: str | None = None,
    limit: int | None = None,
) -> Iterator[_T]:
    """Yield all entries of all pages, each once; with a job id, without those that name another job.

    Raises:
        ResponseError: The end of the list is not proven, so that entries can be missing.
    """
    if limit is not None and limit <= 0:
        return
    given: set[str] = set()
    yielded = 0
    reader = PageReader(id_of=id_of)
    for reading in range(_READINGS):
        reader = PageReader(id_of=id_of)
        while not reader.finished:
            for item in _next_page(client, page_of, reader):
                item_id = id_of(item)
                if job_id is not None and not is_same_id(str(item.get("job_id") or job_id), job_id):
                    continue  # a service that ignores the filter
                if (item_id is None and reading == 0) or (item_id is not None and item_id not in given):
                    if item_id is not None:
                        given.add(item_id)
                    if (row := _row(read, item, path=page_of(1, ()).request.path)) is not None:
                        yield row
                        yielded += 1
                        if yielded == limit:
                            return
        if reader.complete:
            return
        if not reader.shrank:
            break
    if reader.unreadable_only:
        _log.warning("GET %s: %s; the other entries are complete", page_of(1, ()).request.path, reader.why)
        return
    raise not_proven(page_of(1, ()).request.path, reader)


def _next_page(
    client: UGenClient, page_of: Callable[[int, Params], Endpoint[Page]], reader: PageReader
) -> tuple[dict[str, Any], ...]:
    """Return the entries of the next page that are new."""
    try:
        page = call_endpoint(client, page_of(reader.number, reader.onward))
    except _BEYOND as error:
        if reader.number == 1:
            raise
        reader.refuse(error.status)
        return ()
    return reader.take(page)


def _row(read: Callable[[Mapping[str, Any]], _T], item: Mapping[str, Any], *, path: str) -> _T | None:
    """Read one entry; one that cannot be read is reported and never hides the others."""
    try:
        return read(item)
    except (ValueError, TypeError) as error:
        _log.warning("GET %s: an entry cannot be read (%s)", path, str(error).splitlines()[0])
        return None


def _id_in(job: str | Job) -> str:
    return job if isinstance(job, str) else job.job_id


def _id_of_job(item: Mapping[str, Any]) -> str | None:
    job_id = item.get("job_id", item.get("id"))
    return None if job_id is None else canonical_id(str(job_id))


def _id_of_transaction(item: Mapping[str, Any]) -> str | None:
    transaction_id = item.get("transaction_id", item.get("id"))
    return None if transaction_id is None else str(transaction_id)


def call_endpoint(
    client: UGenClient, endpoint: Endpoint[_T], *, wait_when_limited: bool = True, retry: bool = True
) -> _T:
    """Call one endpoint of `core.api.endpoints` under a client's retry policy: what `core.jobs` is built on.

    Args:
        client: Sends the request.
        endpoint: The endpoint with its arguments.
        wait_when_limited: Whether to wait after a 429, within the policy; otherwise it is raised at once.
        retry: Whether to send again after an error, within the policy; otherwise there is one attempt.

    Raises:
        UGenError: The call failed; see `core.api.errors`.

    Examples:
        >>> from ugen_provider.core.api import endpoints
        >>> from ugen_provider.core.api.client import call_endpoint
        >>> job = call_endpoint(client, endpoints.get_job(job.job_id), retry=False)
    """
    return client._call(endpoint, wait_when_limited, retry)  # noqa: SLF001  hidden from users alone


class Jobs:
    """`client.jobs`: the Jobs API."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def create(
        self,
        job: CreateJob | Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Job:
        """Create a job. Reserves its credits; `POST /jobs`.

        An idempotency key is always sent, the same one with every attempt, so that a lost answer buys nothing twice.
        For an order that outlives this process use `ugen_provider.buy`, which stores the key.

        Args:
            job: The request, as a `CreateJob` or a mapping of its fields; or give the fields themselves.
            idempotency_key: Your own key; else the request's, else a new UUID.
            **fields: The fields of `CreateJob`; they replace those of `job`.

        Returns:
            The job, or the earlier one of the same key.

        Raises:
            InvalidRequestError: A documented rule is broken; nothing was sent.
            InsufficientCreditsError: The account has too few credits.
            RateLimitError: The account's limit of jobs is reached.
            ConflictError: The key belongs to another request.

        Examples:
            >>> job = client.jobs.create(
            ...     product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1
            ... )
        """
        request = models.request_of(job, fields)
        body = request.with_model(self._client.config.video_model).body()
        body["idempotency_key"] = idempotency_key or request.idempotency_key or str(uuid.uuid4())
        return call_endpoint(self._client, endpoints.create_job(body))

    def suggest_fields(
        self,
        *,
        product_name: str,
        product_image_url: str,
        persona_id: str | None = None,
        interaction_mode: str | None = None,
        segment_count: int | None = None,
    ) -> Suggestion:
        """Let the service propose script fields from the picture. Free; `POST /jobs/suggest-fields`.

        Raises:
            InvalidRequestError: A documented rule is broken; nothing was sent.

        Examples:
            >>> idea = client.jobs.suggest_fields(
            ...     product_name="Lamp", product_image_url="https://shop.example/l.jpg"
            ... )
        """
        return call_endpoint(
            self._client,
            endpoints.suggest_fields(
                product_name=product_name,
                product_image_url=product_image_url,
                persona_id=persona_id,
                interaction_mode=interaction_mode,
                segment_count=segment_count,
            ),
        )

    def get(self, job_id: str | Job) -> Job:
        """Read one job. Free; `GET /jobs/{jobId}`.

        Raises:
            NotFoundError: No such job in this account.

        Examples:
            >>> job = client.jobs.get(job.job_id)
        """
        return call_endpoint(self._client, endpoints.get_job(_id_in(job_id)))

    def list(
        self, *, status: str | None = None, limit: int | None = None, page_size: int = endpoints.PAGE_SIZE
    ) -> Iterator[Job]:
        """List all jobs of all pages, each once. Free; `GET /jobs`.

        Args:
            status: Only jobs of this status, in the service's words.
            limit: Most jobs; default all.
            page_size: Jobs per request, at most 100.

        Raises:
            ResponseError: After the jobs that were found: the service does not show that these are all.

        Examples:
            >>> names = [job.product_name for job in client.jobs.list(status="completed")]
        """
        return _each(
            self._client,
            lambda page, onward: endpoints.list_jobs(status=status, page=page, page_size=page_size, onward=onward),
            endpoints.read_listed_job,
            _id_of_job,
            limit=limit,
        )

    def scan(
        self,
        *,
        status: str | None = None,
        created_since: float | None = None,
        until: Callable[[Job], bool] | None = None,
    ) -> JobScan:
        """Read the list of jobs and say whether it is proven to be complete. Free; `GET /jobs`, nothing else.

        Args:
            status: Only jobs of this status, in the service's words.
            created_since: Seconds since the epoch; older jobs are left out of the answer. Jobs without a time of
                creation are kept. The list is still read to its end, since its order is not documented.
            until: Ends the scan at the first job for which it is true, which is then `found`.

        Raises:
            ResponseError: A page cannot be read. With an entry that cannot be read the scan is not complete.

        Examples:
            >>> scan = client.jobs.scan(until=lambda job: job.idempotency_key == "order-7")
            >>> scan.found is None and scan.complete
            True
        """
        reader = PageReader(id_of=_id_of_job, for_absence=True)
        jobs: list[Job] = []
        pages = 0
        unreadable = 0
        for _ in range(_READINGS):
            reader = PageReader(id_of=_id_of_job, for_absence=True)
            jobs, unreadable = [], 0
            while not reader.finished:
                pages += 1
                for item in _next_page(
                    self._client,
                    lambda page, onward: endpoints.list_jobs(status=status, page=page, onward=onward),
                    reader,
                ):
                    job = _row(endpoints.read_listed_job, item, path="/jobs")
                    if job is None:
                        unreadable += 1
                        continue
                    if created_since is None or job.created_at is None or job.created_at.timestamp() >= created_since:
                        jobs.append(job)
                    if until is not None and until(job):
                        return models.JobScan(tuple(jobs), False, reader.repeated, job, pages, "the scan ended early")
            if reader.complete or not reader.shrank:
                break
        why = reader.why or ("an entry of it cannot be read" if unreadable else "")
        return models.JobScan(tuple(jobs), reader.complete and not unreadable, reader.repeated, None, pages, why)

    def wait(
        self,
        job_id: str | Job,
        *,
        interval: float = polling.DEFAULT_INTERVAL,
        timeout: float | None = None,
        target_stage: str | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Wait until a job completes, or reaches a stage. Free; `GET /jobs/{jobId}`.

        Args:
            job_id: The job, or its id.
            interval: The shortest time between two polls, in seconds; the service asks for 5 to 10. Default 10. While
                the end is far, polls are rarer, up to one in ten minutes.
            timeout: Seconds after which to stop waiting; the job keeps running. None waits without limit.
            target_stage: Also done when this stage is reached.
            on_progress: Called with each answer, for a progress bar.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            JobPausedError: It is paused.
            JobTimeoutError: The time is up.

        Examples:
            >>> job = client.jobs.wait(job.job_id, timeout=3600)
        """
        deadline = None if timeout is None else clock_of(self._client).now() + timeout
        goal = polling.Goal(stage=target_stage)
        outcome = self.wait_until(
            job_id, goal=goal, interval=interval, deadline=deadline, is_known=False, on_progress=on_progress
        )
        return _completed(outcome)

    def wait_until(
        self,
        job_id: str | Job,
        *,
        goal: polling.Goal,
        interval: float = polling.DEFAULT_INTERVAL,
        deadline: float | None = None,
        stale: polling.EarlierState | None = None,
        is_known: bool = True,
        on_progress: Callable[[Job], None] | None = None,
    ) -> polling.WaitOutcome:
        """Wait until a job reaches a goal or ends in any way. Free; `GET /jobs/{jobId}`.

        The status is read before the deadline is checked. The job keeps running after every error.

        Args:
            job_id: The job, or its id.
            goal: What ends the wait besides the job's end.
            interval: The shortest time between two polls, in seconds; the service asks for 5 to 10. Default 10. While
                the end is far, polls are rarer, up to one in ten minutes.
            deadline: Seconds since the epoch; None waits without limit.
            stale: A state that does not count, after a retry or a resume.
            is_known: Whether the job is known to exist, so that the wait continues after a 404 for 10 minutes.
            on_progress: Called with each answer.

        Raises:
            JobTimeoutError: The deadline passed.
            UGenError: An error that ends the wait; see `core.api.polling.Patience`.

        Examples:
            >>> from ugen_provider.core.api.polling import Goal
            >>> outcome = client.jobs.wait_until(job.job_id, goal=Goal(stage="generation"))
        """
        known = None if isinstance(job_id, str) else job_id
        job_id = _id_in(job_id)
        clock = clock_of(self._client)
        patience = polling.Patience(is_known=is_known)
        began = clock.now()
        report = polling.WaitReport(job_id, now=began)
        job: Job | None = None
        history = self._client._durations  # noqa: SLF001
        if (first := history.first_poll(known, now=began)) > interval:
            left = polling.next_poll(interval=poll_pause(clock, first), now=began, deadline=deadline)
            _pause(clock, report, left)
        while True:
            pause = interval
            try:
                # The next poll repeats one that fails: a call's own patience could outlast the deadline.
                job = call_endpoint(self._client, endpoints.get_job(_id_in(job_id)), retry=False)
            except UGenError as error:
                now = clock.now()
                if not patience.bears(error, now=now):
                    raise
                _say(report.failed(error, now=now))
                pause = max(interval, min(getattr(error, "retry_after", None) or 0.0, polling.LONGEST_PAUSE))
            else:
                patience.answered()
                now = clock.now()
                _say(report.answered(job, now=now))
                if on_progress is not None:
                    on_progress(job)
                counts = now - began >= polling.STALE_PATIENCE
                reason = polling.judge(job, goal=goal, stale=None if counts else stale)
                if reason is not None and not patience.awaits_video(job, goal=goal, now=now):
                    history.observe(job)
                    return polling.WaitOutcome(job, reason)
                if (unclear := patience.unclear_end(job, now=now)) is not None:
                    raise unclear
                if goal.stage is None and reason is None:
                    pause = polling.lone_interval(job, interval=interval, now=now, began=began)
            if deadline is not None and now >= deadline:
                raise polling.timed_out(job_id, job)
            left = polling.next_poll(interval=poll_pause(clock, pause), now=now, deadline=deadline)
            _pause(clock, report, left)

    def cancel(self, job_id: str | Job) -> Job:
        """Cancel a job that has not ended; its reservation is released. `DELETE /jobs/{jobId}`, then a read.

        Raises:
            ConflictError: The job has ended, or the service does not cancel it in its state.

        Examples:
            >>> job = client.jobs.cancel(job.job_id)
        """
        call_endpoint(self._client, endpoints.cancel_job(_id_in(job_id)))
        return self.get(job_id)

    def pause(self, job_id: str | Job) -> Job:
        """Ask a job to pause after its current stage. Free; `POST /jobs/{jobId}/pause`, then a read.

        Raises:
            ConflictError: The job is not processing.

        Examples:
            >>> job = client.jobs.pause(job.job_id)
        """
        call_endpoint(self._client, endpoints.pause_job(_id_in(job_id)))
        return self.get(job_id)

    def resume(self, job_id: str | Job) -> Job:
        """Resume a paused job. `POST /jobs/{jobId}/resume`, then a read.

        Raises:
            ConflictError: The job is not paused.

        Examples:
            >>> job = client.jobs.resume(job.job_id)
        """
        call_endpoint(self._client, endpoints.resume_job(_id_in(job_id)))
        return self.get(job_id)

    def retry(self, job_id: str | Job, *, restart_from_stage: str | None = None) -> Job:
        """Run an ended job again from a stage. Reserves credits again; `POST /jobs/{jobId}/retry`, then a read.

        It is not sent again after a lost answer: read the job and its transactions first.

        Args:
            job_id: The job, or its id.
            restart_from_stage: First stage to run again; None starts where it failed.

        Raises:
            InvalidRequestError: No such stage.
            InsufficientCreditsError: The account has too few credits.

        Examples:
            >>> job = client.jobs.retry(job.job_id, restart_from_stage="generation")
        """
        call_endpoint(self._client, endpoints.retry_job(_id_in(job_id), restart_from_stage=restart_from_stage))
        return self.get(job_id)

    def list_keyframes(self, job_id: str | Job) -> tuple[Keyframe, ...]:
        """List the keyframe pictures of a job with their scores. Free; `GET /jobs/{jobId}/keyframes`.

        Examples:
            >>> scores = [frame.qai_score for frame in client.jobs.list_keyframes(job.job_id)]
        """
        return call_endpoint(self._client, endpoints.list_keyframes(_id_in(job_id)))

    def list_videos(self, job_id: str | Job) -> tuple[Segment, ...]:
        """List the video segments of a job. Free; `GET /jobs/{jobId}/videos`.

        Examples:
            >>> urls = [segment.video_url for segment in client.jobs.list_videos(job.job_id)]
        """
        return call_endpoint(self._client, endpoints.list_videos(_id_in(job_id)))

    def download(
        self,
        job_id: str | Job,
        *,
        to: Destination,
        include: Collection[Include] = ("final", "thumbnail"),
        allow_private: bool | None = None,
        on_progress: Callable[[PendingOutput], None] | None = None,
    ) -> Manifest:
        """Download the files of a job: streamed, checked, and moved into place whole. Free; `GET /jobs/{jobId}`.

        A file that is stored already is not downloaded again; a link that has expired is renewed. The API key is never
        sent to the host of a file.

        Args:
            job_id: The job, or its id.
            to: A local folder, or any fsspec URL such as `s3://videos/`; each job gets a folder there.
            include: Which files: `final`, `thumbnail`, `segments`, `keyframes`. Default the final video and the
                thumbnail.
            allow_private: Whether links may lead to private addresses. Default only if the client's address is this
                machine, as that of a local U-Gen is.
            on_progress: Called with the progress of each file, from the threads that download them.

        Returns:
            The manifest; `manifest.uri("final")` says where the video is.

        Raises:
            DownloadError: A file could not be stored; what else was stored is kept.
            JobError: The job has none of these files, or none yet.
            ConfigError: The destination cannot be used; nothing was downloaded.

        Examples:
            >>> manifest = client.jobs.download(client.jobs.wait(job), to="videos")
            >>> manifest.uri("final").endswith("/final.mp4")
            True
        """
        job = self.get(job_id)
        wants_keyframes = "keyframes" in include
        keyframes = job.keyframes or (self.list_keyframes(job) if wants_keyframes else ())
        if not outputs.outputs_of(job, keyframes=keyframes, include=include):
            raise outputs.without_outputs(job)
        config = self._client.config
        if allow_private is None:
            allow_private = is_loopback(urlsplit(config.base_url).hostname or "")
        with calls_in_line() as call:
            return in_line(
                partial(
                    outputs.download_outputs,
                    job,
                    to,
                    keyframes=keyframes,
                    refresh=lambda: call(self.get, job.job_id),
                    refresh_keyframes=lambda: call(self.list_keyframes, job.job_id),
                    include=include,
                    allow_private=allow_private,
                    profile=config.profile,
                    on_progress=on_progress,
                )
            )


def _pause(clock: Clock, report: polling.WaitReport, seconds: float) -> None:
    """Wait between two polls, with a line of the log every four minutes."""
    count_wait(clock, seconds)
    while seconds > polling.SILENCE:
        clock.sleep(polling.SILENCE)
        seconds -= polling.SILENCE
        _say(report.paused(now=clock.now(), seconds=seconds))
    clock.sleep(seconds)


def _say(lines: tuple[polling.WaitLine, ...]) -> None:
    for line in lines:
        _log.log(logging.WARNING if line.is_warning else logging.INFO, "%s", line.text)


def _completed(outcome: polling.WaitOutcome) -> Job:
    job = outcome.job
    if outcome.reason is polling.Reason.PAUSED:
        raise JobPausedError(f"job {job.job_id} is paused; resume it to continue", job_id=job.job_id, job=job)
    if job.state.value == "failed":
        why = job.error_message or "the service gave no reason"
        retryable = failure_kind(job) == "passing"
        raise JobFailedError(f"job {job.job_id} failed: {why}", job_id=job.job_id, job=job, retryable=retryable)
    if job.state.value == "cancelled":
        raise JobCancelledError(f"job {job.job_id} was cancelled", job_id=job.job_id, job=job)
    return job


class Credits:
    """`client.credits`: balance, transactions and estimates."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def balance(self) -> Balance:
        """Read the credits of the account. Free; `GET /credits/balance`.

        Examples:
            >>> (client.credits.balance()).available_credits > 0
            True
        """
        return call_endpoint(self._client, endpoints.get_balance())

    def transactions(self, *, job_id: str | Job | None = None) -> Iterator[Transaction]:
        """List all transactions of all pages, each once. Free; `GET /credits/transactions`.

        Args:
            job_id: Only those of this job, or of the job of this id.

        Raises:
            ResponseError: After the movements that were found: the service does not show that these are all.

        Examples:
            >>> reserved = [t.amount for t in client.credits.transactions() if t.type == "reserve"]
        """
        only = None if job_id is None else _id_in(job_id)
        return _each(
            self._client,
            lambda page, onward: endpoints.list_transactions(job_id=only, page=page, onward=onward),
            endpoints.read_transaction,
            _id_of_transaction,
            job_id=only,
        )

    def estimate(self, job: CreateJob | Mapping[str, Any] | None = None, **fields: Unpack[JobFields]) -> Estimate:
        """Estimate the credits of a job. Free; `POST /credits/estimate`.

        Args:
            job: The request, as for `client.jobs.create`.
            **fields: The fields of `CreateJob`; they replace those of `job`.

        Raises:
            InvalidRequestError: A documented rule is broken; nothing was sent.

        Examples:
            >>> lamp = {"product_name": "Lamp", "product_image_url": "https://shop.example/l.jpg", "segment_count": 1}
            >>> credits = (client.credits.estimate(lamp)).total_credits
        """
        request = models.request_of(job, fields)
        return call_endpoint(
            self._client, endpoints.estimate(request.with_model(self._client.config.video_model).body())
        )


class Webhook:
    """`client.webhook`: the account's one webhook."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def get(self) -> WebhookSettings:
        """Read whether a webhook is configured. Free; `GET /tenants/me/webhook`.

        Examples:
            >>> (client.webhook.get()).webhook_configured
            False
        """
        return call_endpoint(self._client, endpoints.get_webhook())

    def set(self, *, webhook_url: str, webhook_secret: str | None = None) -> WebhookSettings:
        """Replace the webhook. Free; `PUT /tenants/me/webhook`.

        Args:
            webhook_url: https address that is called when a job completes or fails.
            webhook_secret: Signs deliveries; without one they are unsigned, and `core.jobs.webhooks` refuses them.

        Examples:
            >>> _ = client.webhook.set(webhook_url="https://shop.example/hook", webhook_secret="s" * 64)
        """
        return call_endpoint(
            self._client, endpoints.set_webhook(webhook_url=webhook_url, webhook_secret=webhook_secret)
        )

    def delete(self) -> None:
        """Remove the webhook and its secret. Free; `DELETE /tenants/me/webhook`.

        Examples:
            >>> client.webhook.delete()
        """
        call_endpoint(self._client, endpoints.delete_webhook())


class Uploads:
    """`client.uploads`: pictures that the service cannot download from an address of yours."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def create_product_image(
        self, image: str | os.PathLike[str] | bytes | BinaryIO, *, filename: str | None = None
    ) -> UploadedImage:
        """Upload a product picture. Free; `POST /uploads/product-image`.

        Args:
            image: A path, the bytes, or an open binary file: JPEG, PNG, WebP or GIF, at most 10 MB.
            filename: Its name, for bytes and files without one.

        Returns:
            Its public address, for `product_image_url`.

        Raises:
            InvalidRequestError: It is empty, too large or no such picture; nothing was sent.

        Examples:
            >>> url = (client.uploads.create_product_image(picture, filename="lamp.png")).url
        """
        upload = read_upload(image, filename=filename, limits=PRODUCT_IMAGE)
        return call_endpoint(
            self._client,
            endpoints.create_product_image(name=upload.name, content=upload.content, content_type=upload.content_type),
        )


class Templates:
    """`client.templates`: saved sets of job fields."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def list(self, *, limit: int = 50) -> tuple[Template, ...]:
        """List the account's templates, the default first. Free; `GET /templates`.

        Examples:
            >>> names = [template.name for template in client.templates.list()]
        """
        return call_endpoint(self._client, endpoints.list_templates(limit=limit))

    def create(
        self,
        *,
        name: str,
        config: Mapping[str, Any],
        description: str | None = None,
        is_default: bool = False,
    ) -> Template:
        """Save a template. Free; `POST /templates`.

        Args:
            name: Its name.
            config: Job fields; `aspect_ratio` is stored under the service's `output_aspect_ratio`.
            description: What it is for.
            is_default: Whether it becomes the default; the old one ceases to be.

        Examples:
            >>> template = client.templates.create(name="Tall", config={"aspect_ratio": "9:16"})
        """
        return call_endpoint(self._client, endpoints.create_template(_template(name, config, description, is_default)))

    def update(
        self,
        template_id: str,
        *,
        name: str,
        config: Mapping[str, Any],
        description: str | None = None,
        is_default: bool = False,
    ) -> Template:
        """Replace a template. Free; `PUT /templates/{id}`.

        Raises:
            NotFoundError: No such template.

        Examples:
            >>> template = client.templates.update(template.template_id, name="Wide", config={})
        """
        body = _template(name, config, description, is_default)
        return call_endpoint(self._client, endpoints.update_template(template_id, body))


class Music:
    """`client.music`: the catalogue, and the account's own tracks."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def catalog(self, *, mood: str | None = None, tempo: str | None = None, limit: int = 50) -> tuple[MusicTrack, ...]:
        """List tracks of the catalogue. Free; `GET /music/catalog`.

        Examples:
            >>> tracks = client.music.catalog(mood="upbeat")
        """
        return call_endpoint(self._client, endpoints.list_music_catalog(mood=mood, tempo=tempo, limit=limit))

    def list_custom(self) -> tuple[MusicTrack, ...]:
        """List the account's own tracks, newest first. Free; `GET /music/custom`.

        Examples:
            >>> mine = client.music.list_custom()
        """
        return call_endpoint(self._client, endpoints.list_custom_music())

    def upload(
        self, track: str | os.PathLike[str] | bytes | BinaryIO, *, title: str, filename: str | None = None
    ) -> MusicTrack:
        """Add a track of your own. Free; `POST /music/custom`.

        Args:
            track: A path, the bytes, or an open binary file: MP3, WAV, OGG, AAC or M4A, at most 20 MB.
            title: Its title.
            filename: Its name, for bytes and files without one.

        Raises:
            InvalidRequestError: It is empty, too large or no such sound; nothing was sent.

        Examples:
            >>> track = client.music.upload(b"ID3" + bytes(100), title="Jingle", filename="jingle.mp3")
        """
        upload = read_upload(track, filename=filename, limits=MUSIC)
        return call_endpoint(
            self._client,
            endpoints.create_custom_music(
                title=title, name=upload.name, content=upload.content, content_type=upload.content_type
            ),
        )

    def delete(self, music_id: str) -> None:
        """Remove one of the account's own tracks. Free; `DELETE /music/custom/{music_id}`.

        Examples:
            >>> client.music.delete(track.music_id)
        """
        call_endpoint(self._client, endpoints.delete_custom_music(music_id))


class Models:
    """`client.models`: the models that the account can use."""

    def __init__(self, client: UGenClient) -> None:
        self._client = client

    def list(self) -> tuple[Model, ...]:
        """List the models on offer. Free; `GET /models`.

        Examples:
            >>> ids = [model.model_id for model in client.models.list()]
        """
        return call_endpoint(self._client, endpoints.list_models())

    def get(self, model_id: str) -> Model:
        """Read one model. Free; `GET /models/{model_id}`.

        Raises:
            NotFoundError: No such model.

        Examples:
            >>> model = client.models.get("kling3_std")
        """
        return call_endpoint(self._client, endpoints.get_model(model_id))


def _template(name: str, config: Mapping[str, Any], description: str | None, is_default: bool) -> dict[str, Any]:
    """Return the JSON of a template."""
    stored = {("output_aspect_ratio" if key == "aspect_ratio" else key): value for key, value in config.items()}
    body: dict[str, Any] = {"name": name, "config": stored, "is_default": is_default}
    if description is not None:
        body["description"] = description
    return body


class RequestExecutor:
    """Calls endpoints under one retry policy, with one pause after a 429 for everything that it sends.

    Args:
        transport: Sends one request; also its clock. All contact with the outside passes through it.
        config: How often and when requests are sent again, and the assumptions about the service.
        pause: The pause after a 429; default a new one.
    """

    def __init__(self, transport: Transport, config: ClientConfig, *, pause: RateLimitPause | None = None) -> None:
        self.transport = transport
        self.pause = pause or RateLimitPause()
        self.use(config)

    def use(self, config: ClientConfig) -> None:
        """Use other settings from the next request on."""
        self.policy = config.retries
        self.profile = config.profile
        self.settings = EndpointSettings.of(config)

    def with_config(self, config: ClientConfig) -> RequestExecutor:
        """Return an executor with other settings over the same connections and the same pause."""
        return RequestExecutor(self.transport, config, pause=self.pause)

    def call(self, endpoint: Endpoint[_T], *, wait_when_limited: bool = True, retry: bool = True) -> _T:
        """Send an endpoint's request until it is answered for good, and parse the answer.

        Args:
            endpoint: The endpoint.
            wait_when_limited: Whether to wait after a 429, within the policy; otherwise it is raised at once, for a
                caller that can wait more cheaply.
            retry: Whether to send again after an error, within the policy; otherwise there is one attempt.

        Raises:
            UGenError: One of the tree in `errors`.
        """
        request = self._paged(endpoint.request)
        with call_span(request) as span:
            response, unclear = self._send(request, span, wait_when_limited=wait_when_limited, retry=retry)
        return read_response(response, endpoint, after_unclear=unclear, profile=self.profile)

    def answer(self, request: Request) -> Response:
        """Send a request until it is answered for good, and return the answer unparsed.

        Raises:
            UGenError: One of the tree in `errors`.
        """
        request = self._paged(request)
        with call_span(request) as span:
            response, _ = self._send(request, span, wait_when_limited=True, retry=True)
        return response

    def _paged(self, request: Request) -> Request:
        """Return the request of a list in the service's own parameters."""
        params = self.profile.paged(request.params) if request.params else request.params
        return request if params is request.params else replace(request, params=params)

    def _send(self, request: Request, span: CallSpan, *, wait_when_limited: bool, retry: bool) -> tuple[Response, bool]:
        """Return the answer, and whether an earlier attempt of this call may have taken effect."""
        transport, policy = self.transport, self.policy
        # Before the first attempt: an answer to another order is known by its key only if that key was remembered.
        if (key := request.idempotency_key) is not None:
            remember_key(key)
        began = now = transport.tick()
        attempt = fruitless = 0
        reported = False
        unclear = False
        while True:
            pause = self.pause.remaining(now=now)
            if pause > 0:
                transport.sleep(min(pause, policy.retry_after_cap))
            attempt += 1
            span.sent(attempt=attempt)
            failure: Failure
            try:
                response = transport.send(request, settings=self.settings)
            except TransportError as error:
                failure = error
            else:
                span.answered(response.status)
                if 200 <= response.status < 300:
                    unreadable = passing_error(response, request) if retry else None
                    if unreadable is None:
                        return response, unclear
                    failure = unreadable
                else:
                    failure = error_of(response, request, now=transport.now(), profile=self.profile)
            # A refusal of this attempt says nothing of an earlier one whose answer was lost.
            failure.after_unclear = unclear
            unclear = may_have_bought(failure)
            now = transport.tick()
            fruitless = fruitless + 1 if is_fruitless(failure) else 0
            delay = policy.delay(failure, request=request, attempt=attempt, fruitless=fruitless) if retry else None
            if isinstance(failure, RateLimitError):
                attempt = max(1, attempt - 1)  # it uses no attempt, and the backoff is that of the next one
                seconds = min(failure.retry_after or delay or policy.base, policy.retry_after_cap)
                self.pause.start(now=now, seconds=seconds)
                if not wait_when_limited:
                    raise complete_error(failure, request)
            if delay is None or now - began + delay > policy.total:
                raise complete_error(failure, request)
            if not reported and now - began > REPORTED_AFTER:
                reported = True
                _log.warning("%s; it is repeated until %g s have passed", failure, policy.total)
            transport.sleep(delay)
            now = transport.tick()
