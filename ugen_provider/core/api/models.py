# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as models. Requests are strict, answers are read tolerantly.

An answer keeps fields that this version does not know (`model_extra`), and an optional field of a surprising type
reads as None rather than hiding a job that was paid for.
"""

import warnings as python_warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from ugen_provider.core.api import rules
from ugen_provider.core.api.errors import InvalidRequestError
from ugen_provider.core.api.pagination import objects
from ugen_provider.core.api.profile import JobState as JobState  # noqa: PLC0414  part of the answers' interface
from ugen_provider.core.api.profile import state_of as state_of  # noqa: PLC0414

if TYPE_CHECKING:
    from pendulum import DateTime


# Field types that never refuse: a value that cannot be read is None, so that one odd field hides no paid result.


def lenient(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Return what pydantic reads, or None where it would refuse."""
    if value is None:
        return None
    try:
        return read(value)
    except ValidationError:
        return None


def _plain_utc(text: str) -> datetime | None:
    """Read the common form of a time; pendulum, which reads more forms, takes fourteen times as long."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo is UTC else None


def _timestamp(value: Any) -> Any:
    import pendulum

    try:
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, int | float):
            return pendulum.from_timestamp(value / 1000 if abs(value) > 1e11 else value)
        if isinstance(value, str):
            if (plain := _plain_utc(value)) is not None:
                return pendulum.DateTime(*plain.timetuple()[:6], plain.microsecond, tzinfo=pendulum.UTC)
            parsed = pendulum.parse(value, tz="UTC")
            return parsed.in_timezone("UTC") if isinstance(parsed, pendulum.DateTime) else None
    except (ValueError, OverflowError, OSError):
        return None
    return value if isinstance(value, pendulum.DateTime) else None


def text_of(value: Any) -> Any:
    """Return a number as text, since an id may be a number; everything else unchanged."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str | None, WrapValidator(lenient)]
Whole = Annotated[int | None, WrapValidator(lenient)]
Number = Annotated[float | None, WrapValidator(lenient)]
Flag = Annotated[bool | None, WrapValidator(lenient)]
Anything = Annotated[dict[str, Any] | None, WrapValidator(lenient)]
Id = Annotated[str, BeforeValidator(text_of)]
if TYPE_CHECKING:
    Timestamp = DateTime | None
else:
    Timestamp = Annotated[Any, BeforeValidator(_timestamp)]


@dataclass(frozen=True, slots=True)
class ResponseMetadata:
    """What a successful answer says beside its body. Empty for an entry of a list, and for what no request read.

    Attributes:
        status: The HTTP status; 0 where there was no answer.
        request_id: The id that the service gave the request, to quote to U-Gen's support; None where it gave none.
        rate_limits: The headers about the rate limit by name in lower case, such as `x-ratelimit-remaining`.
    """

    status: int = 0
    request_id: str | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict)


class Answer(BaseModel):
    """The base of all answers: unknown fields are kept in `model_extra`."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, defer_build=True)

    @cached_property
    def response_metadata(self) -> ResponseMetadata:
        """The request id and the rate limits of the answer that this was read from; empty for an entry of a list."""
        return ResponseMetadata()

    def _keep_metadata(self, status: int, request_id: str | None, headers: Mapping[str, str]) -> None:
        """Keep what the answer said beside its body, where a cached property keeps its value: it is never compared."""
        limits = {name: value for name, value in headers.items() if "ratelimit" in name or "rate-limit" in name}
        vars(self)["response_metadata"] = ResponseMetadata(status, request_id, limits)


class Keyframe(Answer):
    """One keyframe picture of a job. `qai_score` is 0 to 1, None where the service has not said."""

    keyframe_id: Text = Field(None, validation_alias=AliasChoices("keyframe_id", "id"))
    index: Whole = None
    status: Text = None
    image_url: Text = Field(None, validation_alias=AliasChoices("image_url", "url"))
    qai_score: Number = Field(None, validation_alias=AliasChoices("qai_score", "score"))
    attempts: Whole = None
    fail_category: Text = None


class Segment(Answer):
    """One video segment of a job. `duration` is in seconds."""

    segment_id: Text = Field(None, validation_alias=AliasChoices("segment_id", "video_id", "id"))
    index: Whole = None
    status: Text = None
    video_url: Text = Field(None, validation_alias=AliasChoices("video_url", "url"))
    qai_score: Number = Field(None, validation_alias=AliasChoices("qai_score", "score"))
    duration: Number = None
    attempts: Whole = None
    fail_category: Text = None


class Job(Answer):
    """A job as the service last described it.

    Attributes:
        job_id: The id, read from `job_id` or `id`; opaque.
        status: The service's own word; `state` says what it means.
        current_stage: One of `rules.STAGES`, or a word that this version does not know.
        progress_percent: 0 to 100, for display only; it may go back after a retry.
        credits_consumed: Credits settled, once the job has ended.
        may_lack_video: Whether the service profile says that a completed job may have no final video.
    """

    job_id: Id = Field(validation_alias=AliasChoices("job_id", "id"))
    status: str = "unknown"
    current_stage: Text = None
    progress_percent: Number = None
    product_name: Text = None
    video_model: Text = None
    segments: Annotated[tuple[Segment, ...], BeforeValidator(objects)] = ()
    keyframes: Annotated[tuple[Keyframe, ...], BeforeValidator(objects)] = ()
    final_video_url: Text = None
    thumbnail_url: Text = None
    credits_reserved: Whole = None
    credits_consumed: Whole = None
    error_message: Text = None
    error_code: Text = None
    idempotency_key: Text = None
    stop_at_stage: Text = None
    created_at: Timestamp = None
    updated_at: Timestamp = None
    completed_at: Timestamp = None
    may_lack_video: bool = False

    @property
    def state(self) -> JobState:
        """Return what the status means."""
        return state_of(self.status)

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.state.ended


@dataclass(frozen=True, slots=True)
class JobScan:
    """The account's jobs as one reading of `GET /jobs` found them.

    Attributes:
        jobs: The jobs, each once, in the order of the list.
        complete: Whether the end of the list is proven, so that a job that is missing here was not in the list.
        repeated: Whether an id was on two pages: the list changed while it was read.
        found: The job that ended the scan early; the list was then not read to its end.
        pages: How many pages were read.
        why: Why the list is not proven to be complete; empty where it is.
    """

    jobs: tuple[Job, ...]
    complete: bool
    repeated: bool
    found: Job | None = None
    pages: int = 0
    why: str = ""


class Suggestion(Answer):
    """What `suggest-fields` proposes. A script, or selling points with a call to action; sending both is pointless."""

    key_selling_points: Annotated[tuple[str, ...] | None, WrapValidator(lenient)] = None
    cta_text: Text = None
    environment_description: Text = None
    custom_script: Text = None


class Balance(Answer):
    """Credits of the account: `available_credits` = `credit_balance` less `credit_reserved`."""

    credit_balance: int
    credit_reserved: int = 0
    available_credits: int


class Transaction(Answer):
    """One movement of credits: reserve and consume are negative, the others positive."""

    transaction_id: Text = Field(None, validation_alias=AliasChoices("transaction_id", "id"))
    type: str
    amount: int
    balance_before: Whole = None
    balance_after: Whole = None
    job_id: Text = None
    description: Text = None
    created_at: Timestamp = None


class Estimate(Answer):
    """Estimated cost of a job, in credits."""

    total_credits: int = Field(validation_alias=AliasChoices("total_credits", "total", "estimated_credits"))
    breakdown: Anything = None


class WebhookSettings(Answer):
    """The account's webhook; the service never shows the secret."""

    webhook_configured: bool = False
    webhook_url: Text = None


class UploadedImage(Answer):
    """A picture that the service keeps; `url` is what `product_image_url` takes."""

    url: str


class Template(Answer):
    """A saved set of job fields."""

    template_id: Id = Field(validation_alias=AliasChoices("template_id", "id"))
    name: Text = None
    description: Text = None
    config: dict[str, Any] = Field(default_factory=dict)
    is_default: Flag = None
    use_count: Whole = None
    updated_at: Timestamp = None

    def expand(self, *, product_name: str, product_image_url: str, segment_count: int | None = None) -> "CreateJob":
        """Return a request from this template: the service takes no template id, so the client fills it in.

        Args:
            product_name: What the video is about.
            product_image_url: Address of the picture.
            segment_count: Segments; else the template's.

        Raises:
            InvalidRequestError: The template has no segment_count, or breaks a rule.
        """
        fields = {
            ("aspect_ratio" if name == "output_aspect_ratio" else name): value for name, value in self.config.items()
        }
        given = {"product_name": product_name, "product_image_url": product_image_url, "segment_count": segment_count}
        fields.update({name: value for name, value in given.items() if value is not None})
        return CreateJob.model_validate({name: value for name, value in fields.items() if value is not None})


class MusicTrack(Answer):
    """A track of the catalogue, or one of the account's own."""

    music_id: Id = Field(validation_alias=AliasChoices("music_id", "track_id", "id"))
    title: Text = None
    url: Text = None
    mood: Text = None
    tempo: Text = None
    energy_level: Annotated[str | None, BeforeValidator(text_of), WrapValidator(lenient)] = None
    bpm: Number = None
    has_vocals: Flag = None
    artist: Text = None
    tags: Annotated[tuple[str, ...] | None, WrapValidator(lenient)] = None


class Model(Answer):
    """A video or image model on offer."""

    model_config = ConfigDict(
        extra="allow", frozen=True, populate_by_name=True, defer_build=True, protected_namespaces=()
    )

    model_id: Id = Field(validation_alias=AliasChoices("model_id", "id"))
    name: Text = None
    status: Text = None
    default_variant: Text = None
    capabilities: Anything = None


class RequestIgnoredWarning(UserWarning):
    """The service will silently ignore part of the request."""


VideoModel = Literal["veo3_fast", "veo3", "kling3_std", "kling3_pro", "kling3_4k"]
AspectRatio = Literal["9:16", "16:9", "1:1"]
QAIMode = Literal["lenient", "standard", "strict"]
Stage = Literal["prepare", "agents", "init", "generation", "concat", "audio", "captions", "complete"]


class JobFields(TypedDict, total=False):
    """The fields of `CreateJob` as keywords; every other word is accepted as well, since the service may know more."""

    product_name: str
    product_image_url: str
    segment_count: int
    video_model: VideoModel | str | None
    video_resolution: str | None
    aspect_ratio: AspectRatio | str | None
    segment_duration: int | None
    interaction_mode: str | None
    environment_description: str | None
    key_selling_points: Sequence[str] | None
    cta_text: str | None
    custom_script: str | None
    script_structure: str | None
    script_tone: str | None
    persona_id: str | None
    captions_enabled: bool | None
    caption_style: str | None
    custom_caption_options: dict[str, Any] | None
    music_enabled: bool | None
    music_mood: str | None
    music_volume: float | None
    custom_music_id: str | None
    elevenlabs_voice_id: str | None
    voice_settings: dict[str, Any] | None
    qai_enabled: bool | None
    qai_mode: QAIMode | str | None
    max_retries_keyframe: int | None
    max_retries_video: int | None
    human_review: str | None
    human_review_max_rejections: int | None
    human_review_budget: str | None
    failure_behavior: str | None
    stop_at_stage: Stage | str | None
    webhook_url: str | None


def request_of(job: "CreateJob | Mapping[str, Any] | None", fields: Mapping[str, Any]) -> "CreateJob":
    """Return the request from a `CreateJob`, a mapping, keywords, or several of them; keywords come last.

    Raises:
        InvalidRequestError: A documented rule is broken.
    """
    if isinstance(job, CreateJob):
        return CreateJob(**{**job.body(), **fields}) if fields else job
    return CreateJob.model_validate({**(job or {}), **fields})


class CreateJob(BaseModel):
    """A request for one video: all 35 fields of `POST /jobs`. Only what was set is sent.

    What a job costs is said by `client.credits.estimate`; credits are reserved when the job is created.

    Args:
        product_name: What the video is about.
        product_image_url: http(s) address of the picture; the service must be able to fetch it.
        segment_count: Segments, 1 to 10.
        video_model: The model; Veo makes segments of 8 s, Kling of 3 to 10 s and, alone, 1:1.
        video_resolution: `standard`, or another word of the service.
        aspect_ratio: `9:16`, `16:9` or, by Kling, `1:1`.
        segment_duration: Seconds per segment.
        interaction_mode: What is done with the product: `holdable`, `display_static`.
        environment_description: Where the scene is.
        key_selling_points: What the script says of the product.
        cta_text: What the script asks for in the end.
        custom_script: The words themselves; `script_structure`, `script_tone`, `key_selling_points` and `cta_text` are
            ignored beside it.
        script_structure: How a script is built.
        script_tone: How it sounds: `conversational`, `enthusiastic`.
        persona_id: Who speaks; a random persona where not given.
        captions_enabled: Whether there are captions.
        caption_style: Style of the captions.
        custom_caption_options: Detailed style of the captions; the service charges for it.
        music_enabled: Whether there is music.
        music_mood: Which music: `upbeat`.
        music_volume: 0 to 1.
        custom_music_id: A track of your own, from `client.music.upload`.
        elevenlabs_voice_id: Another voice than the persona's.
        voice_settings: How that voice speaks.
        qai_enabled: Whether the service judges its keyframes and segments.
        qai_mode: From which score on they pass: `lenient` 0.55, `standard` 0.70, `strict` 0.80.
        max_retries_keyframe: Repeats of a keyframe that fails its check, 0 to 5.
        max_retries_video: Repeats of a segment that fails its check, 0 to 5.
        human_review: Review by people; `off` where not given.
        human_review_max_rejections: How often a review may refuse.
        human_review_budget: What is done once that is used up: `accept_best`.
        failure_behavior: What happens where no repeat passed: `accept_best`.
        stop_at_stage: Stage after which the job pauses.
        webhook_url: Receives the events of this job, instead of the account's webhook.
        idempotency_key: The key under which the service knows this order; normally left to `core.jobs`.

    Raises:
        InvalidRequestError: A documented rule is broken; it names each field and rule.

    Examples:
        >>> job = CreateJob(product_name="Lamp", product_image_url="https://shop.example/lamp.jpg", segment_count=2)
        >>> job.body()["segment_count"]
        2
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    product_name: str
    product_image_url: str
    segment_count: int
    video_model: VideoModel | str | None = None
    video_resolution: str | None = None
    aspect_ratio: AspectRatio | str | None = None
    segment_duration: int | None = None
    interaction_mode: str | None = None
    environment_description: str | None = None
    key_selling_points: tuple[str, ...] | None = None
    cta_text: str | None = None
    custom_script: str | None = None
    script_structure: str | None = None
    script_tone: str | None = None
    persona_id: str | None = None
    captions_enabled: bool | None = None
    caption_style: str | None = None
    custom_caption_options: dict[str, Any] | None = None
    music_enabled: bool | None = None
    music_mood: str | None = None
    music_volume: float | None = None
    custom_music_id: str | None = None
    elevenlabs_voice_id: str | None = None
    voice_settings: dict[str, Any] | None = None
    qai_enabled: bool | None = None
    qai_mode: QAIMode | str | None = None
    max_retries_keyframe: int | None = None
    max_retries_video: int | None = None
    human_review: str | None = None
    human_review_max_rejections: int | None = None
    human_review_budget: str | None = None
    failure_behavior: str | None = None
    stop_at_stage: Stage | str | None = None
    webhook_url: str | None = None
    idempotency_key: str | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, read: ValidatorFunctionWrapHandler) -> Self:
        fields = data if isinstance(data, Mapping) else getattr(data, "__dict__", {})
        violations = rules.check(fields)
        if violations:
            raise InvalidRequestError(violations)
        for warning in rules.warnings(fields):
            python_warnings.warn(warning, RequestIgnoredWarning, stacklevel=4)
        made: Self = read(data)
        return made

    def body(self) -> dict[str, Any]:
        """Return the JSON that is sent: the fields that were set, in the order of the table."""
        return self.model_dump(mode="json", exclude_none=True)

    def with_model(self, video_model: str | None) -> "CreateJob":
        """Return this request with the account's model where the request names none.

        Raises:
            InvalidRequestError: The request breaks a rule of that model.
        """
        if self.video_model is None and video_model is not None:
            return CreateJob(**{**self.body(), "video_model": video_model})
        violations = rules.check(self.body(), model=self.video_model or rules.DEFAULT_VIDEO_MODEL)
        if violations:
            raise InvalidRequestError(violations)
        return self
