#!/usr/bin/env bash
# link: the interface is up; drivers refuse or forget settings while it is down.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_link() {
    if [ "$mode" = dpdk ]; then
        fine 'not needed: DPDK brings its port up itself'
        return 0
    fi
    want up up
    if word_of "/sys/class/net/$NIC/carrier" && [ "$REPLY" = 0 ]; then
        cannot "no carrier: look at cable, transceiver and switch port (ethtool $NIC)"
    fi
}
