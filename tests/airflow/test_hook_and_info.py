# SPDX-License-Identifier: Apache-2.0
"""The connection, the provider's description, links, the retry policy, and what importing costs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from ugen_provider.core.api.errors import (
    AuthenticationError,
    ConfigError,
    JobFailedError,
    JobTimeoutError,
    PurchaseError,
    RateLimitError,
    ServerError,
)
from ugen_provider.get_provider_info import get_provider_info
from ugen_provider.hooks.ugen import UGenHook
from ugen_provider.version_compat import AIRFLOW_3_1_PLUS, AIRFLOW_3_3_PLUS


class TestConnection:
    @pytest.mark.parametrize(
        "stored",
        [
            '{"conn_type": "ugen", "password": "k", "extra": {"base_url": "http://127.0.0.1:9/api/v1", "timeout": 5}}',
            "ugen://:k@/?base_url=http%3A%2F%2F127.0.0.1%3A9%2Fapi%2Fv1&timeout=5",
            '{"conn_type": "ugen", "password": "k", "host": "http://127.0.0.1:9/api/v1/", "extra": {"timeout": "5"}}',
        ],
        ids=["json", "uri", "host"],
    )
    def test_it_may_come_as_json_or_as_a_uri(self, monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", stored)
        config = UGenHook().config
        assert (config.base_url, config.timeout, config.api_key.reveal()) == ("http://127.0.0.1:9/api/v1", 5.0, "k")
        assert asyncio.run(UGenHook().aget_settings()).config == config

    def test_nothing_of_the_environment_stands_in_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UGEN_API_KEY", "another")
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", '{"conn_type": "ugen"}')
        with pytest.raises(ConfigError, match="connection 'ugen_default' has no API key"):
            UGenHook().get_conn()

    def test_a_missing_one_is_named_with_the_way_to_set_it(self) -> None:
        with pytest.raises(ConfigError, match=r"'nowhere' is not defined.*AIRFLOW_CONN_NOWHERE"):
            UGenHook("nowhere").get_conn()

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            ({"timeout": "soon"}, "timeout: must be a number"),
            ({"retries": 1.5}, "retries: must be a whole number"),
            ({"allow_insecure": "perhaps"}, "allow_insecure: must be true or false"),
            ({"base_url": "http://ugen.example"}, "would send the key in clear"),
        ],
    )
    def test_a_wrong_field_is_named(self, connection: Any, extra: dict[str, Any], said: str) -> None:
        connection(**extra)
        with pytest.raises(ConfigError, match=f"connection 'ugen_default': {said}|{said}"):
            UGenHook().get_conn()

    def test_the_test_is_free_and_tells_the_balance(self, connection: Any, ugen_emulator: Any) -> None:
        assert UGenHook().test_connection() == (
            True,
            f"Connected to {ugen_emulator.base_url}: 10000000 credits available",
        )

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            ({"password": "ugen_sk_wrong"}, "refused the API key"),
            ({"base_url": "http://127.0.0.1:9/api/v1"}, "could not be reached"),
            ({"password": ""}, "has no API key"),
        ],
    )
    def test_and_says_what_to_do(self, connection: Any, broken: dict[str, Any], said: str) -> None:
        connection(**broken)
        worked, message = UGenHook().test_connection()
        assert (worked, said in message, "ugen_sk_wrong" in message) == (False, True, False)

    @pytest.mark.parametrize(
        "broken",
        [
            {"password": "ugen_sk_wrong"},
            {"base_url": "http://127.0.0.1:9/api/v1"},
            {"password": ""},
            {"spending": "maybe"},
        ],
    )
    def test_the_id_that_airflow_makes_up_for_the_form_is_not_told(
        self, monkeypatch: pytest.MonkeyPatch, ugen_emulator: Any, broken: dict[str, Any]
    ) -> None:
        said = {"password": "ugen_sk_local", "base_url": ugen_emulator.base_url, "retries": 0, **broken}
        stored = {"conn_type": "ugen", "password": said.pop("password"), "extra": said}
        monkeypatch.setenv("AIRFLOW_CONN_KUOH9CV9", json.dumps(stored))
        worked, message = UGenHook("kUoH9Cv9").test_connection()
        assert (worked, "kUoH9Cv9" in message, "this connection" in message) == (False, False, True)

    def test_a_wrong_path_is_told_from_a_wrong_key(self, connection: Any, ugen_emulator: Any) -> None:
        connection(base_url=ugen_emulator.url + "/api/v9")
        worked, message = UGenHook().test_connection()
        assert (worked, "check base_url" in message) == (False, True)


class TestProviderInfo:
    def test_it_is_what_airflow_reads(self) -> None:
        from importlib.resources import files

        schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
        jsonschema.validate(get_provider_info(), schema)

    def test_everything_that_it_names_exists(self) -> None:
        from importlib import import_module

        info = get_provider_info()
        modules = [
            name for kind in ("hooks", "operators", "sensors", "triggers") for name in info[kind][0]["python-modules"]
        ]
        for name in modules:
            if AIRFLOW_3_1_PLUS or name != "ugen_provider.operators.review":  # Airflow asks people from 3.1 on
                import_module(name)
        classes = [*info["extra-links"], info["connection-types"][0]["hook-class-name"]]
        classes += [decorator["class-name"] for decorator in info["task-decorators"]]
        for path in classes:
            module, _, name = path.rpartition(".")
            assert hasattr(import_module(module), name)

    def test_the_form_has_the_fields_of_the_hook(self) -> None:
        (described,) = get_provider_info()["connection-types"]
        expected = "allow_insecure base_url namespace retries spending timeout video_model webhook_secret"
        assert sorted(described["conn-fields"]) == expected.split()

    def test_a_new_connection_shows_what_counts_where_nothing_is_chosen(self) -> None:
        (described,) = get_provider_info()["connection-types"]
        choice = described["conn-fields"]["spending"]["schema"]
        assert (choice["default"], choice["enum"]) == ("allow", ["allow", "attach_only", "off"])

    def test_it_imports_no_airflow(self) -> None:
        code = (
            "import sys, ugen_provider.get_provider_info as i; i.get_provider_info(); print('airflow' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


def test_operators_and_triggers_import_no_client_and_few_modules() -> None:
    code = """
import sys
import airflow.sdk, airflow.triggers.base
from airflow.sdk import BaseOperator, BaseOperatorLink, BaseSensorOperator
heavy = {"airflow.sdk.bases.decorator"} - set(sys.modules)
from ugen_provider.version_compat import BaseHook
before = set(sys.modules)
import ugen_provider.operators.jobs, ugen_provider.triggers.jobs
new = set(sys.modules) - before
heavy |= {name for name in new if name.split(".")[0] in {"httpx", "pydantic"} or "models" in name}
print(len(new), sorted(heavy & set(sys.modules)))
print(sorted(new))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    first, names, *_ = done.stdout.strip().splitlines()[-2:]
    count, _, forbidden = first.partition(" ")
    assert (forbidden, int(count) <= 30) == ("[]", True), names


@pytest.mark.skipif(not AIRFLOW_3_3_PLUS, reason="Airflow has retry policies from 3.3 on")
class TestRetryPolicy:
    def answer(self, kind: type[Exception], **more: Any) -> Any:
        return kind("no", method="POST", path="/jobs", status=more.pop("status"), **more)

    def decide(self, error: BaseException) -> Any:
        from ugen_provider.operators.retry_policy import UGEN_RETRY_POLICY

        return UGEN_RETRY_POLICY.evaluate(error, 1, 3)

    def test_what_a_retry_cannot_mend_fails(self) -> None:
        hopeless = [
            self.answer(AuthenticationError, status=401),
            ConfigError("no key"),
            JobFailedError("moderation", job_id="j", retryable=False),
            PurchaseError("no", scope="s", reason="cancelled_by_somebody"),
        ]
        assert {self.decide(error).action.value for error in hopeless} == {"fail"}

    def test_the_service_says_when(self) -> None:
        decision = self.decide(self.answer(RateLimitError, status=429, retry_after=42.0))
        assert (decision.action.value, decision.retry_delay.total_seconds()) == ("retry", 42.0)

    def test_everything_else_is_as_ever(self) -> None:
        others = [
            self.answer(ServerError, status=500),
            JobTimeoutError("late", job_id="j"),
            JobFailedError("503", job_id="j"),
            ValueError("no"),
        ]
        assert {self.decide(error).action.value for error in others} == {"default"}
