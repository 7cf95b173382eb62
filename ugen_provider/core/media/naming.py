# SPDX-License-Identifier: Apache-2.0
"""Where in the destination a file goes. Pure; what comes from a feed or from the service is never trusted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from string import Formatter

from ugen_provider.core.api.errors import ConfigError

DEFAULT_TEMPLATE = "{product_id}/{job_id}/{name}"
"""`name` is `final.mp4`, `segment-0.mp4`, `keyframe-0.png`, `thumbnail.png` or `manifest.json`."""

FIELDS = ("product_id", "job_id", "name")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
_MOST_LETTERS = 100


def safe_name(value: str) -> str:
    """One path segment that every storage takes, and that differs where the values differ.

    Examples:
        >>> safe_name("LL-1001"), safe_name("../etc")
        ('LL-1001', 'etc-6d0e4fbd')
    """
    safe = _UNSAFE.sub("_", value).strip("._ ")[:_MOST_LETTERS]
    if safe == value and safe.partition(".")[0].lower() not in _RESERVED:
        return safe
    return f"{safe.strip('_') or 'x'}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def check_template(template: str) -> None:
    """Refuse a template that could put two files in one place, or a file outside the destination.

    Raises:
        ConfigError: It says what the template lacks.
    """
    try:
        used = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"template {template!r} cannot be read: {error}") from None
    unknown = sorted(set(used) - set(FIELDS))
    if unknown:
        raise ConfigError(f"template {template!r} names {', '.join(unknown)}; it may use {', '.join(FIELDS)}")
    if "job_id" not in used or "name" not in used:
        raise ConfigError(f"template {template!r} needs {{job_id}} and {{name}}, or files would replace one another")
    if not template.rpartition("/")[2].startswith("{name}") or template.count("{name}") > 1:
        raise ConfigError(f"template {template!r} must end in /{{name}}")
    if template.startswith("/") or ".." in template.split("/") or "\\" in template or ":" in template:
        raise ConfigError(f"template {template!r} must stay below the destination: no leading /, .., \\ or :")


def folder_for(template: str, *, job_id: str, product_id: str | None) -> str:
    """The folder of one job's files, relative to the destination, ending in `/` unless it is empty.

    Examples:
        >>> folder_for(DEFAULT_TEMPLATE, job_id="j1", product_id=None)
        'j1/'
    """
    values: Mapping[str, str] = {
        "job_id": safe_name(job_id),
        "product_id": safe_name(product_id) if product_id else "",
        "name": "",
    }
    path = template.format(**values)
    return "".join(f"{part}/" for part in path.split("/") if part)
