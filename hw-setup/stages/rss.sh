#!/usr/bin/env bash
# rss: how the NIC spreads packets over the queues (ethtool -X, -N rx-flow-hash): Toeplitz with Volley's key, over the
# addresses alone, so that a player's datagrams, streams and fragments meet on one worker, whose number every worker can
# compute, too (the owner function; the key stands in rss-key).
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# read_rss: TABLE (the queue of each entry), KEY, FUNCTION, RX_RINGS; empty where the device does not say.
read_rss() {
    ethtool_says -x || return 1
    local line words=() part=table
    TABLE=() KEY='' FUNCTION='' RX_RINGS=0
    while IFS= read -r line; do
        case $line in
        'RX flow hash indirection table'*)
            [[ $line =~ with\ ([0-9]+)\ RX ]] && RX_RINGS=${BASH_REMATCH[1]}
            ;;
        'RSS hash key:'*) part=key ;;
        'RSS hash function:'*) part=function ;;
        *)
            case $part in
            table)
                if [[ $line =~ ^[[:space:]]*[0-9]+: ]]; then
                    read -r -a words <<<"${line#*:}"
                    TABLE+=("${words[@]}")
                fi
                ;;
            key)
                line=${line//[[:space:]]/}
                [[ ! $line =~ ^[0-9a-f]{2}(:[0-9a-f]{2})+$ ]] || KEY=$line
                ;;
            function) case $line in *': on') line=${line%%:*} FUNCTION=${line//[[:space:]]/} ;; esac ;;
            esac
            ;;
        esac
    done <<<"$REPLY"
}

get_rss() {
    read_rss || return 1
    case $1 in
    table)
        [ ${#TABLE[@]} -gt 0 ] || { WHY="$NIC_DRIVER has no indirection table" && return 1; }
        table_words
        ;;
    key)
        REPLY=$KEY
        [ -n "$REPLY" ] || { WHY="$NIC_DRIVER does not tell its hash key" && return 1; }
        ;;
    func)
        REPLY=$FUNCTION
        [ -n "$REPLY" ] || { WHY="$NIC_DRIVER does not tell its hash function" && return 1; }
        ;;
    esac
}

# table_words: TABLE in the words that `ethtool -X` takes: "equal 4", "equal 4 start 2", "weight 1 1 2"; "table 0,3,1,…"
# for one that it has no words for.
table_words() {
    local index start=${TABLE[0]} least=${TABLE[0]} most=${TABLE[0]} queue count
    for queue in "${TABLE[@]}"; do
        [ "$queue" -ge "$least" ] || least=$queue
        [ "$queue" -le "$most" ] || most=$queue
    done
    count=$((most - least + 1))
    local is_equal=yes
    for index in "${!TABLE[@]}"; do
        if [ "${TABLE[index]}" -ne $((start + index % count)) ]; then
            is_equal=no
            break
        fi
    done
    if [ "$is_equal" = yes ]; then
        REPLY="equal $count"
        [ "$start" -eq 0 ] || REPLY+=" start $start"
        return 0
    fi
    # Weights fill the table in blocks, in the order of the queues, as the kernel's ethtool does.
    local weights=() sum=0 position queue_now=0 rebuilt=() partial=0 size=${#TABLE[@]}
    for queue in "${TABLE[@]}"; do weights[queue]=$((${weights[queue]:-0} + 1)); done
    for ((queue = 0; queue <= most; queue++)); do
        weights[queue]=${weights[queue]:-0}
        sum=$((sum + weights[queue]))
    done
    queue_now=-1
    for ((position = 0; position < size; position++)); do
        while [ $((position * sum)) -ge $((size * partial)) ]; do
            queue_now=$((queue_now + 1))
            partial=$((partial + ${weights[queue_now]:-1}))
        done
        rebuilt+=("$queue_now")
    done
    if [ "${rebuilt[*]}" = "${TABLE[*]}" ]; then
        REPLY="weight ${weights[*]}"
        return 0
    fi
    local IFS=,
    REPLY="table ${TABLE[*]}"
}

set_rss() {
    local words=()
    case $1 in
    table)
        read -r -a words <<<"$2"
        case $2 in
        table*)
            ERROR='ethtool has no words for this indirection table'
            return 1
            ;;
        esac
        # "equal" over all of the queues is what the driver does by default; only `default` lets the table grow with -L again.
        read_rss && [ "$2" = "equal $RX_RINGS" ] && words=(default)
        run ethtool -X "$NIC" "${words[@]}"
        ;;
    key) run ethtool -X "$NIC" hkey "$2" ;;
    func) run ethtool -X "$NIC" hfunc "$2" ;;
    esac
}

# Hash fields of a kind of packet, in the letters of `ethtool -N … rx-flow-hash`.
get_hash() {
    ethtool_says -n rx-flow-hash "$1" || return 1
    local line letters=''
    while IFS= read -r line; do
        case $line in
        'IP SA'*) letters+=s ;;
        'IP DA'*) letters+=d ;;
        'L4 bytes 0 & 1'*) letters+=f ;;
        'L4 bytes 2 & 3'*) letters+=n ;;
        'VLAN tag'*) letters+=v ;;
        'L3 proto'*) letters+=t ;;
        'L2DA'*) letters+=m ;;
        esac
    done <<<"$REPLY"
    REPLY=$letters
    [ -n "$REPLY" ] || { WHY="$NIC_DRIVER does not tell the hash fields of $1" && return 1; }
}
set_hash() { run ethtool -N "$NIC" rx-flow-hash "$1" "$2"; }

stage_rss() {
    is_kernels || return 0
    if ! read_rss; then
        cannot "$WHY: a worker gets whatever the device sends its way"
        return 0
    fi
    local queues key bytes kind refused=()
    planned_queues
    queues=$REPLY
    [ "$queues" -ge 1 ] || queues=1
    if get rss:func; then want rss:func toeplitz; fi
    if get rss:key; then
        # Longer keys go on in the same rhythm.
        bytes=$((($(printf '%s' "$REPLY" | wc -c) + 1) / 3))
        word_of_key
        key=$REPLY
        while [ ${#key} -lt $((bytes * 3 - 1)) ]; do key+=:$key; done
        want rss:key "${key:0:bytes*3-1}"
    else
        cannot "$WHY: owners are computed by the workers alone"
    fi
    if [ ${#TABLE[@]} -gt 0 ]; then
        get rss:table
        case $REPLY in
        table*) if [ "$force" = no ]; then
            cannot "the indirection table is one that ethtool could not write back: left as it is (--force overwrites it)"
            queues=0
        fi ;;
        esac
        if [ "$queues" -gt 0 ]; then want_table "$queues"; fi
    fi
    # igb and its twins hash TCP by ports, too, and say nothing when asked otherwise.
    for kind in udp4 tcp4 udp6 tcp6; do
        if get "hash:$kind"; then want_or_leave "hash:$kind" sd "$NIC_DRIVER"; else refused+=("$kind"); fi
    done
    [ ${#refused[@]} -eq 0 ] || cannot "$NIC_DRIVER does not tell what of ${refused[*]} it hashes"
}

# want_table QUEUES: the kernel's own traffic goes to the queues that --kernel-queues keeps; what is the game's is
# steered past this table then (stage steer).
want_table() {
    local workers=${#CORES[@]}
    if [ "$kernel_queues" -gt 0 ] && [ "$1" -gt "$workers" ]; then
        want rss:table "equal $(($1 - workers)) start $workers"
    else
        want rss:table "equal $1"
    fi
}

# word_of_key: Volley's key, from the file that the engine and DPDK take it from, too.
word_of_key() {
    local line
    while IFS= read -r line; do
        case $line in '#'* | '') ;; *) REPLY=$line ;; esac
    done <"$HERE/rss-key"
}
