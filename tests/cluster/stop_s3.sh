#!/usr/bin/env bash
# Stop what start_s3.sh started in DIRECTORY.
for name in rgw osd mon; do
  if pid=$(cat "$1/$name.pid" 2> /dev/null); then
    kill -KILL "$pid" 2> /dev/null || true  # everything is in memory: there is nothing to save
  fi
done
exit 0
