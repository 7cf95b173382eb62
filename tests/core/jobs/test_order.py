# SPDX-License-Identifier: Apache-2.0
"""Identity of orders and requests, and the key that follows."""

import hashlib
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugen_provider.core.api import rules
from ugen_provider.core.jobs.order import fingerprint, name_key, partition_key, product_key, task_key

BODY = {"product_name": "Lamp", "product_image_url": "https://s.example/l.jpg", "segment_count": 2}
TASK = {"dag_id": "d", "run_id": "r", "task_id": "t"}


def test_keys_are_uuids_that_never_change_between_versions():
    key = task_key(**TASK, map_index=3).idempotency_key(0, fingerprint="x")
    assert uuid.UUID(key).version == 5
    assert key == "454be021-4d5b-5c4f-a752-430830cf8873"
    assert (
        product_key(catalogue="c", product_id="p").idempotency_key(1, fingerprint="f")
        == "a69a5bda-26a7-5e80-9b8c-f0bca049bb69"
    )


def test_fingerprints_of_scheme_1_never_change_between_versions():
    assert fingerprint(BODY, scheme=1) == "01af776613a67a404198dc53542b9ca3513a2b9ba9bd45cc8345be5944af82fb"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(rules.BY_NAME)),
        _JSON | st.lists(st.text(), max_size=3) | st.sampled_from(list(rules.DEFAULTS.values())),
        max_size=8,
    ),
    st.none() | st.text(max_size=3),
)
def test_the_digest_of_scheme_1_is_that_of_sorted_compact_json(body, image_identity):
    counted = {
        name: value
        for name, value in body.items()
        if value is not None
        and name not in {"webhook_url", "idempotency_key", "stop_at_stage"}
        and rules.DEFAULTS.get(name) != value
    }
    if image_identity is not None:
        counted["product_image_url"] = image_identity
    plain = json.dumps(counted, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if "?" not in str(counted.get("product_image_url", "")):
        expected = hashlib.sha256(plain.encode()).hexdigest()
        assert fingerprint(body, scheme=1, image_identity=image_identity) == expected


@given(st.lists(st.tuples(*[st.text(max_size=4)] * 4), min_size=2, max_size=2, unique=True))
def test_two_orders_never_share_a_key(orders):
    (a, b) = (task_key(dag_id=o[0], run_id=o[1], task_id=o[2], namespace=o[3]) for o in orders)
    assert a.idempotency_key(0, fingerprint="") != b.idempotency_key(0, fingerprint="")


def test_namespace_kind_number_and_index_keep_orders_apart():
    scopes = [
        task_key(**TASK),
        task_key(**TASK, namespace="staging"),
        task_key(**TASK, map_index=0),
        task_key(**TASK, scope_key="0"),
        task_key(**TASK, scope_key="-1"),
        name_key("d"),
        partition_key(asset="d", partition="r"),
        product_key(catalogue="d", product_id="r"),
    ]
    keys = {scope.idempotency_key(generation, fingerprint="") for scope in scopes for generation in range(3)}
    assert len(keys) == len(scopes) * 3


def test_a_changed_request_is_a_new_order_for_products_only():
    product, task = product_key(catalogue="c", product_id="p"), task_key(**TASK)
    assert product.idempotency_key(0, fingerprint="a") != product.idempotency_key(0, fingerprint="b")
    assert task.idempotency_key(0, fingerprint="a") == task.idempotency_key(0, fingerprint="b")


def test_defaults_and_excluded_fields_do_not_count():
    same = {
        **BODY,
        **rules.DEFAULTS,
        "webhook_url": "https://h.example",
        "idempotency_key": "k",
        "stop_at_stage": "init",
    }
    assert fingerprint(same) == fingerprint(BODY)


@pytest.mark.parametrize(
    "signed",
    [
        "X-Amz-Signature=a&X-Amz-Date=b&X-Amz-Expires=1",
        "X-Goog-Signature=a&X-Goog-Expires=3",
        "sv=1&se=2&sr=b&sp=r&sig=x",
        "Expires=1&Signature=2&Key-Pair-Id=3",
        "token=abc",
    ],
)
def test_the_signature_of_an_address_does_not_count(signed):
    other = {**BODY, "product_image_url": f"{BODY['product_image_url']}?{signed}"}
    assert fingerprint(other) == fingerprint(BODY)


def test_what_the_address_says_beside_a_signature_counts():
    one = {**BODY, "product_image_url": "https://s.example/l?v=1&sig=a"}
    two = {**BODY, "product_image_url": "https://s.example/l?v=2&sig=a"}
    assert fingerprint(one) != fingerprint(two)


@pytest.mark.parametrize(
    "field",
    [rule.name for rule in rules.FIELDS if rule.name not in {"webhook_url", "idempotency_key", "stop_at_stage"}],
)
def test_every_other_field_counts(field):
    kinds = {
        "string": "other",
        "url": "https://o.example/",
        "integer": 3,
        "number": 0.9,
        "boolean": False,
        "object": {"a": 1},
        "strings": ["a"],
    }
    assert fingerprint({**BODY, field: kinds[rules.BY_NAME[field].kind]}) != fingerprint(BODY)


def test_an_uploaded_picture_counts_by_its_content():
    def mark(address, identity):
        return fingerprint({**BODY, "product_image_url": address}, image_identity=identity)

    assert (
        mark("https://u.example/1", "sha256:a")
        == mark("https://u.example/2", "sha256:a")
        != mark("https://u.example/1", "sha256:b")
    )


def test_a_scheme_from_the_future_is_refused_in_words():
    with pytest.raises(ValueError, match="newer version"):
        fingerprint(BODY, scheme=99)
