#!/usr/bin/env bash
# A real SLURM on this machine, for tests: two nodes on loopback with four devices each that pass for
# GPUs, memory limits enforced. Needs root; takes the packages from the distribution (Debian, Ubuntu).
#   cluster.sh up | down
# No systemd, cgroups or accounting. The configuration is linked into /etc/slurm, because jobs of
# Snakemake do not pass SLURM_CONF on.
set -euo pipefail
STATE=${UNIC_SLURM_STATE:-/tmp/unic-slurm}
CONFIG=(slurm gres cgroup)

fail() {
    echo "cluster.sh: $1" >&2
    exit 1
}

install_packages() {
    command -v slurmctld slurmd sbatch munged >/dev/null && return
    command -v apt-get >/dev/null || fail "slurmctld, slurmd, sbatch and munged must be installed"
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # start no service
    chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge >/dev/null
    rm -f /usr/sbin/policy-rc.d
}

write_config() {
    local name host
    for name in "${CONFIG[@]}"; do
        [ ! -e "/etc/slurm/$name.conf" ] || [ -L "/etc/slurm/$name.conf" ] ||
            fail "/etc/slurm/$name.conf is that of a cluster"
    done
    mkdir -p "$STATE/controller" "$STATE/gpu" /etc/slurm
    host=$(hostname -s)
    case $(slurmd -V) in
    *\ 22.*) echo "CgroupPlugin=cgroup/v1" ;;
    *) echo "CgroupPlugin=disabled" ;;
    esac >"$STATE/cgroup.conf"
    for name in 0 1 2 3; do ln -sf /dev/null "$STATE/gpu/device$name"; done
    echo "Name=gpu File=$STATE/gpu/device[0-3]" >"$STATE/gres.conf"
    cat >"$STATE/slurm.conf" <<CONF
ClusterName=unic
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
MpiDefault=none
StateSaveLocation=$STATE/controller
SlurmdSpoolDir=$STATE/spool.%n
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.%n.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=5
MinJobAge=600
GresTypes=gpu
NodeName=unic[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 RealMemory=256000 Gres=gpu:4
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=ALL MaxTime=INFINITE
CONF
    for name in "${CONFIG[@]}"; do ln -sf "$STATE/$name.conf" "/etc/slurm/$name.conf"; done
}

up() {
    local node attempt
    [ "$(id -u)" = 0 ] || fail "must be run by root"
    install_packages
    write_config
    if ! munge -n >/dev/null 2>&1; then
        install -d -o munge /run/munge
        runuser -u munge -- munged
    fi
    slurmctld -c
    for node in unic1 unic2; do
        mkdir -p "$STATE/spool.$node"
        slurmd -N "$node"
    done
    for attempt in $(seq 60); do
        [ "$(sinfo --noheader --Node --format %T 2>/dev/null | sort -u)" = idle ] && return
        sleep 0.5
    done
    cat "$STATE"/*.log >&2
    fail "the nodes must become idle within 30 s"
}

down() {
    local name pid
    scancel --user root 2>/dev/null || true
    # The nodes before the controller: they wait for it otherwise.
    for pid in "$STATE"/slurmd.*.pid "$STATE"/slurmctld.pid; do
        [ -e "$pid" ] && kill "$(cat "$pid")" 2>/dev/null && sleep 1
    done
    # A configuration without a controller makes every start of Snakemake's plugin wait.
    for name in "${CONFIG[@]}"; do
        [ ! -L "/etc/slurm/$name.conf" ] || rm "/etc/slurm/$name.conf"
    done
    rm -rf "$STATE"
}

case ${1:-} in
up | down) "$1" ;;
*) fail "say up or down" ;;
esac
