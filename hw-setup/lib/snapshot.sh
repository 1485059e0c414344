#!/usr/bin/env bash
# snapshot: everything that setup may touch, as text that is the same when the state is; and status: what the journal
# says of it.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # facts and options are other files'

# shot KEY: one line.
shot() {
    if get "$1"; then printf '%s = %s\n' "$1" "$REPLY"; else printf '%s = -\n' "$1"; fi
}

# files PATTERN…: each file's first line.
files() {
    local path
    for path in "$@"; do
        [ -f "$path" ] && [ -r "$path" ] || continue
        word_of "${path#"$ROOT"}"
        printf '%s = %s\n' "${path#"$ROOT"}" "$REPLY"
    done
}

# text TITLE COMMAND…: what a command prints, without what changes by itself.
text() {
    local title=$1 line
    shift
    "$@" 2>/dev/null | while IFS= read -r line; do
        printf '%s: %s\n' "$title" "$line"
    done
}

print_snapshot() {
    local place name path kind line
    [ "$NIC_PRESENT" = yes ] || [ -n "$NIC_PCI" ] || die "no interface $NIC here" 2
    echo "nic = $NIC"
    shot driver
    if [ "$NIC_PRESENT" = yes ]; then
        for name in up attributes mtu addresses routes neighbours sysctls channels rings adaptive coalesce features \
            rss:func rss:key rss:table contexts hash:udp4 hash:tcp4 hash:udp6 hash:tcp6 pause; do
            shot "$name"
        done
        text rules ethtool -n "$NIC"
        # The number of an interface changes with its driver; nobody can put it back.
        line=$(ip -o link show dev "$NIC" 2>/dev/null)
        line=${line#*: }
        line=${line%% state *}
        # Its scheduler is made anew when it goes up.
        printf 'link = %s\n' "${line/qdisc noop/qdisc -}"
        place=$ROOT/sys/class/net/$NIC
        files "$place"/{napi_defer_hard_irqs,gro_flush_timeout,threaded,tx_queue_len,mtu,operstate} \
            "$place"/queues/*/{rps_cpus,rps_flow_cnt,xps_cpus,xps_rxqs}
    else
        echo 'interface = -'
    fi
    nic_interrupts
    for name in "${!IRQ_NAME[@]}"; do
        # By name: numbers are given anew with the queues.
        word_of "/proc/irq/$name/smp_affinity_list" && printf 'irq %s = %s\n' "${IRQ_NAME[$name]}" "$REPLY"
    done | sort
    files "$ROOT"/sys/kernel/mm/hugepages/*/nr_hugepages "$ROOT"/sys/devices/system/node/node*/hugepages/*/nr_hugepages \
        "$ROOT"/sys/devices/system/cpu/cpu*/online "$ROOT"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor
    for name in mount:/sys/fs/bpf mount:/dev/hugepages mount:/dev/hugepages1G cpuset subtree module:vfio-pci irqbalance; do
        shot "$name"
    done
    for kind in "$ROOT/etc/default/irqbalance" "$ROOT/etc/default/grub"; do
        [ ! -r "$kind" ] || printf '%s: %s\n' "${kind#"$ROOT"}" "$(cksum <"$kind")"
    done
    for path in "$ROOT/sys/module"/vfio*; do [ ! -e "$path" ] || printf 'module = %s\n' "${path##*/}"; done
}

# print_status: what is open in the journal, and whether it still is so.
print_status() {
    local id boot code=0
    if [ "$has_journal" = no ]; then
        if [ "$json" = yes ]; then print_json status 0; else echo "$NIC: setup has changed nothing"; fi
        return 0
    fi
    [ -z "$JOURNAL_DAMAGE" ] || stop_damaged
    boot_id
    boot=$REPLY
    open_ids
    [ "$json" = yes ] || printf '%s: %d changes by setup apply --mode %s at %s%s\n\n' "$NIC" ${#OPEN[@]} "$JOURNAL_MODE" \
        "$JOURNAL_TIME" "$([ "$JOURNAL_BOOT" = "$boot" ] || echo ', before the last reboot')"
    for id in "${OPEN[@]}"; do
        STAGE=${E_STAGE[$id]}
        title "${E_KEY[$id]}"
        local name=$REPLY was="before: ${E_BEFORE[$id]:-none}"
        if [ "${E_BOOT[$id]}" != "$boot" ] && ! persists "${E_KEY[$id]}"; then
            found gone "${E_KEY[$id]}" '' "${E_BEFORE[$id]}" "$name went with the reboot"
        elif [ "$NIC_REPLACED" = yes ] && ! of_machine "${E_KEY[$id]}"; then
            found gone "${E_KEY[$id]}" '' "${E_BEFORE[$id]}" "$name went with the device it was set on"
        elif ! get "${E_KEY[$id]}"; then
            found gone "${E_KEY[$id]}" '' "${E_BEFORE[$id]}" "$name: $WHY"
        elif [ "${E_STATE[$id]}" != 'done' ]; then
            found left "${E_KEY[$id]}" "$REPLY" "${E_BEFORE[$id]}" "$name is $REPLY: setup was interrupted here ($was)"
        elif [ "$REPLY" = "${E_NOW[$id]}" ]; then
            found ok "${E_KEY[$id]}" "$REPLY" "${E_BEFORE[$id]}" "$name is $REPLY ($was)"
        else
            found left "${E_KEY[$id]}" "$REPLY" "${E_BEFORE[$id]}" "$name is $REPLY, changed by somebody since setup made it ${E_NOW[$id]} ($was)"
        fi
    done
    if [ "$json" = yes ]; then
        print_json status $code
    else
        print_items 0
        print_totals "as setup left it:ok" "changed since:left" gone:gone
    fi
}
