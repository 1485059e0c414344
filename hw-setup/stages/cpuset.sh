#!/usr/bin/env bash
# cpuset: a cgroup of the workers' cores as an isolated partition: what isolcpus does, without a reboot. Needs cgroup v2.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# cgroup_root: where cgroup v2 with the cpuset controller is mounted.
cgroup_root() {
    local where type rest
    slurp /proc/mounts || return 1
    local text=$REPLY
    while read -r rest where type rest; do
        [ "$type" = cgroup2 ] || continue
        word_of "$where/cgroup.controllers" || continue
        case " $REPLY " in
        *' cpuset '*)
            REPLY=$where
            return 0
            ;;
        esac
    done <<<"$text"
    return 1
}

# "none", or "controller=kept|ours cpus=2-5 partition=isolated".
get_cpuset() {
    local root cpus
    cgroup_root || { WHY='no cgroup v2 with the cpuset controller is mounted' && return 1; }
    root=$REPLY
    if [ ! -d "$ROOT$root/volley" ]; then
        REPLY=none
        return 0
    fi
    word_of "$root/volley/cpuset.cpus"
    cpus=$REPLY
    word_of "$root/volley/cpuset.cpus.partition"
    REPLY="cpus=$cpus partition=$REPLY"
}
set_cpuset() {
    local root
    cgroup_root || { ERROR='no cgroup v2 with the cpuset controller is mounted' && return 1; }
    root=$REPLY
    if [ "$2" = none ]; then
        if word_of "$root/volley/cgroup.procs" && [ -n "$REPLY" ]; then
            ERROR="process $REPLY still runs in $root/volley: stop it first"
            return 1
        fi
        write "$root/volley/cpuset.cpus.partition" member
        run rmdir "$ROOT$root/volley"
        return
    fi
    [ -d "$ROOT$root/volley" ] || run mkdir "$ROOT$root/volley" || return 1
    local pair cpus='' partition=''
    for pair in $2; do
        case $pair in
        cpus=*) cpus=${pair#*=} ;;
        partition=*) partition=${pair#*=} ;;
        esac
    done
    write "$root/volley/cpuset.cpus" "$cpus" && write "$root/volley/cpuset.cpus.partition" "$partition"
}

# The controller must be handed to the root's children; that is a setting of its own.
get_subtree() {
    cgroup_root || { WHY='no cgroup v2 with the cpuset controller is mounted' && return 1; }
    word_of "$REPLY/cgroup.subtree_control"
    case " $REPLY " in *' cpuset '*) REPLY=on ;; *) REPLY=off ;; esac
}
set_subtree() {
    cgroup_root || { ERROR='no cgroup v2 with the cpuset controller is mounted' && return 1; }
    if [ "$2" = on ]; then write "$REPLY/cgroup.subtree_control" +cpuset; else write "$REPLY/cgroup.subtree_control" -cpuset; fi
}

stage_cpuset() {
    local core root missing=no
    word_of /sys/devices/system/cpu/isolated && expand "$REPLY" || NUMBERS=()
    for core in "${CORES[@]}"; do contains "$core" "${NUMBERS[@]}" || missing=yes; done
    if [ "$missing" = no ]; then
        fine 'not needed: isolcpus keeps these cores free'
        return 0
    fi
    if ! cgroup_root; then
        cannot 'no cgroup v2 with the cpuset controller is mounted: the kernel command line is the way (stage cpu)'
        return 0
    fi
    root=$REPLY
    if [ ${#CORES[@]} -ge ${#ONLINE[@]} ]; then
        cannot 'every core is a worker: nothing would be left for the rest of the machine'
        return 0
    fi
    want subtree on
    want cpuset "cpus=$CORE_LIST partition=isolated"
    advise "start the engine in it: echo \$\$ > $root/volley/cgroup.procs (or systemd: Slice=, AllowedCPUs=$CORE_LIST)"
}
