#!/usr/bin/env bash
# report: what setup prints: one line a stage and totals for people, or one JSON document.
# shellcheck disable=SC2154  # what was found and the options are other files'

# Colour only where somebody looks.
GREEN='' YELLOW='' RED='' DIM='' PLAIN=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    GREEN=$'\e[32m' YELLOW=$'\e[33m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'
fi

# print_line ANSWER STAGE TEXT
print_line() {
    local colour=$GREEN
    case $1 in
    change | cannot | left | gone) colour=$YELLOW ;;
    blocked | failed) colour=$RED ;;
    esac
    printf '%s%-8s%s  %-10s  %s\n' "$colour" "$1" "$PLAIN" "$2" "$3"
}

# The order of gravity: a stage's line bears the gravest answer of its parts.
readonly GRAVITY=(failed blocked change changed left cannot gone restored ok)

# print_stage FIRST: the line of the stage whose findings begin there.
print_stage() {
    local index answer worst=ok text='' ok='' others=''
    for answer in "${GRAVITY[@]}"; do
        for ((index = $1; index < ${#F_STAGE[@]}; index++)); do
            if [ "${F_ANSWER[index]}" = "$answer" ]; then
                worst=$answer
                break 2
            fi
        done
    done
    for ((index = $1; index < ${#F_STAGE[@]}; index++)); do
        if [ "${F_ANSWER[index]}" = ok ]; then
            ok+="${ok:+; }${F_TEXT[index]}"
        elif [ "${F_ANSWER[index]}" = "$worst" ]; then
            text+="${text:+; }${F_TEXT[index]}"
        else
            others+="${others:+; }${F_ANSWER[index]}: ${F_TEXT[index]}"
        fi
    done
    [ -n "$text" ] || text=$ok
    print_line "$worst" "$STAGE" "$text"
    [ -z "$others" ] || printf '%22s%s\n' '' "$others"
    if [ -n "${ADVICE[$STAGE]:-}" ]; then
        while IFS= read -r text; do [ -z "$text" ] || printf '%22s%s→ %s%s\n' '' "$DIM" "$text" "$PLAIN"; done <<<"${ADVICE[$STAGE]}"
    fi
}

# print_items FIRST: a line for each finding from there on.
print_items() {
    local index
    for ((index = $1; index < ${#F_STAGE[@]}; index++)); do
        print_line "${F_ANSWER[index]}" "${F_STAGE[index]}" "${F_TEXT[index]}"
    done
}

# print_totals WORD:ANSWER…: "12 ok, 3 would change".
print_totals() {
    local pair count answer line=''
    for pair in "$@"; do
        count=0
        for answer in "${F_ANSWER[@]}"; do [ "$answer" != "${pair#*:}" ] || count=$((count + 1)); done
        if [ "$count" -gt 0 ] || [ "$pair" = "$1" ]; then line+="${line:+, }$count ${pair%%:*}"; fi
    done
    printf '\n%s\n' "$line"
}

# json_string TEXT
json_string() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\t'/\\t}
    text=${text//$'\n'/\\n}
    text=${text//[[:cntrl:]]/}
    REPLY="\"$text\""
}

# print_json ACTION CODE
print_json() {
    local index line answer last='' separator=''
    json_string "$NIC"
    printf '{"action":"%s","nic":%s' "$1" "$REPLY"
    json_string "$NIC_DRIVER"
    printf ',"driver":%s,"pci":' "$REPLY"
    if [ -n "$NIC_PCI" ]; then printf '"%s"' "$NIC_PCI"; else printf null; fi
    printf ',"mode":"%s","cores":"%s","port":%s,"exit":%s,"findings":[' "$mode" "${CORE_LIST:-}" "$port" "$2"
    for ((index = 0; index < ${#F_STAGE[@]}; index++)); do
        answer=${F_ANSWER[index]}
        [ "$index" -eq 0 ] || printf ','
        printf '\n {"stage":"%s","answer":"%s"' "${F_STAGE[index]}" "$answer"
        for line in "key:${F_KEY[index]}" "from:${F_FROM[index]}" "to:${F_TO[index]}" "text:${F_TEXT[index]}"; do
            [ -n "${F_KEY[index]}" ] || [ "${line%%:*}" = text ] || continue
            json_string "${line#*:}"
            printf ',"%s":%s' "${line%%:*}" "$REPLY"
        done
        printf '}'
    done
    printf '\n],"advice":['
    for last in "${STAGES[@]}"; do
        while IFS= read -r line; do
            [ -n "$line" ] || continue
            json_string "$line"
            printf '%s\n {"stage":"%s","text":%s}' "$separator" "$last" "$REPLY"
            separator=','
        done <<<"${ADVICE[$last]:-}"
    done
    printf '],"commands":['
    separator=''
    for line in "${COMMANDS[@]}"; do
        json_string "$line"
        printf '%s\n %s' "$separator" "$REPLY"
        separator=','
    done
    printf ']}\n'
}
