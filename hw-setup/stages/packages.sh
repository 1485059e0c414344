#!/usr/bin/env bash
# packages: the commands that the other stages and the engine need.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

get_package() {
    local proof=$1
    case $1 in
    iproute2) proof=ip ;;
    pciutils) proof=lspci ;;
    kmod) proof=modprobe ;;
    esac
    if have "$proof"; then REPLY=installed; else REPLY=missing; fi
}
set_package() {
    if ! have apt-get; then
        ERROR="no apt-get here: install $1 with this system's package manager"
        return 1
    fi
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$1"
}

stage_packages() {
    local package
    for package in iproute2 ethtool pciutils; do want "package:$package" installed; done
    # Modules are loaded in that mode only.
    [ "$mode" = af_xdp ] || want package:kmod installed
    if [ "$mode" = dpdk ] && have apt-get; then advise "DPDK itself: hw-setup/deps bench (or your own build of it)"; fi
}
