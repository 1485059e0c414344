#!/usr/bin/env bash
# offloads: what merges packets or takes their VLAN tag before XDP sees them is off; checksums and segmentation, which
# the kernel's own traffic lives by and XDP does not meet, stay as they are.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# get_feature NAME: as `ethtool -k` names it.
get_feature() {
    ethtool_says -k || return 1
    local line
    while IFS= read -r line; do
        line=${line#"${line%%[![:space:]]*}"}
        case $line in
        "$1: "*)
            line=${line#*: }
            REPLY=${line%% *}
            case $line in *'[fixed]'*) FIXED=yes ;; *) FIXED=no ;; esac
            return 0
            ;;
        esac
    done <<<"$REPLY"
    WHY="$NIC_DRIVER has no $1"
    return 1
}
set_feature() { run ethtool -K "$NIC" "$1" "$2"; }

# All that can be changed, as "name=on …". Lines that sum others up (not indented, with indented ones below) are left out.
get_features() {
    ethtool_says -k || return 1
    local line value='' name state
    while IFS= read -r line; do
        case $line in *'[fixed]'* | Features*) continue ;; esac
        name=${line%%:*} state=${line#*: }
        name=${name#"${name%%[![:space:]]*}"}
        case $name in rx-checksumming) ;; tx-checksumming | scatter-gather | tcp-segmentation-offload) continue ;; esac
        # What is off because something it needs is off comes back with that.
        case $state in *'[requested on]'*) state=on ;; *'[requested off]'*) state=off ;; esac
        value+="${value:+ }$name=${state%% *}"
    done <<<"$REPLY"
    REPLY=$value
}
set_features() {
    get_features || { ERROR=$WHY && return 1; }
    changed_pairs "$REPLY" "$2"
    [ ${#CHANGED[@]} -eq 0 ] || run ethtool -K "$NIC" "${CHANGED[@]}"
}

# want_feature NAME on|off WHY
want_feature() {
    get "feature:$1" || return 0
    if [ "$REPLY" != "$2" ] && [ "$FIXED" = yes ]; then
        cannot "$1 is $REPLY and fixed: $3"
        return 0
    fi
    want "feature:$1" "$2" "$3"
}

stage_offloads() {
    is_kernels || return 0
    if ! ethtool_says -k; then
        cannot "$WHY"
        return 0
    fi
    want_feature large-receive-offload off 'merges packets before XDP'
    want_feature rx-gro-hw off 'merges packets before XDP'
    if [ "$NIC_DRIVER" = veth ]; then
        # A veth takes frames sent by XDP only while it has NAPI, which GRO switches on.
        want_feature generic-receive-offload on 'gives a veth the NAPI that XDP frames need'
    else
        want_feature generic-receive-offload off 'merges what XDP passes to the kernel, for nothing'
    fi
    want_feature rx-vlan-offload off 'takes the VLAN tag out of the packet before XDP'
    local name kept=''
    for name in rx-checksumming tx-checksumming tcp-segmentation-offload generic-segmentation-offload tx-vlan-offload; do
        if get "feature:$name"; then kept+="${kept:+, }$name $REPLY"; fi
    done
    fine "as they are: $kept"
    if [ "$NIC_DRIVER" = veth ]; then
        advise "a kernel that sends over veth leaves checksums unfinished: at the peer's end ethtool -K PEER tx off tso off gso off"
    fi
}
