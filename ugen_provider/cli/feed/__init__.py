# SPDX-License-Identifier: Apache-2.0
"""`ugen feed`: a product feed, checked or bought. Everything that decides is in `core.feeds` and `core.batch`.

What may come in: one more thing that a person asks of a feed, as one more command.
"""

from collections.abc import Mapping

from ugen_provider.cli.lazy import Subcommand, lazy_group

COMMANDS: Mapping[str, Subcommand] = {
    "check": Subcommand(
        module="ugen_provider.cli.feed.checking",
        attribute="check_command",
        summary="What would be sent, what refused and why, and what it would cost. Free.",
    ),
    "run": Subcommand(
        module="ugen_provider.cli.feed.running",
        attribute="run_command",
        summary="Buy what is new or changed, within a budget. Costs credits.",
    ),
}

feed_group = lazy_group("feed", COMMANDS, about="Check a product feed, or make its videos.")
