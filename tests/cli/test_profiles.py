# SPDX-License-Identifier: Apache-2.0
"""Where settings come from, and that a key is never lent to another address, shown, or read from an open file."""

import pytest

from ugen_provider.cli.session import SettingsInUse, choose, config_folder, data_folder, read_config
from ugen_provider.core.api.errors import ConfigError
from ugen_provider.emulator.settings import LOCAL_KEY

SHOP = """
default = "shop"
[profiles.shop]
api_key = "ugen_sk_shop"
base_url = "https://shop.example/api/v1"
namespace = "shop"
spending = "reuse_only"
[profiles.bare]
base_url = "https://bare.example/api/v1"
ledger = "bare.db"
"""


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(environ, text, mode=0o600):
    path = config_folder(environ) / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def chosen(environ, named=None) -> SettingsInUse:
    return choose(read_config(environ), named=named, environ=environ)


def key_of(found: SettingsInUse) -> str | None:
    return None if found.profile.api_key is None else found.profile.api_key.reveal()


def test_the_default_profile_counts_where_nothing_else_is_said(environ):
    write(environ, SHOP)
    found = chosen(environ)
    assert (key_of(found), found.profile.base_url) == ("ugen_sk_shop", "https://shop.example/api/v1")
    assert (found.profile.namespace, found.profile.spending) == ("shop", "reuse_only")


def test_the_environment_overrides_the_default_with_its_address(environ):
    write(environ, SHOP)
    environ["UGEN_API_KEY"] = "ugen_sk_env"
    found = chosen(environ)
    assert key_of(found) == "ugen_sk_env"
    # Not the profile's: its address was written down for its own key.
    assert found.profile.base_url is None
    environ["UGEN_BASE_URL"] = "https://env.example/api/v1"
    assert chosen(environ).profile.base_url == "https://env.example/api/v1"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_named_profile_goes_before_the_environment(environ, how):
    write(environ, SHOP)
    environ |= {"UGEN_API_KEY": "ugen_sk_env", "UGEN_BASE_URL": "https://env.example/api/v1", "UGEN_SPENDING": "allow"}
    if how == "environment":
        environ["UGEN_PROFILE"] = "shop"
    found = chosen(environ, named="shop" if how == "argument" else None)
    assert (key_of(found), found.profile.base_url) == ("ugen_sk_shop", "https://shop.example/api/v1")
    assert found.profile.spending == "reuse_only"


def test_a_profile_without_a_key_takes_it_from_the_environment(environ):
    write(environ, SHOP)
    environ |= {"UGEN_API_KEY": "ugen_sk_env", "UGEN_BASE_URL": "https://env.example/api/v1"}
    found = chosen(environ, named="bare")
    assert (key_of(found), found.profile.base_url) == ("ugen_sk_env", "https://bare.example/api/v1")
    assert found.profile.ledger == "bare.db"


def test_without_a_file_the_environment_alone_counts(environ):
    assert key_of(chosen(environ)) is None
    environ["UGEN_API_KEY"] = "ugen_sk_env"
    assert key_of(chosen(environ)) == "ugen_sk_env"
    with pytest.raises(ConfigError, match="there is no profile 'shop'"):
        chosen(environ, named="shop")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(environ, mode):
    path = write(environ, SHOP, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}") as caught:
        read_config(environ)
    assert "ugen_sk" not in str(caught.value)


def test_a_file_without_a_key_may_be_open(environ):
    write(environ, "[profiles.bare]\nnamespace = 'x'\n", 0o644)
    assert read_config(environ).profiles["bare"].namespace == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[profiles.a]\nkey = 'x'", "profiles.a.key: is unknown"),
        ("[shop]\napi_key = 'x'", "shop: is unknown"),
        ("default = 'b'\n[profiles.a]", "there is no profile 'b'; there are a"),
        ("[profiles.a]\napi_key = 7", "profiles.a.api_key: must be a text"),
        ("[profiles.a]\nallow_insecure = 'yes'", "must be true or false"),
        ("profiles = 3", "write a table"),
        ("nonsense", "cannot be read"),
    ],
)
def test_what_the_file_says_wrong_is_named(environ, text, says):
    path = write(environ, text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_config(environ)
    assert str(path) in str(caught.value)


def test_a_key_is_never_shown(environ):
    write(environ, SHOP)
    assert "ugen_sk_shop" not in repr(read_config(environ))
    assert "ugen_sk_shop" not in repr(chosen(environ))


def test_folders_follow_the_desktop_s_own_variables(environ):
    assert str(config_folder({"XDG_CONFIG_HOME": "/c"})) == "/c/ugen"
    assert str(data_folder({"XDG_DATA_HOME": "/d"})) == "/d/ugen"
    assert str(data_folder({"HOME": "/h"})) == "/h/.local/share/ugen"


def test_a_command_uses_the_profile_that_is_named(ugen):
    url = ugen.environ.pop("UGEN_BASE_URL")
    ugen.environ["UGEN_API_KEY"] = "ugen_sk_wrong"
    write(ugen.environ, f"[profiles.local]\napi_key = '{LOCAL_KEY}'\nbase_url = '{url}'\n")
    assert ugen.json("credits", "balance", "--profile", "local")["available_credits"] > 0
    assert "there is no profile 'other'" in ugen("credits", "balance", "--profile", "other", code=2).stderr
    (ugen.home / ".config" / "ugen" / "config.toml").chmod(0o644)
    said = ugen("credits", "balance", "--profile", "local", code=2)
    assert "chmod 600" in said.stderr
    assert LOCAL_KEY not in said.output


def test_the_key_is_no_argument(ugen):
    for option in ("--api-key", "--key"):
        assert "No such option" in ugen("credits", "balance", option, LOCAL_KEY, code=2).stderr
