#!/usr/bin/env bash
# coalesce: how long the NIC collects packets before it interrupts (ethtool -C). Adaptive is off, because its mind changes
# under a burst; what remains is a bound on latency (--rx-usecs) that still spares an interrupt per packet.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# read_coalesce: NOW with the names that `ethtool -C` takes.
read_coalesce() {
    ethtool_says -c || return 1
    local line words=()
    current_settings
    # "Adaptive RX: on  TX: off" is one line of two values.
    unset 'NOW[adaptive-rx]'
    while IFS= read -r line; do
        case $line in
        Adaptive*)
            read -r -a words <<<"$line"
            [ "${words[2]:-n/a}" = n/a ] || NOW[adaptive-rx]=${words[2]}
            [ "${words[4]:-n/a}" = n/a ] || NOW[adaptive-tx]=${words[4]}
            ;;
        esac
    done <<<"$REPLY"
}

get_adaptive() {
    read_coalesce || return 1
    REPLY=${NOW[adaptive-rx]:-}
    [ -n "$REPLY" ] || { WHY="$NIC_DRIVER does not adapt its coalescing" && return 1; }
}
set_adaptive() { run ethtool -C "$NIC" adaptive-rx "$2"; }

get_coalesce() {
    read_coalesce || return 1
    # While it adapts, the numbers are the driver's passing thoughts; the fixed ones are behind them.
    [ "${NOW[adaptive-rx]:-off}" = off ] || unset 'NOW[rx-usecs]' 'NOW[rx-frames]'
    [ "${NOW[adaptive-tx]:-off}" = off ] || unset 'NOW[tx-usecs]' 'NOW[tx-frames]'
    pairs rx-usecs rx-frames tx-usecs tx-frames || { WHY="$NIC_DRIVER has no coalescing to set" && return 1; }
}
set_coalesce() {
    get_coalesce || { ERROR=$WHY && return 1; }
    changed_pairs "$REPLY" "$2"
    [ ${#CHANGED[@]} -eq 0 ] || run ethtool -C "$NIC" "${CHANGED[@]}"
}

stage_coalesce() {
    is_kernels || return 0
    local adapts=no
    if get adaptive; then
        adapts=$REPLY
        want adaptive off
    elif ! get coalesce; then
        cannot "$WHY"
        return 0
    fi
    if [ "$adapts" = on ] && { [ "$PASS" = check ] || [ "$DRY_RUN" = yes ]; }; then
        # The fixed numbers only show once it no longer adapts.
        [ "$DRY_RUN" = no ] || run ethtool -C "$NIC" rx-usecs "$rx_usecs"
        found change coalesce '' "rx-usecs=$rx_usecs" "coalesce: adaptive → rx-usecs=$rx_usecs"
        return 0
    fi
    get coalesce || return 0
    # It is a bound: what is shorter already stays so.
    [ "${NOW[rx-usecs]:-0}" -le "$rx_usecs" ] || { with "$REPLY" rx-usecs "$rx_usecs"; }
    want coalesce "$REPLY"
}
