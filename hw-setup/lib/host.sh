#!/usr/bin/env bash
# host: how setup reads from and writes to the machine. Every change of it goes through `run` or `write`, so that
# --dry-run prints the exact commands and nothing else can slip past it.
#
# Functions that answer with a value leave it in REPLY and say by their status whether there is one; a refusal's
# reason is in WHY. (A subshell per value would cost more than all the rest.)
# shellcheck disable=SC2015,SC2034,SC2154  # REPLY, WHY and the arrays are read by the files that source this one

# ROOT goes before /sys, /proc, /dev, /etc, /run and /var: tests run against a recorded tree.
ROOT=${VOLLEY_SETUP_ROOT:-}
STATE=${VOLLEY_SETUP_STATE:-$ROOT/var/lib/volley}
WHY='' ERROR=''

say() { printf '%s\n' "setup: $*" >&2; }

die() {
    say "$1"
    exit "${2:-1}"
}

# quoted WORD...: the words as a shell would have to be given them.
quoted() {
    local word
    REPLY=''
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_.,:/=@%+-]* | '') printf -v word "'%s'" "${word//\'/\'\\\'\'}" ;;
        esac
        REPLY+="${REPLY:+ }$word"
    done
}

# print_command TEXT: what a dry run would do.
COMMANDS=()
print_command() {
    COMMANDS+=("$1")
    [ "$json" = yes ] || printf '    %s\n' "$1"
}

# run COMMAND...: a change. Its output is in ERROR when it fails.
run() {
    quoted "$@"
    if [ "$DRY_RUN" = yes ]; then
        print_command "$REPLY"
        return 0
    fi
    forget_ethtool
    local output code=0
    output=$("$@" 2>&1) || code=$?
    ERROR=${output//$'\n'/; }
    [ -n "$ERROR" ] || ERROR="$1 ended with $code"
    return "$code"
}

# write PATH VALUE: a change of a file of the kernel's.
write() {
    if [ "$DRY_RUN" = yes ]; then
        quoted "$2"
        print_command "echo $REPLY > $1"
        return 0
    fi
    forget_ethtool
    if ! ERROR=$({ printf '%s\n' "$2" >"$ROOT$1"; } 2>&1); then
        ERROR=${ERROR##*: }
        [ -n "$ERROR" ] || ERROR='write refused'
        ERROR="$1: $ERROR"
        return 1
    fi
}

# slurp PATH: a file's text, its last newline taken off.
slurp() {
    REPLY=''
    [ -r "$ROOT$1" ] || return 1
    IFS= read -r -d '' REPLY 2>/dev/null <"$ROOT$1"
    REPLY=${REPLY%$'\n'}
    [ -n "$REPLY" ] || [ -r "$ROOT$1" ]
}

# word_of PATH: a file's first line.
word_of() {
    REPLY=''
    [ -r "$ROOT$1" ] && { read -r REPLY 2>/dev/null <"$ROOT$1" || [ -n "$REPLY" ]; }
}

have() { command -v "$1" >/dev/null 2>&1; }

# has_capability BIT: whether this process has it now (CapEff of proc(5)).
has_capability() {
    local line
    slurp /proc/self/status || return 0
    while read -r line; do
        case $line in
        CapEff:*) return $((((0x${line##*[[:space:]]} >> $1) & 1) == 0)) ;;
        esac
    done <<<"$REPLY"
}

# expand LIST: "2-4,8" as an array of numbers in NUMBERS.
expand() {
    local part low high
    NUMBERS=()
    local IFS=,
    for part in $1; do
        low=${part%%-*} high=${part##*-}
        [[ $low =~ ^[0-9]{1,5}$ && $high =~ ^[0-9]{1,5}$ ]] || return 1
        low=$((10#$low)) high=$((10#$high))
        [ "$low" -le "$high" ] || return 1
        while [ "$low" -le "$high" ]; do
            NUMBERS+=("$low")
            low=$((low + 1))
        done
    done
}

# ranges NUMBER...: the other way round, sorted.
ranges() {
    local number start='' last='' in_set=() sorted=()
    REPLY=''
    for number in "$@"; do in_set[number]=1; done
    sorted=("${!in_set[@]}")
    for number in "${sorted[@]}" ''; do
        if [ -n "$last" ] && [ -n "$number" ] && [ "$number" -eq $((last + 1)) ]; then
            last=$number
            continue
        fi
        if [ -n "$last" ]; then
            REPLY+="${REPLY:+,}$start"
            [ "$start" = "$last" ] || REPLY+="-$last"
        fi
        start=$number last=$number
    done
}

# mask_of NUMBER...: as the kernel prints a CPU mask: hexadecimal, words of 32 bits, commas between them.
mask_of() {
    local number words=() index highest=0
    for number in "$@"; do
        index=$((number / 32))
        words[index]=$((${words[index]:-0} | (1 << (number % 32))))
        [ "$index" -le "$highest" ] || highest=$index
    done
    printf -v REPLY '%x' "${words[highest]:-0}"
    while [ "$highest" -gt 0 ]; do
        highest=$((highest - 1))
        printf -v REPLY '%s,%08x' "$REPLY" "${words[highest]:-0}"
    done
}

# plain_mask MASK: the same without leading zeros, so that two can be compared.
plain_mask() {
    REPLY=$1
    while :; do
        case $REPLY in
        0?*) REPLY=${REPLY#0} ;;
        ,*) REPLY=${REPLY#,} ;;
        *) break ;;
        esac
    done
    [ -n "$REPLY" ] || REPLY=0
}

contains() {
    local wanted=$1 one
    shift
    for one in "$@"; do [ "$one" != "$wanted" ] || return 0; done
    return 1
}

declare -A ETHTOOL_SAID=()
forget_ethtool() { ETHTOOL_SAID=(); }

# ethtool_says OPTION [ARGUMENT...]: what `ethtool OPTION NIC ARGUMENT...` prints; WHY when it refuses. Asked once until
# something changes.
ethtool_says() {
    local key="$*" option=$1 code=0
    shift
    if [ -z "${ETHTOOL_SAID[$key]+x}" ]; then
        REPLY=$(LC_ALL=C ethtool "$option" "$NIC" "$@" 2>&1) || code=$?
        ETHTOOL_SAID[$key]="$code $REPLY"
    fi
    REPLY=${ETHTOOL_SAID[$key]}
    code=${REPLY%% *}
    REPLY=${REPLY#* }
    if [ "$code" -ne 0 ]; then
        case $REPLY in
        *"not supported"*) WHY="$NIC_DRIVER does not support ethtool $option" ;;
        *) WHY="ethtool $option $NIC: ${REPLY//$'\n'/; }" ;;
        esac
        return 1
    fi
}

# current_settings: of such an answer, the maxima and the values in use: MAX[name], NOW[name]; what the device does not
# have ("n/a") is left out.
declare -A MAX=() NOW=()
current_settings() {
    local line name value section=now
    MAX=() NOW=()
    while IFS= read -r line; do
        case $line in
        Pre-set*) section=max ;;
        Current*) section=now ;;
        # Two values on one line, which stage coalesce reads itself.
        Adaptive*) ;;
        *:*)
            name=${line%%:*} value=${line#*:}
            name=${name,,} value=${value//[[:space:]]/}
            name=${name// /-}
            case $value in '' | n/a) continue ;; esac
            if [ $section = max ]; then MAX[$name]=$value; else NOW[$name]=$value; fi
            ;;
        esac
    done <<<"$REPLY"
}

# pairs NAME...: NOW of these names as "name=value …".
pairs() {
    local name
    REPLY=''
    for name in "$@"; do
        [ -z "${NOW[$name]+x}" ] || REPLY+="${REPLY:+ }$name=${NOW[$name]}"
    done
    [ -n "$REPLY" ]
}

# changed_pairs FROM TO: the arguments, "name" "value", of those pairs in TO that FROM has otherwise: CHANGED.
changed_pairs() {
    local pair
    CHANGED=()
    for pair in $2; do
        case " $1 " in
        *" $pair "*) ;;
        *) CHANGED+=("${pair%%=*}" "${pair#*=}") ;;
        esac
    done
}

# with PAIRS NAME VALUE: the pairs with that one's value replaced, where it is among them.
with() {
    local pair result=''
    for pair in $1; do
        [ "${pair%%=*}" != "$2" ] || pair=$2=$3
        result+="${result:+ }$pair"
    done
    REPLY=$result
}
