#!/usr/bin/env bash
# mtu: small enough for a packet to fit the one buffer that the driver gives to XDP.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_mtu() {
    is_kernels || return 0
    local limit
    profile mtu
    limit=${REPLY%% *}
    get mtu
    if ! [[ $limit =~ ^[0-9]+$ ]]; then
        # Longest packet in one frame of 2 KiB, less the kernel's headroom of 256, Ethernet and two VLAN tags.
        if [ "$REPLY" -le 1770 ]; then
            fine "mtu $REPLY: a packet fits one frame of 2 KiB"
        else
            cannot "mtu $REPLY: whether $NIC_DRIVER takes packets of several frames is for 'volley doctor $NIC' to ask; 1770 is safe"
        fi
        return 0
    fi
    if [ "$REPLY" -le "$limit" ]; then
        want mtu "$REPLY"
    else
        want mtu "$limit" "the most that $NIC_DRIVER takes with an XDP program"
    fi
}
