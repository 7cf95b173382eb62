# SPDX-License-Identifier: Apache-2.0
"""What the user ordered once, and the key under which the service knows it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Literal

_ROOT = uuid.UUID("6a4c7f0e-6f52-5b8e-9d63-2f1a5a0c9b41")


@dataclass(frozen=True, slots=True)
class Scope:
    """One order: a task instance, an asset's partition, a product of a catalogue, or a name in a script.

    Two scopes are the same order exactly if their text is the same. The namespace of the connection or resource comes
    first, so that staging and production never meet.
    """

    namespace: str
    kind: Literal["task", "partition", "product", "name"]
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return json.dumps([self.namespace, self.kind, *self.parts], ensure_ascii=False, separators=(",", ":"))

    @property
    def label(self) -> str:
        """As a person would say it; the text of a scope is for keys.

        Examples:
            >>> task_scope(dag_id="shop", run_id="monday", task_id="videos", map_index=3).label
            'task videos[3] of DAG shop, run monday'
            >>> product_scope(catalogue="shop", product_id="LL-1", namespace="staging").label
            "product LL-1 of catalogue shop, namespace 'staging'"
        """
        match self.kind, self.parts:
            case "task", (dag_id, run_id, task_id, last):
                row = "" if last == "-1" else f"[{last.removeprefix('key:')}]"
                said = f"task {task_id}{row} of DAG {dag_id}, run {run_id}"
            case "partition", (asset, partition):
                said = f"asset {asset}" + (f", partition {partition}" if partition else "")
            case "product", (catalogue, product_id):
                said = f"product {product_id} of catalogue {catalogue}"
            case _:
                said = f"order {' '.join(self.parts)!r}"
        return said + (f", namespace {self.namespace!r}" if self.namespace else "")

    @property
    def by_content(self) -> bool:
        """Whether a changed request is another order: so for products, where nobody owns a job alone."""
        return self.kind == "product"

    def key(self, generation: int, *, fingerprint: str, regenerate: str | None = None) -> str:
        """The idempotency key, a UUID as the service makes them. Never from the number of a try.

        Args:
            generation: How often this was deliberately bought again.
            fingerprint: Of the request; counts for products alone.
            regenerate: Where no store counts generations, the value by which another one was asked for.

        Examples:
            >>> named_scope("lamp").key(0, fingerprint="") == named_scope("lamp").key(0, fingerprint="other")
            True
        """
        parts: list[object] = [str(self), generation]
        if self.by_content:
            parts.append(fingerprint)
        if regenerate is not None:
            parts.append(["regenerate", regenerate])
        return str(uuid.uuid5(_ROOT, json.dumps(parts, ensure_ascii=False, separators=(",", ":"))))


def task_scope(
    *, dag_id: str, run_id: str, task_id: str, map_index: int = -1, scope_key: str | None = None, namespace: str = ""
) -> Scope:
    """An Airflow task instance. `scope_key` stands in for the map index, where rows may change places.

    Examples:
        >>> str(task_scope(dag_id="d", run_id="r", task_id="t"))
        '["","task","d","r","t","-1"]'
    """
    last = f"key:{scope_key}" if scope_key is not None else str(map_index)
    return Scope(namespace, "task", (dag_id, run_id, task_id, last))


def partition_scope(*, asset: str, partition: str, namespace: str = "") -> Scope:
    """A Dagster asset and its partition; an unpartitioned asset has the partition ''."""
    return Scope(namespace, "partition", (asset, partition))


def product_scope(*, catalogue: str, product_id: str, namespace: str = "") -> Scope:
    """A product of a catalogue, whoever orders it."""
    return Scope(namespace, "product", (catalogue, product_id))


def named_scope(name: str, *, namespace: str = "") -> Scope:
    """An order that a script names itself."""
    return Scope(namespace, "name", (name,))
