#!/bin/sh
# Localization: one video per language. U-Gen speaks the words of the script, so each language has its own.
set -eu
FEED="${1:-feed.xml}"
export UGEN_LEDGER="${UGEN_LEDGER:-languages.db}"

test -e "$UGEN_LEDGER" || ugen ledger init "$UGEN_LEDGER" ${ALLOW_EPHEMERAL:+--allow-ephemeral}
cat > languages.yaml <<'END'
variants:
  en: {custom_script: "Light for every evening. Made to last. Find it in our shop."}
  de: {custom_script: "Licht für jeden Abend. Gemacht für lange Zeit. Jetzt in unserem Shop."}
END
ugen feed run "$FEED" --mapping languages.yaml --catalogue languages --budget 2000 --segment-count 1 --to videos
ugen ledger export languages --to videos-de.jsonl --format jsonl --variant de
