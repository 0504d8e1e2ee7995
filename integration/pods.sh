#!/usr/bin/env bash
# The manifests of integration/kubernetes, run as pods against a store behind a private CA; the image is built from
# docker/Dockerfile on the way. One line per scenario, and at the end "N passed, N failed"; the exit code is 1 if one failed.
#
# Needs root, podman, runc and busybox-static (Debian: apt-get install podman buildah runc catatonit busybox-static); fetches
# nothing. Images, containers and volumes are kept in a directory of its own, which is removed at the end.
#
# The Pods are what users copy, to the byte, unless a scenario is about a change. The Secrets and the ConfigMap that they name
# come from `serve`, which puts the endpoint, the keys and the CA of its store into the ones that users copy.
#
# With --compare VENV it also measures the image beside KServe's own initializer in the same kind of container:
#
#   python3 -m venv VENV && VENV/bin/pip install kserve-storage==0.21.0 && integration/pods.sh --compare VENV
set -euo pipefail
[ "${1:-}" != --compare ] || venv=$(realpath "$2")
cd "$(dirname "$0")/.."

for tool in podman runc busybox; do
    command -v "$tool" >/dev/null || { echo "pods.sh: there is no $tool here; see the beginning of this script" >&2; exit 1; }
done
manifests=integration/kubernetes
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pods.XXXXXX")
passed=0
failed=0

# --- podman, away from whatever else runs on this machine ------------------------------------------------------------------

cat >"$scratch/containers.conf" <<EOF
[containers]
# Soft and hard are the same: play kube swaps them.
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
# crun refuses hybrid cgroups; without systemd there is only cgroupfs.
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "$scratch/tmp"
EOF
export CONTAINERS_CONF="$scratch/containers.conf"
podman() { command podman --root "$scratch/storage" --runroot "$scratch/run" "$@"; }

end() {
    remove_pods
    # The server ends with its stdin.
    [ -z "${store_in:-}" ] || exec {store_in}>&-
    podman rmi --all --force >/dev/null 2>&1 || true
    # The storage holds mounts while anything of it is in use.
    umount -R "$scratch/storage/overlay" 2>/dev/null || true
    rm -rf "$scratch"
}
remove_pods() {
    podman pod rm --all --force --time 0 >/dev/null 2>&1 || true
    podman volume rm --all --force >/dev/null 2>&1 || true
    podman secret rm storage-config storage-config-certificate >/dev/null 2>&1 || true
}
trap end EXIT

# --- the image and the store -----------------------------------------------------------------------------------------------

binary=${STORAGE_INITIALIZER_BIN:-}
if [ -z "$binary" ]; then
    cargo build --quiet --release --locked --package storage-initializer --bin storage-initializer
    binary=${CARGO_TARGET_DIR:-target}/release/storage-initializer
fi
# The harness with the workspace's features, so that what the tests have built is used again.
cargo build --quiet --locked --workspace --bin serve

echo "image: docker/Dockerfile, target prebuilt"
prebuilt=docker/prebuilt
docker/rootfs.sh "$binary" "$prebuilt"
podman build --quiet --file docker/Dockerfile --target prebuilt --timestamp 0 --build-arg VERSION="$version" \
    --tag "storage-initializer:$version" . >/dev/null
image_bytes=$(podman image inspect --format '{{.Size}}' "storage-initializer:$version")

# The stand-in model server's image, from Debian's busybox: no registry is asked.
mkdir "$scratch/busybox"
cp "$(command -v busybox)" "$scratch/busybox/busybox"
cat >"$scratch/busybox/Dockerfile" <<'EOF'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
EOF
podman build --quiet --tag docker.io/library/busybox:1.36 "$scratch/busybox" >/dev/null

coproc STORE { exec "${CARGO_TARGET_DIR:-target}/debug/serve" "$manifests" "$scratch/manifests"; }
store_out=${STORE[0]}
store_in=${STORE[1]}
read -r -t 120 ready <&"$store_out" && [ "$ready" = ready ]
# A number that the store knows: `bytes` of objects or `requests`, so far.
store() { echo "$1" >&"$store_in" && read -r -t 10 answer <&"$store_out" && echo "$answer"; }

# --- what the scenarios are made of ----------------------------------------------------------------------------------------

ok() { passed=$((passed + 1)); echo "ok      $1"; }
not_ok() {
    failed=$((failed + 1))
    echo "FAILED  $1: $2"
    sed 's/^/        | /' "$scratch/play.log" "$scratch/pod.log" 2>/dev/null | tail -20
}
# check WHAT CONDITION...: a failed condition fails the scenario; the first one is told.
check() {
    local what=$1
    shift
    if [ -z "${problem:-}" ] && ! "$@"; then problem=$what; fi
}
verdict() {
    if [ -z "${problem:-}" ]; then ok "$1"; else not_ok "$1" "$problem"; fi
    problem=
}

# play POD VARIANT [EDIT]: runs the manifest with the variant's Secrets and ConfigMap, and sets $code to the init container's
# exit code. EDIT is for sed; without it the manifest is what users copy, to the byte. `podman play kube` returns when the init
# containers have ended and the others are started.
play() {
    local pod=$1 variant=$scratch/manifests/$2 edit=${3:-}
    rm -f "$scratch/pod.log"
    : >"$scratch/pod.log"
    local secret
    for secret in storage-config storage-config-certificate; do
        podman secret rm "$secret" >/dev/null 2>&1 || true
        case $(command podman --version) in
            # Before 4.4 what is mounted is what `data` says, not decoded: so these get it plain. The pod sees the same.
            *" 4."[0-3]*) podman secret create "$secret" "$variant/$secret.plain.yaml" >/dev/null ;;
            *) podman play kube "$variant/$secret.yaml" >/dev/null ;;
        esac
    done
    { cat "$variant/storage-ca.yaml"; echo ---; sed "$edit" "$manifests/$pod.yaml"; } >"$scratch/play.yaml"
    code=0
    podman play kube --network host --log-driver k8s-file --log-opt "path=$scratch/pod.log" "$scratch/play.yaml" \
        >"$scratch/play.log" 2>&1 || code=$(sed -n 's/.*exited with code \([0-9]*\).*/\1/p' "$scratch/play.log" | head -1)
    code=${code:-"unknown"}
}
# The last line of the first run's log, which Kubernetes shows as the termination message.
message() { sed 's/^[^ ]* [^ ]* [^ ]* //' "$scratch/pod.log" | grep -m1 ERROR || true; }
# What the model server printed.
digests() { grep -o '[0-9a-f]\{64\}  /mnt/models/.*' "$scratch/pod.log" | sort || true; }
# Waits until the model server has read the model.
model_server_ready() {
    local attempt
    for attempt in $(seq 300); do
        ! grep -q ' ready$' "$scratch/pod.log" || return 0
        sleep 0.1
    done
    return 1
}
# Samples the init container's memory group while there is one: limit, peak and the most anonymous memory, in bytes, to
# $scratch/memory; and what the kernel says about the process to $scratch/status. The group is gone when the container is.
watch_memory() {
    local group procs pid name value anonymous=0 most=0
    : >"$scratch/memory"
    while :; do
        for group in /sys/fs/cgroup/{memory/,}libpod_parent/{,*/}libpod-*; do
            { read -r pid <"$group/cgroup.procs" && read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
            # The kernel keeps 15 letters.
            case $name in storage-initial | python*) ;; *) continue ;; esac
            cp "/proc/$pid/status" "$scratch/status.part" 2>/dev/null && mv "$scratch/status.part" "$scratch/status"
            {
                while read -r name value; do
                    case $name in rss | anon) anonymous=$value ;; esac
                done <"$group/memory.stat"
                if [ -e "$group/memory.peak" ]; then
                    read -r limit <"$group/memory.max" && read -r peak <"$group/memory.peak"
                else
                    read -r limit <"$group/memory.limit_in_bytes" && read -r peak <"$group/memory.max_usage_in_bytes"
                fi
            } 2>/dev/null || continue
            [ "$anonymous" -le "$most" ] || most=$anonymous
            echo "$limit $peak $most" >"$scratch/memory"
        done
        sleep 0.01
    done
}
mib() { awk -v bytes="${1:-0}" 'BEGIN { printf "%.1f", bytes / 1048576 }'; }
sees_the_model() { model_server_ready && [ "$(digests)" = "$(sort "$scratch/manifests/$1")" ]; }
exit_code_is() { [ "$code" = "$1" ]; }
message_says() { message | grep -qF -- "$1"; }
says_no_secret() { ! grep -qF pods-secret "$scratch/pod.log"; }

# --- the scenarios ---------------------------------------------------------------------------------------------------------

# runs NAME POD VARIANT [EDIT]
runs() {
    remove_pods
    play "$2" "$3" "${4:-}"
    check "exit code $code, not 0" exit_code_is 0
    check "the model server does not see the model" sees_the_model expected
    check "the secret key is in the log" says_no_secret
    verdict "$1"
}
# fails NAME POD VARIANT CODE TEXT [EDIT]
fails() {
    remove_pods
    # Nobody waits for the retries of a container that cannot succeed.
    play "$2" "$3" "s/restartPolicy: .*/restartPolicy: Never/;${6:-}"
    check "exit code $code, not $4" exit_code_is "$4"
    check "the message does not say \"$5\"" message_says "$5"
    check "the secret key is in the log" says_no_secret
    check "the model server was started" test -z "$(digests)"
    verdict "$1"
    message | cut -d' ' -f3- | cut -c1-200 | sed 's/^/        /'
}

runs "a pod with Secret, CA ConfigMap and emptyDir serves the model" pod good

inside() { podman exec bert-model-server "$@" 2>&1; }
check "the model server is not user 1000" test "$(inside id -u)" = 1000
check "the root file system can be written" test "$(inside touch /file | grep -c 'Read-only file system')" = 1
check "/tmp can be written" test "$(inside touch /tmp/file | grep -c -e 'No such file' -e 'Read-only')" = 1
verdict "the pod's containers have no writable place but the model volume"

runs "a pod whose CA is in the entry's certificate alone serves the model" pod-certificate good
runs "any user id will do, as OpenShift gives one to each namespace" pod good \
    's/runAsUser: 1000/runAsUser: 1000650000/; s/runAsGroup: 1000/runAsGroup: 0/'

remove_pods
play pod-persistent good
check "exit code $code, not 0" exit_code_is 0
check "the model server does not see the model" sees_the_model expected
before=$(store bytes)
check "the first run moved no bytes of objects" test "$before" -gt 0
podman pod rm --all --force --time 0 >/dev/null 2>&1
# The claim is there already, and podman would not have it twice.
play pod-persistent good '1,/^---$/d'
check "exit code of the second run $code, not 0" exit_code_is 0
check "the model server does not see the model after the second run" sees_the_model expected
moved=$(($(store bytes) - before))
check "the second run moved $moved bytes of objects" test "$moved" -eq 0
verdict "a restarted pod on a persistent volume moves no object bytes"

remove_pods
before=$(store bytes)
store hold >/dev/null
play pod-persistent large "s/restartPolicy: .*/restartPolicy: Never/" &
playing=$!
check "the download did not begin" test "$(store held)" = held
# As the kernel kills what needs too much memory, and as a node ends that loses its power.
kill -KILL "$(podman inspect --format '{{.State.Pid}}' bert-persistent-storage-initializer)"
wait "$playing"
store release >/dev/null
check "a file of the model was there before it was whole" test -z "$(podman run --rm --network none --volume bert-models:/models \
    docker.io/library/busybox:1.36 find /models -name model.safetensors)"
podman pod rm --all --force --time 0 >/dev/null 2>&1
play pod-persistent large '1,/^---$/d'
check "exit code of the second run $code, not 0" exit_code_is 0
check "the model server does not see the model after the second run" sees_the_model expected-large
moved=$((($(store bytes) - before) / 1048576))
# What was in flight: of each connection an extent, and what its sockets hold.
check "both runs together moved $moved MiB for a model of 512 MiB" test "$moved" -le 640
verdict "a killed download continues on a persistent volume where it was"

remove_pods
watch_memory &
watcher=$!
play pod large
check "exit code $code, not 0" exit_code_is 0
check "the model server does not see the model" sees_the_model expected-large
kill "$watcher" 2>/dev/null && wait "$watcher" 2>/dev/null || true
read -r limit peak anonymous <"$scratch/memory" || true
check "the limit was not seen" test "${limit:-0}" = 67108864
check "more was charged than the limit" test "${peak:-0}" -le 67108864
verdict "64Mi of memory are enough for a model of 512 MiB"
echo "        peak charged $(mib "$peak") of $(mib "$limit") MiB, page cache included; of it anonymous $(mib "$anonymous") MiB"

status() { awk -v key="$1:" '$1 == key { print $2 }' "$scratch/status"; }
check "it was not user 1000" test "$(status Uid)" = 1000
check "it had capabilities" test "$(status CapEff)$(status CapBnd)" = 00000000000000000000000000000000
check "it could gain privileges" test "$(status NoNewPrivs)" = 1
check "no seccomp filter was active" test "$(status Seccomp)" = 2
verdict "while it downloads it is user 1000, without capabilities, under seccomp"

fails "a wrong CA is named, with what the server presented" pod wrong-ca 76 "is not in the trust store"
fails "a wrong CA in the certificate field as well" pod-certificate wrong-ca 76 "is not in the trust store"
fails "a missing entry: the Secret's entries are listed" pod another-entry 78 "it has: localMinio"
fails "half a key pair" pod half-a-key-pair 78 "set both, or neither"
fails "no credentials" pod no-credentials 77 "no credentials"
fails "a wrong secret key" pod wrong-secret 77 "the secret access key is not the one of this access key id"
fails "no such model: what is near is named" pod no-model 66 "there are: bert-large/"
fails "a model volume that is mounted read-only" pod good 74 "Read-only file system" \
    's/name: models, mountPath: \/mnt\/models }/name: models, mountPath: \/mnt\/models, readOnly: true }/'

# --- beside KServe's own initializer ---------------------------------------------------------------------------------------

# in_container MEMORY VARIABLES COMMAND...: as an init container is run; ours is the image's entry point, KServe's is Python.
in_container() {
    local memory=$1 variables=$2
    shift 2
    podman volume rm --force compared >/dev/null 2>&1 || true
    podman run --rm --network host --memory "$memory" --memory-swap "$memory" --cpus 1 --read-only --cap-drop all --user 1000:1000 \
        --volume compared:/mnt/models --volume "$scratch/manifests/ca:/ca:ro" --env-file "$scratch/manifests/$variables" "$@"
}
ours() { in_container "$1" "$2" "storage-initializer:$version" "$3" /mnt/models; }
kserve() {
    # Its own image is this environment on a Debian with Python; here the machine's Debian and Python are mounted. It wants a /tmp.
    in_container "$1" "$2" --volume /usr:/usr:ro --volume "$venv:$venv:ro" --volume "$python:$python:ro" --tmpfs /tmp \
        --env PYTHONDONTWRITEBYTECODE=1 localhost/usr "$venv/bin/python" -c \
        "import sys; from kserve_storage import Storage; Storage.download(*sys.argv[1:])" "$3" /mnt/models
}
seconds() {
    local run
    for run in 1 2 3 4 5; do
        local begin=$EPOCHREALTIME
        "$@" >"$scratch/play.log" 2>&1 || tail -1 "$scratch/play.log" >&2
        awk -v begin="$begin" -v end="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", end - begin }'
    done | sort -n | awk '{ run[NR] = $1 } END { printf "%.2f (%.2f to %.2f) s", run[3], run[1], run[NR] }'
}
peak_of() {
    local code=0 limit peak anonymous
    : >"$scratch/memory"
    watch_memory &
    watcher=$!
    "$@" >"$scratch/play.log" 2>&1 || code=$?
    kill "$watcher" 2>/dev/null && wait "$watcher" 2>/dev/null || true
    read -r limit peak anonymous <"$scratch/memory" || true
    if [ "$code" -ne 0 ]; then echo "ended with exit code $code"; else echo "peak $(mib "$peak") MiB charged, $(mib "$anonymous") MiB anonymous"; fi
}
compare() {
    python=$("$venv/bin/python" -c 'import sys; print(sys.base_prefix)')
    mkdir -p "$scratch/usr/root"
    ( cd "$scratch/usr/root" && mkdir usr tmp proc dev etc && cp /etc/passwd /etc/ld.so.cache etc/ \
        && for name in bin lib lib64 sbin; do ln -s "usr/$name" "$name"; done )
    printf 'FROM scratch\nCOPY root/ /\n' >"$scratch/usr/Dockerfile"
    podman build --quiet --tag localhost/usr "$scratch/usr" >/dev/null
    echo
    echo "beside KServe's initializer $("$venv/bin/pip" show kserve-storage 2>/dev/null | awk '/^Version/ { print $2 }'):"
    echo "  on disk:            ours $((image_bytes / 1000000)) MB with its C library; KServe's $(($(du -sb "$venv" | cut -f1) / 1000000)) MB without Python and Debian"
    echo "  an empty container: $(seconds podman run --rm --network host docker.io/library/busybox:1.36 true)"
    echo "  one object of 571 bytes, the container's start included:"
    echo "    ours    $(seconds ours 64m small.env s3://models/bert/config.json)"
    echo "    KServe  $(seconds kserve 1g small.env s3://models/bert/config.json)"
    echo "  a model of 512 MiB on one CPU:"
    echo "    ours    $(seconds ours 64m large.env s3://models/bert)"
    echo "    KServe  $(seconds kserve 1g large.env s3://models/bert)"
    echo "  memory of the container for it:"
    for limit in 64m 128m 256m 1g; do
        echo "    limit $limit: ours: $(peak_of ours "$limit" large.env s3://models/bert); KServe: $(peak_of kserve "$limit" large.env s3://models/bert)"
    done
}
[ -z "${venv:-}" ] || compare

echo
echo "image: $image_bytes bytes uncompressed"
check "the image has more than 25 MB" test "$image_bytes" -le 25000000
check "the image has a shell" test -z "$(podman export "$(podman create "storage-initializer:$version")" | tar -t | grep -E '(^|/)(sh|bash|busybox|apt|dpkg|apk)$')"
verdict "the image is at most 25 MB, without a shell or a package manager"

echo
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
