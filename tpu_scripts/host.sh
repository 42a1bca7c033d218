#!/usr/bin/env bash
# Runs on every host of a slice, and in every container: installs, mounts, starts runs, and records how they ended.
#
#   host.sh install TARBALL COMMIT    installs the program in a virtual environment, unless COMMIT is installed
#   host.sh mount BUCKET DIR          mounts the bucket as a folder, unless it is mounted
#   host.sh start NAME ARG...         starts sari train ARG... outside of this session, unless it runs
#   host.sh run NAME ARG...           runs it in the foreground, for containers
#   host.sh state NAME                prints sari-host HOST none|running|finished|stopped|lost|exit:N CHECKPOINT
#   host.sh stop NAME SECONDS         asks for a last checkpoint, and kills a run that does not end in time
#   host.sh log NAME                  follows the log
#   host.sh export WORKDIR OUT        writes the newest checkpoint as a Hugging Face directory, on this host's CPUs
set -euo pipefail

SELF=$(realpath "$0")
BASE=${SARI_HOME:-$HOME/sari}
SARI=$BASE/venv/bin/sari
[[ -x $SARI ]] || SARI=sari # a container has it on its PATH

# The run and all processes that it starts hold the lock. While any of them lives, the run is not over. Unlike a file
# with a process id, a lock does not survive a crash or a restart of the host.
running() {
    local code=0
    [[ -e $DIR/lock ]] || return 1
    flock --nonblock --shared --conflict-exit-code 9 8 8<"$DIR/lock" || code=$?
    ((code == 9))
}

in_source() { [[ ! -d $BASE/source ]] || cd "$BASE/source"; }

install() {
    local tarball commit=$2
    tarball=$(realpath "$1")
    if [[ -f $BASE/installed && $(<"$BASE/installed") == "$commit" ]]; then
        echo "$commit is installed"
        return
    fi
    for DIR in "$BASE"/runs/*; do
        ! running || { echo "host.sh: ${DIR##*/} runs; stop it before you install another version" >&2 && exit 1; }
    done
    rm -rf "$BASE/installed" "$BASE/source" "$BASE/venv"
    mkdir -p "$BASE/source"
    tar -xzf "$tarball" -C "$BASE/source"
    # The hosts' own Python may be older than 3.11. uv installs a newer one without touching the system's.
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
    python3 -m uv venv --python 3.12 "$BASE/venv"
    in_source
    python3 -m uv pip install --python "$BASE/venv/bin/python" --constraint constraints.txt '.[tpu]'
    printf '%s\n' "$commit" >"$BASE/installed" # written last, so that an interrupted install is repeated
}

mount_bucket() {
    local bucket=$1 at=$2 keys=/usr/share/keyrings/cloud.google.asc
    if mountpoint --quiet "$at"; then
        echo "$at is mounted"
        return
    fi
    if ! command -v gcsfuse >/dev/null; then
        curl --fail --silent --show-error https://packages.cloud.google.com/apt/doc/apt-key.gpg |
            sudo tee "$keys" >/dev/null
        echo "deb [signed-by=$keys] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
            sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
        sudo apt-get update --quiet
        sudo apt-get install --quiet --yes gcsfuse
    fi
    sudo mkdir -p "$at"
    sudo chown "$(id -u):$(id -g)" "$at"
    # Hosts wait for each other's files, so no cache may answer that a file does not exist yet.
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$bucket" "$at"
}

start() {
    local tries
    mkdir -p "$DIR"
    if running; then
        echo "$NAME runs already"
        return
    fi
    rm -f "$DIR/ended"
    setsid nohup bash "$SELF" run "$NAME" "$@" >>"$DIR/log" 2>&1 </dev/null &
    for ((tries = 0; tries < 100; tries++)); do
        if running || [[ -f $DIR/ended ]]; then
            echo "$NAME is started"
            return
        fi
        sleep 0.1
    done
    echo "host.sh: $NAME did not start; the end of $DIR/log:" >&2
    tail -n 20 "$DIR/log" >&2
    exit 1
}

run() {
    local child code ended=finished
    mkdir -p "$DIR"
    exec 9>>"$DIR/lock"
    if ! flock --timeout 5 9; then # "host.sh state" holds the lock for a moment
        echo "host.sh: $NAME runs already" >&2
        exit 1
    fi
    rm -f "$DIR/ended"
    printf '%s\n' "$$" >"$DIR/pid"
    printf '%s\n' "$@" | sed -n '/^--workdir$/{n;p;}' >"$DIR/workdir"
    in_source

    "$SARI" train --json "$@" >"$DIR/result.json" &
    child=$!
    # Passes a signal on, so that the run writes a checkpoint and ends. The signal interrupts wait, so it is repeated.
    trap 'passed=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
    while :; do
        passed='' code=0
        wait "$child" || code=$?
        [[ $passed ]] || break
    done

    cat "$DIR/result.json"
    if ((code)); then
        ended=exit:$code
    elif grep -Eq '"finished": *false' "$DIR/result.json"; then
        ended=stopped
        code=143 # what restarts containers must see "terminated", not "done"
    fi
    printf '%s\n' "$ended" >"$DIR/ended.new"
    mv "$DIR/ended.new" "$DIR/ended"
    echo "$NAME: $ended"
    exit "$code"
}

state() {
    local state=none newest=-
    if running; then
        state=running
    elif [[ -f $DIR/ended ]]; then
        state=$(<"$DIR/ended")
    elif [[ -f $DIR/pid ]]; then
        state=lost # it was started, and ended without a record
    fi
    if [[ -f $DIR/workdir ]]; then
        # The folder does not exist before a run has read its model, nor if its input was refused.
        newest=$({
            find "$(<"$DIR/workdir")/checkpoints" -maxdepth 1 -type d -regex '.*/[0-9]+' -printf '%f\n' || true
        } 2>/dev/null | sort -n | tail -n 1)
    fi
    echo "sari-host $(hostname) $state ${newest:--}"
}

stop() {
    local pid left=$(($1 * 5))
    if ! running; then
        echo "$NAME does not run"
        return
    fi
    pid=$(<"$DIR/pid")
    kill -TERM "$pid" 2>/dev/null || true
    while running && ((left-- > 0)); do
        sleep 0.2
    done
    if running; then
        echo "$NAME did not end in time: killed"
        kill -KILL -- "-$pid" # with all processes that it started
        sleep 1
    fi
}

verb=${1:?which verb? see the top of host.sh}
shift
case $verb in
    install) install "$1" "$2" ;;
    mount) mount_bucket "$1" "$2" ;;
    export)
        in_source
        # The chips of a single host cannot start alone, and an export needs none.
        JAX_PLATFORMS=cpu "$SARI" export --workdir "$1" --out "$2"
        ;;
    start | run | state | stop | log)
        NAME=$1 DIR=$BASE/runs/$1
        shift
        case $verb in
            log) tail -n 200 -F "$DIR/log" ;;
            *) "$verb" "$@" ;;
        esac
        ;;
    *)
        echo "host.sh: $verb is unknown" >&2
        exit 2
        ;;
esac
