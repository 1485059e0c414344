#!/usr/bin/env bash
# helper: a machine of files for setup to work on, and stubs of the commands that would change a real one.
# shellcheck disable=SC2034,SC2154  # what bats and the tests set and read
#
# What tests switch on by environment variable, and nobody else should:
#   VOLLEY_SETUP_ROOT     goes before /sys, /proc, /dev, /etc, /run and /var
#   VOLLEY_SETUP_STATE    where journals are kept, in place of $VOLLEY_SETUP_ROOT/var/lib/volley
#   VOLLEY_SETUP_KILL_AT  N: setup ends itself with SIGKILL at its Nth checkpoint. There is one after each journal entry is
#                         synced, one after each change, and one after each entry that says so; without the variable none.
#   STUB_REFUSE           a pattern (of case): commands of the stubs that match it are refused

SETUP=$BATS_TEST_DIRNAME/../setup
STUBS=$BATS_TEST_DIRNAME/stubs

# grow FILE ROOT: makes the tree that the file describes.
grow() {
    local line path value
    while IFS= read -r line; do
        case $line in '#'* | '') continue ;; esac
        path=${line%% *} value=${line#* }
        mkdir -p "$2${path%/*}"
        case $value in
        '-> '*) ln -s "${value#-> }" "$2$path" ;;
        *)
            value=${value#=}
            value=${value# }
            printf '%s\n' "${value//|/$'\n'}" >"$2$path"
            ;;
        esac
    done <"$1"
}

# machine: the recorded tree, with what would only make its file longer.
machine() {
    # Journals are synced at every step; a file system in memory makes that cheap.
    if [ -w /dev/shm ] && [ -z "${ON_SHM:-}" ]; then
        ON_SHM=$(mktemp -d /dev/shm/volley-setup.XXXXXX)
        BATS_TEST_TMPDIR=$ON_SHM
    fi
    export VOLLEY_SETUP_ROOT=$BATS_TEST_TMPDIR/root STUB_STATE=$BATS_TEST_TMPDIR/stub
    export STUB_LOG=$BATS_TEST_TMPDIR/log
    local name
    mkdir -p "$BATS_TEST_TMPDIR/bin"
    for name in umount modprobe rmdir; do ln -sf "$STUBS/mount" "$BATS_TEST_TMPDIR/bin/$name"; done
    PATH=$BATS_TEST_TMPDIR/bin:$STUBS:$PATH
    unset SSH_CONNECTION VOLLEY_SETUP_KILL_AT STUB_REFUSE
    local root=$VOLLEY_SETUP_ROOT core
    grow "$BATS_TEST_DIRNAME/tree" "$root"
    mkdir -p "$STUB_STATE" "$root/proc/irq" "$root/sys/class/net/eth1/queues"
    for core in {0..15}; do
        mkdir -p "$root/sys/devices/system/cpu/cpu$core"/{cpufreq,topology} \
            "$root/sys/devices/system/cpu/cpu$core/node$((core % 8 / 4))"
        echo schedutil >"$root/sys/devices/system/cpu/cpu$core/cpufreq/scaling_governor"
        echo "$((core % 8)),$((core % 8 + 8))" >"$root/sys/devices/system/cpu/cpu$core/topology/thread_siblings_list"
        echo 1 >"$root/sys/devices/system/cpu/cpu$core/online"
    done
    ethtool --stub-reset eth1
    : >"$STUB_LOG"
    BASE=(--cores 2-3)
}

unmachine() { [ -z "${ON_SHM:-}" ] || rm -rf "$ON_SHM"; }

setup_run() { run "$SETUP" "$@"; }

# state: every file of the machine, and what the stubs remember.
state() {
    (cd "$VOLLEY_SETUP_ROOT" && grep -r '' --exclude-dir=var . | sort)
    cat "$STUB_STATE"/*
}

# same_as FILE: no difference between that state and now; the difference, when there is one.
same_as() {
    state >"$BATS_TEST_TMPDIR/now"
    diff "$1" "$BATS_TEST_TMPDIR/now"
}

# has TEXT: the output has it.
has() {
    [[ $output == *"$1"* ]] || {
        printf 'no "%s" in:\n%s\n' "$1" "$output"
        return 1
    }
}
lacks() {
    [[ $output != *"$1"* ]] || {
        printf '"%s" in:\n%s\n' "$1" "$output"
        return 1
    }
}
ends() {
    [ "$status" -eq "$1" ] || {
        printf 'ended with %s, not %s:\n%s\n' "$status" "$1" "$output"
        return 1
    }
}
