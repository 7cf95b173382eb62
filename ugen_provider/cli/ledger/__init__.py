# SPDX-License-Identifier: Apache-2.0
"""`ugen ledger`: what was ordered, bought and delivered for each product. Looking is free and needs no key.

What may come in: one more way to read or mend a ledger. None of them buys.
"""

from collections.abc import Mapping

from ugen_provider.cli.lazy import Subcommand, lazy_group

COMMANDS: Mapping[str, Subcommand] = {
    "show": Subcommand(
        module="ugen_provider.cli.ledger.showing", attribute="show_command", summary="Show catalogues, or products."
    ),
    "export": Subcommand(
        module="ugen_provider.cli.ledger.exporting",
        attribute="export_command",
        summary="Write the videos back to the shop, as a supplemental feed or JSONL.",
    ),
    "repair": Subcommand(
        module="ugen_provider.cli.ledger.repairing",
        attribute="repair_command",
        summary="Write down what the service knows better. Buys nothing.",
    ),
}

ledger_group = lazy_group("ledger", COMMANDS, about="What was bought for which product.")
