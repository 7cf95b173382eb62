#!/bin/sh
# Warehouse to videos: the rows of a query become videos, and their links go back into a table.
# Needs UGEN_API_KEY. WAREHOUSE is a SQLAlchemy URL; the query names its columns like a feed.
set -eu
WAREHOUSE="${WAREHOUSE:-sqlite:///warehouse.db}"
export UGEN_LEDGER="${UGEN_LEDGER:-videos.db}"

test -e "$UGEN_LEDGER" || ugen ledger init "$UGEN_LEDGER" ${ALLOW_EPHEMERAL:+--allow-ephemeral}
ugen feed run "$WAREHOUSE" --query "SELECT id, title, image_link, price FROM product WHERE for_sale = 1 ORDER BY id" \
  --catalogue warehouse --budget 2000 --segment-count 1 --to videos
ugen ledger export warehouse --to "$WAREHOUSE" --table product_video
