# SPDX-License-Identifier: Apache-2.0
"""Description of this provider for Airflow: a plain dict, so that nothing is imported to draw a form or list a name."""

from __future__ import annotations

from typing import Any

from ugen_provider.__about__ import __version__

CONN_TYPE = "ugen"
OPERATORS = [f"ugen_provider.operators.{name}" for name in ("jobs", "feeds", "media", "reconcile", "review")]


def _field(label: str, kind: str, description: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **more}}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, by Airflow's schema."""
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
        "sensors": [
            {
                "integration-name": "U-Gen",
                "python-modules": ["ugen_provider.sensors.jobs", "ugen_provider.sensors.reconcile"],
            }
        ],
        "triggers": [
            {
                "integration-name": "U-Gen",
                "python-modules": ["ugen_provider.triggers.jobs", "ugen_provider.triggers.events"],
            }
        ],
        "asset-uris": [{"schemes": ["ugen"], "handler": None}],
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
                    "ledger_conn_id": _field(
                        "Ledger connection",
                        "string",
                        "Airflow connection (PostgreSQL, or SQLite on one machine) of the ledger that records orders.",
                    ),
                    "namespace": _field(
                        "Namespace", "string", "Keeps the orders of two environments apart that share one account."
                    ),
                    "video_model": _field("Video model", "string", "For jobs that name none; empty: the service's."),
                    "timeout": _field("Timeout", "number", "Seconds for one attempt of one request; default 30."),
                    "retries": _field(
                        "Retries",
                        "integer",
                        "How often a request is repeated; empty: as often as 180 seconds allow.",
                        minimum=0,
                    ),
                    "spending": _field(
                        "Spending",
                        "string",
                        "allow buys; reuse_only reuses and waits for existing jobs and buys nothing; off does nothing.",
                        enum=["allow", "reuse_only", "off"],
                        default="allow",
                    ),
                    "record_secret": _field(
                        "Record secret",
                        "string",
                        "Signs order records; empty: a key derived from the API key.",
                        format="password",
                    ),
                    "previous_secrets": _field(
                        "Previous secrets",
                        "string",
                        "Earlier record secrets or API keys, one on each line, that still verify records.",
                        format="password",
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
                    "service_profile": _field(
                        "Service profile",
                        "string",
                        "JSON of the rows in which the service differs from its documentation; see `ugen doctor`.",
                    ),
                    "proxy": _field(
                        "Proxy",
                        "string",
                        "http://user:password@host:port for all requests and downloads; empty: the environment's.",
                        format="password",
                    ),
                    "ca_bundle": _field(
                        "CA bundle",
                        "string",
                        "File (PEM) on every Airflow machine with certificates to trust beside the usual ones.",
                    ),
                },
            }
        ],
    }
