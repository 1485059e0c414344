#!/usr/bin/env bash
# stage: what stage files are written with. A stage declares what it wants; `check` compares, `apply` makes it so
# (journal first), and the dry run prints the commands of the same functions, so that the three cannot disagree.
#
#   want KEY VALUE [WHY]   this setting should have this value
#   fine TEXT              nothing to do here
#   cannot TEXT            it cannot be had here, and why; the engine runs all the same
#   blocked TEXT           likewise, and without it the mode does not work
#   advise TEXT            a line below the stage's own: what somebody may want to do by hand
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # options and knobs are other files'

# What has been found: parallel arrays.
F_STAGE=() F_ANSWER=() F_KEY=() F_FROM=() F_TO=() F_TEXT=()
STAGE='' PASS=check STOPPED=no LENIENT=''
FAILED=0 CHANGED_COUNT=0
declare -A ADVICE=()

found() {
    F_STAGE+=("$STAGE") F_ANSWER+=("$1") F_KEY+=("$2") F_FROM+=("$3") F_TO+=("$4") F_TEXT+=("$5")
}

fine() { found ok '' '' '' "$1"; }
cannot() { found cannot '' '' '' "$1"; }
blocked() {
    found blocked '' '' '' "$1"
    FAILED=$((FAILED + 1))
    [ "$PASS" = check ] || [ "$keep_going" = yes ] || STOPPED=yes
}
advise() { ADVICE[$STAGE]+="$1"$'\n'; }

# brief VALUE…: for people, "from → to", keys and tables cut short. (JSON has them whole.)
brief() {
    local value result=''
    for value in "$@"; do
        case $value in
        *:*:*:*:*:*:*:*) value="${value:0:11}:…" ;;
        'table '*) value="${value:0:20}…" ;;
        esac
        result+="${result:+ → }${value:-none}"
    done
    REPLY=$result
}

# want KEY VALUE [WHY]
want() {
    local key=$1 wanted=$2 why=${3:-} now
    [ "$STOPPED" = no ] || return 0
    title "$key"
    local name=$REPLY
    if ! get "$key"; then
        cannot "$name: $WHY"
        return 0
    fi
    now=$REPLY
    if [ "$now" = "$wanted" ]; then
        brief "$now"
        found ok "$key" "$now" "$now" "$name $REPLY"
        if [ "$PASS" = apply ] && of_machine "$key" && [ -z "${USES[$key]:-}" ]; then
            USES["$key"]=1
            journal uses "$key"
        fi
        return 0
    fi
    if [ "$PASS" = check ]; then
        brief "$now" "$wanted"
        found change "$key" "$now" "$wanted" "$name: $REPLY${why:+ ($why)}"
        return 0
    fi
    change "$key" "$now" "$wanted"
}

# want_or_leave KEY VALUE WHO: the same of something that may well be refused, because it is WHO's to decide, which then is
# no failure, and is not tried again.
want_or_leave() {
    if [ -n "${REFUSED[$1]:-}" ]; then
        title "$1"
        cannot "$REPLY is $3's to decide"
        return 0
    fi
    LENIENT=$3
    want "$1" "$2"
    LENIENT=''
}

# change KEY NOW WANTED: journal, sync, change, look, journal.
change() {
    local key=$1 before=$2 wanted=$3 id=$NEXT_ID keep code=0 now
    NEXT_ID=$((NEXT_ID + 1))
    local keeps=()
    companions "$key"
    keeps=("${KEEPS[@]}")
    for keep in "${keeps[@]}"; do
        get "$keep" || continue
        KEPT["$id $keep"]=$REPLY
        journal keep "$id" "$keep" "$REPLY"
    done
    journal 'set' "$id" "$STAGE" "$key" "$before" "$wanted"
    sync_journal
    checkpoint
    set_to "$key" "$wanted" || code=$?
    checkpoint
    title "$key"
    local name=$REPLY
    if [ "$DRY_RUN" = yes ]; then
        found change "$key" "$before" "$wanted" "$name: ${before:-none} → $wanted"
        return 0
    fi
    get "$key" || REPLY=gone
    now=$REPLY
    journal 'done' "$id" "$now"
    for keep in "${keeps[@]}"; do
        [ -n "${KEPT["$id $keep"]+x}" ] || continue
        get "$keep" || continue
        [ "$REPLY" = "${KEPT["$id $keep"]}" ] || journal after "$id" "$keep" "$REPLY"
    done
    sync_journal
    checkpoint
    if [ "$now" = "$wanted" ]; then
        brief "$before" "$now"
        found changed "$key" "$before" "$now" "$name: $REPLY"
        CHANGED_COUNT=$((CHANGED_COUNT + 1))
    elif [ "$code" -eq 0 ] && [ "$now" != "$before" ]; then
        found changed "$key" "$before" "$now" "$name: ${before:-none} → $now, the nearest to $wanted that it takes"
        CHANGED_COUNT=$((CHANGED_COUNT + 1))
    else
        [ "$code" -ne 0 ] || ERROR="accepted, but it still reads $now"
        # A feature that the driver refuses stays requested otherwise.
        case $key in feature:*) local refusal_text=$ERROR && set_to "$key" "$before"; ERROR=$refusal_text ;; esac
        if [ -n "$LENIENT" ]; then
            journal refused "$key"
            cannot "$name is $LENIENT's to decide"
            return 0
        fi
        found failed "$key" "$before" "$wanted" "$name: ${before:-none} → $wanted was refused: $ERROR"
        FAILED=$((FAILED + 1))
        [ "$keep_going" = yes ] || STOPPED=yes
    fi
}

# selected STAGE: whether --only takes it.
selected() {
    [ -n "$only" ] || return 0
    case ",$only," in *",$1,"*) return 0 ;; *) return 1 ;; esac
}

# run_stages: each selected stage in order.
run_stages() {
    for STAGE in "${STAGES[@]}"; do
        selected "$STAGE" || continue
        [ "$STOPPED" = no ] || break
        local before=${#F_STAGE[@]}
        if [ "$DRY_RUN" = yes ] && [ "$json" = no ]; then echo "$STAGE:"; fi
        "stage_$STAGE"
        [ "$json" = yes ] || [ "$DRY_RUN" = yes ] || print_stage "$before"
    done
}

# put_back_one ID: one change of the journal; the status is 1 when it could not be put back.
put_back_one() {
    local id=$1 key=${E_KEY[$1]} before=${E_BEFORE[$1]} now name keep keeps=() code=0
    STAGE=${E_STAGE[$id]}
    title "$key"
    name=$REPLY
    if [ -n "${TAKEN[$key]:-}" ]; then
        settle left "$id"
        return 0
    fi
    case $key in
    package:*)
        found ok "$key" '' '' "$name was installed, and stays: apt-get purge $name takes it away"
        settle undone "$id"
        return 0
        ;;
    esac
    if ! get "$key"; then
        found gone "$key" '' '' "$name: $WHY; what was set there went with it"
        settle undone "$id"
        return 0
    fi
    now=$REPLY
    while IFS= read -r keep; do [ -z "$keep" ] || keeps+=("$keep"); done <<<"${E_KEEPS[$id]:-}"
    if [ "${E_STATE[$id]}" = 'done' ]; then
        if [ "$now" != "${E_NOW[$id]}" ] && [ "$now" != "$before" ]; then
            found left "$key" "$now" "$before" "$name is $now, which somebody set since (setup: ${E_NOW[$id]}, before: ${before:-none}): left alone"
            TAKEN[$key]=1
            settle left "$id"
            return 0
        fi
        # Kept ones that somebody has set since then are theirs. (A dry run has not put back what setup itself set later.)
        for keep in "${keeps[@]}"; do
            [ "$DRY_RUN" = no ] || break
            get "$keep" || continue
            if [ "$REPLY" != "${KEPT_AFTER["$id $keep"]-${KEPT["$id $keep"]}}" ] && [ "$REPLY" != "${KEPT["$id $keep"]}" ]; then
                title "$keep"
                found left "$keep" "${KEPT["$id $keep"]}" '' "$REPLY was set by somebody since: left alone"
                KEPT_OUT["$id $keep"]=1
                journal kept-out "$id" "$keep"
            fi
        done
    fi
    journal undoing "$id"
    sync_journal
    checkpoint
    if [ "$now" != "$before" ]; then
        set_to "$key" "$before" || code=$?
        checkpoint
        if [ "$DRY_RUN" = no ]; then
            get "$key" || REPLY=gone
            if [ "$REPLY" != "$before" ]; then
                [ "$code" -ne 0 ] || ERROR="accepted, but it still reads $REPLY"
                found failed "$key" "$now" "$before" "$name: $now → ${before:-none} was refused: $ERROR"
                FAILED=$((FAILED + 1))
                return 1
            fi
        fi
        brief "$now" "$before"
        found restored "$key" "$now" "$before" "$name: $REPLY"
        CHANGED_COUNT=$((CHANGED_COUNT + 1))
    fi
    for keep in "${keeps[@]}"; do
        if [ "$DRY_RUN" = yes ]; then
            print_command "# and, where it differs then: $keep = ${KEPT["$id $keep"]}"
            continue
        fi
        [ -z "${KEPT_OUT["$id $keep"]+x}" ] && [ -z "${TAKEN[$keep]:-}" ] || continue
        get "$keep" || continue
        now=$REPLY
        [ "$now" != "${KEPT["$id $keep"]}" ] || continue
        code=0
        set_to "$keep" "${KEPT["$id $keep"]}" || code=$?
        checkpoint
        title "$keep"
        name=$REPLY
        get "$keep" || REPLY=gone
        if [ "$code" -ne 0 ] && [ "$REPLY" != "${KEPT["$id $keep"]}" ]; then
            found failed "$keep" "$now" "${KEPT["$id $keep"]}" "$name: $now → ${KEPT["$id $keep"]} was refused: $ERROR"
            FAILED=$((FAILED + 1))
        else
            found restored "$keep" "$now" "$REPLY" "$name, which went along, is back"
        fi
    done
    settle undone "$id"
}

# settle undone|left ID: that change is over.
settle() {
    journal "$1" "$2"
    E_STATE[$2]=$1
    checkpoint
}

# put_back: everything that the journal has open, the newest first.
put_back() {
    local index id boot failed=0
    declare -gA TAKEN=()
    boot_id
    boot=$REPLY
    local forgotten=0
    open_ids
    for ((index = ${#OPEN[@]} - 1; index >= 0; index--)); do
        id=${OPEN[index]}
        selected "${E_STAGE[$id]}" || continue
        if [ "${E_BOOT[$id]}" != "$boot" ] && ! persists "${E_KEY[$id]}"; then
            forgotten=$((forgotten + 1))
            settle undone "$id"
            continue
        fi
        if [ "$NIC_REPLACED" = yes ] && ! of_machine "${E_KEY[$id]}"; then
            STAGE=${E_STAGE[$id]}
            title "${E_KEY[$id]}"
            found gone "${E_KEY[$id]}" '' '' "$REPLY went with the device it was set on"
            [ "$json" = yes ] || print_items $((${#F_STAGE[@]} - 1))
            settle undone "$id"
            continue
        fi
        if hand_over "$id"; then continue; fi
        local before=${#F_STAGE[@]}
        if [ "$DRY_RUN" = yes ] && [ "$json" = no ]; then echo "${E_STAGE[$id]}:"; fi
        put_back_one "$id" || failed=1
        [ "$json" = yes ] || [ "$DRY_RUN" = yes ] || print_items "$before"
        [ "$failed" = 0 ] || [ "$keep_going" = yes ] || break
    done
    [ "$forgotten" -eq 0 ] || FORGOTTEN=$forgotten
    sync_journal
    open_ids
    if [ ${#OPEN[@]} -eq 0 ] && [ "$DRY_RUN" = no ]; then
        rm -f "$JOURNAL" && sync_path "$STATE"
    fi
}

# hand_over ID: a setting of the machine that another NIC's journal relies on is not put back; that journal inherits
# the value from before, and puts it back when its turn comes.
hand_over() {
    local id=$1 key=${E_KEY[$1]} other name
    of_machine "$key" || return 1
    for other in "$STATE"/setup-*.journal; do
        [ "$other" != "$JOURNAL" ] && [ -e "$other" ] || continue
        name=${other##*/setup-}
        name=${name%.journal}
        (relies_on "$name" "$key") || continue
        STAGE=${E_STAGE[$id]}
        title "$key"
        found left "$key" "${E_NOW[$id]:-}" "${E_BEFORE[$id]}" "$REPLY stays for $name, whose restore puts it back"
        [ "$json" = yes ] || [ "$DRY_RUN" = yes ] || print_items $((${#F_STAGE[@]} - 1))
        if [ "$DRY_RUN" = no ]; then (inherit "$name" "$id"); fi
        settle undone "$id"
        return 0
    done
    return 1
}

# relies_on NAME KEY, inherit NAME ID: in a subshell, because they load that journal in place of this one.
relies_on() {
    local id
    load_journal "$1" && [ -z "$JOURNAL_DAMAGE" ] || return 1
    boot_id
    [ "$JOURNAL_BOOT" = "$REPLY" ] || return 1
    [ -z "${USES[$2]:-}" ] || return 0
    open_ids
    for id in "${OPEN[@]}"; do [ "${E_KEY[$id]}" != "$2" ] || return 0; done
    return 1
}
inherit() {
    local stage=${E_STAGE[$2]} key=${E_KEY[$2]} before=${E_BEFORE[$2]} wanted=${E_WANTED[$2]} now=${E_NOW[$2]:-${E_WANTED[$2]}}
    load_journal "$1"
    journal inherit "$NEXT_ID" "$stage" "$key" "$before" "$wanted" "$now"
    sync_journal
}
