#!/bin/sh
# Shopify, every night: buy the videos of new and changed products of an exported CSV, within a day's budget.
# For cron: 0 2 * * * cd /srv/videos && sh shopify_nightly.sh products_export.csv
set -eu
FEED="${1:-products_export.csv}"
export UGEN_LEDGER="${UGEN_LEDGER:-shop.db}"

test -e "$UGEN_LEDGER" || ugen ledger init "$UGEN_LEDGER" ${ALLOW_EPHEMERAL:+--allow-ephemeral}
ugen feed check "$FEED" --kind shopify --catalogue shop --segment-count 1
ugen feed run "$FEED" --kind shopify --catalogue shop --budget 500 --daily-budget 1000 --segment-count 1 --to videos
