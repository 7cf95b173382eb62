# SPDX-License-Identifier: Apache-2.0
"""What Airflow reads of this provider: a plain dict, so that nothing is imported to draw a form or list a name."""

from __future__ import annotations

from typing import Any

from ugen_provider.__about__ import __version__

CONN_TYPE = "ugen"
OPERATORS = [f"ugen_provider.operators.{name}" for name in ("jobs", "feeds", "media", "orphans", "review")]


def _field(label: str, kind: str, description: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **more}}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, by Airflow's schema."""
    return {
        "package-name": "ugen-provider",
        "name": "U-Gen",
        "description": "U-Gen product videos: never pays twice, never loses a result, costs nothing while it waits.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": "U-Gen", "external-doc-url": "https://u-gen.ai/docs", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": "U-Gen", "python-modules": ["ugen_provider.hooks.ugen"]}],
        "operators": [{"integration-name": "U-Gen", "python-modules": OPERATORS}],
        "sensors": [{"integration-name": "U-Gen", "python-modules": ["ugen_provider.sensors.jobs"]}],
        "triggers": [
            {
                "integration-name": "U-Gen",
                "python-modules": ["ugen_provider.triggers.jobs", "ugen_provider.triggers.events"],
            }
        ],
        "task-decorators": [{"class-name": "ugen_provider.decorators.jobs.ugen_job_task", "name": "ugen_job"}],
        "extra-links": ["ugen_provider.links.ugen.UGenJobLink", "ugen_provider.links.ugen.UGenVideoLink"],
        "connection-types": [
            {
                "connection-type": CONN_TYPE,
                "hook-class-name": "ugen_provider.hooks.ugen.UGenHook",
                "hook-name": "U-Gen",
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "port", "login", "schema"],
                    "relabeling": {"password": "API key"},
                    "placeholders": {"password": "ugen_sk_…"},
                },
                "conn-fields": {
                    "base_url": _field("Base URL", "string", "Empty for the real U-Gen."),
                    "namespace": _field(
                        "Namespace", "string", "Keeps the orders of two environments apart that share one account."
                    ),
                    "video_model": _field("Video model", "string", "For jobs that name none; empty: the service's."),
                    "timeout": _field("Timeout", "number", "Seconds for one attempt of one request; default 30."),
                    "retries": _field("Retries", "integer", "How often a request is repeated; default 3.", minimum=0),
                    "spending": _field(
                        "Spending",
                        "string",
                        "allow buys; attach_only waits for what exists and buys nothing; off does nothing.",
                        enum=["allow", "attach_only", "off"],
                        default="allow",
                    ),
                    "webhook_secret": _field(
                        "Webhook secret",
                        "string",
                        "Verifies deliveries to Airflow's webhook endpoint.",
                        format="password",
                    ),
                    "allow_insecure": _field(
                        "Allow insecure", "boolean", "Let the key travel over plain http to another machine."
                    ),
                },
            }
        ],
    }
