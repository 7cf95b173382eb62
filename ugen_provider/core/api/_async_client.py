# SPDX-License-Identifier: Apache-2.0
"""The async client. `_sync_client.py` is made from this file by `scripts/unasync.py`; change this one only.

It is long and stays one file: a third of it is code, a line or two per endpoint over `operations`, and the rest is what
the reference says of 28 endpoints. A file for each group would be eight, with as many twins, and a new endpoint would
have to find its own.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from ugen_provider.core.api import operations, polling
from ugen_provider.core.api._transport import AsyncDriver, AsyncHTTPClient, Target
from ugen_provider.core.api.clock import Clock, SystemClock
from ugen_provider.core.api.config import ClientConfig, resolve
from ugen_provider.core.api.diagnosis import Diagnosis, diagnose
from ugen_provider.core.api.effects import Flow, Now
from ugen_provider.core.api.errors import JobCancelledError, JobFailedError, JobPausedError
from ugen_provider.core.api.flows import Caller, Operation
from ugen_provider.core.api.pages import Page
from ugen_provider.core.api.retries import CoolDown, RetryPolicy
from ugen_provider.core.api.secrets import Secret
from ugen_provider.core.api.uploads import MUSIC, PRODUCT_IMAGE, read_upload

if TYPE_CHECKING:
    import os

    from ugen_provider.core.api.models import (
        Balance,
        CreateJob,
        Estimate,
        Job,
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

_T = TypeVar("_T")


class AsyncUGenClient:
    """The U-Gen API, awaited.

    Args:
        api_key: The key; else the environment variable `UGEN_API_KEY`. It is never shown.
        base_url: Address of the API; else `UGEN_BASE_URL`, else the real service.
        timeout: Seconds for one attempt of one request.
        retries: A `RetryPolicy`, or how often to repeat a request beside the first attempt.
        video_model: The model of requests that name none; None leaves it to the service.
        namespace: Keeps the orders of two environments apart that share one account.
        spending: `allow`, `attach_only` (wait for what exists, buy nothing) or `off`; else `UGEN_SPENDING`.
        allow_insecure: Whether the key may travel over plain http to another machine.
        http_client: An httpx client of your own, for proxies, certificates or tests. You close it.
        clock: The clock to live by, for tests.
        config: Checked settings, instead of all the above but `http_client` and `clock`.

    Raises:
        ConfigError: The key is missing, or a setting is out of the question.

    Examples:
        >>> client = AsyncUGenClient(api_key="ugen_sk_local", base_url="http://127.0.0.1:8000/api/v1")
        >>> client
        AsyncUGenClient(base_url='http://127.0.0.1:8000/api/v1')
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
        http_client: AsyncHTTPClient | None = None,
        clock: Clock | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        self.config = config or resolve(
            api_key=api_key,
            base_url=base_url,
            timeout=timeout,
            retries=retries,
            video_model=video_model,
            namespace=namespace,
            spending=spending,
            allow_insecure=allow_insecure,
        )
        self.caller = Caller(policy=self.config.retries, cool_down=CoolDown())
        self.clock: Clock = clock or SystemClock()
        self._driver = AsyncDriver(_target(self.config), http_client=http_client, clock=self.clock)
        self.jobs = AsyncJobs(self)
        self.credits = AsyncCredits(self)
        self.webhook = AsyncWebhook(self)
        self.uploads = AsyncUploads(self)
        self.templates = AsyncTemplates(self)
        self.music = AsyncMusic(self)
        self.models = AsyncModels(self)

    async def run(self, flow: Flow[_T]) -> _T:
        """Drive a flow of `core.api` or `core.jobs` with this client's connections and clock."""
        return await self._driver.run(flow)

    async def call(self, operation: Operation[_T]) -> _T:
        """Call one endpoint under this client's retry policy."""
        return await self._driver.run(self.caller.call(operation))

    async def diagnose(self) -> Diagnosis:
        """Which assumptions about the service hold for this account, and what that means. Free; reads only.

        Examples:
            >>> (await client.diagnose())["key"].holds
            True
        """
        return await self._driver.run(diagnose(self.caller))

    def use(self, config: ClientConfig) -> None:
        """Use other settings from the next request on, as when a key was rotated; connections are kept."""
        self.config = config
        self._driver.retarget(_target(config))

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client is your own."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.config.base_url!r})"


def _target(config: ClientConfig) -> Target:
    return Target(config.base_url, config.api_key, config.user_agent, config.timeout)


async def _each(
    client: AsyncUGenClient,
    page_of: Callable[[int], Operation[Page]],
    read: Callable[[Mapping[str, Any]], _T],
    id_of: Callable[[_T], str | None],
) -> AsyncIterator[_T]:
    """All items of all pages. Pages shift while they are read, so an id that was given already is passed over."""
    seen: set[str] = set()
    number = 1
    while True:
        page = await client.call(page_of(number))
        fresh = 0
        for item in map(read, page.items):
            item_id = id_of(item)
            if item_id is None or item_id not in seen:
                if item_id is not None:
                    seen.add(item_id)
                fresh += 1
                yield item
        if not page.more or not fresh:
            return
        number += 1


class AsyncJobs:
    """`client.jobs`: the Jobs API."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def create(self, job: CreateJob, *, idempotency_key: str | None = None) -> Job:
        """Create a job. Reserves its credits; `POST /jobs`.

        An idempotency key is always sent, the same one with every attempt, so that a lost answer buys nothing twice.
        For an order that outlives this process use `ugen_provider.buy`, which keeps the key.

        Args:
            job: What to make.
            idempotency_key: Your own key; else the request's, else a new UUID.

        Returns:
            The job, or the earlier one of the same key.

        Raises:
            InvalidRequestError: A documented rule is broken; nothing was sent.
            InsufficientCreditsError: The account has too few credits.
            RateLimitError: The account's limit of jobs is reached.
            ConflictError: The key belongs to another request.

        Examples:
            >>> lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
            >>> job = await client.jobs.create(lamp)
        """
        body = job.with_model(self._client.config.video_model).body()
        body["idempotency_key"] = idempotency_key or job.idempotency_key or str(uuid.uuid4())
        return await self._client.call(operations.create_job(body))

    async def suggest_fields(
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
            >>> idea = await client.jobs.suggest_fields(
            ...     product_name="Lamp", product_image_url="https://shop.example/l.jpg"
            ... )
        """
        return await self._client.call(
            operations.suggest_fields(
                product_name=product_name,
                product_image_url=product_image_url,
                persona_id=persona_id,
                interaction_mode=interaction_mode,
                segment_count=segment_count,
            )
        )

    async def get(self, job_id: str) -> Job:
        """One job. Free; `GET /jobs/{jobId}`.

        Raises:
            NotFoundError: No such job in this account.

        Examples:
            >>> job = await client.jobs.get(job.job_id)
        """
        return await self._client.call(operations.get_job(job_id))

    def list(self, *, status: str | None = None) -> AsyncIterator[Job]:
        """All jobs, over all pages. Free; `GET /jobs`.

        Args:
            status: Only jobs of this status, in the service's words.

        Examples:
            >>> names = [job.product_name async for job in client.jobs.list(status="completed")]
        """
        return _each(
            self._client,
            lambda page: operations.list_jobs(status=status, page=page),
            operations.read_listed_job,
            lambda job: job.job_id,
        )

    async def wait(
        self,
        job_id: str,
        *,
        interval: float = polling.DEFAULT_INTERVAL,
        timeout: float | None = None,
        target_stage: str | None = None,
    ) -> Job:
        """Wait until a job completes, or reaches a stage. Free; one `GET /jobs/{jobId}` per interval.

        Args:
            job_id: The job.
            interval: Seconds between looks; the service asks for 5 to 10.
            timeout: Seconds after which to give up; the job is left as it is. None waits as long as it takes.
            target_stage: Also done when this stage is reached.

        Raises:
            JobFailedError: It failed.
            JobCancelledError: It was cancelled.
            JobPausedError: It is paused.
            JobTimeoutError: The time is up.

        Examples:
            >>> job = await client.jobs.wait(job.job_id, timeout=3600)
        """
        goal = polling.Goal(stage=target_stage)
        outcome = await self._client.run(_wait(self._client.caller, job_id, goal, interval, timeout))
        return _completed(outcome)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job that has not ended; its reservation is released. `DELETE /jobs/{jobId}`, then a read.

        Raises:
            ConflictError: The job has ended, or the service does not cancel it in its state.

        Examples:
            >>> job = await client.jobs.cancel(job.job_id)
        """
        await self._client.call(operations.cancel_job(job_id))
        return await self.get(job_id)

    async def pause(self, job_id: str) -> Job:
        """Ask a job to pause after its current stage. Free; `POST /jobs/{jobId}/pause`, then a read.

        Raises:
            ConflictError: The job is not processing.

        Examples:
            >>> job = await client.jobs.pause(job.job_id)
        """
        await self._client.call(operations.pause_job(job_id))
        return await self.get(job_id)

    async def resume(self, job_id: str) -> Job:
        """Let a paused job go on. `POST /jobs/{jobId}/resume`, then a read.

        Raises:
            ConflictError: The job is not paused.

        Examples:
            >>> job = await client.jobs.resume(job.job_id)
        """
        await self._client.call(operations.resume_job(job_id))
        return await self.get(job_id)

    async def retry(self, job_id: str, *, restart_from_stage: str | None = None) -> Job:
        """Run an ended job again from a stage. Reserves credits again; `POST /jobs/{jobId}/retry`, then a read.

        Never repeated by itself: after a lost answer, look at the job and its transactions first.

        Args:
            job_id: The job.
            restart_from_stage: First stage to run again; None starts where it failed.

        Raises:
            InvalidRequestError: No such stage.
            InsufficientCreditsError: The account has too few credits.

        Examples:
            >>> job = await client.jobs.retry(job.job_id, restart_from_stage="generation")
        """
        await self._client.call(operations.retry_job(job_id, restart_from_stage=restart_from_stage))
        return await self.get(job_id)

    async def list_keyframes(self, job_id: str) -> tuple[Keyframe, ...]:
        """The keyframe pictures of a job with their scores. Free; `GET /jobs/{jobId}/keyframes`.

        Examples:
            >>> scores = [frame.qai_score for frame in await client.jobs.list_keyframes(job.job_id)]
        """
        return await self._client.call(operations.list_keyframes(job_id))

    async def list_videos(self, job_id: str) -> tuple[Segment, ...]:
        """The video segments of a job. Free; `GET /jobs/{jobId}/videos`.

        Examples:
            >>> urls = [segment.video_url for segment in await client.jobs.list_videos(job.job_id)]
        """
        return await self._client.call(operations.list_videos(job_id))


def _wait(
    caller: Caller, job_id: str, goal: polling.Goal, interval: float, timeout: float | None
) -> Flow[polling.Outcome]:
    deadline = None if timeout is None else (yield Now()) + timeout
    return (yield from polling.wait(caller, job_id, goal=goal, interval=interval, deadline=deadline))


def _completed(outcome: polling.Outcome) -> Job:
    job = outcome.job
    if outcome.reason is polling.Reason.PAUSED:
        raise JobPausedError(f"job {job.job_id} is paused; resume it to go on", job_id=job.job_id, job=job)
    if job.state.value == "failed":
        why = job.error_message or "the service gave no reason"
        raise JobFailedError(f"job {job.job_id} failed: {why}", job_id=job.job_id, job=job)
    if job.state.value == "cancelled":
        raise JobCancelledError(f"job {job.job_id} was cancelled", job_id=job.job_id, job=job)
    return job


class AsyncCredits:
    """`client.credits`: what the account has, and what things cost."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def balance(self) -> Balance:
        """Credits of the account. Free; `GET /credits/balance`.

        Examples:
            >>> (await client.credits.balance()).available_credits > 0
            True
        """
        return await self._client.call(operations.get_balance())

    def transactions(self, *, job_id: str | None = None) -> AsyncIterator[Transaction]:
        """All movements of credits, over all pages. Free; `GET /credits/transactions`.

        Args:
            job_id: Only those of this job.

        Examples:
            >>> reserved = [t.amount async for t in client.credits.transactions() if t.type == "reserve"]
        """
        return _each(
            self._client,
            lambda page: operations.list_transactions(job_id=job_id, page=page),
            operations.read_transaction,
            lambda row: row.transaction_id,
        )

    async def estimate(self, job: CreateJob) -> Estimate:
        """What a job would cost. Free; `POST /credits/estimate`.

        Examples:
            >>> lamp = CreateJob(product_name="Lamp", product_image_url="https://shop.example/l.jpg", segment_count=1)
            >>> credits = (await client.credits.estimate(lamp)).total_credits
        """
        return await self._client.call(operations.estimate(job.with_model(self._client.config.video_model).body()))


class AsyncWebhook:
    """`client.webhook`: the account's one webhook."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def get(self) -> WebhookSettings:
        """Whether a webhook is configured. Free; `GET /tenants/me/webhook`.

        Examples:
            >>> (await client.webhook.get()).webhook_configured
            False
        """
        return await self._client.call(operations.get_webhook())

    async def set(self, *, webhook_url: str, webhook_secret: str | None = None) -> WebhookSettings:
        """Replace the webhook. Free; `PUT /tenants/me/webhook`.

        Args:
            webhook_url: https address that is called when a job completes or fails.
            webhook_secret: Signs deliveries; without one they are unsigned, and `core.jobs.webhooks` refuses them.

        Examples:
            >>> _ = await client.webhook.set(webhook_url="https://shop.example/hook", webhook_secret="s" * 64)
        """
        return await self._client.call(operations.set_webhook(webhook_url=webhook_url, webhook_secret=webhook_secret))

    async def delete(self) -> None:
        """Remove the webhook and its secret. Free; `DELETE /tenants/me/webhook`.

        Examples:
            >>> await client.webhook.delete()
        """
        await self._client.call(operations.delete_webhook())


class AsyncUploads:
    """`client.uploads`: pictures that the service could not reach otherwise."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def create_product_image(
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
            >>> url = (await client.uploads.create_product_image(picture, filename="lamp.png")).url
        """
        upload = read_upload(image, filename=filename, limits=PRODUCT_IMAGE)
        return await self._client.call(
            operations.create_product_image(name=upload.name, content=upload.content, content_type=upload.content_type)
        )


class AsyncTemplates:
    """`client.templates`: saved sets of job fields."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def list(self, *, limit: int = 50) -> tuple[Template, ...]:
        """The account's templates, the default first. Free; `GET /templates`.

        Examples:
            >>> names = [template.name for template in await client.templates.list()]
        """
        return await self._client.call(operations.list_templates(limit=limit))

    async def create(
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
            >>> template = await client.templates.create(name="Tall", config={"aspect_ratio": "9:16"})
        """
        return await self._client.call(operations.create_template(_template(name, config, description, is_default)))

    async def update(
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
            >>> template = await client.templates.update(template.template_id, name="Wide", config={})
        """
        body = _template(name, config, description, is_default)
        return await self._client.call(operations.update_template(template_id, body))


class AsyncMusic:
    """`client.music`: the catalogue, and the account's own tracks."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def catalog(
        self, *, mood: str | None = None, tempo: str | None = None, limit: int = 50
    ) -> tuple[MusicTrack, ...]:
        """Tracks of the catalogue. Free; `GET /music/catalog`.

        Examples:
            >>> tracks = await client.music.catalog(mood="upbeat")
        """
        return await self._client.call(operations.list_music_catalog(mood=mood, tempo=tempo, limit=limit))

    async def list_custom(self) -> tuple[MusicTrack, ...]:
        """The account's own tracks, newest first. Free; `GET /music/custom`.

        Examples:
            >>> mine = await client.music.list_custom()
        """
        return await self._client.call(operations.list_custom_music())

    async def upload(
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
            >>> track = await client.music.upload(b"ID3" + bytes(100), title="Jingle", filename="jingle.mp3")
        """
        upload = read_upload(track, filename=filename, limits=MUSIC)
        return await self._client.call(
            operations.create_custom_music(
                title=title, name=upload.name, content=upload.content, content_type=upload.content_type
            )
        )

    async def delete(self, music_id: str) -> None:
        """Remove one of the account's own tracks. Free; `DELETE /music/custom/{music_id}`.

        Examples:
            >>> await client.music.delete(track.music_id)
        """
        await self._client.call(operations.delete_custom_music(music_id))


class AsyncModels:
    """`client.models`: what the account may generate with."""

    def __init__(self, client: AsyncUGenClient) -> None:
        self._client = client

    async def list(self) -> tuple[Model, ...]:
        """Models on offer. Free; `GET /models`.

        Examples:
            >>> ids = [model.model_id for model in await client.models.list()]
        """
        return await self._client.call(operations.list_models())

    async def get(self, model_id: str) -> Model:
        """One model. Free; `GET /models/{model_id}`.

        Raises:
            NotFoundError: No such model.

        Examples:
            >>> model = await client.models.get("kling3_std")
        """
        return await self._client.call(operations.get_model(model_id))


def _template(name: str, config: Mapping[str, Any], description: str | None, is_default: bool) -> dict[str, Any]:
    """The JSON of a template."""
    stored = {("output_aspect_ratio" if key == "aspect_ratio" else key): value for key, value in config.items()}
    body: dict[str, Any] = {"name": name, "config": stored, "is_default": is_default}
    if description is not None:
        body["description"] = description
    return body
