# SPDX-License-Identifier: Apache-2.0
"""The public names with their signatures, one a line, as `api.txt` holds them.

`python scripts/public_api.py` shows the changes against `api.txt`; `--write` accepts them. Public names are listed by
`__all__`, and by the modules below for those packages whose names are imported from their own modules.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import griffe

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "api.txt"
PACKAGES = (
    "ugen_provider",
    "ugen_provider.core.batch",
    "ugen_provider.feeds",
    "ugen_provider.core.media",
    "dagster_ugen",
)
MODULES = (
    "ugen_provider.core.api.client",
    "ugen_provider.core.jobs.webhooks",
    "ugen_provider.hooks.ugen",
    "ugen_provider.operators.jobs",
    "ugen_provider.operators.feeds",
    "ugen_provider.operators.media",
    "ugen_provider.operators.reconcile",
    "ugen_provider.operators.review",
    "ugen_provider.operators.errors",
    "ugen_provider.sensors.jobs",
    "ugen_provider.sensors.reconcile",
    "ugen_provider.triggers.jobs",
    "ugen_provider.triggers.events",
    "ugen_provider.links.ugen",
    "ugen_provider.decorators.jobs",
)
NOT_FOR_USERS = frozenset(
    {
        "execute",
        "execute_complete",
        "execute_slot",
        "resume_execution",
        "poke",
        "serialize",
        "by_scope_key",
        "announce",
        "holding",
        "template_fields",
        "template_fields_renderers",
        "publish_job_id",
        "record_lineage",
        "kill_context",
        "has_scope_key",
        "get_serialized_fields",
        "on_kill",
        "operator_extra_links",
        "ui_color",
        "ui_fgcolor",
    }
)
"""Methods that Airflow calls, or that operators share; users do not import them."""

BETWEEN_PACKAGES = frozenset(
    {
        "ugen_provider.core.api.client.Failure",
        "ugen_provider.core.api.client.REPORTED_AFTER",
        "ugen_provider.core.api.client.RequestExecutor",
        "ugen_provider.core.api.client.call_endpoint",
        "ugen_provider.decorators.jobs.FIELDS",
        "ugen_provider.decorators.jobs.UGenJobDecoratedOperator",
        "ugen_provider.hooks.ugen.aledger_address",
        "ugen_provider.hooks.ugen.explain",
        "ugen_provider.hooks.ugen.ledger_address",
        "ugen_provider.hooks.ugen.open_address",
        "ugen_provider.hooks.ugen.open_ledger",
        "ugen_provider.hooks.ugen.spans_machines",
        "ugen_provider.hooks.ugen.tasks_span_machines",
        "ugen_provider.operators.feeds.SQLRows",
        "ugen_provider.sensors.jobs.UGenSensor",
        "ugen_provider.links.ugen.LINKS",
        "ugen_provider.links.ugen.PAGES",
        "ugen_provider.links.ugen.page_of",
        "ugen_provider.hooks.ugen.ConnectionLike",
        "ugen_provider.hooks.ugen.not_found",
        "ugen_provider.hooks.ugen.read_connection",
        "ugen_provider.operators.errors.fail_without_retry",
        "ugen_provider.operators.errors.is_permanent",
        "ugen_provider.operators.media.Picture",
        "ugen_provider.operators.media.upload_once",
        "ugen_provider.operators.reconcile.reconcile_once",
        "ugen_provider.operators.media.INCLUDE",
        "ugen_provider.operators.media.Kind",
        "ugen_provider.operators.media.store_outputs",
        "ugen_provider.operators.review.KEYFRAME",
        "ugen_provider.operators.review.SUBJECT",
        "ugen_provider.operators.review.body_of",
        "ugen_provider.triggers.events.CURSOR",
        "ugen_provider.triggers.events.EventCursor",
        "ugen_provider.triggers.events.ENDINGS",
        "ugen_provider.triggers.events.LOOK_BACK",
        "ugen_provider.triggers.events.OVERLAP",
        "ugen_provider.triggers.jobs.ASK_SECONDS",
        "ugen_provider.triggers.jobs.DEFAULT_POLL_INTERVAL",
        "ugen_provider.triggers.jobs.KILL_SECONDS",
        "ugen_provider.triggers.jobs.MOST_JOBS",
        "ugen_provider.triggers.jobs.earliest_event",
        "ugen_provider.triggers.jobs.read_config",
        "ugen_provider.triggers.jobs.ready",
        "ugen_provider.triggers.jobs.watch",
    }
)
"""Names without an underscore that only our own packages share; they are not public, and may change at any time."""


def target(found: griffe.Object | griffe.Alias) -> griffe.Object:
    """Return the object behind a name."""
    return found.final_target if isinstance(found, griffe.Alias) else found


def parameters(function: griffe.Function) -> str:
    """A signature without annotations: names, order, kinds and defaults are what callers rely on."""
    shown, starred = [], False
    for parameter in function.parameters:
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            shown.append("*")
            starred = True
        stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
        starred |= parameter.kind is griffe.ParameterKind.var_positional
        default = "" if parameter.default is None or parameter.kind in stars else f"={parameter.default}"
        shown.append(f"{stars.get(parameter.kind, '')}{parameter.name}{default}")
    return f"({', '.join(shown)})"


def lines_of(path: str, found: griffe.Object) -> Iterator[str]:
    """A name, and below it what hangs on it."""
    if isinstance(found, griffe.Function):
        yield f"{path}{parameters(found)}"
    elif isinstance(found, griffe.Class):
        made = found.all_members.get("__init__")
        shown = "" if made is None else parameters(cast("griffe.Function", target(made)))
        yield f"{path}{shown}"
        for name, member in sorted(found.members.items()):
            if not name.startswith("_") and name not in NOT_FOR_USERS and not member.is_alias:
                yield from lines_of(f"{path}.{name}", target(member))
    else:
        yield path


def public() -> list[str]:
    """Every public name."""
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    for package in ("ugen_provider", "dagster_ugen"):
        loader.load(package)
    loader.resolve_aliases(implicit=True, external=False)
    found: list[str] = []
    for name in (*PACKAGES, *MODULES):
        module = loader.modules_collection[name]
        listed = _listed(name)
        for member in sorted(listed or module.members):
            if member.startswith("_") or (listed is None and module.members[member].is_alias):
                continue
            if f"{name}.{member}" in BETWEEN_PACKAGES:
                continue
            found += lines_of(f"{name}.{member}", target(module[member]))
    return found


def _listed(name: str) -> list[str] | None:
    """The names that a package loads on first use; None for a module, whose names are its own."""
    if name not in PACKAGES and not name.endswith("operators.jobs"):
        return None
    from importlib import import_module

    package = import_module(name)
    return [
        member for member in (getattr(package, "__all__", None) or vars(package)["_HOMES"]) if member != "__version__"
    ]


def main() -> int:
    """Compare, or write.

    Returns:
        The exit code: 1 where the list is another one.
    """
    now = "\n".join(public()) + "\n"
    if "--write" in sys.argv:
        LIST.write_text(now, "utf-8")
        return 0
    then = LIST.read_text("utf-8") if LIST.exists() else ""
    changed = list(difflib.unified_diff(then.splitlines(), now.splitlines(), lineterm="", n=0))[2:]
    if not changed:
        return 0
    print("\n".join(line for line in changed if not line.startswith("@@")))
    print("The public names have changed. Where that is meant: a changelog fragment, and scripts/public_api.py --write")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
