# SPDX-License-Identifier: Apache-2.0
"""The plugin's routes: the page of a job, its data, the redirect to its video, and the webhook endpoint.

Pages are open to users who may see task instances of the DAG. They read through the connection of the task's operator,
in this process; the key never leaves it. No `annotations` from the future here: FastAPI reads them.
"""

from pathlib import Path
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ugen_provider.core.api.errors import UGenError
from ugen_provider.core.api.rules import is_http_url
from ugen_provider.core.text import get_logger
from ugen_provider.plugins.gates import PAGE, PAGE_POLICY, NoJobError, describe_job, review_data
from ugen_provider.plugins.webhook import WebhookEndpoint
from ugen_provider.triggers.cancellation import Place
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS

_log = get_logger("ugen_provider.plugins")
_PAGE = Path(__file__).with_name("job.html")
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src * data:; media-src *; "
    "connect-src 'self'; frame-ancestors 'self'"
)

_UNREADABLE = "The job could not be read; the API server's log says why."

may_see = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
endpoint = WebhookEndpoint()
app = FastAPI(title="U-Gen", docs_url=None, redoc_url=None, openapi_url=None)


def place_of(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> Place:
    """Return the task instance that a request names; for an unmapped one Airflow leaves its placeholder."""
    try:
        index = int(map_index)
    except ValueError:
        index = -1
    return Place(dag_id, run_id, task_id, index)


@app.get("/job", dependencies=[may_see])
def job_page(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> HTMLResponse:  # noqa: ARG001
    """Return the page, which fetches its data itself."""
    return HTMLResponse(_PAGE.read_text("utf-8"), headers={"Content-Security-Policy": _POLICY})


@app.get("/job.json", dependencies=[may_see])
def job_data(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> JSONResponse:
    """Return the data of the page: stage, progress, keyframes with scores, videos, credits."""
    place = place_of(dag_id, run_id, task_id, map_index)
    try:
        shown = describe_job(place)
    except NoJobError as error:
        return JSONResponse({"message": str(error)}, status_code=404)
    except UGenError as error:
        _log.warning("the job of %s could not be read: %s", place, error)
        return JSONResponse({"message": _UNREADABLE}, status_code=502)
    return JSONResponse(shown, headers={"Cache-Control": "no-store"})


@app.get("/review")
def review_page(user: GetUserDep) -> HTMLResponse:  # noqa: ARG001  a login is needed
    """Return the review board, which fetches its gates itself."""
    return HTMLResponse(PAGE.read_text("utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})


@app.get("/review.json")
def review_gates(user: GetUserDep) -> JSONResponse:
    """Return the open gates that the user may see, with the requests that answer those that the user may answer."""
    from airflow.utils.session import create_session

    from ugen_provider.plugins.gates import list_open_gates

    manager = get_auth_manager()

    def is_authorized(method: Any, entity: DagAccessEntity, dag_id: str) -> bool:
        team = getattr(DagModel, "get_team_name", None)
        details = {"id": dag_id} if team is None else {"id": dag_id, "team_name": team(dag_id)}
        return manager.is_authorized_dag(method=method, access_entity=entity, details=DagDetails(**details), user=user)

    def may_see_dag(dag_id: str) -> bool:
        return all(
            is_authorized("GET", entity, dag_id)
            for entity in (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.HITL_DETAIL)
        )

    def may_answer(dag_id: str, users: frozenset[str]) -> bool:
        if not is_authorized("PUT", DagAccessEntity.HITL_DETAIL, dag_id):
            return False
        return not users or manager.is_authorized_hitl_task(assigned_users=set(users), user=user)

    if not AIRFLOW_3_1_PLUS:  # there are no gates
        return JSONResponse(review_data([]))
    with create_session() as session:
        gates = list_open_gates(session=session, may_see=may_see_dag, may_answer=may_answer)
    return JSONResponse(review_data(gates), headers={"Cache-Control": "no-store"})


@app.get("/video", dependencies=[may_see])
def video(dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> Response:
    """Redirect to the finished video, by a link that is requested now."""
    place = place_of(dag_id, run_id, task_id, map_index)
    try:
        url = describe_job(place)["final_video_url"]
    except NoJobError as error:
        raise HTTPException(404, str(error)) from None
    except UGenError as error:
        _log.warning("the job of %s could not be read: %s", place, error)
        raise HTTPException(502, _UNREADABLE) from None
    if not url or not is_http_url(url):
        raise HTTPException(404, "There is no finished video yet.")
    return RedirectResponse(url, headers={"Cache-Control": "no-store"})


@app.post("/webhook/{ugen_conn_id}")
async def webhook(ugen_conn_id: str, request: Request) -> JSONResponse:
    """Receive a delivery of U-Gen. It needs no login: the signature proves its sender."""
    status, message = await endpoint.answer(ugen_conn_id, request)
    return JSONResponse({"message": message}, status_code=status)
