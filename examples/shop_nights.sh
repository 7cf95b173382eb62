#!/usr/bin/env bash
# Two nights of a shop: from its own CSV to videos, a broken feed that is refused, and the way back to the shop.
#
#     ugen emulator &                      # or an account: it then costs the credits of 12 jobs
#     export UGEN_BASE_URL=http://127.0.0.1:8000/api/v1 UGEN_API_KEY=ugen_sk_local
#     bash shop_nights.sh [LEDGER] [TABLE_URL]
set -euo pipefail
export UGEN_LEDGER=${1:-shop.db}
table=${2:-sqlite:///site.db}
run=(--catalogue shop --mapping mapping.yaml --segment-count 1)
export=(ledger export shop --stored-at videos --public-at https://cdn.shop.example/videos/)

# What the shop has: a CSV with columns of its own.
{
    echo "id;Bezeichnung;Bild"
    for number in $(seq 1 12); do
        echo "A-$number;Schreibtischlampe $number;https://shop.example/bilder/$number.jpg"
    done
} > products.csv

# Which column is which field of a request.
cat > mapping.yaml <<'YAML'
columns:
  product_name: Bezeichnung
  product_image_url: Bild
YAML

# What it would buy, and what that costs. Free.
ugen ledger init "$UGEN_LEDGER"
ugen feed check products.csv "${run[@]}"
ugen feed preview products.csv "${run[@]}" --budget 2000 --no-pictures --out preview.html

# The first night buys.
ugen feed run products.csv "${run[@]}" --budget 2000 --run-id monday --to videos --interval 1
ugen "${export[@]}" --to videos.xml

# The second night: the shop's export broke off. A check says so, and the run is refused before it buys.
head -n 6 products.csv > broken.csv
ugen feed check broken.csv "${run[@]}"
if ugen feed run broken.csv "${run[@]}" --budget 2000 --run-id tuesday --to videos; then
    echo "a broken feed was accepted" >&2
    exit 1
fi
# The shop's feed still has every video.
ugen "${export[@]}" --to videos.xml
cp videos.xml videos-of-tuesday.xml

# If seven products are really gone, a person allows it, and the export follows.
ugen feed run broken.csv "${run[@]}" --budget 2000 --run-id wednesday --to videos --interval 1 --max-gone 1
ugen "${export[@]}" --to videos.xml
ugen "${export[@]}" --to "$table" --table product_video
