#!/bin/bash
# Start a Ray cluster on one machine: a head without processors, and two nodes of one processor that cannot see HIDDEN.
#   start_ray.sh DIRECTORY HIDDEN PORT
# Each begins when the one before is there: two at the same moment kill a raylet. Stop them with stop_ray.sh DIRECTORY.
# The nodes keep files of agents in DIRECTORY/node1 and DIRECTORY/node2. RAY_AUTH_MODE and RAY_AUTH_TOKEN come from the caller.
set -e
where=$1; hidden=$2; port=$3; ray="$(dirname "$PYTHON")/ray"
mkdir -p "$where"
export RAY_worker_niceness=0  # 15 otherwise: on a busy machine an actor would hardly get a processor
about=(--disable-usage-stats --object-store-memory=100000000)
"$ray" start --head --port="$port" --num-cpus=0 --include-dashboard=false --temp-dir="$where/ray" "${about[@]}" > "$where/head.log" 2>&1
for node in 1 2; do
  mkdir -p "$where/node$node"
  TMPDIR="$where/node$node" unshare -m bash -c \
    'mount -t tmpfs tmpfs "$1" && shift && exec "$@"' - "$hidden" \
    "$ray" start --address="127.0.0.1:$port" --num-cpus=1 "${about[@]}" > "$where/node$node.log" 2>&1
done
