# SPDX-License-Identifier: Apache-2.0
"""The resource and who may point it where: a user who launches runs must not receive the key of the environment."""

import dagster as dg
import pytest

from dagster_ugen import UGenResource
from dagster_ugen.checks import stored_content
from ugen_provider.core.media.stores import Store

HOME = "https://api.example"
AWAY = "https://away.example"
FROM_ENV = {"env": "UGEN_API_KEY"}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("UGEN_API_KEY", "ugen_sk_of_the_team")
    monkeypatch.setenv("UGEN_HOME", HOME)


def launched(resource, **config):
    """The address that a run with this launchpad configuration uses, None where it was refused."""
    seen = []

    @dg.asset
    def video(ugen: UGenResource) -> None:
        seen.append(ugen.client_config().base_url)

    defs = dg.Definitions(assets=[video], resources={"ugen": resource})
    run_config = {"resources": {"ugen": {"config": config}}} if config else {}
    job = defs.resolve_implicit_global_asset_job_def()
    success = job.execute_in_process(run_config=run_config, raise_on_error=False).success
    return seen[0] if success else None


DEFINITIONS = {
    "plain": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=HOME),
    "env": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=dg.EnvVar("UGEN_HOME")),
    "none": UGenResource(api_key=dg.EnvVar("UGEN_API_KEY")),
    "key-in-code": UGenResource(api_key="ugen_sk_in_code", base_url=HOME),
    "at-launch": UGenResource.configure_at_launch(namespace="staging"),
}


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name != "at-launch"])
def test_run_without_override_is_launched(name):
    assert launched(DEFINITIONS[name]) is not None


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("more", [{}, {"allow_base_url_override": True}], ids=["", "own-leave"])
@pytest.mark.parametrize("key", [FROM_ENV, "ugen_sk_of_the_team"], ids=["env", "copied"])
def test_run_with_another_address_and_shared_key_is_refused(name, more, key):
    assert launched(DEFINITIONS[name], api_key=key, base_url=AWAY, **more) is None


@pytest.mark.parametrize("name", DEFINITIONS)
def test_run_with_another_address_and_own_key_is_launched(name):
    assert launched(DEFINITIONS[name], api_key="ugen_sk_of_the_launcher", base_url=AWAY) == AWAY


def test_run_with_same_address_is_launched():
    assert launched(DEFINITIONS["plain"], api_key=FROM_ENV, base_url=HOME, namespace="x") == HOME


def test_run_with_another_address_is_launched_where_defined():
    open_to_all = UGenResource(api_key=dg.EnvVar("UGEN_API_KEY"), base_url=HOME, allow_base_url_override=True)
    assert launched(open_to_all, api_key=FROM_ENV, base_url=AWAY) == AWAY


def test_key_field_is_marked_as_secret():
    field = UGenResource.to_config_schema().as_field().config_type.fields["api_key"]
    assert getattr(field, "is_secret", True), "Dagster 1.12.0 has no secret fields"


@pytest.mark.parametrize("kind", ["folder", "file-url", "memory"])
def test_stored_content_below_the_destination_is_read(tmp_path, kind):
    destination = {"folder": str(tmp_path), "file-url": f"file://{tmp_path}", "memory": "memory://videos"}[kind]
    store = Store(destination)
    store.write("lamp/manifest.json", b"{}")
    assert stored_content(store.location("lamp/manifest.json"), destination=destination) == b"{}"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{home}/../secret", "{home}-2/secret", "file://{home}/x", "reference://{home}/x", "memory://x/y",
     "simplecache::file://{home}/x", "http://127.0.0.1:1/manifest.json", ""],
)  # fmt: skip
def test_stored_content_elsewhere_is_not_read(tmp_path, path):
    home = tmp_path / "videos"
    home.mkdir()
    for name in ("secret", "videos-2/secret"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"secret")
    assert stored_content(path.format(home=home), destination=str(home)) is None
    assert stored_content(path.format(home=home), destination=None) is None


def test_package_names_itself_to_dagster():
    """Dagster's pages and telemetry list the libraries of a code location by this registry."""
    from dagster_shared.libraries import DagsterLibraryRegistry

    import dagster_ugen

    assert DagsterLibraryRegistry.get()["ugen-provider"] == dagster_ugen.__version__
    assert [name for name in dagster_ugen.__all__ if not hasattr(dagster_ugen, name)] == []
