#!/usr/bin/env bash
# rings: descriptors per queue (ethtool -G). Too few drop packets in a burst longer than they last; more than needed only
# cost cache: 2,048 outlast 2 ms at a million packets a second, and are the engine's own ring size or more.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one
readonly RING=2048

get_rings() {
    ethtool_says -g || return 1
    current_settings
    pairs rx tx
}
set_rings() {
    get_rings || { ERROR=$WHY && return 1; }
    changed_pairs "$REPLY" "$2"
    [ ${#CHANGED[@]} -eq 0 ] || run ethtool -G "$NIC" "${CHANGED[@]}"
}

stage_rings() {
    is_kernels || return 0
    if ! get rings; then
        cannot "$WHY"
        return 0
    fi
    local wanted=$REPLY name size
    for name in rx tx; do
        [ -n "${NOW[$name]:-}" ] || continue
        size=$RING
        [ "${MAX[$name]:-$RING}" -ge "$size" ] || size=${MAX[$name]}
        # What somebody made larger stays so.
        [ "${NOW[$name]}" -le "$size" ] || size=${NOW[$name]}
        with "$wanted" "$name" "$size"
        wanted=$REPLY
    done
    want rings "$wanted"
}
