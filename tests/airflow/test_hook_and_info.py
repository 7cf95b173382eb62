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

from ugen_provider.core.api.errors import AuthenticationError, ConfigError, PurchaseError, RateLimitError, ServerError
from ugen_provider.core.api.polling import JobFailedError, JobTimeoutError
from ugen_provider.get_provider_info import get_provider_info
from ugen_provider.hooks.ugen import EXTRAS, UGenHook
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

    @pytest.mark.parametrize(
        ("fields", "address"),
        [
            ({}, "https://api.u-gen.ai/api/v1"),
            ({"host": "ugen.example"}, "https://ugen.example/api/v1"),
            (
                {"host": "ugen.example", "port": 8443, "schema": "/proxied/api/v1/"},
                "https://ugen.example:8443/proxied/api/v1",
            ),
            ({"host": "ugen.example", "port": 0, "schema": "https"}, "https://ugen.example/api/v1"),
            ({"host": "127.0.0.1", "port": 9, "schema": "http"}, "http://127.0.0.1:9/api/v1"),
            ({"host": "http://127.0.0.1", "port": 9}, "http://127.0.0.1:9/api/v1"),
            ({"host": "https://ugen.example/api/v2/"}, "https://ugen.example/api/v2"),
            ({"host": "ugen.example:8443/api/v2"}, "https://ugen.example:8443/api/v2"),
            ({"host": "http://[::1]:9"}, "http://[::1]:9/api/v1"),
            (
                {"extra": {"base_url": "https://ugen.example/api/v1"}, "host": "ugen.example"},
                "https://ugen.example/api/v1",
            ),
            ({"extra": {"extra__ugen__base_url": "https://ugen.example/api/v1"}}, "https://ugen.example/api/v1"),
            (
                {"extra": {"extra__ugen__base_url": "https://ugen.example/api/v1", "base_url": ""}},
                "https://ugen.example/api/v1",
            ),
        ],
    )
    def test_connection_address_honours_every_field(
        self, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], address: str
    ) -> None:
        stored = {"conn_type": "ugen", "password": "k", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))
        assert UGenHook().config.base_url == address
        if "extra" in fields or "://" in fields.get("host", ""):
            return
        from airflow.models.connection import Connection

        uri = Connection(conn_id="x", **stored).get_uri()  # as a secrets backend keeps it
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", uri)
        assert UGenHook().config.base_url == address

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"login": "anna"}, "login: is not used"),
            ({"port": 8443}, "port: needs a host"),
            ({"schema": "https"}, "schema: needs a host"),
            ({"host": "ugen.example:1", "port": 2}, "port: is 2, and host says 1"),
            ({"host": "http://127.0.0.1", "schema": "https"}, "schema: is https, and host says http"),
            ({"host": "ugen.example/api/v1", "schema": "api/v2"}, "schema: is api/v2, and host says api/v1"),
            ({"host": "ugen.example:many"}, "host: .*base_url"),
            ({"host": "a.example", "extra": {"base_url": "https://b.example/api/v1"}}, "leave one of the two out"),
            ({"extra": {"spendings": "off"}}, "spendings: .* is 'spending' meant"),
            ({"extra": {"Spending": "off"}}, "is 'spending' meant"),
            ({"extra": {"base-url": "https://b.example"}}, "is 'base_url' meant"),
            ({"extra": {"time_out": 5}}, "is 'timeout' meant"),
            ({"extra": {"api_key": "secret-thing"}}, "put the key into the password"),
            ({"extra": {"proxies": {"https": "http://p"}}}, "name one proxy for all requests as proxy"),
            ({"extra": {"verify": False}}, "certificates are always verified; .* as ca_bundle"),
            ({"extra": {"proxy": "https://me:secret-thing@p.example"}}, "proxy: must be a URL such as"),
            ({"extra": {"proxy": "me:secret-thing@p.example:31x"}}, "proxy: must be a URL such as"),
            ({"extra": {"colour": "red"}}, "known are base_url, "),
            ({"extra": {"extra__ugen__spending": "off", "spending": "allow"}}, "given twice"),
            ({"extra": {"extra__ugen__spendng": "off"}}, "is 'spending' meant"),
        ],
    )
    def test_connection_field_that_would_be_ignored_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], said: str
    ) -> None:
        stored = {"conn_type": "ugen", "password": "k", **fields}
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_DEFAULT", json.dumps(stored))
        with pytest.raises(ConfigError, match=f"connection 'ugen_default': {said}|{said}") as refused:
            UGenHook().get_settings()
        assert "secret-thing" not in str(refused.value)
        with pytest.raises(ConfigError, match=said):
            asyncio.run(UGenHook().aget_settings())

    def test_connection_form_offers_every_extra(self) -> None:
        (kind,) = get_provider_info()["connection-types"]
        assert tuple(sorted(kind["conn-fields"])) == tuple(sorted(EXTRAS))

    def test_environment_variables_do_not_replace_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_the_test_is_free_and_shows_the_balance(self, connection: Any, ugen_emulator: Any) -> None:
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
    def test_the_form_id_that_airflow_invents_is_not_shown(
        self, monkeypatch: pytest.MonkeyPatch, ugen_emulator: Any, broken: dict[str, Any]
    ) -> None:
        said = {"password": "ugen_sk_local", "base_url": ugen_emulator.base_url, "retries": 0, **broken}
        stored = {"conn_type": "ugen", "password": said.pop("password"), "extra": said}
        monkeypatch.setenv("AIRFLOW_CONN_KUOH9CV9", json.dumps(stored))
        worked, message = UGenHook("kUoH9Cv9").test_connection()
        assert (worked, "kUoH9Cv9" in message, "this connection" in message) == (False, False, True)

    def test_connection_test_reports_ledger_and_spending(
        self, connection: Any, ledger: Any, ugen_emulator: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection(ledger_conn_id="ugen_ledger", spending="reuse_only")
        worked, message = UGenHook().test_connection()
        assert (worked, "ledger 'ugen_ledger' has the id " in message, "nothing is bought" in message) == (True,) * 3
        missing = json.dumps({"conn_type": "sqlite", "host": str(ledger.with_name("missing.db"))})
        monkeypatch.setenv("AIRFLOW_CONN_UGEN_LEDGER", missing)
        worked, message = UGenHook().test_connection()
        assert (worked, "ugen ledger init" in message) == (False, True)

    def test_connection_test_reports_a_wrong_clock(
        self, connection: Any, monkeypatch: pytest.MonkeyPatch, ugen_emulator: Any
    ) -> None:
        from ugen_provider.core.api.clock import SystemClock

        monkeypatch.setattr(SystemClock, "now", lambda self: 0.0)
        worked, message = UGenHook().test_connection()
        assert (worked, "set this machine's clock" in message) == (False, True)

    def test_a_wrong_path_is_distinguished_from_a_wrong_key(self, connection: Any, ugen_emulator: Any) -> None:
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
        expected = """allow_insecure base_url ca_bundle ledger_conn_id namespace previous_secrets proxy record_secret
        retries service_profile spending timeout video_model webhook_secret"""
        assert sorted(described["conn-fields"]) == expected.split()

    def test_a_new_connection_shows_the_defaults_in_force(self) -> None:
        (described,) = get_provider_info()["connection-types"]
        choice = described["conn-fields"]["spending"]["schema"]
        assert (choice["default"], choice["enum"]) == ("allow", ["allow", "reuse_only", "off"])

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
        from ugen_provider.operators.errors import UGEN_RETRY_POLICY

        return UGEN_RETRY_POLICY.evaluate(error, 1, 3)

    def test_an_error_that_a_retry_cannot_repair_fails(self) -> None:
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


@pytest.mark.parametrize("base", ["http://host/af", "http://host/af/"])
def test_links_keep_the_path_prefix_of_airflow(monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    from tests.airflow.conftest import TaskInstance
    from ugen_provider.links.ugen import page_of

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    assert page_of("job", TaskInstance()).startswith("http://host/af/ugen/job?dag_id=dag&")


def test_plugin_adds_no_tab_to_tasks_of_others() -> None:
    from ugen_provider.plugins.ugen import UGenPlugin

    assert not getattr(UGenPlugin, "external_views", [])
    assert not getattr(UGenPlugin, "react_apps", [])


class TestSettings:
    def test_connection_names_ledger_and_secrets(self, connection: Any) -> None:
        connection(ledger_conn_id="l", record_secret="new", previous_secrets="old, older")
        settings = UGenHook().get_settings()
        assert settings.ledger_conn_id == "l"
        from ugen_provider.core.api.config import Secret
        from ugen_provider.core.ledger.record import RecordSigner

        for secret in ("new", "old", "older"):
            assert settings.signer.verifies("text", RecordSigner(Secret(secret)).sign("text"))
        assert not settings.signer.verifies("text", RecordSigner(Secret("ugen_sk_local")).sign("text"))

    def test_connection_without_secret_derives_from_the_key(self, connection: Any) -> None:
        from ugen_provider.core.api.config import Secret
        from ugen_provider.core.ledger.record import RecordSigner

        connection()
        signer = UGenHook().get_settings().signer
        assert signer.sign("text") == RecordSigner(Secret("ugen_sk_local")).sign("text")
        assert "ugen_sk_local" not in repr(UGenHook().get_settings())

    def test_connection_wrong_secret_list_is_named(self, connection: Any) -> None:
        connection(previous_secrets=[1])
        with pytest.raises(ConfigError, match="previous_secrets: must be a list of texts"):
            UGenHook().get_settings()
