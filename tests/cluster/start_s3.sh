#!/usr/bin/env bash
# A real S3 server for tests: Ceph's object gateway with one monitor and one storage daemon, all in memory, on one machine.
# usage: start_s3.sh DIRECTORY PORT    as root; PORT and PORT + 1 are used; stop it with: stop_s3.sh DIRECTORY
# It prints nothing when http://127.0.0.1:PORT answers: access key "test", secret key "secret", and a bucket "team".
set -euo pipefail
trap 'echo "start_s3.sh: line $LINENO failed" >&2' ERR
directory=$1 port=$2
if [ "$(id -u)" != 0 ]; then echo "Ceph's daemons are started as root only" >&2; exit 3; fi
for program in radosgw ceph monmaptool ceph-mon ceph-osd curl; do command -v "$program" > /dev/null || missing=true; done
if [ -n "${missing:-}" ]; then
  if ! command -v apt-get > /dev/null; then echo "radosgw is not installed, and there is no apt-get" >&2; exit 3; fi
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ceph-mon ceph-osd ceph-common radosgw curl) > /dev/null 2>&1 || { echo "radosgw cannot be installed" >&2; exit 3; }
fi
mkdir -p "$directory"/{mon,osd,log}
cd "$directory"
fsid=$(cat /proc/sys/kernel/random/uuid)
monitor="[v1:127.0.0.1:$((port + 1))]"
cat > ceph.conf << CONF
[global]
  fsid = $fsid
  mon host = $monitor
  mon initial members = a
  auth cluster required = none
  auth service required = none
  auth client required = none
  public addr = 127.0.0.1
  cluster addr = 127.0.0.1
  ms bind ipv6 = false
  ms bind msgr2 = false
  # one copy of everything, and few placement groups: it starts in seconds
  osd pool default size = 1
  osd pool default min size = 1
  osd pool default pg num = 1
  osd pool default pg autoscale mode = off
  osd crush chooseleaf type = 0
  mon allow pool size one = true
  mon max pg per osd = 1000
  osd objectstore = memstore
  memstore device bytes = 1073741824
  osd class update on start = false
  osd crush update on start = false
  admin socket = $directory/\$name.asok
  log file = $directory/log/\$name.log
[mon.a]
  mon data = $directory/mon
[osd.0]
  osd data = $directory/osd
[client.test]
  rgw data = $directory
  rgw frontends = beast endpoint=127.0.0.1:$port
  rgw enable gc threads = false
  rgw enable lc threads = false
CONF
export CEPH_CONF=$directory/ceph.conf
launch() { local name=$1; shift; setsid "$@" > "log/$name.out" 2>&1 < /dev/null & echo $! > "$name.pid"; }
wait_for() { for _ in $(seq 600); do if "$@" > /dev/null 2>&1; then return; fi; sleep 0.2; done; echo "timed out: $*" >&2; exit 1; }

monmaptool --create --fsid "$fsid" --addv a "$monitor" monmap > /dev/null
ceph-mon --mkfs -i a --monmap monmap
launch mon ceph-mon -f -i a --public-addr "127.0.0.1:$((port + 1))"
wait_for timeout 5 ceph mon stat
osd=$(cat /proc/sys/kernel/random/uuid)
timeout 90 ceph osd new "$osd" 0 > /dev/null
ceph-osd --mkfs -i 0 --osd-uuid "$osd" > log/mkfs.out 2>&1
launch osd ceph-osd -f -i 0
timeout 90 ceph osd crush add osd.0 1.0 root=default host=here > /dev/null 2>&1
wait_for bash -c "timeout 5 ceph osd stat | grep -q '1 up'"
launch rgw radosgw -f -n client.test
wait_for curl -sf "http://127.0.0.1:$port/"
timeout 60 radosgw-admin -n client.test user create --uid=test --display-name=test --access-key=test --secret-key=secret \
  > /dev/null 2>&1
curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user test:secret -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" \
  -X PUT "http://127.0.0.1:$port/team"
