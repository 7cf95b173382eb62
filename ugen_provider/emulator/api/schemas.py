# SPDX-License-Identifier: Apache-2.0
"""The shapes of answers, as JSON Schema, under the default readings."""

from typing import Any

from ugen_provider.emulator.api.bodies import CreateJob
from ugen_provider.emulator.world.stages import STAGES

Schema = dict[str, Any]


def _object(properties: dict[str, Schema], *, optional: tuple[str, ...] = (), description: str = "") -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(name: str) -> Schema:
    """Return a bare array of a schema."""
    return {"type": "array", "items": ref(name)}


def page(name: str) -> Schema:
    """Return the envelope of a page."""
    return _object({"items": array(name), "total": COUNT, "page": COUNT, "page_size": COUNT, "total_pages": COUNT})


def _maybe(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
URL: Schema = {"type": "string", "format": "uri"}
SCORE: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
FREE: Schema = {"type": "object", "additionalProperties": True}
UUID: Schema = {"type": "string", "format": "uuid"}
STATUS: Schema = {
    "type": "string",
    "enum": ["pending", "processing", "paused", "completed", "failed", "cancelled"],
    "description": "Only `completed` is documented as a literal; treat an unknown one as not ended.",
}
ITEM_STATUS: Schema = {"type": "string", "enum": ["pending", "processing", "approved", "completed", "failed"]}

_BRIEF: dict[str, Schema] = {
    "job_id": UUID,
    "status": STATUS,
    "current_stage": {"type": "string", "enum": list(STAGES)},
    "final_video_url": _maybe(URL),
    "thumbnail_url": _maybe(URL),
    "error_message": _maybe(TEXT),
    "credits_reserved": COUNT,
    "credits_consumed": COUNT,
    "created_at": TIME,
    "updated_at": TIME,
    "completed_at": _maybe(TIME),
    "idempotency_key": TEXT,
}
_FULL: dict[str, Schema] = {
    "progress_percent": {"type": "integer", "minimum": 0, "maximum": 100},
    "segments": array("Segment"),
}
_ITEM: dict[str, Schema] = {
    "index": COUNT,
    "status": ITEM_STATUS,
    "qai_score": SCORE,
    "attempts": COUNT,
    "fail_category": _maybe(TEXT),
}


def _echoed() -> dict[str, Schema]:
    """Return the parameters of a job as the job shows them."""
    properties = CreateJob.model_json_schema()["properties"]
    return {
        name: {key: value for key, value in schema.items() if key in ("type", "anyOf", "items")}
        for name, schema in properties.items()
        if name != "idempotency_key"
    }


def components() -> dict[str, Schema]:
    """Return the schemas of every answer by name."""
    echoed = _echoed()
    return {
        "Job": _object({**_BRIEF, **_FULL, **echoed}),
        "JobBrief": _object({**_BRIEF, **echoed}, description="A job as it stands in a list."),
        "Keyframe": _object({"keyframe_id": UUID, "image_url": _maybe(URL), **_ITEM}),
        "Segment": _object({"segment_id": UUID, "video_url": _maybe(URL), "duration": COUNT, **_ITEM}),
        "Suggestions": _object(
            {
                "key_selling_points": {"type": "array", "items": TEXT},
                "cta_text": TEXT,
                "environment_description": TEXT,
                "custom_script": TEXT,
            }
        ),
        "Balance": _object({"credit_balance": NUMBER, "credit_reserved": COUNT, "available_credits": NUMBER}),
        "Transaction": _object(
            {
                "id": UUID,
                "type": {"enum": ["purchase", "reserve", "consume", "release", "refund", "bonus"]},
                "amount": NUMBER,
                "job_id": _maybe(UUID),
                "description": TEXT,
                "balance_before": NUMBER,
                "balance_after": NUMBER,
                "created_at": TIME,
            }
        ),
        "Quote": _object({"total_credits": COUNT, "breakdown": {"type": "object", "additionalProperties": COUNT}}),
        "WebhookState": _object({"webhook_configured": FLAG, "webhook_url": _maybe(URL)}),
        "Tenant": _object(
            {"name": TEXT, "avatar_url": _maybe(URL), "logo_url": _maybe(URL), "webhook_configured": FLAG}
        ),
        "Uploaded": _object({"url": URL}),
        "SavedTemplate": _object(
            {
                "id": UUID,
                "name": TEXT,
                "description": _maybe(TEXT),
                "config": FREE,
                "is_default": FLAG,
                "use_count": COUNT,
                "created_at": TIME,
                "updated_at": TIME,
            }
        ),
        "CatalogTrack": _object(
            {
                "id": UUID,
                "title": TEXT,
                "artist": TEXT,
                "mood": TEXT,
                "tempo": TEXT,
                "energy_level": TEXT,
                "bpm": COUNT,
                "has_vocals": FLAG,
                "tags": {"type": "array", "items": TEXT},
                "url": _maybe(URL),
            }
        ),
        "Track": _object({"id": UUID, "title": TEXT, "url": URL, "is_active": FLAG, "created_at": TIME}),
        "Model": _object(
            {
                "id": TEXT,
                "name": TEXT,
                "family": TEXT,
                "status": TEXT,
                "default_variant": TEXT,
                "available_for_jobs": FLAG,
                "capabilities": FREE,
            }
        ),
        "Task": _object({"task_id": UUID, "model_id": TEXT, "status": TEXT}, optional=("model_id",)),
        "Error": _object(
            {"error": _object({"code": TEXT, "message": TEXT, "details": FREE}, optional=("details",))},
            description="An application error. `INSUFFICIENT_CREDITS` is the only code that is documented.",
        ),
        "ValidationError": _object(
            {
                "detail": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "properties": {
                            "type": TEXT,
                            "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                            "msg": TEXT,
                        },
                        "required": ["type", "loc", "msg"],
                    },
                }
            }
        ),
    }
