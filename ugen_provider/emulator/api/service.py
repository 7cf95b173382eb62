# SPDX-License-Identifier: Apache-2.0
"""The only entry: a request in, a reply out, all effects committed and written in the journal."""

import ipaddress
import re
from urllib.parse import urlsplit

from pydantic_core import from_json

from ugen_provider.emulator import page
from ugen_provider.emulator.api import admin, http, jobs, library, openapi
from ugen_provider.emulator.api.dialect import Dialect
from ugen_provider.emulator.api.http import Call, Handler, HttpRequest, Reply, Router
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.errors import ErrorReply, Invalid, not_found
from ugen_provider.emulator.world.faults import Fault
from ugen_provider.emulator.world.world import World

PREFIX = "/api/v1"
PAGE = "x-ugen-page"
CLOCK = "x-ugen-clock"
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
    "GET /credits/balance": jobs.balance,
    "GET /credits/transactions": jobs.transactions,
    "POST /credits/estimate": jobs.estimate,
    "GET /tenants/me": library.me,
    "GET /tenants/me/webhook": library.webhook,
    "PUT /tenants/me/webhook": library.set_webhook,
    "DELETE /tenants/me/webhook": library.clear_webhook,
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

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class Service:
    """The API over a world.

    Args:
        world: What it answers for.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._api = Router(API)
        self._admin = Router(admin.ROUTES)
        self._dialect = Dialect.of(world.settings.profile) if world.settings.profile else None

    def handle(self, request: HttpRequest) -> Reply:
        """Answer a request. Never raises for what the request holds."""
        world = self.world
        with world.lock:
            if request.path.startswith("/_emulator"):
                return self._answer(request, None, None)
            if PAGE in request.headers:
                # The page only reads, so it changes nothing: no fault, no entry in the journal, no tick.
                tenant, refusal = self._who(request)
                return http.refused(refusal, world.readings) if refusal else self._answer(request, tenant, None)
            if world.clock.tick and request.path.startswith(PREFIX):
                world.clock.advance(world.clock.tick)
            tenant, refusal = self._who(request)
            name = tenant.name if tenant else None
            fault = self._fault(request, name)
            if refusal is not None:
                reply = self._spoken(request, http.refused(refusal, world.readings))
            elif fault is not None and fault.instead:
                reply = http.nothing_done()
            else:
                reply = self._answer(request, tenant, fault)
            if fault is not None:
                reply = http.spoil(reply, fault, world.readings)
            report = world.clock.report(patience=world.settings.patience)
            if report is not None and request.path.startswith(PREFIX):
                reply.headers[CLOCK] = report
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

    def _who(self, request: HttpRequest) -> tuple[Tenant | None, ErrorReply | None]:
        if not request.path.startswith(PREFIX):
            return None, None
        try:
            tenant = self.world.accounts.authenticate(
                api_key=request.headers.get("x-api-key"), authorization=request.headers.get("authorization")
            )
        except ErrorReply as refusal:
            return None, refusal
        return tenant, None

    def _fault(self, request: HttpRequest, tenant: str | None) -> Fault | None:
        faults = self.world.faults
        if not faults.rules:
            return None
        key = _key(request) if faults.ask_key else None
        return faults.meet(request.method, request.path, key=key, tenant=tenant)

    def _answer(self, request: HttpRequest, tenant: Tenant | None, fault: Fault | None) -> Reply:
        world = self.world
        try:
            now = world.now()
            if tenant is not None:
                reply = self._call(request, tenant, now, fault.shift if fault and fault.kind == "shift" else 0)
            else:
                reply = self._elsewhere(request, now)
        except ErrorReply as refusal:
            reply = self._spoken(request, http.refused(refusal, world.readings))
        except Invalid as problem:
            reply = http.invalid(problem)
        # Also after a refusal: what time has brought is booked by now.
        world.commit()
        return reply

    def _call(self, request: HttpRequest, tenant: Tenant, now: float, shift: int) -> Reply:
        handler, args = self._api.find(request.method, request.path[len(PREFIX) :])
        most = FORM_MOST if request.headers.get("content-type", "").startswith("multipart/") else BODY_MOST
        if len(request.body) > most:
            raise ErrorReply(413, "PAYLOAD_TOO_LARGE", f"A body of this kind has at most {most} bytes")
        if self._dialect is None or PAGE in request.headers:
            return handler(Call(self.world, request, tenant, args, now, shift))
        request = self._dialect.request(request, handler)
        return self._dialect.reply(handler(Call(self.world, request, tenant, args, now, shift)), handler)

    def _spoken(self, request: HttpRequest, refusal: Reply) -> Reply:
        """Return a refusal in the dialect of the settings."""
        if self._dialect is None:
            return refusal
        try:
            handler, _ = self._api.find(request.method, request.path.removeprefix(PREFIX))
        except ErrorReply:
            handler = None
        return self._dialect.refusal(refusal, handler)

    def _is_own_host(self, host: str) -> bool:
        """Return whether `Host` is a name that only this machine, or the person who runs the emulator, gives it.

        A page of another site reaches a server on loopback by a name of its own, which it makes lead to 127.0.0.1 once
        the page is loaded (DNS rebinding). The browser then takes both for one site, so that `Origin` shows nothing.
        """
        name = _name(f"//{host}") if _HOST.fullmatch(host) else None
        settings = self.world.settings
        if name is None or _is_local_name(name):
            return name is not None
        return name == _name(settings.public_url or "") or (settings.admin_anywhere and name.endswith(".internal"))

    def _elsewhere(self, request: HttpRequest, now: float) -> Reply:
        path = request.path
        if path.startswith("/media/"):
            parts = path.split("/")
            if request.method not in ("GET", "HEAD"):
                raise ErrorReply(405, "METHOD_NOT_ALLOWED", "Outputs can only be read", headers={"allow": "GET, HEAD"})
            if parts[2] == "uploads":
                return jobs.serve_upload(self.world, request, parts[-1])
            if len(parts) == 4:
                return jobs.serve(self.world, request, parts[2], parts[3], now)
        if path.startswith("/_emulator") and self.world.settings.admin:
            host, origin = request.headers.get("host"), request.headers.get("origin")
            if origin is not None and _host(origin) != host:
                raise ErrorReply(403, "FORBIDDEN", "A page of another site may not steer the emulator")
            if host is not None and not self._is_own_host(host):
                raise ErrorReply(403, "FORBIDDEN", "The emulator is not steered under this host name")
            handler, args = self._admin.find(request.method, path)
            return handler(admin.Ask(self.world, request, args))
        if path == "/" and request.method in ("GET", "HEAD"):
            return Reply(200, page.html(), "text/html; charset=utf-8")
        if path == "/openapi.json" and request.method in ("GET", "HEAD"):
            return Reply(200, openapi.served())
        raise not_found("Page")


def _is_local_name(name: str) -> bool:
    """Return whether no public DNS can give a host name another address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost")
    return True


def _key(request: HttpRequest) -> str | None:
    """Return the idempotency key of a create request."""
    if request.method != "POST" or request.path != f"{PREFIX}/jobs":
        return None
    try:
        data = from_json(request.body)
    except ValueError:
        return None
    key = data.get("idempotency_key") if isinstance(data, dict) else None
    return key if isinstance(key, str) else None


def _name(url: str) -> str | None:
    try:
        name = urlsplit(url).hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
