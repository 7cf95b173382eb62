# SPDX-License-Identifier: Apache-2.0
"""`ugen feed`: check a product feed, or buy its videos. All decisions are in `core.feeds` and `core.batch`.

Allowed here: one more command about a feed.
"""

from collections.abc import Mapping

from ugen_provider.cli.frame import Subcommand, lazy_group

COMMANDS: Mapping[str, Subcommand] = {
    "check": Subcommand(
        module="ugen_provider.cli.feed.commands",
        attribute="check_command",
        summary="Show the requests, the rejected rows and the cost of a feed. Free.",
    ),
    "preview": Subcommand(
        module="ugen_provider.cli.feed.commands",
        attribute="preview_command",
        summary="Write a page of what a run would buy, and select products. Free.",
    ),
    "run": Subcommand(
        module="ugen_provider.cli.feed.commands",
        attribute="run_command",
        summary="Buy what is new or changed, within a budget. Costs credits.",
    ),
}

feed_group = lazy_group("feed", COMMANDS, about="Check a product feed, or create its videos.")
