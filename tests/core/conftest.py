# SPDX-License-Identifier: Apache-2.0
"""A client and an emulator in one process, on one clock; see `local`."""

from collections.abc import Iterator

import pytest

from tests.core.local import Local
from ugen_provider import UGenClient
from ugen_provider.emulator.settings import Settings
from ugen_provider.emulator.world.readings import Readings


@pytest.fixture
def readings() -> dict:
    """Switches of the emulator; override to turn some."""
    return {}


@pytest.fixture
def local(readings) -> Local:
    """An emulator with a clock moved by hand."""
    return Local(Settings(speed=0, admin=True, readings=Readings().with_values(readings)))


@pytest.fixture
def client(local) -> Iterator[UGenClient]:
    with local.client() as made:
        yield made
