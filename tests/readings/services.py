# SPDX-License-Identifier: Apache-2.0
"""Second readings: small services in the manner of other vendors' public documentation, each over a real socket.

They were written from those pages and not from the emulator. Each keeps its own account of what it sold, which is the
oracle of the tests. A job moves on each time that it is read.
"""

import base64
import io
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ACTIVE_READS = 2
"""Answers about a job before it is done."""


@cache
def video() -> bytes:
    """A small MP4, whole to its last box."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())
    return out.getvalue()


@dataclass
class Sold:
    """One job that was sold."""

    id: str
    key: str
    body: dict[str, Any]
    number: int
    created: float = field(default_factory=time.time)
    reads: int = 0
    cancelled: bool = False

    @property
    def phase(self) -> int:
        """0 queued, 1 running, 2 done, 3 cancelled."""
        if self.cancelled:
            return 3
        return 2 if self.reads > ACTIVE_READS else min(1, self.reads)


class Service:
    """What all readings share: keys, jobs, a balance. Each reading overrides how it shows them."""

    words = ("queued", "processing", "completed", "cancelled")
    honours_page_size = 20

    def __init__(self) -> None:
        self.jobs: dict[str, Sold] = {}
        self.lock = threading.Lock()
        self.faults: list[Callable[[str, str], str | None]] = []
        self.base = ""

    # What a reading overrides.

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def link(self, job: Sold) -> str:
        return f"{self.base}/files/{job.id}.mp4"

    def job(self, job: Sold) -> Any:
        raise NotImplementedError

    def created(self, job: Sold) -> Any:
        return self.job(job)

    def row(self, job: Sold) -> Any:
        return self.job(job)

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        number, size = int(query.get("page", 1)), min(int(query.get("page_size", 20)), self.honours_page_size)
        part = rows[(number - 1) * size : number * size]
        return {"items": part, "total": len(rows), "page": number, "page_size": size}

    def balance(self) -> Any:
        return {"available_credits": 1000}

    def transactions(self, query: dict[str, str]) -> Any:
        rows = [{"id": f"t{job.number}", "type": "reserve", "amount": -10, "job_id": job.id} for job in self.all()]
        return self.page(rows, query)

    def estimate(self) -> Any:
        return {"total_credits": 10}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"error": {"code": code, "message": message}}

    def headers(self, answer: Any) -> dict[str, str]:
        return {}

    conflict_status = 409
    missing_status = 404

    # The service.

    def all(self) -> list[Sold]:
        return sorted(self.jobs.values(), key=lambda job: -job.number)

    def word(self, job: Sold) -> str:
        return self.words[job.phase]

    def find(self, job_id: str) -> Sold | None:
        return self.jobs.get(job_id)

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        parts = path.strip("/").split("/")[2:]
        match (method, parts):
            case ("POST", ["jobs"]):
                return self._create(body)
            case ("GET", ["jobs"]):
                rows = [job for job in self.all() if query.get("status") in (None, self.word(job))]
                return 200, self.page([self.row(job) for job in rows], query)
            case (_, ["jobs", job_id, *rest]):
                job = self.find(job_id)
                if job is None:
                    return self.missing_status, self.error(self.missing_status, "not_found", "No such job")
                if method == "DELETE":
                    job.cancelled = True
                elif rest in (["keyframes"], ["videos"]):
                    return 200, []
                job.reads += 1
                return 200, self.job(job)
            case ("GET", ["credits", "balance"]):
                return 200, self.balance()
            case ("GET", ["credits", "transactions"]):
                return 200, self.transactions(query)
            case ("POST", ["credits", "estimate"]):
                return 200, self.estimate()
            case ("GET", ["models"]):
                return 200, [{"id": "veo3_fast"}]
        return 404, self.error(404, "not_found", "No such endpoint")

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        key = body.get("idempotency_key", "")
        fields = {name: value for name, value in body.items() if name != "idempotency_key"}
        for job in self.jobs.values():
            if job.key == key:
                if job.body != fields:
                    message = (
                        "Keys for idempotent requests can only be used with the parameters they were first used with"
                    )
                    return self.conflict_status, self.error(self.conflict_status, "idempotency_error", message)
                return 200, self.created(job)
        job = Sold(self.new_id(), key, fields, len(self.jobs))
        self.jobs[job.id] = job
        return 200, self.created(job)


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class HeyGen(Service):
    """`{"code": 100, "data": {...}, "message": "Success"}`; the create answers with `video_id` alone."""

    words = ("pending", "processing", "completed", "failed")

    def _wrapped(self, data: Any) -> Any:
        return {"code": 100, "data": data, "message": "Success"}

    def created(self, job: Sold) -> Any:
        return {"error": None, "data": {"video_id": job.id}}

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        data = {"id": job.id, "status": self.word(job), "created_at": int(job.created), "callback_id": job.key}
        link = self.link(job) if done else None
        return self._wrapped({**data, "video_url": link, "thumbnail_url": None, "duration": 8.1, "error": None})

    def row(self, job: Sold) -> Any:
        return {"video_id": job.id, "status": self.word(job), "created_at": int(job.created)}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        return self._wrapped({"videos": inner["items"], "total": inner["total"], "token": None})

    def balance(self) -> Any:
        return {"error": None, "data": {"remaining_quota": 600, "details": {"api": 600}}}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"code": 40000 + status, "data": None, "message": message}


class Runway(Service):
    """Capitals, `output` as a list, camel case, progress as a share."""

    words = ("PENDING", "RUNNING", "SUCCEEDED", "CANCELLED")

    def created(self, job: Sold) -> Any:
        return {"id": job.id}

    def job(self, job: Sold) -> Any:
        shown = {"id": job.id, "status": self.word(job), "createdAt": stamp(job.created)}
        if job.phase == 1:
            shown["progress"] = 0.4
        if job.phase == 2:
            shown["output"] = [f"{self.link(job)}?_jwt=abc"]
        return shown

    def balance(self) -> Any:
        return {"creditBalance": 12000, "tier": {"maxMonthlyCreditSpend": 1}}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"error": message, "docUrl": "https://docs.example/errors"}


class Replicate(Service):
    """`results` with `next` links, `starting` and `succeeded`, RFC 7807 errors."""

    words = ("starting", "processing", "succeeded", "canceled")

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        return {
            "id": job.id,
            "version": "v1",
            "urls": {"get": f"{self.base}/api/v1/jobs/{job.id}", "cancel": "https://x.example/cancel"},
            "created_at": stamp(job.created),
            "completed_at": stamp(time.time()) if done else None,
            "status": self.word(job),
            "input": job.body,
            "output": self.link(job) if done else None,
            "error": None,
            "logs": "Using seed: 7",
        }

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        begin = int(query.get("cursor", 0))
        more = begin + 2 < len(rows)
        link = f"{self.base}/api/v1/jobs?cursor={begin + 2}" if more else None
        return {"previous": None, "next": link, "results": rows[begin : begin + 2]}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"title": code, "detail": message, "status": status}


class Creatify(Service):
    """`video_output`, progress and credits as text, bare arrays, errors by field."""

    words = ("in_queue", "running", "done", "failed")

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        return {
            "id": job.id,
            "name": None,
            "status": self.word(job),
            "failed_reason": None,
            "video_output": self.link(job) if done else None,
            "video_thumbnail": None,
            "credits_used": "5.50",
            "progress": "1.0" if done else "0.5",
            "preview": f"{self.base}/preview/1",
        }

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        return super().page(rows, query)["items"]

    def balance(self) -> Any:
        return {"remaining_credits": "995.50"}

    def estimate(self) -> Any:
        return {"credits": "5.50"}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"non_field_errors": [message]}


class Shotstack(Service):
    """`{"success": true, "message": "OK", "response": {...}}`, with `url` for the video."""

    words = ("queued", "rendering", "done", "failed")

    def created(self, job: Sold) -> Any:
        return {"success": True, "message": "Created", "response": {"message": "Render Queued", "id": job.id}}

    def job(self, job: Sold) -> Any:
        shown = {"id": job.id, "owner": "5ca6hu7s9k", "plan": "basic", "status": self.word(job), "error": ""}
        if job.phase == 2:
            shown["url"] = self.link(job)
        return {"success": True, "message": "OK", "response": {**shown, "created": stamp(job.created)}}

    def row(self, job: Sold) -> Any:
        return self.job(job)["response"]

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        return {"success": True, "message": "OK", "response": {"data": inner["items"], "total": inner["total"]}}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"success": False, "message": "Error", "response": {"error": code, "message": message}}


class Stripe(Service):
    """`has_more` lists by `starting_after`, epoch times, 400 for a key that was used."""

    conflict_status = 400

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        return {
            "id": job.id,
            "object": "video_job",
            "created": int(job.created),
            "livemode": False,
            "status": self.word(job),
            "final_video_url": self.link(job) if done else None,
            "metadata": {},
        }

    def new_id(self) -> str:
        return f"vj_{uuid.uuid4().hex[:16]}"

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        number = int(query.get("page", 1))
        part = rows[(number - 1) * 2 : number * 2]
        return {"object": "list", "url": "/v1/jobs", "has_more": number * 2 < len(rows), "data": part}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"error": {"type": code, "message": message, "request_log_url": "https://x.example"}}


class Luma(Service):
    """`state`, with a word of its own while it works, and the video below `assets`."""

    words = ("queued", "dreaming", "completed", "failed")

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        assets = {"video": self.link(job), "image": None} if done else None
        return {"id": job.id, "state": self.word(job), "failure_reason": None, "assets": assets, "version": "v1.6"}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        more = inner["page"] * inner["page_size"] < inner["total"]
        return {"has_more": more, "count": len(inner["items"]), "generations": inner["items"]}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"detail": message}


class Kling(Service):
    """`task_id`, `task_status`, `succeed`, and videos below `task_result`; times in milliseconds."""

    words = ("submitted", "processing", "succeed", "failed")

    def row(self, job: Sold) -> Any:
        shown = {"task_id": job.id, "task_status": self.word(job), "created_at": int(job.created * 1000)}
        if job.phase == 2:
            shown["task_result"] = {"videos": [{"id": "v", "url": self.link(job), "duration": "5"}]}
        return shown

    def job(self, job: Sold) -> Any:
        return {"code": 0, "message": "SUCCEED", "request_id": "r1", "data": self.row(job)}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        return {"code": 0, "message": "SUCCEED", "request_id": "r2", "data": super().page(rows, query)["items"]}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"code": 1203, "message": message, "request_id": "r3"}


class DId(Service):
    """`created`, `started`, `done`, and `result_url`."""

    words = ("created", "started", "done", "rejected")

    def new_id(self) -> str:
        return f"tlk_{base64.urlsafe_b64encode(uuid.uuid4().bytes[:9]).decode()}"

    def job(self, job: Sold) -> Any:
        shown = {"id": job.id, "status": self.word(job), "created_at": stamp(job.created), "object": "talk"}
        return {**shown, "result_url": self.link(job)} if job.phase == 2 else shown

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        return {"talks": super().page(rows, query)["items"], "token": ""}

    def balance(self) -> Any:
        return {"credits": [{"owner_id": "o", "remaining": 180, "total": 200}], "remaining": 180, "total": 200}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"kind": code, "description": message}


class OpenAI(Service):
    """`in_progress`, a `progress` from 0 to 100, lists with `first_id` and `last_id`."""

    words = ("queued", "in_progress", "completed", "failed")

    def new_id(self) -> str:
        return f"video_{uuid.uuid4().hex}"

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        return {
            "id": job.id,
            "object": "video",
            "model": "sora-2",
            "status": self.word(job),
            "progress": 100 if done else 33,
            "created_at": int(job.created),
            "completed_at": int(time.time()) if done else None,
            "error": None,
            "download_url": self.link(job) if done else None,
        }

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        more = inner["page"] * inner["page_size"] < inner["total"]
        return {"object": "list", "data": inner["items"], "has_more": more, "first_id": None, "last_id": None}


class Synthesia(Service):
    """`complete`, `download`, camel case, `nextOffset`."""

    words = ("in_progress", "in_progress", "complete", "rejected")

    def job(self, job: Sold) -> Any:
        shown = {"id": job.id, "status": self.word(job), "createdAt": int(job.created), "visibility": "private"}
        return {**shown, "download": self.link(job), "duration": "0:00:17"} if job.phase == 2 else shown

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        return {"videos": super().page(rows, query)["items"]}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"error": message, "context": "jobs"}


class JsonApi(Service):
    """JSON:API: `attributes` beside the id, links for pages, errors as a list."""

    def row(self, job: Sold) -> Any:
        done = job.phase == 2
        attributes = {"status": self.word(job), "final-video-url": self.link(job) if done else None}
        return {"type": "jobs", "id": job.id, "attributes": {**attributes, "created-at": stamp(job.created)}}

    def job(self, job: Sold) -> Any:
        return {"data": self.row(job), "jsonapi": {"version": "1.1"}}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        return {"data": inner["items"], "meta": {"total": inner["total"]}}

    def balance(self) -> Any:
        return {"data": {"type": "balances", "id": "1", "attributes": {"available-credits": 900}}}

    def error(self, status: int, code: str, message: str) -> Any:
        return {"errors": [{"status": str(status), "title": code, "detail": message}]}


class Hal(Service):
    """HAL: `_embedded` entries and `_links`."""

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        links = {"self": {"href": "/jobs"}}
        if inner["page"] * inner["page_size"] < inner["total"]:
            links["next"] = {"href": f"/jobs?page={inner['page'] + 1}"}
        return {"_links": links, "_embedded": {"jobs": inner["items"]}}

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        link = self.link(job) if done else None
        return {"_links": {"self": {"href": "/jobs/1"}}, "uuid": job.id, "status": self.word(job), "video_url": link}


class Relay(Service):
    """Connections: `edges` with a `node` each, and `pageInfo`."""

    words = ("QUEUED", "IN_PROGRESS", "COMPLETED", "CANCELLED")

    def job(self, job: Sold) -> Any:
        return {"data": {"job": self.row(job)}}

    def row(self, job: Sold) -> Any:
        done = job.phase == 2
        return {"jobId": job.id, "status": self.word(job), "finalVideoUrl": self.link(job) if done else None}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        inner = super().page(rows, query)
        more = inner["page"] * inner["page_size"] < inner["total"]
        edges = [{"cursor": str(number), "node": row} for number, row in enumerate(inner["items"])]
        return {"data": {"jobs": {"edges": edges, "pageInfo": {"hasNextPage": more, "endCursor": "c"}}}}


class Numeric(Service):
    """Numbers as ids, enumerations with a prefix, fractional credits."""

    words = ("JOB_STATUS_QUEUED", "JOB_STATUS_RUNNING", "JOB_STATUS_SUCCEEDED", "JOB_STATUS_CANCELLED")

    def new_id(self) -> str:
        return str(10_000 + len(self.jobs))

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        link = {"uri": self.link(job)} if done else None
        return {"job": {"id": int(job.id), "state": self.word(job), "output": link, "creditsReserved": 9.6}}

    def row(self, job: Sold) -> Any:
        return self.job(job)["job"]

    def balance(self) -> Any:
        return {"result": {"balance": "1000.75", "reserved": "0.75"}}

    def estimate(self) -> Any:
        return {"result": {"total": 9.6}}


class OddRows(Service):
    """Lists with entries that cannot be read, nulls everywhere, a key that is shown."""

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        shown = {"job_id": job.id, "status": self.word(job), "segments": [None, 7, {}], "idempotency_key": job.key}
        nulls = dict.fromkeys(("current_stage", "progress_percent", "created_at", "credits_reserved", "error"))
        return {**shown, **nulls, "final_video_url": self.link(job) if done else None}

    def page(self, rows: list[Any], query: dict[str, str]) -> Any:
        return {"items": [None, 7, {"status": "completed"}, *rows], "total": len(rows) + 3, "page": 1}


class LateVideo(Service):
    """`completed` some seconds before the final video is shown; ids in another case."""

    def new_id(self) -> str:
        return str(uuid.uuid4()).upper()

    def find(self, job_id: str) -> Sold | None:
        return self.jobs.get(job_id.upper())

    def job(self, job: Sold) -> Any:
        link = self.link(job) if job.reads > ACTIVE_READS + 2 else None
        return {"job_id": job.id.lower(), "status": self.word(job), "final_video_url": link}


class ExpiringLinks(Service):
    """Google Cloud Storage, Supabase and R2 answer an expired link with 400 or 401."""

    def __init__(self) -> None:
        super().__init__()
        self.expired = 400
        self.fresh = 0

    def job(self, job: Sold) -> Any:
        done = job.phase == 2
        self.fresh += done
        link = f"{self.link(job)}?token={self.fresh}" if done else None
        return {"job_id": job.id, "status": self.word(job), "final_video_url": link}


class Located(Service):
    """A create is answered by an empty body, and `Location` leads to the job, as RFC 9110 has it."""

    def job(self, job: Sold) -> Any:
        link = self.link(job) if job.phase == 2 else None
        return {"job_id": job.id, "status": self.word(job), "final_video_url": link, "idempotency_key": job.key}

    def created(self, job: Sold) -> Any:
        return f"{self.base}/api/v1/jobs/{job.id}"

    def headers(self, answer: Any) -> dict[str, str]:
        return {"location": answer} if isinstance(answer, str) else {}


class RequestIds(Located):
    """A create is answered by the id of the request, with that of the job beside it."""

    def created(self, job: Sold) -> Any:
        return {"id": f"req_{job.number}", "message": "accepted", "job": {"id": job.id}}


READINGS: dict[str, type[Service]] = {
    "heygen": HeyGen,
    "runway": Runway,
    "replicate": Replicate,
    "creatify": Creatify,
    "shotstack": Shotstack,
    "stripe": Stripe,
    "luma": Luma,
    "kling": Kling,
    "d-id": DId,
    "openai": OpenAI,
    "synthesia": Synthesia,
    "json api": JsonApi,
    "hal": Hal,
    "relay": Relay,
    "numeric ids": Numeric,
    "odd rows": OddRows,
    "late video": LateVideo,
    "expiring links": ExpiringLinks,
    "location": Located,
    "request ids": RequestIds,
}


class Running:
    """A service on a socket.

    Attributes:
        service: Its state, the oracle.
        lose: How many answers of creates are lost after they took effect.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lose = 0
        running = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                running._handle(self)

            do_GET = do_POST = do_DELETE = do_PUT = handle_any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        service.base = f"http://127.0.0.1:{self._server.server_port}"
        self.base_url = f"{service.base}/api/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("content-length") or 0)
        content = handler.rfile.read(length)
        if parts.path.startswith("/files/"):
            self._file(handler, parts.query)
            return
        body = json.loads(content) if content else {}
        with self.service.lock:
            status, answer = self.service.answer(handler.command, parts.path, dict(parse_qsl(parts.query)), body)
        if handler.command == "POST" and parts.path.endswith("/jobs") and self.lose:
            self.lose -= 1
            handler.close_connection = True
            handler.connection.close()
            return
        headers = self.service.headers(answer)
        content = b"" if headers else json.dumps(answer).encode()
        self._send(handler, status, content, "application/json", headers=headers)

    def _file(self, handler: BaseHTTPRequestHandler, query: str) -> None:
        found = re.search(r"token=(\d+)", query)
        if isinstance(self.service, ExpiringLinks) and found and int(found[1]) < self.service.fresh:
            self._send(handler, self.service.expired, b"<Error><Code>ExpiredToken</Code></Error>", "application/xml")
            return
        self._send(handler, 200, video(), "video/mp4")

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        kind: str,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
