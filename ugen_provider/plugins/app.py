# SPDX-License-Identifier: Apache-2.0
"""What the plugin answers to: the page of a job, its data, the way to its video, and the webhook endpoint.

Pages are open to whoever may see task instances of the DAG. They read through the connection, in this process; the
key never leaves it. No `annotations` from the future here: FastAPI reads them.
"""

import logging
from pathlib import Path
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ugen_provider.core.api.errors import ConfigError, UGenError, WebhookError
from ugen_provider.core.api.rules import is_http_url
from ugen_provider.core.jobs.webhooks import MOST_BYTES
from ugen_provider.plugins.database import Place
from ugen_provider.plugins.jobs import NotOurs, describe_job
from ugen_provider.plugins.webhook import NobodyListens, receive

_log = logging.getLogger("ugen_provider.plugins")
_PAGE = Path(__file__).with_name("job.html")
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src * data:; media-src *; "
    "connect-src 'self'; frame-ancestors 'self'"
)

may_see = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
app = FastAPI(title="U-Gen", docs_url=None, redoc_url=None, openapi_url=None)


def place_of(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> Place:
    """The task instance that a request names; Airflow leaves its placeholder for an unmapped one."""
    try:
        index = int(map_index)
    except ValueError:
        index = -1
    return Place(dag_id, run_id, task_id, index)


@app.get("/job", dependencies=[may_see])
def job_page(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> HTMLResponse:  # noqa: ARG001
    """The page; it asks for its data itself."""
    return HTMLResponse(_PAGE.read_text("utf-8"), headers={"Content-Security-Policy": _POLICY})


@app.get("/job.json", dependencies=[may_see])
def job_data(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> JSONResponse:
    """What the page shows: stage, progress, looks with scores, videos, credits."""
    place = place_of(dag_id, run_id, task_id, map_index)
    try:
        shown = describe_job(place)
    except NotOurs as error:
        return JSONResponse({"message": str(error)}, status_code=404)
    except UGenError as error:
        return JSONResponse({"message": str(error)}, status_code=502)
    return JSONResponse(shown, headers={"Cache-Control": "no-store"})


@app.get("/video", dependencies=[may_see])
def video(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> Response:
    """To the finished video, by a link that is asked for now."""
    place = place_of(dag_id, run_id, task_id, map_index)
    try:
        url = describe_job(place)["final_video_url"]
    except NotOurs as error:
        raise HTTPException(404, str(error)) from None
    except UGenError as error:
        raise HTTPException(502, str(error)) from None
    if not url or not is_http_url(url):
        raise HTTPException(404, "There is no finished video yet.")
    return RedirectResponse(url, headers={"Cache-Control": "no-store"})


@app.post("/webhook/{ugen_conn_id}")
async def webhook(ugen_conn_id: str, request: Request) -> JSONResponse:
    """A delivery of U-Gen's. No login: the signature says whose it is."""
    body = await _small_body(request)
    if body is None:
        return _answer(413, "a delivery is not that large")
    headers = list(request.headers.items())
    try:
        told = await run_in_threadpool(receive, ugen_conn_id, body, headers)
    except WebhookError as error:
        _log.warning("a delivery for %r was refused: %s", ugen_conn_id, type(error).__name__)
        return _answer(401, "the signature or the time of this delivery is wrong")
    except ConfigError as error:
        # Who has no business here is not told which connections there are; whoever runs Airflow is.
        _log.warning("a delivery for %r was refused: %s", ugen_conn_id, error)
        return _answer(401, "the signature or the time of this delivery is wrong")
    except NobodyListens as error:
        return _answer(202, str(error))
    except UGenError as error:
        _log.warning("a delivery could not be made sure of: %s", error)
        return _answer(503, "the job could not be read; deliver it again")
    return _answer(200, told)


async def _small_body(request: Request) -> bytes | None:
    """The raw body; None where it is larger than any delivery, of which no more is read: anybody may call."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _answer(status: int, message: str) -> JSONResponse:
    content: dict[str, Any] = {"message": message}
    return JSONResponse(content, status_code=status)
