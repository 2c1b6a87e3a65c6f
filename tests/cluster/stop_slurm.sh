#!/bin/bash
# Stop what start_slurm.sh DIRECTORY has started, with its jobs.
where=$1
export SLURM_CONF="$where/slurm.conf"
scancel --full --signal=KILL --user="$(id -un)" 2> /dev/null
for file in "$where"/slurmd-n1.pid "$where"/slurmd-n2.pid "$where"/slurmctld.pid; do
  if [ -f "$file" ]; then kill "$(cat "$file")" 2> /dev/null; fi
done
exit 0
