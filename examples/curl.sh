#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every request of the Jobs API, by curl alone: against the service, or against `ugen emulator`.
#
#   UGEN_BASE_URL=http://127.0.0.1:8787 UGEN_API_KEY=ugen_sk_local sh examples/curl.sh
#
# Against the service this buys a video. UGEN_POLL_SECONDS is the time between two polls (default 10).
set -eu

HOST=${UGEN_BASE_URL:-https://api.u-gen.ai}
YOUR_API_KEY=${UGEN_API_KEY:?set UGEN_API_KEY to your key}
alias curl='curl --silent --show-error --fail-with-body'

# The first one: a job's own fields come before those of its segments.
field() { grep -o "\"$1\": *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

wait_for() {
  while :; do
    STATUS=$(curl -X GET "$HOST/api/v1/jobs/$YOUR_JOB_ID" -H "X-API-Key: $YOUR_API_KEY" | field status)
    [ "$STATUS" = "$1" ] && return
    case $STATUS in completed|failed|cancelled) echo "the job is $STATUS, not $1" >&2; exit 1;; esac
    sleep "${UGEN_POLL_SECONDS:-10}"
  done
}

echo "== Suggest fields: free"
curl -X POST "$HOST/api/v1/jobs/suggest-fields" \
-H "Content-Type: application/json" \
-H "X-API-Key: $YOUR_API_KEY" \
-d '{
"product_name": "Wireless Headphones",
"product_image_url": "https://example.com/headphones.jpg"
}'
echo

echo "== Create a job"
CREATED=$(curl -X POST "$HOST/api/v1/jobs" \
-H "Content-Type: application/json" \
-H "X-API-Key: $YOUR_API_KEY" \
-d '{
"product_name": "Premium Wireless Headphones",
"product_image_url": "https://example.com/headphones.jpg",
"segment_count": 3,
"interaction_mode": "holdable",
"video_model": "veo3_fast",
"script_tone": "enthusiastic",
"music_mood": "upbeat",
"qai_enabled": true
}')
YOUR_JOB_ID=$(printf '%s' "$CREATED" | field job_id)
echo "job $YOUR_JOB_ID"
wait_for processing

echo "== Pause, which takes effect after the current stage, then resume"
curl -X POST "$HOST/api/v1/jobs/$YOUR_JOB_ID/pause" \
-H "X-API-Key: $YOUR_API_KEY" | field status
wait_for paused
curl -X POST "$HOST/api/v1/jobs/$YOUR_JOB_ID/resume" \
-H "X-API-Key: $YOUR_API_KEY" | field status
wait_for completed

echo "== Get the job"
curl -X GET "$HOST/api/v1/jobs/$YOUR_JOB_ID" \
-H "X-API-Key: $YOUR_API_KEY"
echo

echo "== List jobs"
curl -X GET "$HOST/api/v1/jobs?status=completed&page=1&page_size=10" \
-H "X-API-Key: $YOUR_API_KEY"
echo

echo "== List keyframes"
curl -X GET "$HOST/api/v1/jobs/$YOUR_JOB_ID/keyframes" \
-H "X-API-Key: $YOUR_API_KEY"
echo

echo "== List videos"
curl -X GET "$HOST/api/v1/jobs/$YOUR_JOB_ID/videos" \
-H "X-API-Key: $YOUR_API_KEY"
echo

echo "== Retry from a stage, then cancel"
curl -X POST "$HOST/api/v1/jobs/$YOUR_JOB_ID/retry" \
-H "Content-Type: application/json" \
-H "X-API-Key: $YOUR_API_KEY" \
-d '{
"restart_from_stage": "generation"
}' | field status
curl -X DELETE "$HOST/api/v1/jobs/$YOUR_JOB_ID" \
-H "X-API-Key: $YOUR_API_KEY" | field status
