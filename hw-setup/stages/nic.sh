#!/usr/bin/env bash
# nic: which device this is, whether it may be touched, and what is known of its driver. It changes nothing.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_nic() {
    local text=$NIC_DRIVER
    if [ "$NIC_PRESENT" = no ]; then
        fine "$NIC is $NIC_PCI, bound to ${NIC_PARENT_DRIVER:-no driver}"
        return 0
    fi
    [ -z "$NIC_PCI" ] || text+=" at $NIC_PCI"
    if [ -n "$NIC_PCI" ] && have lspci && [ -z "$ROOT" ]; then
        REPLY=$(lspci -s "$NIC_PCI" 2>/dev/null)
        REPLY=${REPLY#* }
        [ -z "$REPLY" ] || text+=" (${REPLY#*: })"
    fi
    fine "$text"
    if [ "$mode" = af_xdp ]; then
        ask_volley
        if profile zero_copy; then
            advise "known of $NIC_DRIVER: zero-copy: $REPLY"
            profile reset
            case $REPLY in yes*) advise "known of $NIC_DRIVER: attaching a program interrupts traffic (${REPLY#yes: }): 'volley load $NIC' attaches once and for all" ;; esac
        else
            advise "$NIC_DRIVER has no profile here: what it can do is for 'volley doctor $NIC' to ask of the kernel"
        fi
    fi
    if is_vf; then
        advise "a virtual function of $REPLY: flow control, MTU limit and steering may be the physical function's to set"
    fi
    if [ "$mode" = af_xdp ] && lifeline; then
        advise "$REPLY: changes of queues, rings and flow control may drop the link for some seconds"
    fi
    return 0
}

# ask_volley: what the kernel's netdev netlink family says of the device, through the engine where it is built. A
# profile is hearsay beside it.
ask_volley() {
    local volley line name
    for volley in "${VOLLEY:-}" "$HERE/../target/release/volley" "$(command -v volley)"; do
        [ -n "$volley" ] && [ -x "$volley" ] || continue
        while IFS= read -r line; do
            for name in xdp zero-copy; do
                case $line in *"  $name "*) advise "the kernel says: $name${line#*  "$name"}" ;; esac
            done
        done <<<"$("$volley" doctor "$NIC" 2>/dev/null)"
        return 0
    done
    advise "what the device can do, the kernel tells 'volley doctor $NIC' (build it: cargo build --release -p volley)"
}
