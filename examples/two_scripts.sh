#!/bin/sh
# A/B of two scripts: each product gets one video per variant. Each variant is an order of its own.
set -eu
FEED="${1:-feed.xml}"
export UGEN_LEDGER="${UGEN_LEDGER:-ab.db}"

test -e "$UGEN_LEDGER" || ugen ledger init "$UGEN_LEDGER" ${ALLOW_EPHEMERAL:+--allow-ephemeral}
cat > two_scripts.yaml <<'END'
variants:
  calm: {script_tone: conversational, cta_text: "See it in the shop"}
  loud: {script_tone: enthusiastic, cta_text: "Get yours today"}
END
ugen feed check "$FEED" --mapping two_scripts.yaml --segment-count 1
ugen feed run "$FEED" --mapping two_scripts.yaml --catalogue ab --budget 2000 --segment-count 1 --to videos
ugen gallery videos
