#!/bin/sh
# Publish the videos back: a supplemental feed for Google, and a file of all fields. Needs no key.
set -eu
CATALOG="${1:-shop}"
export UGEN_LEDGER="${UGEN_LEDGER:-shop.db}"

ugen ledger export "$CATALOG" --to videos.xml --stored-at videos --public-at "${PUBLIC_AT:-https://cdn.shop.example/videos/}"
ugen ledger export "$CATALOG" --to videos.jsonl --format jsonl
