# SPDX-License-Identifier: Apache-2.0
"""The ledger, for scripts: `Ledger.init` creates one, `Ledger` opens it.

Allowed here: public names of `core.ledger`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ugen_provider.core.lazily import on_first_use

if TYPE_CHECKING:
    from ugen_provider.core.ledger.errors import AttemptSupersededError, LedgerUnavailableError
    from ugen_provider.core.ledger.record import Action, OrderRecord
    from ugen_provider.core.ledger.store import Catalogue, Entry, EphemeralLedgerWarning, Ledger, open_default_ledger

__all__ = [
    "Action",
    "AttemptSupersededError",
    "Catalogue",
    "Entry",
    "EphemeralLedgerWarning",
    "Ledger",
    "LedgerUnavailableError",
    "OrderRecord",
    "open_default_ledger",
]

_HOMES = {
    "Action": "record",
    "AttemptSupersededError": "errors",
    "Catalogue": "store",
    "Entry": "store",
    "EphemeralLedgerWarning": "store",
    "Ledger": "store",
    "LedgerUnavailableError": "errors",
    "OrderRecord": "record",
    "open_default_ledger": "store",
}

__getattr__ = on_first_use("ugen_provider.core.ledger", _HOMES)
