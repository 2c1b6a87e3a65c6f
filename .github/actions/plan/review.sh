#!/usr/bin/env bash
# What changes in each spec since BASE, and its plan, as one comment on PULL_REQUEST and in the job's summary.
# Reads SPECS (one a line), BASE, PULL_REQUEST, PRICE, COMMENT, and what GitHub sets. A plan runs no code that a spec names.
set -euo pipefail

mark="<!-- lorafile plan -->"
page=$(mktemp)
errors=$(mktemp)
trap 'rm -f "$page" "$errors"' EXIT
worst=0

# Adds what a command prints to the page; where it fails, what it says, and remembers its exit code.
add() {
  local code=0
  "$@" >> "$page" 2> "$errors" || code=$?
  if [ "$code" -ne 0 ]; then
    worst=$code
    { echo '```text'; sed 's/```/` ` `/g' "$errors"; echo '```'; } >> "$page"
  fi
  echo >> "$page"
}

if [ -n "${BASE:-}" ] && ! git cat-file -e "$BASE^{commit}" 2> /dev/null; then
  git fetch --quiet --no-tags --depth=1 origin "$BASE"
fi

echo "$mark" > "$page"
while IFS= read -r spec; do
  [ -n "$spec" ] || continue
  if [ -n "${BASE:-}" ]; then add lora diff --git "$BASE" --markdown ${PRICE:+--price "$PRICE"} -- "$spec"; fi
  add lora plan --markdown ${PRICE:+--price "$PRICE"} -- "$spec"
done <<< "${SPECS:-study.toml}"

# A comment holds 65,536 characters.
if [ "$(wc -c < "$page")" -gt 60000 ]; then
  head -c 60000 "$page" | iconv -c -f utf-8 -t utf-8 > "$page.cut"
  printf '\n\nCut here; the rest: `lora plan --full`\n' >> "$page.cut"
  mv "$page.cut" "$page"
fi
cat "$page" >> "${GITHUB_STEP_SUMMARY:-/dev/stdout}"

if [ "${COMMENT:-true}" = true ] && [ -n "${PULL_REQUEST:-}" ]; then
  comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments"
  ours=$(gh api --paginate "$comments" --jq ".[] | select(.body | startswith(\"$mark\")) | .id" | head -n 1) || ours=failed
  if [ "$ours" = failed ]; then
    echo "::warning::The pull request cannot be commented on; the job's summary has the plan."
  elif [ -n "$ours" ]; then
    gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$ours" -F "body=@$page"
  else
    gh api --silent --method POST "$comments" -F "body=@$page" ||
      echo "::warning::The token may not comment on this pull request; the job's summary has the plan."
  fi
fi
exit "$worst"
