# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, built from the bodies and schemas that the API itself uses.

`python -m ugen_provider.emulator.api.openapi` prints it; what is checked in beside this module is what is served.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.bodies import CreateJobBody
from ugen_provider.emulator.world.spec import STAGES

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
    properties = CreateJobBody.model_json_schema()["properties"]
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
        "JobBrief": _object({**_BRIEF, **echoed}, description="A job as an entry of a list."),
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


_BODIES = (
    bodies.CreateJobBody,
    bodies.SuggestFields,
    bodies.EstimateBody,
    bodies.RetryJob,
    bodies.WebhookBody,
    bodies.TemplateBody,
    bodies.TemplateChange,
    bodies.TryModel,
)
_QUERY: dict[str, Schema] = {
    "page": {"type": "integer", "minimum": 1, "default": 1},
    "page_size": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
    "status": {"type": "string"},
    "job_id": {"type": "string"},
    "mood": {"type": "string"},
    "tempo": {"type": "string"},
}
_PAGED = ("page", "page_size")
_FORM = "file"
_TITLED = "file+title"

# Operation: (summary, body, query, success status, success schema, further errors).
_OPERATIONS: dict[str, tuple[str, str | None, tuple[str, ...], int, Schema | None, tuple[int, ...]]] = {
    "POST /jobs": ("Order a job", "CreateJob", (), 201, ref("Job"), (402, 409, 422, 429)),
    "GET /jobs": ("List jobs", None, ("status", *_PAGED), 200, page("JobBrief"), (422,)),
    "POST /jobs/suggest-fields": ("Suggest fields; free", "SuggestFields", (), 200, ref("Suggestions"), (422,)),
    "GET /jobs/{jobId}": ("Read a job", None, (), 200, ref("Job"), ()),
    "DELETE /jobs/{jobId}": ("Cancel a job", None, (), 200, ref("Job"), (409,)),
    "POST /jobs/{jobId}/pause": ("Pause after the current stage", None, (), 200, ref("Job"), (409,)),
    "POST /jobs/{jobId}/resume": ("Resume", None, (), 200, ref("Job"), (409,)),
    "POST /jobs/{jobId}/retry": ("Retry from a stage", "RetryJob?", (), 200, ref("Job"), (402, 409, 422, 429)),
    "GET /jobs/{jobId}/keyframes": ("List keyframes", None, (), 200, array("Keyframe"), ()),
    "GET /jobs/{jobId}/videos": ("List segments", None, (), 200, array("Segment"), ()),
    "GET /credits/balance": ("Read the balance", None, (), 200, ref("Balance"), ()),
    "GET /credits/transactions": (
        "List transactions",
        None,
        ("job_id", *_PAGED),
        200,
        page("Transaction"),
        (422,),
    ),
    "POST /credits/estimate": ("Estimate a job; free", "Estimate", (), 200, ref("Quote"), (422,)),
    "GET /tenants/me": ("Read the account", None, (), 200, ref("Tenant"), ()),
    "GET /tenants/me/webhook": ("Read the webhook", None, (), 200, ref("WebhookState"), ()),
    "PUT /tenants/me/webhook": ("Set the webhook", "Webhook", (), 200, ref("WebhookState"), (422,)),
    "DELETE /tenants/me/webhook": ("Clear the webhook", None, (), 204, None, ()),
    "POST /tenants/me/avatar": ("Upload the avatar", _FORM, (), 201, ref("Uploaded"), (400, 422)),
    "POST /tenants/me/brand-kit/logo": ("Upload the logo", _FORM, (), 201, ref("Uploaded"), (400, 422)),
    "POST /uploads/product-image": ("Upload a picture", _FORM, (), 201, ref("Uploaded"), (400, 422)),
    "GET /templates": ("List templates", None, ("limit",), 200, array("SavedTemplate"), (422,)),
    "POST /templates": ("Save a template", "Template", (), 201, ref("SavedTemplate"), (409, 422)),
    "PUT /templates/{templateId}": ("Change a template", "TemplateChange", (), 200, ref("SavedTemplate"), (422,)),
    "PATCH /templates/{templateId}": ("Change a template", "TemplateChange", (), 200, ref("SavedTemplate"), (422,)),
    "DELETE /templates/{templateId}": ("Delete a template", None, (), 204, None, ()),
    "GET /music/catalog": ("List music", None, ("mood", "tempo", "limit"), 200, array("CatalogTrack"), (422,)),
    "GET /music/custom": ("List own music", None, (), 200, array("Track"), ()),
    "POST /music/custom": ("Upload music", _TITLED, (), 201, ref("Track"), (400, 422)),
    "DELETE /music/custom/{musicId}": ("Delete own music", None, (), 204, None, (403,)),
    "GET /models": ("List models", None, (), 200, array("Model"), ()),
    "GET /models/{modelId}": ("Read a model", None, (), 200, ref("Model"), ()),
    "POST /models/{modelId}/try": ("Try a model", "TryModel?", (), 202, ref("Task"), (422,)),
    "GET /models/tasks/{taskId}": ("Read a try", None, (), 200, ref("Task"), ()),
}
_EVERYWHERE = (401, 404, 405, 413)
_MEANING = {
    400: "The file is empty or of another kind",
    401: "No valid key or token",
    402: "Not enough credits",
    403: "Not allowed",
    404: "There is no such thing, or it belongs to another account",
    405: "Another method is needed",
    409: "The state does not allow it",
    413: "The body is too large",
    422: "A field breaks a rule",
    429: "A limit of the account is reached",
}


def build() -> dict[str, Any]:
    """Return the OpenAPI document of the emulator."""
    schemas = components()
    for model in _BODIES:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("description", None)
        schemas[model.__name__.removesuffix("Body")] = schema
    paths: dict[str, dict[str, Any]] = {}
    for operation, (summary, body, query, status, answer, errors) in _OPERATIONS.items():
        method, _, path = operation.partition(" ")
        paths.setdefault(f"/api/v1{path}", {})[method.lower()] = {
            "summary": summary,
            "operationId": f"{method.lower()}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "parameters": _parameters(path, query),
            **({"requestBody": _request(body)} if body else {}),
            "responses": _responses(status, answer, errors),
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "U-Gen emulator",
            "version": "1",
            "description": "The U-Gen API as the emulator speaks it under its default readings. "
            "Shapes that the service's documentation leaves open are assumptions.",
        },
        "servers": [{"url": "/"}],
        "security": [{"ApiKey": []}, {"Bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "Bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _parameters(path: str, query: tuple[str, ...]) -> list[dict[str, Any]]:
    named = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in named
        ),
        *({"name": name, "in": "query", "required": False, "schema": _QUERY[name]} for name in query),
    ]


def _request(body: str) -> dict[str, Any]:
    if body in (_FORM, _TITLED):
        properties: Schema = {"file": {"type": "string", "format": "binary"}}
        if body == _TITLED:
            properties["title"] = {"type": "string", "minLength": 1}
        schema: Schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    content = {"application/json": {"schema": ref(body.removesuffix("?"))}}
    return {"required": not body.endswith("?"), "content": content}


def _responses(status: int, answer: Schema | None, errors: tuple[int, ...]) -> dict[str, Any]:
    responses: dict[str, Any] = {str(status): {"description": "Done"}}
    if answer is not None:
        responses[str(status)]["content"] = {"application/json": {"schema": answer}}
    if status == 201 and answer == ref("Job"):
        responses["200"] = {**responses["201"], "description": "The job that this idempotency_key ordered before"}
    for code in sorted({*_EVERYWHERE, *errors}):
        schema = ref("ValidationError" if code == 422 else "Error")
        responses[str(code)] = {
            "description": _MEANING[code],
            "content": {"application/json": {"schema": schema}},
        }
    return responses


def text() -> str:
    """Return the document in its checked-in form."""
    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


@cache
def served() -> bytes:
    """Return the document in its served form."""
    return files("ugen_provider.emulator.api").joinpath("openapi.json").read_bytes()


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201 - this is its output
