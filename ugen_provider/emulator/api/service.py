# SPDX-License-Identifier: Apache-2.0
"""The one door: a request in, a reply out, everything that it did committed and written in the journal."""

from ugen_provider.emulator.api import admin, credits, errors, jobs, outputs
from ugen_provider.emulator.api.call import Call, Handler
from ugen_provider.emulator.api.http import Reply, Request
from ugen_provider.emulator.api.router import Router
from ugen_provider.emulator.world.accounts import Tenant
from ugen_provider.emulator.world.refusals import Invalid, Refusal, not_found
from ugen_provider.emulator.world.world import World

PREFIX = "/api/v1"
BODY_MOST = 2 * 1024 * 1024

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
    "GET /credits/balance": credits.balance,
    "GET /credits/transactions": credits.transactions,
    "POST /credits/estimate": credits.estimate,
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
            tenant: Tenant | None = None
            try:
                if request.path.startswith(PREFIX):
                    tenant = world.accounts.authenticate(
                        api_key=request.headers.get("x-api-key"),
                        authorization=request.headers.get("authorization"),
                    )
                    if world.clock.tick:
                        world.clock.advance(world.clock.tick)
                    now = world.now()
                    reply = self._call(request, tenant, now)
                else:
                    now = world.now()
                    reply = self._elsewhere(request, now)
            except Refusal as refusal:
                reply = errors.refused(refusal, world.readings)
            except Invalid as problem:
                reply = errors.invalid(problem)
            # Also after a refusal: what time has brought is booked by now.
            world.commit()
            if not request.path.startswith("/_emulator"):
                world.journal.seen(
                    world.clock.now(),
                    request.method,
                    request.path,
                    request.query,
                    reply.status,
                    tenant=tenant.name if tenant else None,
                )
            return reply

    def _call(self, request: Request, tenant: Tenant, now: float) -> Reply:
        if len(request.body) > BODY_MOST:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"A body has at most {BODY_MOST} bytes")
        handler, args = self._api.find(request.method, request.path[len(PREFIX) :])
        return handler(Call(self.world, request, tenant, args, now))

    def _elsewhere(self, request: Request, now: float) -> Reply:
        path = request.path
        if path.startswith("/media/"):
            parts = path.split("/")
            if request.method not in ("GET", "HEAD"):
                raise Refusal(405, "METHOD_NOT_ALLOWED", "Outputs can only be read")
            if len(parts) == 4:
                return outputs.serve(self.world, request, parts[2], parts[3], now)
        if path.startswith("/_emulator") and self.world.settings.admin:
            handler, _ = self._admin.find(request.method, path)
            return handler(self.world, request)
        raise not_found("Page")
