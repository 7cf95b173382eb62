# SPDX-License-Identifier: Apache-2.0
"""`/_emulator`: endpoints by which a test moves, forces and reads the emulator."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ugen_provider.emulator.api.bodies import parse_json
from ugen_provider.emulator.api.http import HttpRequest, Reply, json_reply
from ugen_provider.emulator.settings import tenant_settings
from ugen_provider.emulator.world import faults, pipeline
from ugen_provider.emulator.world.clock import iso
from ugen_provider.emulator.world.errors import Invalid, not_found
from ugen_provider.emulator.world.journal import as_json
from ugen_provider.emulator.world.readings import choices, names
from ugen_provider.emulator.world.webhooks import as_json as delivery_json
from ugen_provider.emulator.world.world import World


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to `/_emulator`, and its variable parts of the path."""

    world: World
    request: HttpRequest
    args: tuple[str, ...] = ()


AdminHandler = Callable[[Ask], Reply]


def _object(request: HttpRequest) -> dict[str, Any]:
    data = parse_json(request.body) if request.body.strip() else {}
    if not isinstance(data, dict):
        raise Invalid.one("dict_type", ("body",), "Input should be an object", data)
    return data


def _number(data: dict[str, Any], name: str, default: float | None = None) -> float:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
        raise Invalid.one("number", ("body", name), "Input should be a number from 0", value)
    return float(value)


def _clock(world: World) -> Reply:
    now = world.now()
    clock = world.clock
    return json_reply(
        200,
        {
            "now": now,
            "iso": iso(now),
            "mode": clock.mode,
            "speed": clock.speed,
            "tick": clock.tick,
            "next_change": world.jobs.next_due(),
        },
    )


def clock(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/clock`."""
    return _clock(ask.world)


def set_clock(ask: Ask) -> Reply:
    """Answer a request to `PUT /_emulator/clock`: `speed` (0 is by hand) and `tick`."""
    data = _object(ask.request)
    if "speed" in data:
        ask.world.clock.set_speed(_number(data, "speed"))
    if "tick" in data:
        ask.world.clock.tick = _number(data, "tick")
    return _clock(ask.world)


def advance(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/clock/advance`: `seconds`, or `to_next_change: true`."""
    data = _object(ask.request)
    if data.get("to_next_change"):
        coming = ask.world.jobs.next_due()
        ask.world.advance(max(0.0, coming - ask.world.now()) if coming is not None else 0.0)
    else:
        ask.world.advance(_number(data, "seconds"))
    return dataclasses.replace(_clock(ask.world), settle=True)


def reset(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/reset`: begin anew, with another `seed` or other `readings` if given."""
    data = _object(ask.request)
    seed, readings = data.get("seed"), data.get("readings") or {}
    if not isinstance(seed, int | None) or not isinstance(readings, dict):
        raise Invalid.one("type", ("body",), "seed is a whole number, readings an object", data)
    _said(lambda: ask.world.reset(seed=seed, readings=readings))
    return json_reply(200, {"seed": ask.world.settings.seed, "readings": ask.world.readings.as_dict()})


def journal(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/journal`: purchases and requests.

    Filters: `kind`, `product_name`, `key`, `tenant` for purchases; `method`, `path`, `status`, `tenant`, `since` for
    requests; `limit` for how many of the newest requests are shown.
    """
    asked = ask.request.params()
    purchases = ask.world.journal.find_purchases(
        kind=asked.get("kind"),
        product_name=asked.get("product_name"),
        key=asked.get("key"),
        tenant=asked.get("tenant"),
    )
    requests = ask.world.journal.find_requests(
        method=asked.get("method"),
        path=asked.get("path"),
        status=_digits(asked, "status", None),
        tenant=asked.get("tenant"),
        since=_digits(asked, "since", 0) or 0,
    )
    limit = _digits(asked, "limit", 1000) or 0
    return json_reply(
        200,
        {
            "purchases": [{**as_json(entry), "created_at": iso(entry.at)} for entry in purchases],
            "created": sum(entry.kind == "create" for entry in purchases),
            "retried": sum(entry.kind == "retry" for entry in purchases),
            "requests": [as_json(entry) for entry in requests[len(requests) - min(limit, len(requests)) :]],
            "requests_matched": len(requests),
            "requests_total": ask.world.journal.count,
        },
    )


def _digits(asked: dict[str, str], name: str, default: int | None) -> int | None:
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Invalid.one("int_parsing", ("query", name), "Input should be a whole number", text)
    return int(text)


def forget_requests(ask: Ask) -> Reply:
    """Answer a request to `DELETE /_emulator/journal`: drop the requests; purchases stay."""
    ask.world.journal.forget_requests()
    return Reply(204)


def list_outcomes(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/outcomes`."""
    return json_reply(200, [dataclasses.asdict(rule) for rule in ask.world.jobs.outcomes])


def add_outcome(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/outcomes`: make the next job of a product fail, score low, or take long."""
    data = _object(ask.request)
    rule = _said(lambda: pipeline.parse(data))
    ask.world.jobs.outcomes.append(rule)
    return json_reply(201, dataclasses.asdict(rule))


def clear_outcomes(ask: Ask) -> Reply:
    """Answer a request to `DELETE /_emulator/outcomes`."""
    ask.world.jobs.outcomes.clear()
    return Reply(204)


def list_faults(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/faults`, each with how often it has matched and happened."""
    return json_reply(200, [faults.as_json(rule) for rule in ask.world.faults.rules])


def add_faults(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/faults`: a rule, or a list of rules."""
    data = parse_json(ask.request.body)
    rules = data if isinstance(data, list) else [data]
    if not all(isinstance(rule, dict) for rule in rules):
        raise Invalid.one("dict_type", ("body",), "Input should be a rule or a list of rules", data)
    made = _said(lambda: [ask.world.faults.add(rule) for rule in rules])
    return json_reply(201, [faults.as_json(rule) for rule in made])


def clear_faults(ask: Ask) -> Reply:
    """Answer a request to `DELETE /_emulator/faults`."""
    ask.world.faults.rules.clear()
    return Reply(204)


def webhooks(ask: Ask) -> Reply:
    """`GET /_emulator/webhooks`: every delivery with its attempts, oldest first; filter by `job_id`."""
    job_id = ask.request.params().get("job_id")
    return json_reply(
        200,
        [delivery_json(item) for item in ask.world.webhooks.deliveries.values() if job_id in (None, item.job_id)],
    )


def redeliver(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/webhooks/{id}/redeliver`: send an event again."""
    delivery = ask.world.webhooks.deliveries.get(ask.args[0])
    if delivery is None:
        raise not_found("Delivery")
    again = ask.world.webhooks.redeliver(delivery, ask.world.now())
    return dataclasses.replace(json_reply(201, delivery_json(again)), settle=True)


def dump(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/state`: everything, to be loaded again."""
    return json_reply(200, ask.world.dump())


def load(ask: Ask) -> Reply:
    """Answer a request to `PUT /_emulator/state`: go back to what was dumped."""
    data = _object(ask.request)
    _said(lambda: ask.world.load(data))
    return Reply(204)


def add_tenant(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/tenants`: open an account, with the fields of `TenantSettings`."""
    data = _object(ask.request)
    settings = _said(lambda: tenant_settings(data))
    tenant = _said(lambda: ask.world.open_tenant(settings))
    return json_reply(201, {"name": tenant.name, "available": tenant.credits.available})


def grant(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/credits`: give a tenant credits, as a `purchase`, `refund` or `bonus`."""
    data = _object(ask.request)
    amount, kind = data.get("amount"), data.get("kind", "bonus")
    tenant = ask.world.accounts.by_name.get(str(data.get("tenant", "local")))
    if tenant is None:
        raise not_found("Tenant")
    if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount < 10**15:
        raise Invalid.one("int_type", ("body", "amount"), "Input should be a whole number above 0", amount)
    if kind not in ("purchase", "refund", "bonus"):
        raise Invalid.one("enum", ("body", "kind"), "Input should be purchase, refund or bonus", kind)
    tenant.credits.grant(kind, amount, ask.world.now(), "Granted by the emulator")
    return balances(ask)


def revoke_key(ask: Ask) -> Reply:
    """Answer a request to `POST /_emulator/keys/revoke`: make an API key unknown, at once."""
    key = _object(ask.request).get("api_key")
    if not isinstance(key, str) or not ask.world.accounts.revoke(key):
        raise not_found("Key")
    return Reply(204)


def readings(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/readings`: each switch, what it is, and what it can be."""
    values = ask.world.readings.as_dict()
    return json_reply(200, {name: {"value": values[name], "choices": choices(name) or "seconds"} for name in names()})


def set_readings(ask: Ask) -> Reply:
    """Answer a request to `PUT /_emulator/readings`: turn the named switches."""
    data = _object(ask.request)
    return json_reply(200, _said(lambda: ask.world.set_readings(data)).as_dict())


def balances(ask: Ask) -> Reply:
    """Answer a request to `GET /_emulator/balances`: the credits of every tenant."""
    return json_reply(
        200,
        {
            name: {
                "balance": tenant.credits.balance,
                "reserved": tenant.credits.reserved,
                "available": tenant.credits.available,
                "jobs": len(tenant.index.jobs),
            }
            for name, tenant in ask.world.accounts.by_name.items()
        },
    )


def _said(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (ValueError, TypeError) as error:
        raise Invalid.one("value_error", ("body",), str(error), None) from None


ROUTES: dict[str, AdminHandler] = {
    "GET /_emulator/clock": clock,
    "PUT /_emulator/clock": set_clock,
    "POST /_emulator/clock/advance": advance,
    "POST /_emulator/reset": reset,
    "GET /_emulator/journal": journal,
    "DELETE /_emulator/journal": forget_requests,
    "GET /_emulator/outcomes": list_outcomes,
    "POST /_emulator/outcomes": add_outcome,
    "DELETE /_emulator/outcomes": clear_outcomes,
    "GET /_emulator/faults": list_faults,
    "POST /_emulator/faults": add_faults,
    "DELETE /_emulator/faults": clear_faults,
    "GET /_emulator/readings": readings,
    "PUT /_emulator/readings": set_readings,
    "GET /_emulator/balances": balances,
    "GET /_emulator/webhooks": webhooks,
    "POST /_emulator/webhooks/*/redeliver": redeliver,
    "GET /_emulator/state": dump,
    "PUT /_emulator/state": load,
    "POST /_emulator/tenants": add_tenant,
    "POST /_emulator/credits": grant,
    "POST /_emulator/keys/revoke": revoke_key,
}
