#!/usr/bin/env bash
# journal: what was there before, on stable storage before anything changes. One file a NIC under $STATE; lines are
# only ever appended, each with its checksum in front:
#
#   CKSUM  setup 1 NIC pci=ADDRESS mac=ADDRESS              the first line: whose journal it is
#   CKSUM  boot BOOT_ID mode=M time=T                       an `apply` begins, in this boot of the machine
#   CKSUM  uses KEY                                         it was as wanted, and is relied upon
#   CKSUM  refused KEY                                      it would not be changed, and need not be
#   CKSUM  keep ID KEY BEFORE                               the change ID below takes this along; put it back, too
#   CKSUM  set ID STAGE KEY BEFORE WANTED                   about to be changed
#   CKSUM  done ID NOW                                      it was, and reads so
#   CKSUM  after ID KEY NOW                                 what the kept one became by it
#   CKSUM  undoing ID                                       about to be put back
#   CKSUM  undone ID | left ID                              it was; or somebody else changed it since, and it is theirs
#   CKSUM  kept-out ID KEY                                  the same of a kept one
#   CKSUM  inherit ID STAGE KEY BEFORE WANTED NOW           another NIC's journal handed its change over to this one
#
# (between the fields are tabs). A line cut short at the end was never followed by a change, and is dropped. One damaged
# elsewhere stops everything but `restore --force`.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # read by the files that source this one

JOURNAL='' JOURNAL_PCI='' JOURNAL_MAC='' JOURNAL_MODE='' JOURNAL_TIME='' JOURNAL_DAMAGE='' JOURNAL_BOOT='' TORN=''
NEXT_ID=1
declare -A USES=() REFUSED=()
# By ID.
declare -A E_STAGE=() E_KEY=() E_BEFORE=() E_WANTED=() E_NOW=() E_STATE=() E_BOOT=()
declare -A E_KEEPS=()                       # ID → its kept keys, one a line
declare -A KEPT=() KEPT_AFTER=() KEPT_OUT=() # "ID KEY" → value
IDS=()

boot_id() {
    word_of /proc/sys/kernel/random/boot_id || REPLY=unknown
}

# load_journal NIC: fills the above; the status is 1 when there is none.
load_journal() {
    local line sum text kind number=0 damaged='' boot='' id lines=()
    JOURNAL=$STATE/setup-$1.journal
    JOURNAL_PCI='' JOURNAL_MAC='' JOURNAL_MODE='' JOURNAL_TIME='' JOURNAL_DAMAGE='' JOURNAL_BOOT='' TORN='' NEXT_ID=1 USES=() REFUSED=()
    E_STAGE=() E_KEY=() E_BEFORE=() E_WANTED=() E_NOW=() E_STATE=() E_BOOT=() E_KEEPS=()
    KEPT=() KEPT_AFTER=() KEPT_OUT=() IDS=()
    [ -e "$JOURNAL" ] || return 1
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        # Damage is only known to be a torn end when nothing follows it.
        [ -z "$damaged" ] || JOURNAL_DAMAGE=${JOURNAL_DAMAGE:-$damaged}
        sum=${line%%$'\t'*} text=${line#*$'\t'}
        checksum "$text"
        if [ "$sum" != "$REPLY" ]; then
            damaged=$number
            continue
        fi
        IFS=$'\t' read -r -a lines <<<"$text"
        kind=${lines[0]} id=${lines[1]:-}
        # Trailing empty fields are not in the array.
        case $kind in
        setup)
            JOURNAL_PCI=${lines[3]#pci=} JOURNAL_MAC=${lines[4]#mac=}
            ;;
        boot) boot=$id JOURNAL_BOOT=$id JOURNAL_MODE=${lines[2]#mode=} JOURNAL_TIME=${lines[3]#time=} ;;
        uses) USES[$id]=1 ;;
        refused) REFUSED[$id]=1 ;;
        keep)
            E_KEEPS[$id]+="${lines[2]}"$'\n'
            KEPT["$id ${lines[2]}"]=${lines[3]:-}
            ;;
        set)
            IDS+=("$id")
            E_STAGE[$id]=${lines[2]} E_KEY[$id]=${lines[3]} E_BEFORE[$id]=${lines[4]:-} E_WANTED[$id]=${lines[5]:-}
            E_BOOT[$id]=$boot E_STATE[$id]=begun
            ;;
        inherit)
            # Older than everything of this journal's own.
            IDS=("$id" "${IDS[@]}")
            E_STAGE[$id]=${lines[2]} E_KEY[$id]=${lines[3]} E_BEFORE[$id]=${lines[4]:-} E_WANTED[$id]=${lines[5]:-}
            E_NOW[$id]=${lines[6]:-} E_BOOT[$id]=$boot E_STATE[$id]='done'
            ;;
        done) E_STATE[$id]='done' E_NOW[$id]=${lines[2]:-} ;;
        after) KEPT_AFTER["$id ${lines[2]}"]=${lines[3]:-} ;;
        kept-out) KEPT_OUT["$id ${lines[2]}"]=1 ;;
        undoing) E_STATE[$id]=undoing ;;
        undone | left) E_STATE[$id]=$kind ;;
        esac
        if [[ $id =~ ^[0-9]+$ ]] && [ "$id" -ge "$NEXT_ID" ]; then NEXT_ID=$((id + 1)); fi
    done <"$JOURNAL"
    # The header is needed to know whose it is, and is written whole before its name appears.
    [ -n "$JOURNAL_MODE" ] || JOURNAL_DAMAGE=${JOURNAL_DAMAGE:-1}
    TORN=${damaged:+yes}
}

checksum() {
    REPLY=$(printf '%s' "$1" | cksum)
    REPLY=${REPLY%% *}
}

# journal FIELD...: appends a line; `sync_journal` makes it last.
journal() {
    [ "$DRY_RUN" = no ] || return 0
    local IFS=$'\t' text
    text="$*"
    text=${text//$'\n'/ }
    checksum "$text"
    if [ -n "${TORN:-}" ]; then
        # What was cut short must not join what follows.
        cut_torn_end
        TORN=
    fi
    printf '%s\t%s\n' "$REPLY" "$text" >>"$JOURNAL" || die "$JOURNAL: cannot be written; nothing more is changed"
}

cut_torn_end() {
    local saved=$REPLY kept='' line sum
    while IFS= read -r line || [ -n "$line" ]; do
        sum=${line%%$'\t'*}
        checksum "${line#*$'\t'}"
        [ "$sum" != "$REPLY" ] || kept+=$line$'\n'
    done <"$JOURNAL"
    printf '%s' "$kept" >"$JOURNAL.new" && sync_path "$JOURNAL.new" && mv "$JOURNAL.new" "$JOURNAL" && sync_path "$STATE"
    REPLY=$saved
}

# sync_path PATH: on stable storage. A `sync` that takes no path syncs everything, which also serves.
sync_path() { sync "$1" 2>/dev/null || sync; }

sync_journal() { [ "$DRY_RUN" = yes ] || sync_path "$JOURNAL"; }

# begin_journal: an `apply` begins.
begin_journal() {
    [ "$DRY_RUN" = no ] || return 0
    boot_id
    local boot=$REPLY time
    time=$(date -u +%FT%TZ)
    if [ ! -e "$JOURNAL" ]; then
        mkdir -p "$STATE" || die "$STATE cannot be made: without a journal nothing is changed"
        local text="setup"$'\t'1$'\t'$NIC$'\t'"pci=$NIC_PCI"$'\t'"mac=$NIC_MAC"
        checksum "$text"
        { printf '%s\t%s\n' "$REPLY" "$text" >"$JOURNAL.new" && sync_path "$JOURNAL.new" &&
            mv "$JOURNAL.new" "$JOURNAL"; } || die "$JOURNAL cannot be written: without a journal nothing is changed"
    fi
    journal boot "$boot" "mode=$mode" "time=$time"
    sync_journal
    sync_path "$STATE"
}

# open_ids: the changes that are still to be put back, oldest first: OPEN.
open_ids() {
    local id
    OPEN=()
    for id in "${IDS[@]}"; do
        case ${E_STATE[$id]} in undone | left) ;; *) OPEN+=("$id") ;; esac
    done
}

# persists KEY: whether it outlives the boot it was changed in.
persists() {
    case $1 in driver | irqbalance | package:*) return 0 ;; *) return 1 ;; esac
}

# of_machine KEY: whether it is the machine's rather than this NIC's.
of_machine() {
    case $1 in file:* | mount:* | module:* | package:* | cpuset | subtree | irqbalance | irqn:*) return 0 ;; *) return 1 ;; esac
}

# lock: one setup at a time on this machine. A lock whose holder is gone is taken over.
lock() {
    [ "$DRY_RUN" = no ] || return 0
    mkdir -p "$STATE" || die "$STATE cannot be made: is this root, and is the file system writable?"
    local holder tries=0
    LOCK=$STATE/setup.lock
    until (set -o noclobber && printf '%s\n' "$$" >"$LOCK") 2>/dev/null; do
        holder=''
        { read -r holder <"$LOCK"; } 2>/dev/null
        if [ -z "$holder" ] || ! [[ "$(tr '\0' ' ' 2>/dev/null <"/proc/$holder/cmdline")" == *setup* ]]; then
            rm -f "$LOCK"
        else
            [ "$tries" -lt 30 ] || die "another setup (pid $holder) is at work: wait for it, or end it and try again"
            sleep 0.1
        fi
        tries=$((tries + 1))
    done
    trap 'rm -f "$LOCK"' EXIT
}

# checkpoint: where tests end this process (see tests/helper.bash). Without that variable it does nothing.
CHECKPOINTS=0
checkpoint() {
    [ -n "${VOLLEY_SETUP_KILL_AT:-}" ] || return 0
    CHECKPOINTS=$((CHECKPOINTS + 1))
    [ "$CHECKPOINTS" -ne "$VOLLEY_SETUP_KILL_AT" ] || kill -KILL $$
}
