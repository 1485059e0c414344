#!/usr/bin/env bash
# device: what NIC is meant, who drives it and where it sits. Asks; changes nothing.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # facts are for the files that source this one; options come from there

# Facts about the NIC; empty when there is none such.
NIC_DRIVER='' NIC_PCI='' NIC_NODE=-1 NIC_MAC='' NIC_UP=no NIC_TYPE='' NIC_MASTER='' NIC_UPPERS=''
NIC_PRESENT=no NIC_PARENT_DRIVER=''

# find_nic: fills the facts about $NIC, which is an interface's name or a PCI address.
find_nic() {
    local path=/sys/class/net/$NIC
    NIC_PRESENT=no NIC_DRIVER='' NIC_MAC='' NIC_UP=no NIC_MASTER='' NIC_UPPERS='' NIC_NODE=-1
    forget_ethtool
    if [ ! -e "$ROOT$path" ]; then
        # A NIC that vfio-pci holds has no interface, but its journal knows its address.
        [ -n "$NIC_PCI" ] || NIC_PCI=${JOURNAL_PCI:-}
        pci_facts
        return 1
    fi
    NIC_PRESENT=yes
    word_of "$path/address" && NIC_MAC=$REPLY
    word_of "$path/type" && NIC_TYPE=$REPLY
    # IFF_UP is bit 0 of the flags.
    word_of "$path/flags" && (((REPLY & 1) == 1)) && NIC_UP=yes
    pci_of "$path/device" && NIC_PCI=$REPLY
    local line
    if ethtool_says -i; then
        while read -r line; do
            case $line in driver:*) NIC_DRIVER=${line#driver: } ;; esac
        done <<<"$REPLY"
    fi
    if [ -z "$NIC_DRIVER" ] && REPLY=$(readlink -f "$ROOT$path/device/driver" 2>/dev/null); then
        NIC_DRIVER=${REPLY##*/}
    fi
    [ -n "$NIC_DRIVER" ] || NIC_DRIVER=unknown
    local upper
    for upper in "$ROOT$path"/upper_*; do
        [ -e "$upper" ] || [ -L "$upper" ] || continue
        NIC_UPPERS+="${NIC_UPPERS:+ }${upper##*/upper_}"
    done
    if [ -e "$ROOT$path/master" ] || [ -L "$ROOT$path/master" ]; then
        REPLY=$(readlink "$ROOT$path/master")
        NIC_MASTER=${REPLY##*/}
    fi
    pci_facts
}

pci_facts() {
    NIC_PARENT_DRIVER=''
    [ -n "$NIC_PCI" ] || return 0
    word_of "/sys/bus/pci/devices/$NIC_PCI/numa_node" && NIC_NODE=$REPLY
    if REPLY=$(readlink "$ROOT/sys/bus/pci/devices/$NIC_PCI/driver" 2>/dev/null); then NIC_PARENT_DRIVER=${REPLY##*/}; fi
    return 0
}

# pci_of PATH: the PCI address of the device that this link leads to, or of the nearest one above it.
pci_of() {
    local path
    path=$(readlink -f "$ROOT$1" 2>/dev/null) || return 1
    while [ -n "$path" ]; do
        if [[ ${path##*/} =~ ^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]; then
            REPLY=${path##*/}
            return 0
        fi
        path=${path%/*}
    done
    return 1
}

# interface_of PCI: the name of the interface that this PCI device carries now.
interface_of() {
    local path
    for path in "$ROOT/sys/bus/pci/devices/$1"/net/* "$ROOT/sys/bus/pci/devices/$1"/virtio*/net/*; do
        [ -e "$path" ] || continue
        REPLY=${path##*/}
        return 0
    done
    return 1
}

# refusal: why this NIC must not be touched at all; the status is 1 when there is no reason.
refusal() {
    local path=/sys/class/net/$NIC
    if [ "$NIC_PRESENT" = no ]; then
        if [ -n "$NIC_PCI" ] && [ -n "$NIC_PARENT_DRIVER" ] && [ "$mode" = dpdk ]; then return 1; fi
        local names=("$ROOT"/sys/class/net/*)
        names=("${names[@]##*/}")
        REPLY="no interface $NIC here: name one of: ${names[*]}"
        return 0
    fi
    # ARPHRD_ETHER of if_arp.h.
    if [ "$NIC_TYPE" != 1 ] || [ "$NIC" = lo ]; then
        REPLY="$NIC is not Ethernet: XDP rules and frames here are Ethernet's; name a NIC"
        return 0
    fi
    if [ -e "$ROOT$path/wireless" ] || [ -e "$ROOT$path/phy80211" ]; then
        REPLY="$NIC is wireless: its driver has neither native XDP nor queues; use a wired NIC"
        return 0
    fi
    [ "$force" = no ] || return 1
    if [ -n "$NIC_MASTER" ]; then
        REPLY="$NIC is a port of $NIC_MASTER, whose packets would be taken from it: ip link set dev $NIC nomaster (or --force)"
        return 0
    fi
    if [ -e "$ROOT$path/bonding" ] || [ -e "$ROOT$path/bridge" ]; then
        REPLY="$NIC is a bond or bridge, not a device with queues: name one of its ports, taken out of it (or --force)"
        return 0
    fi
    return 1
}

# is_vf: whether it is a virtual function; REPLY names its physical function.
is_vf() {
    REPLY=''
    [ -n "$NIC_PCI" ] && [ -e "$ROOT/sys/bus/pci/devices/$NIC_PCI/physfn" ] || return 1
    REPLY=$(readlink -f "$ROOT/sys/bus/pci/devices/$NIC_PCI/physfn")
    REPLY=${REPLY##*/}
}

# lifeline: why losing this interface would lose the machine: it carries the default route or the SSH session.
lifeline() {
    local routes client pid=$$ line word
    routes=$(ip -4 route show default 2>/dev/null; ip -6 route show default 2>/dev/null)
    case " ${routes//$'\n'/ } " in
    *" dev $NIC "*)
        REPLY="$NIC carries the default route"
        return 0
        ;;
    esac
    client=${SSH_CONNECTION:-}
    # sudo takes SSH_CONNECTION away; a process above it has it.
    while [ -z "$client" ] && [ "$pid" -gt 1 ]; do
        while IFS= read -r -d '' word; do
            case $word in SSH_CONNECTION=*) client=${word#*=} ;; esac
        done 2>/dev/null <"$ROOT/proc/$pid/environ"
        slurp "/proc/$pid/status" || break
        pid=0
        while read -r line; do
            case $line in PPid:*) pid=${line//[!0-9]/} ;; esac
        done <<<"$REPLY"
    done
    [ -n "$client" ] || return 1
    client=${client%% *}
    line=$(ip route get "$client" 2>/dev/null)
    case " ${line//$'\n'/ } " in
    *" dev $NIC "*)
        REPLY="$NIC carries the SSH connection from $client"
        return 0
        ;;
    esac
    return 1
}

# choose_cores: the workers' cores, when --cores does not say: the isolated ones, else those of the NIC's node but the
# first; never more than eight.
choose_cores() {
    local list=() core sibling
    ONLINE=() SIBLINGS=() HOUSEKEEPING=()
    word_of /sys/devices/system/cpu/online && expand "$REPLY" && ONLINE=("${NUMBERS[@]}")
    [ ${#ONLINE[@]} -gt 0 ] || ONLINE=(0)
    if [ -n "$cores" ]; then
        expand "$cores" || die "--cores takes a list as 2-5 or 2,4,6, not '$cores'" 2
        CORES=("${NUMBERS[@]}")
        for core in "${CORES[@]}"; do
            contains "$core" "${ONLINE[@]}" || {
                ranges "${ONLINE[@]}"
                die "core $core of --cores does not exist or is offline: online are $REPLY" 2
            }
        done
    else
        if word_of /sys/devices/system/cpu/isolated && [ -n "$REPLY" ] && expand "$REPLY"; then
            list=("${NUMBERS[@]}")
        elif [ "$NIC_NODE" -ge 0 ] && word_of "/sys/devices/system/node/node$NIC_NODE/cpulist" && expand "$REPLY"; then
            list=("${NUMBERS[@]}")
        fi
        [ ${#list[@]} -gt 0 ] || list=("${ONLINE[@]}")
        CORES=()
        for core in "${list[@]}"; do
            contains "$core" "${ONLINE[@]}" || continue
            [ "$core" != "${ONLINE[0]}" ] || continue
            # One thread of each physical core.
            siblings_of "$core"
            [ "${NUMBERS[0]}" -eq "$core" ] || ! contains "${NUMBERS[0]}" "${list[@]}" || continue
            [ ${#CORES[@]} -ge 8 ] || CORES+=("$core")
        done
        [ ${#CORES[@]} -gt 0 ] || CORES=("${ONLINE[-1]}")
    fi
    for core in "${CORES[@]}"; do
        siblings_of "$core"
        for sibling in "${NUMBERS[@]}"; do
            contains "$sibling" "${CORES[@]}" "${SIBLINGS[@]}" || SIBLINGS+=("$sibling")
        done
    done
    for core in "${ONLINE[@]}"; do
        contains "$core" "${CORES[@]}" "${SIBLINGS[@]}" || HOUSEKEEPING+=("$core")
    done
    # With too few cores the siblings must do the machine's work, or, on one core, the worker's own.
    if [ ${#HOUSEKEEPING[@]} -eq 0 ]; then
        for core in "${ONLINE[@]}"; do contains "$core" "${CORES[@]}" || HOUSEKEEPING+=("$core"); done
        SIBLINGS=()
    fi
    ranges "${CORES[@]}"
    CORE_LIST=$REPLY
    ranges "${HOUSEKEEPING[@]}"
    HOUSEKEEPING_LIST=$REPLY
}

siblings_of() {
    word_of "/sys/devices/system/cpu/cpu$1/topology/thread_siblings_list" && expand "$REPLY" || NUMBERS=("$1")
}

# planned_queues: how many queues the NIC will have: one a worker, and those that --kernel-queues keeps for the kernel,
# as far as the device has them.
planned_queues() {
    local wanted=$((${#CORES[@]} + kernel_queues)) most
    if ethtool_says -l; then
        current_settings
        most=${MAX[combined]:-0}
        [ "$most" -gt 0 ] || most=${MAX[rx]:-$wanted}
        # Drivers that keep as many queues again for XDP's own transmitting refuse a program when there are more.
        if [ "$mode" = af_xdp ] && profile queues; then
            case $REPLY in 'half of'*) [ "$most" -lt 2 ] || most=$((most / 2)) ;; esac
        fi
        [ "$wanted" -le "$most" ] || wanted=$most
    else
        # It cannot be changed; there are as many as there are.
        local queues=("$ROOT/sys/class/net/$NIC/queues"/rx-*)
        wanted=${#queues[@]}
    fi
    REPLY=$wanted
}

# profile FIELD: of the driver's line in the table of profiles; "unknown" where nobody knows.
profile() {
    local driver zero_copy queues mtu reset dpdk source
    REPLY=unknown
    while IFS='|' read -r driver zero_copy queues mtu reset dpdk source; do
        driver=${driver//[[:space:]]/}
        [ "$driver" = "$NIC_DRIVER" ] || [ "$driver" = "${NIC_DRIVER%_core}" ] || continue
        case $1 in
        zero_copy) REPLY=$zero_copy ;;
        queues) REPLY=$queues ;;
        mtu) REPLY=$mtu ;;
        reset) REPLY=$reset ;;
        dpdk) REPLY=$dpdk ;;
        source) REPLY=$source ;;
        esac
        REPLY=${REPLY#"${REPLY%%[![:space:]]*}"}
        REPLY=${REPLY%"${REPLY##*[![:space:]]}"}
        return 0
    done <"$HERE/profiles"
    return 1
}
