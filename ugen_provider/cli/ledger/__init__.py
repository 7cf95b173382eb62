# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger`: create, read and correct a ledger. Reading is free and needs no key; nothing here buys.

Allowed here: one more way to read or correct a ledger.
"""

from collections.abc import Mapping

from ugen_provider.cli.frame import Subcommand, lazy_group

_HOME = "ugen_provider.cli.ledger.commands"

COMMANDS: Mapping[str, Subcommand] = {
    "init": Subcommand(module=_HOME, attribute="init_command", summary="Create a ledger."),
    "show": Subcommand(module=_HOME, attribute="show_command", summary="Show catalogs, products, runs or orders."),
    "settle": Subcommand(
        module=_HOME, attribute="settle_command", summary="Record what you found out about the job of an order."
    ),
    "export": Subcommand(
        module=_HOME,
        attribute="export_command",
        summary="Write the videos of a catalog as a supplemental feed or JSONL.",
    ),
    "repair": Subcommand(
        module=_HOME, attribute="repair_command", summary="Add job ids that only the service knows. Buys nothing."
    ),
}

ledger_group = lazy_group("ledger", COMMANDS, about="Create, read and correct the ledger of orders and purchases.")
