# SPDX-License-Identifier: Apache-2.0
"""Settings of an emulator: values only, each with the default that makes it usable at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ugen_provider.emulator.world.readings import Readings

_PLENTY = 10_000_000
DAY = 24 * 3600.0
LEAST_KEY_WINDOW = 600.0
"""Real seconds for which a key is remembered at least, unless the window is set."""

LOCAL_KEY = "ugen_sk_local"
LOCAL_TOKEN = "ugen_jwt_local"  # noqa: S105 - the key of a local fake


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """Settings of one account of the emulator.

    Attributes:
        name: What the emulator calls it.
        api_keys: Keys for `X-API-Key`.
        bearer_tokens: Tokens for `Authorization: Bearer`.
        credits: Opening balance.
        concurrent_jobs: Most active jobs at once; `None` for no limit.
        daily_jobs: Most jobs created in a UTC day of the emulator's clock; `None` for no limit.
    """

    name: str = "local"
    api_keys: tuple[str, ...] = (LOCAL_KEY,)
    bearer_tokens: tuple[str, ...] = (LOCAL_TOKEN,)
    credits: int = _PLENTY
    concurrent_jobs: int | None = None
    daily_jobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Credits. Those for video are invented: no page states them."""

    keyframe: int = 8
    music: int = 15
    persona_voice: int = 15
    own_voice: int = 20
    custom_captions: int = 20
    post_processing: int = 10
    per_segment: Mapping[str, int] = field(default_factory=lambda: {"veo3_fast": 11, "veo3": 22})
    per_second: Mapping[str, int] = field(default_factory=lambda: {"kling3_std": 3, "kling3_pro": 5, "kling3_4k": 9})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds of the emulator's clock: each the least and the most of a seeded draw.

    A job of three segments takes about three minutes.
    """

    queue: tuple[float, float] = (1.0, 3.0)
    prepare: tuple[float, float] = (3.0, 6.0)
    agents: tuple[float, float] = (12.0, 25.0)
    keyframe: tuple[float, float] = (8.0, 14.0)
    segment: tuple[float, float] = (45.0, 80.0)
    concat: tuple[float, float] = (8.0, 15.0)
    audio: tuple[float, float] = (12.0, 25.0)
    captions: tuple[float, float] = (8.0, 15.0)
    complete: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How the seeded quality scores fall: normally, cut to 0-1.

    Attributes:
        mean: Middle of the scores.
        deviation: Their standard deviation. By default about 3 % of attempts miss the standard threshold.
        instant_fails: Share of attempts with a phone in the picture or the wrong interaction.
    """

    mean: float = 0.86
    deviation: float = 0.085
    instant_fails: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an emulator is started with.

    Attributes:
        seed: Same seed, same ids, scores and durations.
        speed: Emulated seconds a real second; 0 for a clock that is moved by hand.
        start: Where the clock begins, in seconds since the epoch; `None` is now (by hand: a fixed day).
        tick: Seconds that each API request moves the clock.
        patience: Seconds that a client may wait for a stopped clock, then it raises; `None` only warns.
        db: SQLite file, or `:memory:`.
        admin: Whether `/_emulator` answers.
        admin_anywhere: Whether it may do so on an address that is not loopback.
        readings: The switches.
        tenants: The accounts.
        prices: Credits of each component.
        pace: Durations.
        quality: Scores.
        key_window: Seconds for which an idempotency key is remembered; `None` is 24 hours of the emulator's clock, and
            never less than ten real minutes, however fast that clock is.
        profile: Where the service differs from its documentation: the rows of a client's `service_profile`.
        public_url: What URLs in answers begin with; `None` is where the server listens.
        faults: Fault rules to begin with, as `/_emulator/faults` takes them.
        insecure_webhooks: Whether webhook URLs may be plain http to hosts other than loopback.
    """

    seed: int = 7
    speed: float = 1.0
    start: float | None = None
    tick: float = 0.0
    patience: float | None = None
    db: str | Path = ":memory:"
    admin: bool = False
    admin_anywhere: bool = False
    readings: Readings = field(default_factory=Readings)
    tenants: tuple[TenantSettings, ...] = (TenantSettings(),)
    prices: Prices = field(default_factory=Prices)
    pace: Pace = field(default_factory=Pace)
    quality: Quality = field(default_factory=Quality)
    key_window: float | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)
    public_url: str | None = None
    faults: tuple[Mapping[str, Any], ...] = ()
    insecure_webhooks: bool = False

    @property
    def remembered(self) -> float:
        """Seconds of the emulator's clock for which an idempotency key is remembered."""
        return max(DAY, LEAST_KEY_WINDOW * self.speed) if self.key_window is None else self.key_window


def tenant_settings(data: Mapping[str, Any]) -> TenantSettings:
    """Read an account from JSON.

    Raises:
        ValueError: A field that there is not, or a value of the wrong sort.
    """
    known = TenantSettings.__dataclass_fields__
    if unknown := set(data) - set(known):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; a tenant has {', '.join(known)}")
    if not isinstance(data.get("name"), str) or not data["name"]:
        raise ValueError("a tenant needs a name")
    values = dict(data)
    for name in ("api_keys", "bearer_tokens"):
        texts = values.get(name, [])
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"{name} is a list of texts")
        values[name] = tuple(texts)
    for name, least in (("credits", 0), ("concurrent_jobs", 1), ("daily_jobs", 1)):
        value = values.get(name)
        if value is None and name != "credits":
            continue
        value = values.setdefault(name, _PLENTY)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is a whole number from {least}")
    return TenantSettings(**values)
