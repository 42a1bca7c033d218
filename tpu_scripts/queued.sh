#!/usr/bin/env bash
# Runs training on Cloud TPU queued resources: on one slice or several, spot, on demand or reserved.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

USAGE='queued.sh VERB [--yes] [--settings FILE]

Shows the commands without running them; --yes runs them. Settings: slice.env beside this script, or FILE. Every verb
may be repeated: it skips what is done already.

  create   requests the slices and waits until they are active
  setup    installs this checkout on every host, and mounts the bucket
  launch   starts sari train on every host; it resumes from the newest checkpoint
  follow   shows the first host'\''s log as it grows
  status   shows the state of the slices and of every host'\''s run
  stop     stops the run, which writes a last checkpoint
  export   writes the newest checkpoint as a Hugging Face directory to EXPORT
  delete   releases the slices
  keep     does all of this until the run is finished: lost slices are created again, and the run resumes'

QR=(gcloud compute tpus queued-resources)

# Prints the state of the request; ABSENT if gcloud says that there is none. Fails if the state is unknown: a lost
# connection must not be taken for a slice that is gone and no longer costs money.
slice_state() {
    local found errors
    errors=$(mktemp)
    if found=$(look "$1" "${QR[@]}" describe "$NAME" "${AT[@]}" '--format=value(state.state)' 2>"$errors"); then
        printf '%s\n' "$found"
    elif grep -q "NOT_FOUND.*$NAME" "$errors"; then
        echo ABSENT
    else
        cat "$errors" >&2
        rm -f "$errors"
        return 1
    fi
    rm -f "$errors"
}

# hosts NODE WORKER COMMAND SLICES: runs a command by ssh. gcloud skips a slice that it cannot prepare, warns and exits 0.
# Therefore each host prints its name after the command, and the slices of those names are counted.
hosts() {
    local output count code=0
    output=$(mktemp)
    run "${QR[@]}" ssh "$NAME" --node="$1" --worker="$2" "${AT[@]}" --quiet ${SSH_FLAG[@]+"${SSH_FLAG[@]}"} \
        "--command=$3 && echo sari-answer \$(hostname)" | tee "$output" | sed '/sari-answer /d' || code=$?
    count=$(sed -n 's/.*sari-answer //p' "$output" | sed 's/-w-[0-9]*$//' | sort -u | wc -l)
    rm -f "$output"
    if [[ $RUN ]] && ((code == 0 && count < $4)); then
        printf '%s: %s of %s slices have answered\n' "$ME" "$((count))" "$4" >&2
        code=1
    fi
    return "$code"
}

on_hosts() { hosts all all "$1" "$SLICES"; }
on_first_host() { hosts 0 0 "$1" 1; }

# Prints a command that mounts the bucket, for every command that needs it: a restarted host has to mount it again.
mounted() { [[ -z $BUCKET ]] || printf '%s && ' "$(quoted bash host.sh mount "$BUCKET" "$MOUNT")"; }

need_active() {
    local state
    state=$(slice_state ACTIVE) || fail "$NAME: its state cannot be read"
    [[ $state == ACTIVE ]] || fail "$NAME is $state: $ME create comes first"
}

create() {
    local state before='' tier=()
    say "$SLICES x $ACCELERATOR, $CHIPS chips in all, $CAPACITY"
    case $CAPACITY in
        spot) tier=(--spot) ;;
        reserved) tier=(--reserved) ;;
    esac
    state=$(slice_state ABSENT) || fail "$NAME: its state cannot be read"
    if [[ $state == ABSENT ]]; then
        local nodes=(--node-id="$NAME")
        ((SLICES == 1)) || nodes=(--node-count="$SLICES" --node-prefix="$NAME")
        run "${QR[@]}" create "$NAME" "${AT[@]}" --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" \
            "${nodes[@]}" ${tier[@]+"${tier[@]}"} ${CREATE_FLAG[@]+"${CREATE_FLAG[@]}"} --quiet
        [[ $RUN ]] || say "then, until it says ACTIVE:"
        state=$(slice_state ACTIVE) || fail "$NAME: its state cannot be read"
    else
        say "$NAME exists already"
    fi
    while :; do
        [[ $state == "$before" ]] || say_found "$NAME: $state"
        before=$state
        case $state in
            ACTIVE) return ;;
            FAILED | SUSPENDING | SUSPENDED | DELETING | ABSENT)
                fail "$NAME is $state and will not come back: $ME delete, then create again; keep does both"
                ;;
        esac
        sleep "$POLL_SECONDS"
        state=$(slice_state ACTIVE) || fail "$NAME: its state cannot be read"
    done
}

setup() {
    local commit tarball
    commit=$(git -C "$ROOT" rev-parse --short=12 --verify --quiet "$REF^{commit}") ||
        refuse "$SETTINGS: REF='$REF' is no commit, branch or tag of $ROOT"
    [[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] ||
        say "changes in $ROOT that are not committed are left out"
    need_active
    tarball=$ROOT/.cache/$NAME-$commit.tar.gz # one per run: several may be set up at once
    run mkdir -p "$ROOT/.cache"
    run git -C "$ROOT" archive --format=tar.gz --output="$tarball" "$commit"
    persist run "${QR[@]}" scp "$tarball" "$HERE/host.sh" "$NAME:" --node=all --worker=all "${AT[@]}" --quiet \
        ${SSH_FLAG[@]+"${SSH_FLAG[@]}"} || fail "$NAME: the program could not be copied to every host"
    persist on_hosts "$(mounted)$(quoted bash host.sh install "${tarball##*/}" "$commit")" ||
        fail "$NAME: not every host is set up; $ME setup goes on from here"
}

launch() {
    need_active
    persist on_hosts "$(mounted)$(quoted bash host.sh start "$NAME" "${TRAIN[@]}")" ||
        fail "$NAME: not every host has started; $ME setup, then launch again"
}

follow() {
    need_active
    run "${QR[@]}" ssh "$NAME" --node=0 --worker=0 "${AT[@]}" --quiet ${SSH_FLAG[@]+"${SSH_FLAG[@]}"} \
        "--command=$(quoted bash host.sh log "$NAME")"
}

status() {
    local state
    state=$(slice_state ACTIVE) || fail "$NAME: its state cannot be read"
    say_found "$NAME: $state"
    [[ $state != ACTIVE ]] || on_hosts "$HOST_STATE"
}

stop() {
    need_active
    on_hosts "$(quoted bash host.sh stop "$NAME" "$STOP_SECONDS")"
}

export_model() {
    [[ $EXPORT ]] || refuse "$SETTINGS: EXPORT is empty; set the directory to write"
    need_active
    on_first_host "$(mounted)$(quoted bash host.sh export "$WORKDIR" "$EXPORT")"
}

delete() {
    local state
    state=$(slice_state ACTIVE) || fail "$NAME: its state cannot be read"
    if [[ $state == ABSENT ]]; then
        say "$NAME is gone already: nothing to delete"
        return
    fi
    run "${QR[@]}" delete "$NAME" "${AT[@]}" --force --quiet
}

# verdict LINES: prints the state of the whole run as one word. If one host is down, no other can go on.
verdict() {
    local lines=$1 states
    states=$(sed -n 's/.*sari-host [^ ]* \([^ ]*\) .*/\1/p' <<<"$lines" | sort -u | tr '\n' ' ')
    case " $states" in
        *' exit:2 '*) echo refused ;;
        ' finished ') echo finished ;;
        # The hosts do not end at the same second; those that still run end by themselves.
        ' running ' | ' finished running ' | ' running stopped ' | ' finished running stopped ') echo running ;;
        ' none ') echo fresh ;;
        ' ') echo silent ;;
        *) echo broken ;;
    esac
}

keep() {
    local state lines found created='' seen='' silent=0
    if [[ -z $RUN ]]; then
        say "keep looks at the slices and their hosts every $POLL_SECONDS s:"
        status
        say "it does what is missing of create, setup and launch, and creates lost slices again"
        for VERB in create setup launch delete; do
            say "$VERB:"
            "$VERB"
        done
        return
    fi
    while :; do
        state=$(slice_state ACTIVE) || state=UNKNOWN
        case $state in
            ACTIVE) ;;
            UNKNOWN)
                setback "$NAME: its state cannot be read"
                continue
                ;;
            FAILED | SUSPENDING | SUSPENDED | DELETING)
                say "$NAME is $state: it is deleted and created again"
                step delete || setback "$NAME could not be deleted"
                continue
                ;;
            ABSENT)
                [[ -z $created ]] || setback "$NAME is gone"
                created=yes
                step create || true # the next look shows its result
                continue
                ;;
            *)
                step create || true # create waits until it is active
                continue
                ;;
        esac

        lines=$(on_hosts "$HOST_STATE" 3>/dev/null) || lines=''
        progress "$(sed -n 's/.*sari-host [^ ]* [^ ]* //p' <<<"$lines" | sort -n | tail -n 1)"
        found=$(verdict "$lines")
        # An end from before this command does not count: the settings may have been fixed since.
        [[ $seen || ($found != finished && $found != refused) ]] || found=fresh
        [[ $found == silent ]] || seen=yes
        case $found in
            finished)
                say "$NAME is finished: $ME export writes the model, $ME delete releases the slices"
                return
                ;;
            refused)
                step stop || true # other hosts still wait for the one that ended
                refuse "$NAME: sari refused its input and is not started again; $ME follow shows why, $ME delete" \
                    "releases the slices"
                ;;
            running)
                silent=0
                sleep "$POLL_SECONDS"
                ;;
            fresh)
                silent=0
                { step setup && step launch; } || setback "$NAME could not be launched"
                ;;
            silent)
                # A new host may not answer at once; one that never answers is lost.
                silent=$((silent + 1))
                if ((silent < SILENT_POLLS)); then
                    sleep "$POLL_SECONDS"
                else
                    silent=0
                    say "$NAME does not answer: it is deleted and created again"
                    step delete || setback "$NAME could not be deleted"
                fi
                ;;
            broken)
                silent=0
                printf '%s\n' "$lines" >&2
                step stop || true
                setback "$NAME has stopped on some host"
                { step setup && step launch; } || setback "$NAME could not be launched"
                ;;
        esac
    done
}

arguments "$USAGE" "$@"
case $VERB in
    create | setup | launch | follow | status | stop | export | delete | keep) ;;
    *) refuse "$VERB is unknown; known: create, setup, launch, follow, status, stop, export, delete, keep" ;;
esac
read_settings
AT=(--project="$PROJECT" --zone="$ZONE")
# A new host has no host.sh yet.
HOST_STATE="if [ -f host.sh ]; then $(quoted bash host.sh state "$NAME"); else echo sari-host \$(hostname) none -; fi"
need gcloud git
[[ $RUN ]] || say "a dry run: nothing is done; --yes runs the commands"
case $VERB in
    export) export_model ;;
    *) "$VERB" ;;
esac
