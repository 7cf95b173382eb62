# SPDX-License-Identifier: Apache-2.0
"""Request bodies, with the rules that the documentation states."""

from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError, from_json

from ugen_provider.emulator.world.errors import Invalid
from ugen_provider.emulator.world.pipeline import REVIEWED
from ugen_provider.emulator.world.readings import Readings
from ugen_provider.emulator.world.spec import JOB_MODELS, KLING_MODELS, STAGES, VEO_MODELS

_URL_MOST = 4_096


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in value
    except ValueError:
        good = False
    if not good:
        raise PydanticCustomError("url_parsing", "Input should be a valid http or https URL")
    return value


def _stage(value: str) -> str:
    if value not in STAGES:
        raise PydanticCustomError("enum", "Input should be a stage: {stages}", {"stages": ", ".join(STAGES)})
    return value


Url = Annotated[
    str, Field(max_length=_URL_MOST), AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})
]
Stage = Annotated[str, AfterValidator(_stage), WithJsonSchema({"type": "string", "enum": list(STAGES)})]
Name = Annotated[str, Field(min_length=1, max_length=1_000)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
Mapping = dict[str, Any]


class Body(BaseModel):
    """A request body. Undocumented fields are ignored, unless the readings refuse them."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class CreateJobBody(Body):
    """Body of a request to `POST /jobs`."""

    product_name: Name
    product_image_url: Url
    segment_count: Annotated[int, Field(ge=1, le=10)]
    video_model: Word = "veo3_fast"
    video_resolution: Word = "standard"
    aspect_ratio: Literal["9:16", "16:9", "1:1"] = "9:16"
    segment_duration: Annotated[int, Field(ge=1, le=60)] = 8
    interaction_mode: Word = "holdable"
    environment_description: Text | None = None
    key_selling_points: Annotated[list[Text], Field(max_length=50)] | None = None
    cta_text: Text | None = None
    custom_script: Text | None = None
    script_structure: Word = "standard_5phase"
    script_tone: Word = "conversational"
    persona_id: Word | None = None
    captions_enabled: bool = True
    caption_style: Word = "tiktok_karaoke"
    custom_caption_options: Mapping | None = None
    music_enabled: bool = True
    music_mood: Word | None = None
    music_volume: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.15
    custom_music_id: Word | None = None
    elevenlabs_voice_id: Word | None = None
    voice_settings: Mapping | None = None
    qai_enabled: bool = True
    qai_mode: Literal["lenient", "standard", "strict"] = "lenient"
    max_retries_keyframe: Annotated[int, Field(ge=0, le=5)] = 1
    max_retries_video: Annotated[int, Field(ge=0, le=5)] = 0
    human_review: Annotated[Word, WithJsonSchema({"type": "string", "enum": ["off"]})] = "off"
    human_review_max_rejections: Annotated[int, Field(ge=0, le=100)] = 0
    human_review_budget: Word = "accept_best"
    failure_behavior: Literal["accept_best", "fail"] = "accept_best"
    stop_at_stage: Stage | None = None
    webhook_url: Url | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None

    @field_validator("video_model")
    @classmethod
    def _known_model(cls, value: str, info: ValidationInfo) -> str:
        models = KLING_MODELS if _readings(info).models == "kling_only" else JOB_MODELS
        if value not in models:
            raise PydanticCustomError("enum", "Input should be {models}", {"models": ", ".join(sorted(models))})
        return value

    @field_validator("human_review")
    @classmethod
    def _known_review(cls, value: str, info: ValidationInfo) -> str:
        modes = ("off",) if _readings(info).human_review == "off" else ("off", *REVIEWED)
        if value not in modes:
            raise PydanticCustomError("enum", "Input should be {modes}", {"modes": ", ".join(modes)})
        return value

    @field_validator("human_review_budget")
    @classmethod
    def _known_budget(cls, value: str, info: ValidationInfo) -> str:
        budgets = ("accept_best", "fail")
        if _readings(info).human_review != "off" and value not in budgets:
            raise PydanticCustomError("enum", "Input should be {budgets}", {"budgets": ", ".join(budgets)})
        return value

    @field_validator("aspect_ratio")
    @classmethod
    def _square_is_kling(cls, value: str, info: ValidationInfo) -> str:
        if value == "1:1" and info.data.get("video_model") in VEO_MODELS:
            raise PydanticCustomError("aspect_ratio", "Aspect ratio 1:1 is only supported by Kling models")
        return value

    @field_validator("segment_duration")
    @classmethod
    def _duration_fits_model(cls, value: int, info: ValidationInfo) -> int:
        model = info.data.get("video_model")
        if model in VEO_MODELS and value != 8:
            raise PydanticCustomError("segment_duration", "Veo models fix segment_duration at 8 seconds")
        if model in KLING_MODELS and not 3 <= value <= 10:
            raise PydanticCustomError("segment_duration", "Kling models allow a segment_duration of 3 to 10 seconds")
        return value


class EstimateBody(CreateJobBody):
    """`POST /credits/estimate`: the fields of a job; the product may be left out, it has no price."""

    product_name: Name = "-"
    product_image_url: Url = "https://example.com/"


class SuggestFields(Body):
    """Body of a request to `POST /jobs/suggest-fields`."""

    product_name: Name
    product_image_url: Url
    persona_id: Word | None = None
    interaction_mode: Word | None = None
    segment_count: Annotated[int, Field(ge=1, le=10)] | None = None


class RetryJob(Body):
    """Body of a request to `POST /jobs/{jobId}/retry`."""

    restart_from_stage: Stage | None = None


class WebhookBody(Body):
    """Body of a request to `PUT /tenants/me/webhook`."""

    webhook_url: Url
    webhook_secret: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None


class TemplateBody(Body):
    """Body of a request to `POST /templates`."""

    name: Name
    description: Text | None = None
    config: Mapping
    is_default: bool = False


class TemplateChange(Body):
    """Body of a request to `PUT /templates/{id}`."""

    name: Name | None = None
    description: Text | None = None
    config: Mapping | None = None
    is_default: bool | None = None


class TryModel(Body):
    """Body of a request to `POST /models/{id}/try`."""

    prompt: Text | None = None


B = TypeVar("B", bound=Body)


def parse_json(body: bytes) -> Any:
    """Parse the JSON body of a request.

    Raises:
        Invalid: It is empty or no JSON.
    """
    if not body.strip():
        raise Invalid.one("missing", ("body",), "Field required", None)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Invalid(
            [
                {
                    "type": "json_invalid",
                    "loc": ["body", 0],
                    "msg": "JSON decode error",
                    "input": {},
                    "ctx": {"error": str(error)},
                }
            ]
        ) from None


def parse(model: type[B], data: Any, readings: Readings) -> B:
    """Check a body against its model.

    Raises:
        Invalid: With every rule that it breaks.
    """
    if readings.models == "kling_only" and issubclass(model, CreateJobBody) and isinstance(data, dict):
        # A service without Veo cannot default to it.
        data = {"video_model": "kling3_std", **data}
    if readings.out_of_range == "coerce" and issubclass(model, CreateJobBody) and isinstance(data, dict):
        data = _coerced(data)
    if readings.unknown_fields == "refuse" and isinstance(data, dict):
        unknown = [name for name in data if name not in model.model_fields]
        if unknown:
            raise Invalid(
                [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", name],
                        "msg": "Extra inputs are not permitted",
                        "input": data[name],
                    }
                    for name in unknown
                ]
            )
    try:
        return model.model_validate(data, context=readings)
    except ValidationError as error:
        raise Invalid(
            [
                {**problem, "loc": ["body", *problem["loc"]]}
                for problem in error.errors(include_url=False, include_context=False)
            ]
        ) from None


def _coerced(data: dict[str, Any]) -> dict[str, Any]:
    """Set right what a lenient service would, instead of refusing it."""
    data = dict(data)
    for name, least, most in (
        ("segment_count", 1, 10),
        ("max_retries_keyframe", 0, 5),
        ("max_retries_video", 0, 5),
        ("music_volume", 0, 1),
    ):
        if isinstance(data.get(name), int | float):
            data[name] = min(most, max(least, data[name]))
    if data.get("video_model", "veo3_fast") in VEO_MODELS:
        data["segment_duration"] = 8
        if data.get("aspect_ratio") == "1:1":
            data["aspect_ratio"] = "9:16"
    elif isinstance(data.get("segment_duration"), int):
        data["segment_duration"] = min(10, max(3, data["segment_duration"]))
    return data


def _readings(info: ValidationInfo) -> Readings:
    return info.context if isinstance(info.context, Readings) else Readings()
