#!/bin/bash
# Stop what start_ray.sh DIRECTORY has started: every process that names its directory, and no other.
where=$1
for about in /proc/[0-9]*; do
  pid=${about#/proc/}
  [ "$pid" = $$ ] || [ "$pid" = "$PPID" ] && continue
  if tr '\0' '\n' < "$about/cmdline" 2> /dev/null | grep -qF "$where/ray/"; then kill -9 "$pid" 2> /dev/null; fi
done
exit 0
