#!/usr/bin/env bash
# irq: interrupts, and with them their softirqs, stay off the workers' cores; irqbalance is told so, too.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# nic_interrupts: IRQ_OF[name] = number, of this NIC. Numbers change with the queues; names do not.
nic_interrupts() {
    declare -gA IRQ_OF=() IRQ_NAME=()
    local line number words=() path
    slurp /proc/interrupts || return 1
    while read -r line; do
        number=${line%%:*}
        [[ $number =~ ^[0-9]+$ ]] || continue
        read -r -a words <<<"$line"
        IRQ_NAME[$number]=${words[-1]}
    done <<<"$REPLY"
    [ -n "$NIC_PCI" ] || return 0
    for path in "$ROOT/sys/bus/pci/devices/$NIC_PCI/msi_irqs"/*; do
        number=${path##*/}
        [ -z "${IRQ_NAME[$number]:-}" ] || IRQ_OF[${IRQ_NAME[$number]}]=$number
    done
}

get_irq() {
    nic_interrupts
    [ -n "${IRQ_OF[$1]:-}" ] || { WHY="$NIC has no interrupt of that name now" && return 1; }
    word_of "/proc/irq/${IRQ_OF[$1]}/smp_affinity_list" || { WHY='its affinity cannot be read' && return 1; }
}
set_irq() {
    nic_interrupts
    write "/proc/irq/${IRQ_OF[$1]:-0}/smp_affinity_list" "$2"
}

# Of another device: its number and name.
get_irqn() {
    nic_interrupts
    [ "${IRQ_NAME[${1%%/*}]:-}" = "${1#*/}" ] || { WHY='there is no such interrupt now' && return 1; }
    word_of "/proc/irq/${1%%/*}/smp_affinity_list"
}
set_irqn() { write "/proc/irq/${1%%/*}/smp_affinity_list" "$2"; }

# irqbalance: what its configuration bans. It is not started or stopped.
get_irqbalance() {
    local line
    slurp /etc/default/irqbalance || { WHY='irqbalance has no /etc/default/irqbalance here' && return 1; }
    local text=$REPLY
    REPLY=none
    while IFS= read -r line; do
        case $line in IRQBALANCE_BANNED_CPULIST=*) REPLY=${line#*=} ;; esac
    done <<<"$text"
}
set_irqbalance() {
    local file=/etc/default/irqbalance line text=''
    if [ "$DRY_RUN" = yes ]; then
        print_command "sed -i '/^IRQBALANCE_BANNED_CPULIST=/d' $file"
        [ "$2" = none ] || print_command "echo IRQBALANCE_BANNED_CPULIST=$2 >> $file"
    else
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in IRQBALANCE_BANNED_CPULIST=*) continue ;; esac
            text+=$line$'\n'
        done <"$ROOT$file"
        [ "$2" = none ] || text+="IRQBALANCE_BANNED_CPULIST=$2"$'\n'
        # Whole or not at all; mode and owner stay, because the file is written over from a copy that is safe.
        printf '%s' "$text" >"$ROOT$file.volley" && sync_path "$ROOT$file.volley" && cat "$ROOT$file.volley" >"$ROOT$file" &&
            rm -f "$ROOT$file.volley" || { ERROR="$file cannot be written" && return 1; }
    fi
    if [ -d "$ROOT/run/systemd/system" ] && have systemctl; then run systemctl try-restart irqbalance; fi
}

stage_irq() {
    local name number index=0 count list=() core
    count=${#HOUSEKEEPING[@]}
    if [ "$count" -eq 0 ]; then
        cannot 'no core is left for interrupts beside the workers'
        return 0
    fi
    nic_interrupts
    if [ ${#IRQ_OF[@]} -eq 0 ]; then
        fine "$NIC has no interrupts of its own"
    elif [ "$mode" = af_xdp ]; then
        mapfile -t list <<<"$(printf '%s\n' "${!IRQ_OF[@]}" | sort -V)"
        for name in "${list[@]}"; do
            place "irq:$name" "${HOUSEKEEPING[index % count]}"
            index=$((index + 1))
        done
    fi
    if [ "$irqs" = all ]; then others_off; fi
    if [ -e "$ROOT/etc/default/irqbalance" ]; then
        ranges "${CORES[@]}" "${SIBLINGS[@]}"
        want irqbalance "$REPLY"
        [ -d "$ROOT/run/systemd/system" ] || advise 'irqbalance reads its configuration when it starts: restart it'
    elif irqbalance_runs; then
        cannot 'irqbalance runs without /etc/default/irqbalance: end it, or start it with --banirq or IRQBALANCE_BANNED_CPULIST'
    fi
}

# place KEY CORE: unless it is off the workers' cores already.
place() {
    local core
    if get "$1" && expand "$REPLY"; then
        for core in "${NUMBERS[@]}"; do
            if contains "$core" "${CORES[@]}" "${SIBLINGS[@]}"; then
                want "$1" "$2"
                return 0
            fi
        done
        want "$1" "$REPLY"
        return 0
    fi
    cannot "$1: ${WHY:-affinity unknown}"
}

# others_off: interrupts of other devices. Those the kernel manages itself (of NVMe queues, say) refuse to be moved, which
# only shows when it is tried; isolcpus=managed_irq keeps them away.
others_off() {
    local number core away
    local list=()
    for number in "${!IRQ_NAME[@]}"; do list+=("$number"); done
    mapfile -t list <<<"$(printf '%s\n' "${list[@]}" | sort -n)"
    for number in "${list[@]}"; do
        [ -n "$number" ] || continue
        contains "$number" "${IRQ_OF[@]}" && continue
        word_of "/proc/irq/$number/smp_affinity_list" && expand "$REPLY" || continue
        away=()
        for core in "${NUMBERS[@]}"; do contains "$core" "${CORES[@]}" "${SIBLINGS[@]}" || away+=("$core"); done
        [ ${#away[@]} -lt ${#NUMBERS[@]} ] || continue
        [ ${#away[@]} -gt 0 ] || away=("${HOUSEKEEPING[@]}")
        ranges "${away[@]}"
        want_or_leave "irqn:$number/${IRQ_NAME[$number]}" "$REPLY" 'the kernel'
    done
}

irqbalance_runs() {
    local path
    for path in "$ROOT"/proc/[0-9]*/comm; do
        word_of "${path#"$ROOT"}" && [ "$REPLY" = irqbalance ] && return 0
    done
    return 1
}
