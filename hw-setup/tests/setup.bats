#!/usr/bin/env bats
# setup against a machine of files and stubs of ethtool, ip and mount: every stage, every interruption, every refusal.
# What only a real kernel can show is in veth.bats and in the guest (nic-in-a-box).

load helper

setup() { machine; }
teardown() { unmachine; }

# ---- the picture

@test 'check names every stage once, changes nothing and says that something would change' {
    state >"$BATS_TEST_TMPDIR/before"
    setup_run check eth1 "${BASE[@]}"
    ends 1
    for stage in nic packages hugepages bpf cpu cpuset numa link queues rings coalesce rss steer offloads pause mtu irq xps napi vfio; do
        [ "$(grep -c "^[a-z]* *  $stage " <<<"$output")" -eq 1 ] || { echo "$stage: $output" && false; }
    done
    same_as "$BATS_TEST_TMPDIR/before"
    [ ! -s "$STUB_LOG" ]
    [ ! -e "$VOLLEY_SETUP_ROOT/var" ]
}

@test 'each stage says from what to what' {
    setup_run check eth1 "${BASE[@]}"
    has 'node0 2 MiB pages: 0 → 10'
    has 'cpu2 scaling_governor: schedutil → performance'
    has 'cpus=2-3 partition=isolated'
    has 'channels: combined=4 → combined=2'
    has 'rings: rx=512 tx=256 → rx=2048 tx=2048'
    has 'adaptive: on → off'
    has 'key: ab:ab:ab:ab:… → 6d:5a:6d:5a:…'
    has 'udp4 hash: sdfn → sd'
    has 'large-receive-offload: on → off'
    has 'autoneg=off rx=on tx=on → autoneg=off rx=off tx=off'
    has 'gro_flush_timeout: 20000 → 0'
    has 'tx-0: 1 → 4'
    has 'irqbalance: none → 2-3,10-11'
}

@test 'the kernel command line to add is printed, and not when it is there' {
    setup_run check eth1 "${BASE[@]}" --only cpu
    has 'isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3'
    has 'core 10-11 shares an execution unit'
    echo 2-3 >"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/isolated"
    echo 2-3 >"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/nohz_full"
    echo 'ro rcu_nocbs=0-3' >"$VOLLEY_SETUP_ROOT/proc/cmdline"
    setup_run check eth1 "${BASE[@]}" --only cpu,cpuset --json
    has 'cores 2-3 are isolated, tickless and free of RCU callbacks since boot'
    has 'not needed: isolcpus keeps these cores free'
    lacks 'kernel command line to add'
}

@test 'hyperthread siblings go offline when asked, and come back' {
    local sibling=$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/cpu11/online
    "$SETUP" apply eth1 "${BASE[@]}" --only cpu --smt-off
    [ "$(<"$sibling")" = 0 ]
    "$SETUP" restore eth1
    [ "$(<"$sibling")" = 1 ]
}

@test 'cores on another node than the NIC are warned about' {
    setup_run check eth1 --cores 2,5 --only numa
    ends 0
    has 'core 5 is on another node than the NIC (0)'
    has 'choose --cores from 0-3,8-11'
    setup_run check eth1 --cores 2-3 --only numa
    has 'cores 2-3 and the NIC are on node 0'
}

@test 'without --cores: the isolated ones, or one thread each of the near node but the first' {
    setup_run check eth1 --only nic
    has 'cores 1-3'
    echo 5-6 >"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/isolated"
    setup_run check eth1 --only nic
    has 'cores 5-6'
}

@test 'the MTU is held against the limit of the driver' {
    setup_run check eth1 "${BASE[@]}" --only mtu
    ends 1
    has 'mtu: 9000 → 3046'
    echo 1500 >"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/mtu"
    setup_run check eth1 "${BASE[@]}" --only mtu
    ends 0
}

@test 'JSON can be read, of every action' {
    for arguments in "check eth1" "apply eth1 --dry-run" "apply eth1" "status eth1" "restore eth1"; do
        # shellcheck disable=SC2086  # words
        "$SETUP" $arguments --json "${BASE[@]}" >"$BATS_TEST_TMPDIR/json" || [ "${arguments%% *}" = check ]
        python3 - "$BATS_TEST_TMPDIR/json" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
assert report["nic"] == "eth1" and report["findings"], report
queues = [f for f in report["findings"] if f["stage"] == "queues"]
assert {"combined=4", "combined=2"} <= {queues[0]["from"], queues[0]["to"]}, queues
PYTHON
    done
}

# ---- apply and restore

@test 'apply makes check green; restore leaves no difference, also the second time' {
    state >"$BATS_TEST_TMPDIR/before"
    setup_run apply eth1 "${BASE[@]}"
    ends 0
    lacks refused
    setup_run check eth1 "${BASE[@]}"
    ends 0
    lacks change
    setup_run status eth1
    ends 0
    has 'as setup left it'
    lacks 'changed since'
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
    [ ! -e "$VOLLEY_SETUP_ROOT/var/lib/volley/setup-eth1.journal" ]
    setup_run restore eth1
    ends 0
    has 'nothing to restore'
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'applied twice, with other settings the second time, it still goes back to the first state' {
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 --cores 2-3
    "$SETUP" apply eth1 --cores 1-3 --napi busy-poll --rx-usecs 20
    "$SETUP" apply eth1 --cores 2 --kernel-queues 2
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'a dry run prints the commands that apply then runs, and runs none' {
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 "${BASE[@]}" --dry-run | grep '^    ' | grep -v ' > ' >"$BATS_TEST_TMPDIR/said"
    [ ! -s "$STUB_LOG" ]
    same_as "$BATS_TEST_TMPDIR/before"
    [ ! -e "$VOLLEY_SETUP_ROOT/var" ]
    "$SETUP" apply eth1 "${BASE[@]}"
    # The table follows the queues by itself in this driver, so that command falls away.
    diff <(sed 's/^ *//' "$BATS_TEST_TMPDIR/said" | grep -v 'mkdir\|sed -i\|IRQBALANCE\|equal 2') \
        <(sed 's/ $//' "$STUB_LOG" | grep -v equal)
}

@test 'what somebody changed since stays, and is named' {
    "$SETUP" apply eth1 "${BASE[@]}"
    ethtool -G eth1 rx 4096
    echo 7 >"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/napi_defer_hard_irqs"
    echo 99 >"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/gro_flush_timeout"
    setup_run status eth1
    has 'rings is rx=4096 tx=2048, changed by somebody since setup made it rx=2048 tx=2048 (before: rx=512 tx=256)'
    setup_run restore eth1
    ends 0
    has 'rings is rx=4096 tx=2048, which somebody set since'
    has 'gro_flush_timeout is 99, which somebody set since'
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/gro_flush_timeout")" = 99 ]
    # It was as wanted before, so it was never ours.
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/napi_defer_hard_irqs")" = 7 ]
    [[ $(ethtool -g eth1) == *$'RX:\t\t4096'* ]]
}

@test 'what -L took along is put back: affinities, XPS and RPS of queues that were gone' {
    local queues=$VOLLEY_SETUP_ROOT/sys/class/net/eth1/queues
    echo f00 >"$queues/tx-3/xps_cpus"
    echo ff >"$queues/rx-3/rps_cpus"
    echo 12-13 >"$VOLLEY_SETUP_ROOT/proc/irq/103/smp_affinity_list"
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 "${BASE[@]}"
    [ ! -e "$queues/tx-3" ]
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'ntuple rules send the game to the workers when the kernel keeps queues, one worker or several' {
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 --cores 2 --kernel-queues 1 --port 7777,9000-9001
    run ethtool -n eth1
    has 'Total 12 rules'
    has 'Dest port: 9001 mask: 0x0'
    has 'Action: Direct to queue 0'
    run ethtool -x eth1
    has '    0:      1     1     1'
    "$SETUP" restore eth1
    same_as "$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 --cores 2-3 --kernel-queues 1
    run ethtool -n eth1
    has 'Total 4 rules'
    has 'RSS Context ID: 1'
    setup_run check eth1 --cores 2-3 --kernel-queues 1
    ends 0
    "$SETUP" restore eth1
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'a rule of somebody else for the port is left to him' {
    ethtool -K eth1 ntuple-filters on
    ethtool -N eth1 flow-type udp4 dst-port 7777 action 3
    setup_run apply eth1 --cores 2 --kernel-queues 3
    ends 0
    has "a rule of somebody's already sends udp4 port 7777 to queue 3"
    "$SETUP" restore eth1
    [[ $(ethtool -n eth1) == *'Total 1 rules'*'queue 3'* ]]
}

@test 'an indirection table with weights comes back; one that ethtool has no words for is left alone' {
    ethtool -X eth1 weight 1 1 2 4
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 "${BASE[@]}" --only rss
    "$SETUP" restore eth1
    same_as "$BATS_TEST_TMPDIR/before"
    sed -i "s/^table=.*/table='3 1 0 0 2 1 3 3 0 0 1 1 2 3 1 0'/" "$STUB_STATE/ethtool"
    setup_run apply eth1 "${BASE[@]}" --only rss
    ends 0
    has 'one that ethtool could not write back'
    [[ $(<"$STUB_STATE/ethtool") == *'3\ 1\ 0\ 0\ 2'* || $(<"$STUB_STATE/ethtool") == *"'3 1 0 0 2"* ]]
}

@test 'two NICs share huge pages: they stay until the second is restored' {
    local pages=$VOLLEY_SETUP_ROOT/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
    echo 3 >"$pages"
    "$SETUP" apply eth1 "${BASE[@]}" --only hugepages
    "$SETUP" apply eth0 "${BASE[@]}" --only hugepages
    setup_run restore eth1
    ends 0
    has '2 MiB pages stays for eth0'
    [ "$(<"$pages")" = 10 ]
    setup_run restore eth0
    ends 0
    [ "$(<"$pages")" = 3 ]
}

# ---- interruptions

# kill_everywhere STAGE: SIGKILL at each checkpoint of apply, then restore; and of restore, then restore.
kill_everywhere() {
    local at code before=$BATS_TEST_TMPDIR/before
    state >"$before"
    for ((at = 1; at < 200; at++)); do
        code=0
        VOLLEY_SETUP_KILL_AT=$at "$SETUP" apply eth1 "${BASE[@]}" --only "$1" >/dev/null 2>&1 || code=$?
        [ $code -ne 137 ] || {
            "$SETUP" restore eth1 >"$BATS_TEST_TMPDIR/out" 2>&1 || { cat "$BATS_TEST_TMPDIR/out" && return 1; }
            same_as "$before" || { echo "after SIGKILL at checkpoint $at of apply" && return 1; }
            continue
        }
        # It got through: now the way back.
        "$SETUP" apply eth1 "${BASE[@]}" --only "$1" >/dev/null
        code=0
        VOLLEY_SETUP_KILL_AT=$at "$SETUP" restore eth1 >/dev/null 2>&1 || code=$?
        break
    done
    [ "$at" -gt 1 ] || { echo "$1 was never interrupted" && return 1; }
    for ((at = 1; at < 200; at++)); do
        "$SETUP" apply eth1 "${BASE[@]}" --only "$1" >/dev/null
        code=0
        VOLLEY_SETUP_KILL_AT=$at "$SETUP" restore eth1 >/dev/null 2>&1 || code=$?
        "$SETUP" restore eth1 >"$BATS_TEST_TMPDIR/out" 2>&1 || { cat "$BATS_TEST_TMPDIR/out" && return 1; }
        same_as "$before" || { echo "after SIGKILL at checkpoint $at of restore" && return 1; }
        [ $code -eq 137 ] || return 0
    done
    return 1
}

@test 'SIGKILL anywhere in hugepages, bpf and cpuset' {
    sed -i '/ bpf /d' "$VOLLEY_SETUP_ROOT/proc/mounts"
    kill_everywhere hugepages
    kill_everywhere bpf
    kill_everywhere cpuset
}
@test 'SIGKILL anywhere in cpu and link' {
    kill_everywhere cpu
    echo 0x1002 >"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/flags"
    kill_everywhere link
}
@test 'SIGKILL anywhere in queues' { kill_everywhere queues; }
@test 'SIGKILL anywhere in rings and coalesce' {
    kill_everywhere rings
    kill_everywhere coalesce
}
@test 'SIGKILL anywhere in rss' { kill_everywhere rss; }
@test 'SIGKILL anywhere in steer' {
    BASE=(--cores 2-3 --kernel-queues 2)
    kill_everywhere steer
}
@test 'SIGKILL anywhere in offloads and pause' {
    kill_everywhere offloads
    kill_everywhere pause
}
@test 'SIGKILL anywhere in mtu, xps and napi' {
    kill_everywhere mtu
    kill_everywhere xps
    kill_everywhere napi
}
@test 'SIGKILL anywhere in irq' { kill_everywhere irq; }

@test 'SIGKILL between stages of a whole apply' {
    state >"$BATS_TEST_TMPDIR/before"
    for at in 15 40 65; do
        run env VOLLEY_SETUP_KILL_AT=$at "$SETUP" apply eth1 "${BASE[@]}"
        ends 137
        # A second apply goes on where the first was ended.
        "$SETUP" apply eth1 "${BASE[@]}"
        setup_run check eth1 "${BASE[@]}"
        ends 0
        "$SETUP" restore eth1
        same_as "$BATS_TEST_TMPDIR/before"
    done
}

@test 'after a reboot only what persists is undone' {
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 "${BASE[@]}"
    # What a boot does to such a machine: everything but files on disks is as it was.
    mv "$VOLLEY_SETUP_ROOT/var" "$VOLLEY_SETUP_ROOT/etc" "$BATS_TEST_TMPDIR"
    rm -r "$VOLLEY_SETUP_ROOT" "$STUB_STATE"
    machine
    rm -r "$VOLLEY_SETUP_ROOT/etc"
    mv "$BATS_TEST_TMPDIR/var" "$BATS_TEST_TMPDIR/etc" "$VOLLEY_SETUP_ROOT"
    echo 99999999-2222-3333-4444-555555555555 >"$VOLLEY_SETUP_ROOT/proc/sys/kernel/random/boot_id"
    # Somebody's setting of the new boot that happens to be what setup had set.
    echo performance >"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"
    setup_run status eth1
    has 'before the last reboot'
    has 'went with the reboot'
    setup_run restore eth1
    ends 0
    has 'settings went with the reboot'
    has 'irqbalance: 2-3,10-11 → none'
    lacks 'scaling_governor'
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor")" = performance ]
    [ ! -s "$STUB_LOG" ]
    echo schedutil >"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"
    echo 11111111-2222-3333-4444-555555555555 >"$VOLLEY_SETUP_ROOT/proc/sys/kernel/random/boot_id"
    same_as "$BATS_TEST_TMPDIR/before"
}

# ---- the journal

@test 'a line cut short at the end was never acted on, and is dropped' {
    state >"$BATS_TEST_TMPDIR/before"
    local journal=$VOLLEY_SETUP_ROOT/var/lib/volley/setup-eth1.journal
    "$SETUP" apply eth1 "${BASE[@]}" --only rings
    printf '123456\tset\t9\tmt' >>"$journal"
    "$SETUP" apply eth1 "${BASE[@]}" --only mtu
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'a damaged journal stops everything but restore --force, which puts back what can be read' {
    local journal=$VOLLEY_SETUP_ROOT/var/lib/volley/setup-eth1.journal
    "$SETUP" apply eth1 "${BASE[@]}" --only rings,mtu
    sed -i 's/rx=512/rx=513/' "$journal"
    for action in check apply restore status; do
        setup_run $action eth1 "${BASE[@]}"
        ends 1
        has 'is damaged in line'
    done
    setup_run restore eth1 --force
    has 'mtu: 3046 → 9000'
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/mtu")" = 9000 ]
    [ -e "$journal.damaged" ]
    [ ! -e "$journal" ]
}

@test "a journal of another NIC: apply refuses; restore leaves the new device alone and puts the machine's back" {
    "$SETUP" apply eth1 "${BASE[@]}" --only hugepages,mtu
    local pci=$VOLLEY_SETUP_ROOT/sys/bus/pci/devices
    mv "$pci/0000:3b:00.0" "$pci/0000:5e:00.0"
    ln -sfn ../../../bus/pci/devices/0000:5e:00.0 "$VOLLEY_SETUP_ROOT/sys/class/net/eth1/device"
    setup_run apply eth1 "${BASE[@]}"
    ends 2
    has 'is of another device (0000:3b:00.0)'
    setup_run restore eth1
    ends 0
    has 'mtu went with the device it was set on'
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/mtu")" = 3046 ]
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")" = 0 ]
}

@test 'a NIC unplugged since: what was on it is gone, the rest is put back' {
    "$SETUP" apply eth1 "${BASE[@]}"
    rm -r "$VOLLEY_SETUP_ROOT/sys/class/net/eth1" "$VOLLEY_SETUP_ROOT/sys/bus/pci/devices/0000:3b:00.0"
    setup_run restore eth1
    ends 0
    has 'rings: there is no interface eth1; what was set there went with it'
    has 'cpu2 scaling_governor: performance → schedutil'
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor")" = schedutil ]
    [ ! -e "$VOLLEY_SETUP_ROOT/var/lib/volley/setup-eth1.journal" ]
}

@test 'one at a time: a lock of a process that is gone is taken over, one of a process that works is not' {
    mkdir -p "$VOLLEY_SETUP_ROOT/var/lib/volley"
    # This test's own process: its command line has the name of setup.bats in it.
    echo $$ >"$VOLLEY_SETUP_ROOT/var/lib/volley/setup.lock"
    setup_run apply eth1 "${BASE[@]}" --only mtu
    ends 1
    has "another setup (pid $$) is at work"
    echo 4194999 >"$VOLLEY_SETUP_ROOT/var/lib/volley/setup.lock"
    setup_run apply eth1 "${BASE[@]}" --only mtu
    ends 0
    [ ! -e "$VOLLEY_SETUP_ROOT/var/lib/volley/setup.lock" ]
}

# ---- refusals

@test 'ethtool refuses: it stops there, names it, and restore undoes what came before' {
    state >"$BATS_TEST_TMPDIR/before"
    export STUB_REFUSE='ethtool -G *'
    setup_run apply eth1 "${BASE[@]}"
    ends 1
    has 'rings: rx=512 tx=256 → rx=2048 tx=2048 was refused: netlink error: Invalid argument'
    has 'stopped there'
    lacks '  coalesce  '
    unset STUB_REFUSE
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'with --keep-going it goes on, and still ends with 1' {
    export STUB_REFUSE='ethtool -G *'
    setup_run apply eth1 "${BASE[@]}" --keep-going
    ends 1
    has 'was refused'
    has 'mtu: 9000 → 3046'
    has '1 refused'
}

@test 'a refusal while restoring keeps the journal, so that the next restore can finish' {
    state >"$BATS_TEST_TMPDIR/before"
    "$SETUP" apply eth1 "${BASE[@]}"
    export STUB_REFUSE='ethtool -G *'
    setup_run restore eth1 --keep-going
    ends 1
    has 'rings: rx=2048 tx=2048 → rx=512 tx=256 was refused'
    unset STUB_REFUSE
    setup_run restore eth1
    ends 0
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'a driver without adaptive coalescing, which hashes TCP as it likes, is no failure (igb)' {
    sed -i 's/^adaptive=.*/adaptive=n\/a/' "$STUB_STATE/ethtool"
    touch "$STUB_STATE/deaf-to-tcp4"
    state >"$BATS_TEST_TMPDIR/before"
    setup_run apply eth1 "${BASE[@]}" --only coalesce,rss
    ends 0
    has 'coalesce: rx-usecs=50 tx-usecs=50 → rx-usecs=8 tx-usecs=50'
    has "tcp4 hash is ice's to decide"
    setup_run check eth1 "${BASE[@]}" --only coalesce,rss
    ends 0
    "$SETUP" restore eth1
    same_as "$BATS_TEST_TMPDIR/before"
}

@test 'a NIC that is down is brought up, and down again' {
    echo 0x1002 >"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/flags"
    setup_run check eth1 "${BASE[@]}" --only link
    ends 1
    has 'up: down → up'
    "$SETUP" apply eth1 "${BASE[@]}" --only link
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/flags")" = 0x1003 ]
    "$SETUP" restore eth1
    [ "$(<"$VOLLEY_SETUP_ROOT/sys/class/net/eth1/flags")" = 0x1002 ]
}

@test 'an unknown NIC, the loopback, a wireless one, a port of a bond and a bridge are refused by name' {
    local net=$VOLLEY_SETUP_ROOT/sys/class/net
    for action in check apply; do
        setup_run $action eth7
        ends 2
        has 'no interface eth7 here: name one of: eth0 eth1 lo'
        setup_run $action lo
        ends 2
        has 'lo is not Ethernet'
    done
    setup_run restore eth7
    ends 2
    mkdir "$net/eth0/wireless"
    setup_run apply eth0
    ends 2
    has 'eth0 is wireless'
    mkdir -p "$net/bond0/bonding"
    echo 1 >"$net/bond0/type"
    ln -s ../bond0 "$net/eth1/master"
    setup_run apply eth1
    ends 2
    has 'eth1 is a port of bond0'
    setup_run apply bond0
    ends 2
    has 'bond0 is a bond or bridge'
    setup_run check eth1 --force --only mtu
    ends 1
    [ ! -e "$VOLLEY_SETUP_ROOT/var" ]
}

@test 'a virtual function is told what belongs to its physical function' {
    ln -s ../0000:3b:00.1 "$VOLLEY_SETUP_ROOT/sys/bus/pci/devices/0000:3b:00.0/physfn"
    setup_run check eth1 --only nic
    has 'a virtual function of 0000:3b:00.1'
}

@test 'cores that do not exist, and whatever else is wrong on the command line' {
    setup_run check eth1 --cores 2-16
    ends 2
    has 'core 16 of --cores does not exist or is offline: online are 0-15'
    for wrong in '--cores x' '--cores 3-2' '--mode pmd' '--port 0' '--port 70000' '--port 1-100' '--only rings,nonsense' '--napi fast' \
        '--huge-2m -1' '--bogus' 'eth0' '--cores'; do
        # shellcheck disable=SC2086  # words
        setup_run check eth1 $wrong
        ends 2
    done
    setup_run tune eth1
    ends 2
    setup_run check
    ends 2
    setup_run check ../etc
    ends 2
    setup_run
    ends 2
    has 'usage:'
}

@test 'a container without rights is told what it lacks, and check still answers' {
    sed -i 's/^CapEff:.*/CapEff:	00000000a80425fb/' "$VOLLEY_SETUP_ROOT/proc/self/status"
    setup_run apply eth1 "${BASE[@]}"
    ends 1
    has 'no CAP_NET_ADMIN'
    [ ! -e "$VOLLEY_SETUP_ROOT/var" ]
    setup_run check eth1 "${BASE[@]}"
    ends 1
    has 'give the engine CAP_IPC_LOCK'
}

# ---- vfio (binding for real is the guest's to show)

@test 'vfio: the commands, in their order' {
    run "$SETUP" apply eth1 --mode dpdk "${BASE[@]}" --only vfio --dry-run
    ends 0
    diff - <(grep '^    ' <<<"$output") <<'COMMANDS'
    modprobe vfio
    modprobe vfio_iommu_type1
    modprobe vfio-pci
    echo vfio-pci > /sys/bus/pci/devices/0000:3b:00.0/driver_override
    echo 0000:3b:00.0 > /sys/bus/pci/drivers/ice/unbind
    echo 0000:3b:00.0 > /sys/bus/pci/drivers_probe
COMMANDS
}

@test 'vfio: never the interface of the default route or of the SSH connection, unless forced' {
    echo 'default via 10.0.0.1 dev eth1 proto dhcp' >"$STUB_STATE/default-route"
    setup_run apply eth1 --mode dpdk "${BASE[@]}" --only vfio
    ends 1
    has 'eth1 carries the default route'
    rm "$STUB_STATE/default-route"
    echo '10.9.9.9 dev eth1 src 10.0.0.2 uid 0' >"$STUB_STATE/route-get"
    SSH_CONNECTION='10.9.9.9 50000 10.0.0.2 22' setup_run apply eth1 --mode dpdk "${BASE[@]}" --only vfio
    ends 1
    has 'eth1 carries the SSH connection from 10.9.9.9'
    SSH_CONNECTION='10.9.9.9 50000 10.0.0.2 22' setup_run apply eth1 --mode dpdk "${BASE[@]}" --only vfio --force --dry-run
    ends 0
    [ ! -s "$STUB_LOG" ]
}

@test 'vfio: an IOMMU group shared with another driver, no IOMMU, and what could not be brought back' {
    ln -s ../../../../bus/pci/devices/0000:3b:00.1 "$VOLLEY_SETUP_ROOT/sys/kernel/iommu_groups/42/devices/0000:3b:00.1"
    ln -s ../../../../bus/pci/devices/0000:3a:00.0 "$VOLLEY_SETUP_ROOT/sys/kernel/iommu_groups/42/devices/0000:3a:00.0"
    setup_run check eth1 --mode dpdk "${BASE[@]}" --only vfio
    ends 1
    has 'its IOMMU group also holds 0000:3b:00.1 (ice)'
    # The bridge alone is no obstacle.
    rm "$VOLLEY_SETUP_ROOT/sys/kernel/iommu_groups/42/devices/0000:3b:00.1"
    setup_run check eth1 --mode dpdk "${BASE[@]}" --only vfio
    has 'driver=ice override=none → driver=vfio-pci'
    rm "$VOLLEY_SETUP_ROOT/sys/bus/pci/devices/0000:3b:00.0/iommu_group"
    setup_run check eth1 --mode dpdk "${BASE[@]}" --only vfio
    ends 1
    has 'no IOMMU behind 0000:3b:00.0'
    mkdir "$VOLLEY_SETUP_ROOT/sys/class/net/eth1/upper_eth1.5"
    setup_run check eth1 --mode dpdk "${BASE[@]}" --only vfio
    ends 1
    has 'restore could not bring back interfaces on top of it (eth1.5)'
}
