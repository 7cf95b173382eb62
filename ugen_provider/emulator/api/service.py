# SPDX-License-Identifier: Apache-2.0
"""The one door: a request in, a reply out, everything that it did committed and written in the journal."""

from urllib.parse import urlsplit

from pydantic_core import from_json

from ugen_provider.emulator import page
from ugen_provider.emulator.api import admin, errors, jobs, ledger, library, mishaps, openapi, outputs, tenants
from ugen_provider.emulator.api.call import Call, Handler
from ugen_provider.emulator.api.http import Reply, Request
from ugen_provider.emulator.api.router import Router
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.faults import Fault
from ugen_provider.emulator.world.refusals import Invalid, Refusal, not_found
from ugen_provider.emulator.world.world import World

PREFIX = "/api/v1"
PAGE = "x-ugen-page"
BODY_MOST = 2 * 1024 * 1024
FORM_MOST = 32 * 1024 * 1024

API: dict[str, Handler] = {
    "POST /jobs": jobs.create,
    "GET /jobs": jobs.listing,
    "POST /jobs/suggest-fields": jobs.suggest_fields,
    "GET /jobs/*": jobs.get,
    "DELETE /jobs/*": jobs.cancel,
    "POST /jobs/*/pause": jobs.pause,
    "POST /jobs/*/resume": jobs.resume,
    "POST /jobs/*/retry": jobs.retry,
    "GET /jobs/*/keyframes": jobs.keyframes,
    "GET /jobs/*/videos": jobs.videos,
    "GET /credits/balance": ledger.balance,
    "GET /credits/transactions": ledger.transactions,
    "POST /credits/estimate": ledger.estimate,
    "GET /tenants/me": tenants.me,
    "GET /tenants/me/webhook": tenants.webhook,
    "PUT /tenants/me/webhook": tenants.set_webhook,
    "DELETE /tenants/me/webhook": tenants.clear_webhook,
    "POST /tenants/me/avatar": library.avatar,
    "POST /tenants/me/brand-kit/logo": library.logo,
    "POST /uploads/product-image": library.product_image,
    "GET /templates": library.templates,
    "POST /templates": library.add_template,
    "PUT /templates/*": library.change_template,
    "PATCH /templates/*": library.change_template,
    "DELETE /templates/*": library.remove_template,
    "GET /music/catalog": library.catalog,
    "GET /music/custom": library.tracks,
    "POST /music/custom": library.add_track,
    "DELETE /music/custom/*": library.remove_track,
    "GET /models": library.models,
    "GET /models/*": library.model,
    "POST /models/*/try": library.try_model,
    "GET /models/tasks/*": library.task,
}


class Service:
    """The API over a world.

    Args:
        world: What it answers for.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._api = Router(API)
        self._admin = Router(admin.ROUTES)

    def handle(self, request: Request) -> Reply:
        """Answer a request. Never raises for what the request holds."""
        world = self.world
        with world.lock:
            if request.path.startswith("/_emulator"):
                return self._answer(request, None, None)
            if PAGE in request.headers:
                # Whoever only looks on changes nothing: no fault, no entry in the journal, no tick.
                tenant, refusal = self._who(request)
                return errors.refused(refusal, world.readings) if refusal else self._answer(request, tenant, None)
            if world.clock.tick and request.path.startswith(PREFIX):
                world.clock.advance(world.clock.tick)
            tenant, refusal = self._who(request)
            name = tenant.name if tenant else None
            fault = self._fault(request, name)
            if refusal is not None:
                reply = errors.refused(refusal, world.readings)
            elif fault is not None and fault.instead:
                reply = mishaps.nothing_done()
            else:
                reply = self._answer(request, tenant, fault)
            if fault is not None:
                reply = mishaps.spoil(reply, fault, world.readings)
            world.journal.seen(
                world.clock.now(),
                request.method,
                request.path,
                request.query,
                0 if reply.wire is not None and reply.wire.reset else reply.status,
                tenant=name,
                key=_key(request),
                fault=fault.kind if fault else None,
            )
            return reply

    def _who(self, request: Request) -> tuple[Tenant | None, Refusal | None]:
        if not request.path.startswith(PREFIX):
            return None, None
        try:
            tenant = self.world.accounts.authenticate(
                api_key=request.headers.get("x-api-key"), authorization=request.headers.get("authorization")
            )
        except Refusal as refusal:
            return None, refusal
        return tenant, None

    def _fault(self, request: Request, tenant: str | None) -> Fault | None:
        faults = self.world.faults
        if not faults.rules:
            return None
        key = _key(request) if faults.ask_key else None
        return faults.meet(request.method, request.path, key=key, tenant=tenant)

    def _answer(self, request: Request, tenant: Tenant | None, fault: Fault | None) -> Reply:
        world = self.world
        try:
            now = world.now()
            if tenant is not None:
                reply = self._call(request, tenant, now, fault.shift if fault and fault.kind == "shift" else 0)
            else:
                reply = self._elsewhere(request, now)
        except Refusal as refusal:
            reply = errors.refused(refusal, world.readings)
        except Invalid as problem:
            reply = errors.invalid(problem)
        # Also after a refusal: what time has brought is booked by now.
        world.commit()
        return reply

    def _call(self, request: Request, tenant: Tenant, now: float, shift: int) -> Reply:
        handler, args = self._api.find(request.method, request.path[len(PREFIX) :])
        most = FORM_MOST if request.headers.get("content-type", "").startswith("multipart/") else BODY_MOST
        if len(request.body) > most:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"A body of this kind has at most {most} bytes")
        return handler(Call(self.world, request, tenant, args, now, shift))

    def _elsewhere(self, request: Request, now: float) -> Reply:
        path = request.path
        if path.startswith("/media/"):
            parts = path.split("/")
            if request.method not in ("GET", "HEAD"):
                raise Refusal(405, "METHOD_NOT_ALLOWED", "Outputs can only be read", headers={"allow": "GET, HEAD"})
            if parts[2] == "uploads":
                return outputs.serve_upload(self.world, request, parts[-1])
            if len(parts) == 4:
                return outputs.serve(self.world, request, parts[2], parts[3], now)
        if path.startswith("/_emulator") and self.world.settings.admin:
            origin = request.headers.get("origin")
            if origin is not None and _host(origin) != request.headers.get("host"):
                raise Refusal(403, "FORBIDDEN", "A page of another site may not steer the emulator")
            handler, args = self._admin.find(request.method, path)
            return handler(admin.Ask(self.world, request, args))
        if path == "/" and request.method in ("GET", "HEAD"):
            return Reply(200, page.html(), "text/html; charset=utf-8")
        if path == "/openapi.json" and request.method in ("GET", "HEAD"):
            return Reply(200, openapi.served())
        raise not_found("Page")


def _key(request: Request) -> str | None:
    """Return the idempotency key of a create request."""
    if request.method != "POST" or request.path != f"{PREFIX}/jobs":
        return None
    try:
        data = from_json(request.body)
    except ValueError:
        return None
    key = data.get("idempotency_key") if isinstance(data, dict) else None
    return key if isinstance(key, str) else None


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
