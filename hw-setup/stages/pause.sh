#!/usr/bin/env bash
# pause: flow control off (ethtool -A). With it on, one worker that falls behind stops every queue of the port, and the
# switch with it; a game would rather lose the packet.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

get_pause() {
    ethtool_says -a || return 1
    current_settings
    [ -z "${NOW[autonegotiate]:-}" ] || NOW[autoneg]=${NOW[autonegotiate]}
    pairs autoneg rx tx
}
set_pause() {
    get_pause || { ERROR=$WHY && return 1; }
    changed_pairs "$REPLY" "$2"
    [ ${#CHANGED[@]} -eq 0 ] || run ethtool -A "$NIC" "${CHANGED[@]}"
}

stage_pause() {
    is_kernels || return 0
    if ! get pause; then
        cannot "$WHY"
        return 0
    fi
    local wanted=$REPLY
    case " $wanted " in
    *' rx=on '* | *' tx=on '*)
        # What was negotiated cannot be changed alone.
        with "$wanted" autoneg off
        with "$REPLY" rx off
        with "$REPLY" tx off
        wanted=$REPLY
        ;;
    esac
    want pause "$wanted"
}
