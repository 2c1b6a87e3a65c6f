#!/bin/bash
# Start Slurm with two nodes of two processors on one machine, for tests: no systemd, no cgroups, no accounting.
#   start_slurm.sh DIRECTORY PORT     as root, with slurm-wlm and munge installed; stop it with stop_slurm.sh DIRECTORY
# Afterwards SLURM_CONF=DIRECTORY/slurm.conf. A node whose daemon dies is down after about 20 s; its jobs' processes live on.
set -e
where=$1; port=$2; host=$(hostname -s)
mkdir -p "$where"/{state,log,spool/n1,spool/n2} /run/munge
chown munge:munge /run/munge
if [ ! -f /etc/munge/munge.key ]; then mungekey -c -b 1024 -k /etc/munge/munge.key; chown munge:munge /etc/munge/munge.key; fi
munge -n > /dev/null 2>&1 || runuser -u munge -- /usr/sbin/munged
cat > "$where/slurm.conf" <<CONF
ClusterName=lorafile
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=$port
SlurmctldPidFile=$where/slurmctld.pid
SlurmdPidFile=$where/slurmd-%n.pid
StateSaveLocation=$where/state
SlurmdSpoolDir=$where/spool/%n
SlurmctldLogFile=$where/log/slurmctld.log
SlurmdLogFile=$where/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=15
KillWait=5
MinJobAge=300
JobRequeue=1
RequeueExit=75
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$where/slurm.conf"
slurmctld
for node in n1 n2; do slurmd -N $node; done
for _ in $(seq 200); do
  if [ "$(sinfo -h -o '%T %D' 2> /dev/null)" = "idle 2" ]; then exit 0; fi
  sleep 0.1
done
tail "$where"/log/*.log >&2
exit 1
