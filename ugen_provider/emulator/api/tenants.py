# SPDX-License-Identifier: Apache-2.0
"""The account: who it is, and where its webhooks go."""

from ugen_provider.emulator.api import bodies
from ugen_provider.emulator.api.call import Call
from ugen_provider.emulator.api.http import Reply, json_reply
from ugen_provider.emulator.world.outbox import may_be_called
from ugen_provider.emulator.world.refusals import Invalid


def check_webhook_url(call: Call, url: str | None) -> None:
    """Refuse a URL that webhooks may not go to.

    Raises:
        Invalid: Plain http to anything but loopback.
    """
    if url is not None and not may_be_called(url, anywhere=call.world.settings.insecure_webhooks):
        raise Invalid.one("url_scheme", ("body", "webhook_url"), "URL scheme should be 'https'", url)


def me(call: Call) -> Reply:
    """`GET /tenants/me`."""
    library = call.world.library
    return json_reply(
        200,
        {
            "name": call.tenant.name,
            "avatar_url": library.tenant_file(call.tenant.name, "avatar"),
            "logo_url": library.tenant_file(call.tenant.name, "logo"),
            "webhook_configured": call.tenant.name in call.world.outbox.hooks,
        },
    )


def _configured(call: Call) -> Reply:
    hook = call.world.outbox.hooks.get(call.tenant.name)
    shown = {"webhook_url": hook[0] if hook else None} if call.readings.webhook_url_shown == "yes" else {}
    return json_reply(200, {"webhook_configured": hook is not None, **shown})


def webhook(call: Call) -> Reply:
    """`GET /tenants/me/webhook`: never the secret."""
    return _configured(call)


def set_webhook(call: Call) -> Reply:
    """`PUT /tenants/me/webhook`."""
    body = call.body(bodies.Webhook)
    check_webhook_url(call, body.webhook_url)
    call.world.outbox.configure(call.tenant.name, body.webhook_url, body.webhook_secret)
    return _configured(call)


def clear_webhook(call: Call) -> Reply:
    """`DELETE /tenants/me/webhook`."""
    call.world.outbox.forget(call.tenant.name)
    return Reply(204)
