#!/usr/bin/env bash
# steer: flow rules that send the game's ports to the workers' queues (ethtool -N), where the NIC has other queues, too.
# Where every queue is a worker's, the hash alone does it.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# Names of `ethtool -n` for the kinds of rule.
declare -Ar RULE_TYPE=([udp4]='UDP over IPv4' [udp6]='UDP over IPv6' [tcp4]='TCP over IPv4' [tcp6]='TCP over IPv6')

# find_rules KIND PORT: rules for exactly that destination port: RULES[location] = "queue 2" or "context 1".
find_rules() {
    declare -gA RULES=()
    ethtool_says -n || return 1
    local line location='' type='' port='' source='' action='' context=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        *'Filter: '*) location=${line#*: } type='' port='' source='' action='' context='' ;;
        *'Rule Type: '*) type=${line#*: } ;;
        *'Src port: '*) source=${line##*mask: } ;;
        *'Dest port: '*)
            port=${line#*: }
            case $port in *'mask: 0x0') port=${port%% *} ;; *) port='' ;; esac
            ;;
        *'RSS Context ID: '*) context=${line#*: } ;;
        *'Action: Direct to queue '*) action="queue ${line##* }" ;;
        *'Action: '*) action=${line#*Action: } ;;
        esac
        if [ -n "$action" ]; then
            if [ "$type" = "${RULE_TYPE[$1]}" ] && [ "$port" = "$2" ] && [ "$source" = 0xffff ]; then
                [ -z "$context" ] || action="context $context"
                RULES[$location]=$action
            fi
            # A context's line comes before or after the action's, with the driver's kernel.
            case $line in *'Action: '*) action='' ;; esac
        fi
    done <<<"$REPLY"
}

get_steer() {
    find_rules "${1%%:*}" "${1#*:}" || return 1
    REPLY=none
    local location
    for location in "${!RULES[@]}"; do REPLY=${RULES[$location]}; done
}
set_steer() {
    local kind=${1%%:*} port=${1#*:} location
    if [ "$2" = none ]; then
        find_rules "$kind" "$port" || { ERROR=$WHY && return 1; }
        for location in "${!RULES[@]}"; do run ethtool -N "$NIC" delete "$location" || return 1; done
        return 0
    fi
    case $2 in
    queue*) run ethtool -N "$NIC" flow-type "$kind" dst-port "$port" action "${2#* }" ;;
    context*) run ethtool -N "$NIC" flow-type "$kind" dst-port "$port" context "${2#* }" ;;
    *)
        ERROR="'$2' is no action that can be written back"
        return 1
        ;;
    esac
}

# RSS contexts, by number: which there are ("none" or "1 2"). A new one gets its number from the kernel.
get_contexts() {
    local number list=''
    for number in 1 2 3 4 5 6 7 8; do
        ethtool_says -x context "$number" || continue
        list+="${list:+ }$number"
    done
    REPLY=${list:-none}
}
set_contexts() {
    local number now
    get_contexts
    now=$REPLY
    if [ "${2%% *}" = new ]; then
        run ethtool -X "$NIC" context new equal "${2#* }"
        return
    fi
    for number in $now; do
        case " $2 " in *" $number "*) ;; *) [ "$number" = none ] || run ethtool -X "$NIC" context "$number" delete || return 1 ;; esac
    done
}

stage_steer() {
    is_kernels || return 0
    local queues target port kind before
    planned_queues
    queues=$REPLY
    if [ "$queues" -le ${#CORES[@]} ]; then
        fine "not needed: every queue is a worker's"
        return 0
    fi
    if ! ethtool_says -n; then
        cannot "$NIC_DRIVER takes no flow rules: packets of the game also arrive on queues without a worker, and go through the kernel"
        return 0
    fi
    if get feature:ntuple-filters; then want feature:ntuple-filters on; fi
    target='queue 0'
    if [ ${#CORES[@]} -gt 1 ]; then
        get contexts
        before=$REPLY
        find_rules udp4 "${PORTS[0]}"
        target=''
        for port in "${RULES[@]}"; do case $port in context*) target=$port ;; esac; done
        if [ -z "$target" ]; then
            if [ "$PASS" = check ] || [ "$DRY_RUN" = yes ]; then
                [ "$DRY_RUN" = no ] || set_to contexts "new ${#CORES[@]}"
                target='context NEW'
                found change contexts "$before" new "RSS context over queues 0-$((${#CORES[@]} - 1)): none → new"
            else
                new_context "$before" || return 0
                target=$REPLY
            fi
        fi
    fi
    for port in "${PORTS[@]}"; do
        for kind in udp4 udp6 tcp4 tcp6; do
            get "steer:$kind:$port"
            case $REPLY in
            none | "$target") want "steer:$kind:$port" "$target" ;;
            *) cannot "a rule of somebody's already sends $kind port $port to $REPLY: delete it (ethtool -n $NIC) or leave it so" ;;
            esac
        done
    done
}

# new_context BEFORE: makes the RSS context over the workers' queues: REPLY is "context N".
new_context() {
    local number
    change contexts "$1" "new ${#CORES[@]}"
    get contexts
    for number in $REPLY; do
        case " $1 " in
        *" $number "*) ;;
        *)
            [ "$number" = none ] || {
                REPLY="context $number"
                return 0
            }
            ;;
        esac
    done
    return 1
}
