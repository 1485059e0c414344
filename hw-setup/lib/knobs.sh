#!/usr/bin/env bash
# knobs: every setting that setup may touch has a key, and a pair of functions get_KIND and set_KIND here or in the stage
# it belongs to. `apply` sets what is wanted, `restore` what was there before, both by the same function.
#
#   get_KIND REST         leaves the value in REPLY; status 1 and a reason in WHY when there is no such setting
#   set_KIND REST VALUE   makes it so, by `run` and `write` only; status 1 and a reason in ERROR when that is refused
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # REPLY, WHY and ERROR are read by the files that source this one

# get KEY, set_to KEY VALUE
get() {
    WHY=''
    local kind=${1%%:*} rest=''
    [ "$kind" = "$1" ] || rest=${1#*:}
    case $kind in
    file | mount | module | package | cpuset | subtree | irqbalance | irqn | driver) ;;
    *)
        if [ "$NIC_PRESENT" = no ]; then
            WHY="there is no interface $NIC"
            return 1
        fi
        ;;
    esac
    "get_${kind//-/_}" "$rest"
}

set_to() {
    ERROR=''
    local kind=${1%%:*} rest=''
    [ "$kind" = "$1" ] || rest=${1#*:}
    "set_${kind//-/_}" "$rest" "$2"
}

# title KEY: its name for people.
title() {
    local rest=${1#*:}
    case $1 in
    file:*hugepages-2048kB/*) REPLY='2 MiB pages' ;;
    file:*hugepages-1048576kB/*) REPLY='1 GiB pages' ;;
    file:*/cpu[0-9]*) rest=${rest#*/cpu/} REPLY="${rest%%/*} ${rest##*/}" ;;
    file:*) REPLY=${rest##*/} ;;
    net:*) REPLY=$rest ;;
    feature:*) REPLY=$rest ;;
    irq:*) REPLY="irq $rest" ;;
    irqn:*) REPLY="irq $rest" ;;
    xps:*) REPLY="tx-$rest" ;;
    hash:*) REPLY="$rest hash" ;;
    rss:*) REPLY=$rest ;;
    steer:*) REPLY=${rest/:/ port } ;;
    mount:*) REPLY=$rest ;;
    module:*) REPLY="module $rest" ;;
    package:*) REPLY=$rest ;;
    *) REPLY=$1 ;;
    esac
    case $1 in file:*/node/node*) rest=${1#*/node/} REPLY="${rest%%/*} $REPLY" ;; esac
}

# A file of the kernel's, by its path.
get_file() { word_of "$1" || { WHY="this kernel has no $1" && return 1; }; }
set_file() { write "$1" "$2"; }

# A file below the interface's directory in sysfs.
get_net() { word_of "/sys/class/net/$NIC/$1" || { WHY="this kernel has no $1 for $NIC" && return 1; }; }
set_net() { write "/sys/class/net/$NIC/$1" "$2"; }

get_mtu() { word_of "/sys/class/net/$NIC/mtu"; }
set_mtu() { run ip link set dev "$NIC" mtu "$2"; }

get_up() {
    if [ "$NIC_UP" = yes ]; then REPLY=up; else REPLY=down; fi
    word_of "/sys/class/net/$NIC/flags" || return 0
    if (((REPLY & 1) == 1)); then REPLY=up; else REPLY=down; fi
}
set_up() { run ip link set dev "$NIC" "$2"; }

# What a device forgets when its driver is changed, besides what has a knob of its own: as "name=value" pairs.
get_attributes() {
    local text name value='' word pair
    text=$(ip -o -d link show dev "$NIC" 2>/dev/null) || { WHY="$NIC is gone" && return 1; }
    text=${text//\\/ }
    for pair in qlen:txqueuelen gso_max_size:gso_max_size gso_max_segs:gso_max_segs gro_max_size:gro_max_size; do
        name=${pair%%:*}
        case " $text " in
        *" $name "*)
            word=${text#*" $name "}
            value+="${value:+ }${pair#*:}=${word%% *}"
            ;;
        esac
    done
    word_of "/sys/class/net/$NIC/address" && value+=" address=$REPLY"
    case $text in *'PROMISC'*'>'*) value+=' promisc=on' ;; *) value+=' promisc=off' ;; esac
    case $text in *'ALLMULTI'*'>'*) value+=' allmulticast=on' ;; *) value+=' allmulticast=off' ;; esac
    REPLY=$value
}
set_attributes() {
    local now
    get_attributes || { ERROR=$WHY && return 1; }
    now=$REPLY
    changed_pairs "$now" "$2"
    [ ${#CHANGED[@]} -eq 0 ] || run ip link set dev "$NIC" "${CHANGED[@]}"
}

# Addresses, as "4 10.0.0.1/24 …; 6 …": what `ip address add` takes. Link-local ones that the kernel makes are among
# them, and are there again by themselves.
get_addresses() {
    local line words value='' rest
    while read -r -a words; do
        # 2: eth1    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth1\ …
        line=${words[*]:2}
        line=${line%%\\*}
        rest=${line#* }
        rest=${rest% }
        rest=${rest% "$NIC"}
        rest=${rest/ dynamic/}
        rest=${rest/ tentative/}
        rest=${rest/ proto kernel_ll/}
        rest=${rest/ noprefixroute/ noprefixroute}
        case $line in
        'inet '*) value+="${value:+; }4 $rest" ;;
        'inet6 '*) value+="${value:+; }6 $rest" ;;
        esac
    done <<<"$(ip -o address show dev "$NIC" 2>/dev/null)"
    REPLY=$value
}
set_addresses() {
    local entry now failed=0
    get_addresses
    now="; $REPLY; "
    while read -r -d ';' entry; do
        [ -n "$entry" ] || continue
        case $now in *"; $entry; "*) continue ;; esac
        case $entry in
        '6 fe80:'*) [ "$(word_of "/proc/sys/net/ipv6/conf/$NIC/addr_gen_mode" && echo "$REPLY")" != 0 ] || continue ;;
        esac
        # shellcheck disable=SC2086  # words of an address entry
        run ip "-${entry%% *}" address add ${entry#* } dev "$NIC" || failed=1
    done <<<"$2;"
    return $failed
}

# Routes and permanent neighbours, likewise. The kernel makes those with `proto kernel` itself.
get_routes() {
    local line value='' family
    for family in 4 6; do
        while IFS= read -r line; do
            case " $line" in *' proto kernel'* | *' local '* | *' multicast '* | *' anycast '* | *' broadcast '*) continue ;; esac
            line=${line// linkdown/}
            line=${line// dead/}
            line=${line%"${line##*[![:space:]]}"}
            [ -z "$line" ] || value+="${value:+; }$family $line"
        done <<<"$(ip "-$family" route show table all dev "$NIC" 2>/dev/null)"
    done
    REPLY=${value//  / }
}
set_routes() {
    local entry now failed=0
    get_routes
    now="; $REPLY; "
    while read -r -d ';' entry; do
        [ -n "$entry" ] || continue
        case $now in *"; $entry; "*) continue ;; esac
        # shellcheck disable=SC2086  # words of a route entry
        run ip "-${entry%% *}" route replace ${entry#* } dev "$NIC" || failed=1
    done <<<"$2;"
    return $failed
}

get_neighbours() {
    local line words value='' family
    for family in 4 6; do
        while read -r -a words; do
            [ ${#words[@]} -lt 3 ] || value+="${value:+; }$family ${words[0]} lladdr ${words[2]} nud permanent"
        done <<<"$(ip "-$family" neighbour show dev "$NIC" nud permanent 2>/dev/null)"
    done
    REPLY=$value
}
set_neighbours() {
    local entry now failed=0
    get_neighbours
    now="; $REPLY; "
    while read -r -d ';' entry; do
        [ -n "$entry" ] || continue
        case $now in *"; $entry; "*) continue ;; esac
        # shellcheck disable=SC2086  # words of a neighbour entry
        run ip "-${entry%% *}" neighbour replace ${entry#* } dev "$NIC" || failed=1
    done <<<"$2;"
    return $failed
}

# The interface's settings under /proc/sys/net, as "4/rp_filter=1 6/accept_ra=0 …".
get_sysctls() {
    local value='' family path
    for family in 4 6; do
        for path in "$ROOT/proc/sys/net/ipv$family/conf/$NIC"/*; do
            [ -f "$path" ] && [ -r "$path" ] && [ -w "$path" ] || continue
            # Reading these answers with an error, or with what nobody may write back.
            case ${path##*/} in stable_secret | mtu | *_filter_conntrack) continue ;; esac
            word_of "${path#"$ROOT"}" || continue
            case $REPLY in *[[:space:]]*) continue ;; esac
            value+="${value:+ }$family/${path##*/}=$REPLY"
        done
    done
    REPLY=$value
}
set_sysctls() {
    local now index failed=0 name
    get_sysctls
    now=$REPLY
    changed_pairs "$now" "$2"
    for ((index = 0; index < ${#CHANGED[@]}; index += 2)); do
        name=${CHANGED[index]}
        write "/proc/sys/net/ipv${name%%/*}/conf/$NIC/${name#*/}" "${CHANGED[index + 1]}" || failed=1
    done
    return $failed
}

# companions KEY: the settings that a change of this one takes along: KEEPS.
companions() {
    local path
    KEEPS=()
    case $1 in
    channels) per_queue_keys ;;
    driver)
        KEEPS=(attributes mtu channels rings coalesce features rss:key rss:func rss:table hash:udp4 hash:tcp4 hash:udp6
            hash:tcp6 pause)
        for path in napi_defer_hard_irqs gro_flush_timeout threaded; do KEEPS+=("net:$path"); done
        local others=("${KEEPS[@]}")
        per_queue_keys
        # An address is only kept by an interface that is up, and a route only by one with an address.
        KEEPS=("${others[@]}" "${KEEPS[@]}" sysctls up neighbours addresses routes)
        ;;
    esac
}

per_queue_keys() {
    local path name
    KEEPS=(rss:table)
    for path in "$ROOT/sys/class/net/$NIC/queues"/*; do
        name=${path##*/}
        case $name in
        tx-*) KEEPS+=("xps:${name#tx-}") ;;
        rx-*) KEEPS+=("net:queues/$name/rps_cpus" "net:queues/$name/rps_flow_cnt") ;;
        esac
    done
    nic_interrupts
    for name in "${!IRQ_OF[@]}"; do KEEPS+=("irq:$name"); done
}
