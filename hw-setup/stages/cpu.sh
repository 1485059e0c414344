#!/usr/bin/env bash
# cpu: frequency, hyperthread siblings, and what the kernel was told at boot about the workers' cores.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_cpu() {
    local core scaled=no place=/sys/devices/system/cpu
    for core in "${CORES[@]}"; do
        [ -e "$ROOT$place/cpu$core/cpufreq/scaling_governor" ] || continue
        scaled=yes
        want "file:$place/cpu$core/cpufreq/scaling_governor" performance
    done
    [ "$scaled" = yes ] || fine 'no frequency scaling to set here (the hypervisor or the firmware does it)'
    if [ ${#SIBLINGS[@]} -gt 0 ]; then
        if [ "$smt_off" = yes ]; then
            for core in "${SIBLINGS[@]}"; do want "file:$place/cpu$core/online" 0 'hyperthread sibling of a worker'; done
        else
            ranges "${SIBLINGS[@]}"
            cannot "core $REPLY shares an execution unit with a worker: keep it idle, or --smt-off takes it offline"
        fi
    fi
    if [ ${#HOUSEKEEPING[@]} -eq 0 ] || contains "${CORES[0]}" "${HOUSEKEEPING[@]}"; then
        cannot 'no core is left for the rest of the machine: workers should sleep when idle (volley run --idle sleep)'
    fi
    command_line
}

# command_line: isolcpus, nohz_full and rcu_nocbs only come with a boot; what to add is printed.
command_line() {
    local core isolated=() ticks=() callbacks=() add='' missing word
    word_of /sys/devices/system/cpu/isolated && expand "$REPLY" && isolated=("${NUMBERS[@]}")
    word_of /sys/devices/system/cpu/nohz_full && expand "${REPLY/(null)/}" && ticks=("${NUMBERS[@]}")
    word_of /proc/cmdline
    for word in $REPLY; do
        case $word in
        rcu_nocbs=*) expand "${word#*=}" && callbacks=("${NUMBERS[@]}") ;;
        nohz_full=*) [ ${#callbacks[@]} -gt 0 ] || { expand "${word#*=}" && callbacks=("${NUMBERS[@]}"); } ;;
        esac
    done
    missing() {
        local core
        for core in "${CORES[@]}"; do contains "$core" "$@" || return 0; done
        return 1
    }
    missing "${isolated[@]}" && add+=" isolcpus=managed_irq,domain,$CORE_LIST"
    missing "${ticks[@]}" && add+=" nohz_full=$CORE_LIST"
    missing "${callbacks[@]}" && add+=" rcu_nocbs=$CORE_LIST"
    if [ -z "$add" ]; then
        fine "cores $CORE_LIST are isolated, tickless and free of RCU callbacks since boot"
        return 0
    fi
    if [ ${#CORES[@]} -eq ${#ONLINE[@]} ]; then
        cannot 'every core is a worker: none can be isolated'
        return 0
    fi
    cannot "cores $CORE_LIST are not all kept free by the kernel since boot"
    advise "kernel command line to add (takes a reboot):$add"
}
