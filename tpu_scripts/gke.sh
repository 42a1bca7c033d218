#!/usr/bin/env bash
# Runs training on GKE, as a JobSet that xpk makes: on one slice or several, spot, on demand or reserved.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

USAGE='gke.sh VERB [--yes] [--settings FILE]

Shows the commands without running them; --yes runs them. Settings: slice.env beside this script, or FILE. Every verb
may be repeated: it skips what is done already.

  create   makes a cluster with the slices, unless CLUSTER names an existing one
  setup    builds the image of this checkout, and attaches the bucket to the cluster
  launch   starts sari train on every host; JobSet restarts it, and it resumes from the newest checkpoint
  follow   shows the first host'\''s log as it grows
  status   shows the state of the run and how often it was restarted
  stop     stops the run, which writes a last checkpoint
  delete   deletes the run, and the cluster if create made it
  keep     launches, and again when the JobSet has used up its restarts, until the run is finished'

XPK() { run xpk "$@" --cluster="$ON" "${AT[@]}"; }

# Names the cluster to kubectl, since another one may be current.
context() {
    run gcloud container clusters get-credentials "$ON" --location="$REGION" --project="$PROJECT"
}
KUBE=()

# Prints absent, active, Completed or Failed.
jobset_state() {
    local found
    found=$(look "$1" "${KUBE[@]}" get jobset "$NAME" --ignore-not-found \
        '--output=jsonpath={.metadata.name}{range .status.conditions[?(@.status=="True")]} {.type}{end}') || return 1
    case " $found " in
        '  ') echo absent ;;
        *' Completed '*) echo Completed ;;
        *' Failed '*) echo Failed ;;
        *) echo active ;;
    esac
}

tier() {
    case $CAPACITY in
        spot) echo --spot ;;
        on-demand) echo --on-demand ;;
        reserved) echo "--reservation=$RESERVATION" ;;
    esac
}

create() {
    say "$SLICES x $ACCELERATOR, $CHIPS chips in all, $CAPACITY"
    if [[ $CLUSTER ]]; then
        say "CLUSTER=$CLUSTER exists already: nothing to create"
        return
    fi
    # xpk skips what exists, and goes on where it stopped.
    XPK cluster create --tpu-type="$ACCELERATOR" --num-slices="$SLICES" "$(tier)" --enable-gcsfuse-csi-driver \
        ${CREATE_FLAG[@]+"${CREATE_FLAG[@]}"}
}

setup() {
    local commit
    commit=$(git -C "$ROOT" rev-parse --verify --quiet "$REF^{commit}") ||
        refuse "$SETTINGS: REF='$REF' is no commit, branch or tag of $ROOT"
    [[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] ||
        say "changes in $ROOT that are not committed are left out"
    # The image is made of the commit and not of the folder, so that no other file, such as settings, gets into it.
    run mkdir -p "$ROOT/.cache"
    run git -C "$ROOT" archive --format=tar.gz --output="$ROOT/.cache/image.tar.gz" "$commit"
    image_from "$ROOT/.cache/image.tar.gz"
    run docker push "$IMAGE"
    [[ -z $BUCKET ]] || XPK storage attach "$NAME-runs" --type=gcsfuse --bucket="$BUCKET" --mount-point="$MOUNT" \
        --readonly=false --auto-mount=true --size=1 --no-prefetch-metadata \
        --mount-options=implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0
}

# image_from TARBALL: builds the image; docker reads the packed folder from its standard input.
image_from() {
    printf '%s < %s\n' "$(quoted docker build --tag "$IMAGE" --file tpu_scripts/Dockerfile -)" "$(quoted "$1")" >&3
    [[ -z $RUN ]] || docker build --tag "$IMAGE" --file tpu_scripts/Dockerfile - <"$1"
}

launch() {
    local state
    context
    state=$(jobset_state '') || fail "$NAME: its state cannot be read"
    case $state in
        active)
            say "$NAME runs already"
            return
            ;;
        Completed)
            say "$NAME is finished; to run it again, $ME delete first"
            return
            ;;
        Failed) XPK workload delete --workload="$NAME" --force ;;
    esac
    # Exit 2 is an input error and ends the JobSet. After any other failure, such as a lost host, all hosts start again.
    # 143 means that the run was asked to stop; with exit 0, JobSet would count it as finished.
    XPK workload create --workload="$NAME" --tpu-type="$ACCELERATOR" --num-slices="$SLICES" --docker-image="$IMAGE" \
        --max-restarts="$RETRIES" --restart-on-exit-codes=1,3-126 \
        --termination-grace-period-seconds="$STOP_SECONDS" \
        --command="exec $(quoted bash tpu_scripts/host.sh run "$NAME" "${TRAIN[@]}")"
}

follow() {
    context
    run "${KUBE[@]}" logs --follow --tail=200 --container=jax-tpu \
        --selector="jobset.sigs.k8s.io/jobset-name=$NAME,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

status() {
    context
    run "${KUBE[@]}" get jobset "$NAME" --ignore-not-found
    run "${KUBE[@]}" get pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" --output=wide
}

stop() {
    local state
    context
    state=$(jobset_state "$NAME") || fail "$NAME: its state cannot be read"
    if [[ $state == absent ]]; then
        say "$NAME does not run"
        return
    fi
    XPK workload delete --workload="$NAME" --force
}

delete() {
    if [[ $CLUSTER ]]; then
        say "CLUSTER=$CLUSTER was not made by $ME and stays"
        stop
        return
    fi
    local there
    there=$(look "$NAME" gcloud container clusters list --project="$PROJECT" --filter="name=$NAME" '--format=value(name)') ||
        fail "$NAME: whether it exists cannot be read"
    if [[ -z $there ]]; then
        say "$NAME is gone already: nothing to delete"
        return
    fi
    XPK cluster delete --force
}

exit_codes() {
    "${KUBE[@]}" get pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME" \
        '--output=jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'
}

# Prints the step of the newest checkpoint in the bucket; nothing if none is found.
newest_checkpoint() {
    [[ $BUCKET ]] || return 0
    gcloud storage ls --project="$PROJECT" "gs://$BUCKET/${WORKDIR#"${MOUNT%/}/"}/checkpoints/" 2>/dev/null |
        sed -n 's,.*/\([0-9][0-9]*\)/$,\1,p' | sort -n | tail -n 1
}

keep() {
    local state codes seen=''
    if [[ -z $RUN ]]; then
        say "keep looks at the JobSet every $POLL_SECONDS s, and launches it if it is missing or has failed:"
        launch
        return
    fi
    context
    while :; do
        state=$(jobset_state '') || state=unknown
        # A failure from before this command does not count: the settings may have been fixed since.
        [[ $seen || $state != Failed ]] || state=absent
        [[ $state == unknown ]] || seen=yes
        case $state in
            active) sleep "$POLL_SECONDS" ;;
            unknown) setback "$NAME: its state cannot be read" ;;
            absent) step launch || setback "$NAME could not be launched" ;;
            Completed)
                say "$NAME is finished: $ME delete releases the slices"
                return
                ;;
            Failed)
                codes=$(exit_codes) || codes=''
                [[ " $codes " != *' 2 '* ]] ||
                    refuse "$NAME: sari refused its input and is not started again; $ME follow shows why, $ME delete" \
                        "releases the slices"
                progress "$(newest_checkpoint)"
                setback "$NAME failed${codes:+, exit codes $codes}"
                step launch || setback "$NAME could not be launched"
                ;;
        esac
    done
}

arguments "$USAGE" "$@"
case $VERB in
    create | setup | launch | follow | status | stop | delete | keep) ;;
    *) refuse "$VERB is unknown; known: create, setup, launch, follow, status, stop, delete, keep" ;;
esac
read_settings
[[ $CAPACITY != reserved || $RESERVATION ]] || refuse "$SETTINGS: RESERVATION is empty; CAPACITY=reserved needs its name"
must IMAGE '[a-z0-9][-a-z0-9._:/]*/[-A-Za-z0-9._:/]+' "where the image is kept, such as REGION-docker.pkg.dev/PROJECT/sari/sari_jax:TAG"
must CLUSTER '([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?' "the name of a cluster, or nothing"
ON=${CLUSTER:-$NAME}
REGION=${ZONE%-*}
AT=(--project="$PROJECT" --zone="$ZONE")
KUBE=(kubectl --context="gke_${PROJECT}_${REGION}_$ON")
need gcloud kubectl xpk
[[ $VERB != setup ]] || need git docker
[[ $RUN ]] || say "a dry run: nothing is done; --yes runs the commands"
"$VERB"
