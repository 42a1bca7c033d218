# shellcheck shell=bash disable=SC2034
# Shared by the scripts, which source it: the settings, how a command is shown or run, and when to give up. Most of its
# variables are used in the scripts.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
    printf '%s: bash %s is too old; 4.4 or newer is needed (macOS: brew install bash)\n' "$0" "$BASH_VERSION" >&2
    exit 2
fi

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
ME=$(basename "$0")

SINGLE=(NAME PROJECT ZONE ACCELERATOR SLICES CAPACITY RESERVATION RUNTIME BUCKET MOUNT CONFIG WORKDIR EXPORT REF IMAGE
    CLUSTER POLL_SECONDS RETRIES BACKOFF_SECONDS SILENT_POLLS STOP_SECONDS)
REPEATED=(OVERRIDE CREATE_FLAG SSH_FLAG)

NAME='' PROJECT='' ZONE='' ACCELERATOR='' SLICES=1 CAPACITY=spot RESERVATION='' RUNTIME='' BUCKET='' MOUNT=/mnt/sari
CONFIG='' WORKDIR='' EXPORT='' REF=HEAD IMAGE='' CLUSTER=''
POLL_SECONDS=60 RETRIES=5 BACKOFF_SECONDS=60 SILENT_POLLS=5 STOP_SECONDS=300
OVERRIDE=() CREATE_FLAG=() SSH_FLAG=()

VERB='' RUN='' SETTINGS=$HERE/slice.env

# Commands and comments of a dry run go to standard output through 3, also from within $(...).
exec 3>&1

say() { printf '# %s\n' "$*" >&3; }

# Says what was found out, unless this is a dry run, which finds nothing out.
say_found() { [[ -z $RUN ]] || say "$*"; }

# Ends with an input error: one line and exit 2. It is never retried.
refuse() {
    printf '%s: %s\n' "$ME" "$*" >&2
    exit 2
}

# Ends with exit 1 if something failed in the cloud; the same command may be repeated.
fail() {
    printf '%s: %s\n' "$ME" "$*" >&2
    exit 1
}

# quoted ARG...: prints one line that a shell reads as the same arguments.
quoted() {
    local word line=''
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}

# need PROGRAM...: checks that programs are installed; a dry run needs none.
need() {
    local program
    for program in ${RUN:+"$@"}; do
        command -v "$program" >/dev/null || refuse "$program is not installed; docs/tpu.md says what is needed"
    done
}

# run COMMAND...: shows a command; with --yes also runs it.
run() {
    printf '%s\n' "$(quoted "$@")" >&3
    [[ -z $RUN ]] || "$@"
}

# look ASSUMED COMMAND...: runs a command that only reads; a dry run shows it and prints ASSUMED.
look() {
    local assumed=$1
    shift
    if [[ $RUN ]]; then
        "$@"
    else
        printf '%s\n' "$(quoted "$@")" >&3
        printf '%s\n' "$assumed"
    fi
}

# arguments USAGE [VERB] [--yes] [--settings FILE]
arguments() {
    local usage=$1
    shift
    while (($#)); do
        case $1 in
            --yes) RUN=yes ;;
            --settings)
                (($# > 1)) || refuse "--settings needs a file"
                SETTINGS=$2
                shift
                ;;
            -h | --help)
                printf '%s\n' "$usage"
                exit 0
                ;;
            -*) refuse "$1 is unknown; known: --yes, --settings FILE, --help" ;;
            *)
                [[ -z $VERB ]] || refuse "$1 after $VERB: one verb at a time"
                VERB=$1
                ;;
        esac
        shift
    done
    [[ $VERB ]] || refuse "which verb? $ME --help lists them"
}

read_settings() {
    local line key value number=0
    [[ -f $SETTINGS ]] || refuse "$SETTINGS does not exist; copy $HERE/slice.env.example to it and fill it in"
    while IFS= read -r line || [[ $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        line=${line#"${line%%[![:space:]]*}"}
        line=${line%"${line##*[![:space:]]}"}
        [[ -z $line || $line == '#'* ]] && continue
        [[ $line == *=* ]] || refuse "$SETTINGS:$number: '$line' is not KEY=VALUE"
        key=${line%%=*} value=${line#*=}
        if [[ ${#value} -ge 2 && $value == [\"\']* && ${value:0:1} == "${value: -1}" ]]; then
            value=${value:1:-1}
        fi
        if [[ " ${REPEATED[*]} " == *" $key "* ]]; then
            local -n list=$key
            list+=("$value")
        elif [[ $key && " ${SINGLE[*]} " == *" $key "* ]]; then
            printf -v "$key" '%s' "$value"
        else
            refuse "$SETTINGS:$number: $key is unknown; known: ${SINGLE[*]} ${REPEATED[*]}"
        fi
    done <"$SETTINGS"
    check_settings
}

# must KEY PATTERN LIMIT: refuses a setting that does not match.
must() {
    [[ ${!1} =~ ^($2)$ ]] || refuse "$SETTINGS: $1='${!1}' must be $3"
}

check_settings() {
    local key flag
    must NAME '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' "1 to 40 small letters, digits and hyphens, a letter first"
    must PROJECT '[a-z][-a-z0-9.:]{4,}[a-z0-9]' "a project id, as gcloud projects list shows it"
    must ZONE '[a-z]+-[a-z]+[0-9]+-[a-z]' "a zone, such as us-west4-a"
    must ACCELERATOR '(v5litepod|v6e|v5p|v4)-[1-9][0-9]*' "v5litepod-N, v6e-N, v5p-N or v4-N, such as v5litepod-16"
    must SLICES '[1-9][0-9]{0,2}' "a number from 1 to 999"
    must CAPACITY 'spot|on-demand|reserved' "spot, on-demand or reserved"
    must RESERVATION '[-a-z0-9/._]*' "the name of a reservation"
    must BUCKET '[a-z0-9]([-a-z0-9._]*[a-z0-9])?|' "a bucket's name without gs://"
    must CONFIG '.+' "a config file or a recipe, such as configs/grpo.py:qwen2_audio_7b"
    [[ $CONFIG == /* || -f $ROOT/${CONFIG%%:*} || -f $ROOT/configs/${CONFIG%%:*}.py ]] ||
        refuse "$SETTINGS: CONFIG='$CONFIG' is not in $ROOT; name one of configs/*.py, a recipe such as grpo:nano, or a" \
            "path on the hosts from /"
    for key in MOUNT WORKDIR; do
        must $key '/.+' "a path from /"
    done
    must EXPORT '(/.+)?' "a path from /"
    [[ -z $BUCKET || ($WORKDIR == "${MOUNT%/}"/?* && $WORKDIR/ != */../*) ]] ||
        refuse "$SETTINGS: WORKDIR='$WORKDIR' is not under MOUNT='$MOUNT', where the bucket is; put it there, or a" \
            "recreated slice would start from nothing"
    must POLL_SECONDS '[0-9]{1,6}([.][0-9]+)?' "a number from 0"
    for key in RETRIES BACKOFF_SECONDS SILENT_POLLS STOP_SECONDS; do
        must $key '[0-9]{1,6}' "a whole number from 0"
    done
    for flag in ${OVERRIDE[@]+"${OVERRIDE[@]}"}; do
        [[ $flag == --config.*=* ]] || refuse "$SETTINGS: OVERRIDE='$flag' must be --config.KEY=VALUE"
    done
    case $ACCELERATOR in
        v5litepod-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
        v6e-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv6e} ;;
        v5p-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5} ;;
        *) RUNTIME=${RUNTIME:-tpu-ubuntu2204-base} ;;
    esac
    CHIPS=${ACCELERATOR#*-}
    [[ $ACCELERATOR == v5litepod-* || $ACCELERATOR == v6e-* ]] || CHIPS=$((CHIPS / 2))
    CHIPS=$((CHIPS * SLICES))
    TRAIN=(--config "$CONFIG" --workdir "$WORKDIR" ${OVERRIDE[@]+"${OVERRIDE[@]}"})
}

# persist COMMAND...: tries a command up to three times, since a new host may not accept connections yet.
persist() {
    local left=2
    until "$@"; do
        ((left > 0)) || return 1
        left=$((left - 1))
        say "failed; tried again in $((BACKOFF_SECONDS / 4)) s"
        sleep $((BACKOFF_SECONDS / 4))
    done
}

# The failures that keep has seen in a row. A new checkpoint proves progress and resets them.
FAILURES=0 NEWEST=-1

progress() {
    if [[ $1 =~ ^[0-9]+$ ]] && (($1 > NEWEST)); then
        NEWEST=$1 FAILURES=0
    fi
}

setback() {
    local wait
    FAILURES=$((FAILURES + 1))
    ((FAILURES <= RETRIES)) || fail "$*: $FAILURES failures in a row without a new checkpoint, RETRIES=$RETRIES; fix" \
        "what the log shows, then run keep again: the run resumes"
    wait=$((BACKOFF_SECONDS * (1 << (FAILURES < 7 ? FAILURES - 1 : 6))))
    say "$*: failure $FAILURES of $RETRIES in a row; tried again in $wait s"
    sleep "$wait"
}

# step VERB: runs a verb as a process of its own, so that a failure ends only that step. Exit 2, which no retry can fix,
# ends keep too.
step() {
    local code=0
    "$0" "$1" --yes --settings "$SETTINGS" || code=$?
    ((code != 2)) || exit 2
    return "$code"
}
