#!/usr/bin/env bash
# napi: how the kernel polls the NIC. For workers that wait for interrupts (--napi irq): at once, in the softirq. For
# workers that poll (--napi busy-poll): interrupts are put off for as long as polling goes on, as the kernel's AF_XDP
# documentation has it. --napi threaded gives each queue a kernel thread in place of the softirq.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# Polls without a packet before interrupts are used again, and nanoseconds between them. Too low, and interrupts disturb
# a worker between two polls; too high, and a stalled worker's packets wait for so long.
readonly DEFER_POLLS=2 FLUSH_NS=200000

stage_napi() {
    is_kernels || return 0
    local polls=0 wait=0 threads=0
    case $napi in
    busy-poll) polls=$DEFER_POLLS wait=$FLUSH_NS ;;
    threaded) threads=1 ;;
    esac
    want net:napi_defer_hard_irqs $polls
    want net:gro_flush_timeout $wait
    want net:threaded $threads
}
