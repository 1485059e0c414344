#!/usr/bin/env bash
# vfio: gives the NIC to DPDK: the kernel's driver lets go of it, vfio-pci takes it by driver_override, and restore turns
# that round, with the interface's name, settings, addresses and routes.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# The driver of the PCI device, as "driver=ice override=none".
get_driver() {
    [ -n "$NIC_PCI" ] || { WHY="$NIC is no PCI device" && return 1; }
    [ -e "$ROOT/sys/bus/pci/devices/$NIC_PCI" ] || { WHY="there is no device at $NIC_PCI any more" && return 1; }
    pci_facts
    word_of "/sys/bus/pci/devices/$NIC_PCI/driver_override"
    [ "$REPLY" != '(null)' ] || REPLY=''
    REPLY="driver=${NIC_PARENT_DRIVER:-none} override=${REPLY:-none}"
}
set_driver() {
    local place=/sys/bus/pci/devices/$NIC_PCI driver override name=$NIC tries=0 wanted
    driver=${2#driver=} override=${2#*override=}
    driver=${driver%% *} wanted=$driver
    # The override names the driver while it is bound, whatever shall stand there afterwards.
    write "$place/driver_override" "$([ "$driver" = vfio-pci ] && echo vfio-pci)" || return 1
    pci_facts
    if [ -n "$NIC_PARENT_DRIVER" ] && [ "$NIC_PARENT_DRIVER" != "$driver" ]; then
        write "/sys/bus/pci/drivers/$NIC_PARENT_DRIVER/unbind" "$NIC_PCI" || return 1
        checkpoint
    fi
    if [ "$driver" != none ] && [ "$NIC_PARENT_DRIVER" != "$driver" ]; then
        [ "$DRY_RUN" = yes ] || [ -d "$ROOT/sys/bus/pci/drivers/$driver" ] || run modprobe "$driver"
        write /sys/bus/pci/drivers_probe "$NIC_PCI" || return 1
        pci_facts
        # A driver that does not match by itself.
        if [ "$DRY_RUN" = no ] && [ "$NIC_PARENT_DRIVER" != "$driver" ]; then
            write "/sys/bus/pci/drivers/$driver/bind" "$NIC_PCI"
        fi
        checkpoint
    fi
    [ "$override" = none ] || [ "$override" = vfio-pci ] || write "$place/driver_override" "$override"
    [ "$DRY_RUN" = no ] || return 0
    if [ "$wanted" != vfio-pci ] && [ "$wanted" != none ]; then
        # The interface comes with the driver, and not at once.
        until interface_of "$NIC_PCI"; do
            if [ "$tries" -ge 100 ]; then
                ERROR="$wanted has made no interface of $NIC_PCI within 10 s"
                find_nic
                return 1
            fi
            sleep 0.1
            tries=$((tries + 1))
        done
        if [ "$REPLY" != "$name" ]; then
            sleep 0.3
            interface_of "$NIC_PCI"
        fi
        if [ "$REPLY" != "$name" ] && [ ! -e "$ROOT/sys/class/net/$name" ]; then
            run ip link set dev "$REPLY" name "$name" || NIC=$REPLY
        elif [ "$REPLY" != "$name" ]; then
            NIC=$REPLY
        fi
    fi
    find_nic
    return 0
}

get_module() {
    local name=${1//-/_}
    if [ -e "$ROOT/sys/module/$name" ] || [ -e "$ROOT/sys/bus/pci/drivers/$1" ] || is_built_in "$1"; then
        REPLY=loaded
    else
        REPLY=absent
    fi
}
is_built_in() {
    local line
    slurp "/lib/modules/$(uname -r)/modules.builtin" || return 1
    while IFS= read -r line; do
        line=${line##*/}
        line=${line%.ko}
        [ "${line//-/_}" != "${1//-/_}" ] || return 0
    done <<<"$REPLY"
    return 1
}
set_module() {
    if [ "$2" = loaded ]; then run modprobe "$1"; else run modprobe -r "$1"; fi
}

# group_obstacle: what else is in the IOMMU group and not vfio's.
group_obstacle() {
    local path device driver class
    for path in "$ROOT/sys/bus/pci/devices/$NIC_PCI/iommu_group/devices"/*; do
        device=${path##*/}
        [ "$device" != "$NIC_PCI" ] || continue
        word_of "/sys/bus/pci/devices/$device/class"
        class=$REPLY
        # Bridges may stay with the kernel.
        case $class in 0x0604*) continue ;; esac
        driver=$(readlink "$ROOT/sys/bus/pci/devices/$device/driver" 2>/dev/null)
        driver=${driver##*/}
        case $driver in '' | vfio-pci) continue ;; esac
        REPLY="$device ($driver)"
        return 0
    done
    return 1
}

# lost: what hangs on the interface that restore could not bring back.
lost() {
    local list=() text
    [ "$NIC_PRESENT" = yes ] || return 1
    [ -z "$NIC_UPPERS" ] || list+=("interfaces on top of it ($NIC_UPPERS)")
    text=$(ip -d link show dev "$NIC" 2>/dev/null)
    case $text in *'prog/xdp'*) list+=('an XDP program') ;; esac
    if ethtool_says -n; then
        case $REPLY in *'Total 0 rules'*) ;; *Filter:*) list+=('flow rules (ethtool -n)') ;; esac
    fi
    if get rss:table; then case $REPLY in table*) list+=('an RSS table that ethtool could not write back') ;; esac fi
    [ ${#list[@]} -gt 0 ] || return 1
    printf -v REPLY '%s, ' "${list[@]}"
    REPLY=${REPLY%, }
}

stage_vfio() {
    if [ "$mode" = af_xdp ]; then
        if [ "$NIC_PARENT_DRIVER" = vfio-pci ]; then
            blocked "$NIC_PCI is bound to vfio-pci: '$0 restore $NIC' gives it back to the kernel"
        else
            fine 'not needed: the kernel keeps the device'
        fi
        return 0
    fi
    if [ "$NIC_PARENT_DRIVER" = vfio-pci ]; then
        get driver
        fine "$NIC_PCI is bound to vfio-pci"
        return 0
    fi
    profile dpdk
    case $REPLY in
    bifurcated*)
        fine "$NIC_DRIVER keeps the device: DPDK works through it ($REPLY)"
        return 0
        ;;
    esac
    if [ -z "$NIC_PCI" ]; then
        blocked "$NIC is no PCI device: DPDK reaches it by a virtual device (net_af_xdp, net_af_packet), without vfio-pci"
        return 0
    fi
    if [ "$force" = no ] && lifeline; then
        blocked "$REPLY, and would leave the kernel: take another NIC (or --force)"
        return 0
    fi
    if [ "$force" = no ] && lost; then
        blocked "restore could not bring back $REPLY: remove it first (or --force)"
        return 0
    fi
    if [ ! -e "$ROOT/sys/bus/pci/devices/$NIC_PCI/iommu_group" ]; then
        no_iommu || return 0
    elif group_obstacle; then
        blocked "its IOMMU group also holds $REPLY: bind that to vfio-pci, too, or move the card to another slot"
        return 0
    fi
    modules
    want driver 'driver=vfio-pci override=vfio-pci'
}

# modules: each by name, so that restore takes away those that the last would bring along.
modules() {
    local name
    for name in vfio vfio_iommu_type1 vfio-pci; do want "module:$name" loaded; done
}

# no_iommu: without one, a device could write anywhere; only --force goes on, where the kernel has that mode.
no_iommu() {
    local switch=/sys/module/vfio/parameters/enable_unsafe_noiommu_mode
    if [ "$force" = yes ]; then
        modules
        if [ -e "$ROOT$switch" ]; then
            want "file:$switch" Y
            return 0
        fi
        blocked 'no IOMMU, and this kernel is built without VFIO_NOIOMMU'
        return 1
    fi
    blocked "no IOMMU behind $NIC_PCI: switch VT-d or AMD-Vi on in the firmware, and add intel_iommu=on iommu=pt to the kernel command line (AMD: iommu=pt); where there is none (most cloud instances), --force uses vfio's unsafe no-IOMMU mode"
    return 1
}
