#!/usr/bin/env bats
# setup on a veth pair with the real kernel and ethtool: no difference in the complete state of the host afterwards, also
# after SIGKILL. Needs root.

SETUP=$BATS_TEST_DIRNAME/../setup

setup() {
    if [ "$(id -u)" -ne 0 ]; then
        [ -z "${CI:-}" ] || { echo 'a network namespace needs root' && return 1; }
        skip 'a network namespace needs root'
    fi
    NAMESPACE=volley-setup-$$
    NIC=vs$$
    ip netns add "$NAMESPACE"
    export VOLLEY_SETUP_STATE=$BATS_TEST_TMPDIR/state
    # `ip netns exec` mounts a /sys of the namespace, without bpffs; one shell keeps it for a whole test.
    cat >"$BATS_TEST_TMPDIR/prepare" <<PREPARE
set -eu
NIC=$NIC
ip link add "\$NIC" numtxqueues 4 numrxqueues 4 type veth peer name "\${NIC}p" numtxqueues 4 numrxqueues 4
ip link set "\${NIC}p" up
ip link set "\$NIC" mtu 9000 up
ip address add 10.77.250.1/24 dev "\$NIC"
ip route add 10.99.0.0/16 via 10.77.250.2
echo 2 >"/sys/class/net/\$NIC/queues/tx-3/xps_cpus"
echo 50000 >"/sys/class/net/\$NIC/gro_flush_timeout"
# The link-local address is no longer tentative, and the link no longer changing, when this is over.
for _ in \$(seq 100); do
    [ -n "\$(ip -6 address show dev "\$NIC" tentative)" ] || break
    sleep 0.1
done
# Only this NIC: the interrupts and huge pages of the machine are somebody's.
OPTIONS=(--cores 0 --irqs nic --huge-2m 0)
same() {
    "$SETUP" snapshot "\$NIC" >"$BATS_TEST_TMPDIR/after"
    diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after" || { echo "a difference \$1" && exit 1; }
}
"$SETUP" snapshot "\$NIC" >"$BATS_TEST_TMPDIR/before"
PREPARE
}

teardown() {
    [ -z "${NAMESPACE:-}" ] || ip netns delete "$NAMESPACE"
}

# inside: runs what stands on its standard input in the namespace.
inside() {
    { cat "$BATS_TEST_TMPDIR/prepare" -; } >"$BATS_TEST_TMPDIR/script"
    ip netns exec "$NAMESPACE" bash "$BATS_TEST_TMPDIR/script"
}

@test 'apply makes check green on veth; restore leaves no difference, twice' {
    inside <<SCRIPT
"$SETUP" check "\$NIC" "\${OPTIONS[@]}" && exit 1
"$SETUP" apply "\$NIC" "\${OPTIONS[@]}"
[ "\$(ethtool -l "\$NIC" | grep -c '^RX:.*1\$')" = 1 ]
[ "\$(cat "/sys/class/net/\$NIC/gro_flush_timeout")" = 0 ]
ethtool -k "\$NIC" | grep -q '^rx-vlan-offload: off'
"$SETUP" check "\$NIC" "\${OPTIONS[@]}"
"$SETUP" status "\$NIC" | grep -q 'before: rx=4 tx=4'
"$SETUP" restore "\$NIC"
same 'after restore'
"$SETUP" restore "\$NIC" | grep -q 'nothing to restore'
same 'after the second restore'
SCRIPT
}

@test 'SIGKILL at every checkpoint of apply, and of restore' {
    inside <<SCRIPT
interrupted=0
for at in \$(seq 100); do
    code=0
    VOLLEY_SETUP_KILL_AT=\$at "$SETUP" apply "\$NIC" "\${OPTIONS[@]}" >/dev/null 2>&1 || code=\$?
    VOLLEY_SETUP_KILL_AT=\$at "$SETUP" restore "\$NIC" >/dev/null 2>&1 || true
    "$SETUP" restore "\$NIC"
    same "after SIGKILL at checkpoint \$at"
    [ \$code -eq 137 ] || break
    interrupted=\$((interrupted + 1))
done
echo "\$interrupted interruptions"
[ \$interrupted -ge 12 ]
SCRIPT
}

@test 'what somebody changed stays; an interface that was deleted is no trouble' {
    inside <<SCRIPT
"$SETUP" apply "\$NIC" "\${OPTIONS[@]}"
ethtool -K "\$NIC" rx-vlan-offload on
echo 70000 >"/sys/class/net/\$NIC/gro_flush_timeout"
"$SETUP" restore "\$NIC" | tee "$BATS_TEST_TMPDIR/said"
grep -q 'gro_flush_timeout is 70000, which somebody set since' "$BATS_TEST_TMPDIR/said"
[ "\$(cat "/sys/class/net/\$NIC/gro_flush_timeout")" = 70000 ]
echo 50000 >"/sys/class/net/\$NIC/gro_flush_timeout"
same 'but for what somebody changed'
"$SETUP" apply "\$NIC" "\${OPTIONS[@]}"
ip link delete "\$NIC"
"$SETUP" restore "\$NIC" | tee "$BATS_TEST_TMPDIR/said"
grep -q "there is no interface" "$BATS_TEST_TMPDIR/said"
[ ! -e "$VOLLEY_SETUP_STATE/setup-\$NIC.journal" ]
SCRIPT
}
