#!/usr/bin/env bash
# The conformance suite (integration/tests/conformance.rs) against real S3 servers behind TLS of a private CA: moto, and
# Garage behind nginx. Ends with "N passed, N failed"; the exit code is 1 if one failed. docs/SERVERS.md says what each server
# can do, and how to point the suite at another one.
#
# Needs python3 with venv, openssl, and for Garage nginx (Debian: apt-get install nginx-light); installs moto from PyPI and
# builds Garage from its crate, once, below the user's cache directory.
#
#   integration/servers.sh [moto] [garage]        both where none is named
set -euo pipefail
cd "$(dirname "$0")/.."

moto_version=5.2.1
garage_version=2.5.0
tools="${XDG_CACHE_HOME:-$HOME/.cache}/storage-initializer"
mkdir -p "$tools"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/servers.XXXXXX")
# nginx's workers are another user.
chmod 755 "$scratch"
pids=()
passed=0
failed=0

end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    # What is ended writes no more into the directory that is removed.
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap end EXIT

# --- what the servers are made of ------------------------------------------------------------------------------------------

# free_port NAME: a port that was free a moment ago, into the variable of that name.
free_port() {
    printf -v "$1" %s "$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
}

# wait_for PORT PID LOG: until it listens, or has ended.
wait_for() {
    local attempt
    for attempt in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    echo "servers.sh: nothing listens on port $1 after ${attempt}00 ms:" >&2
    cat "$3" >&2
    return 1
}

certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=Conformance Root CA" \
        -keyout "$scratch/ca.key" -out "$scratch/ca.crt" -addext basicConstraints=critical,CA:TRUE
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
        -keyout "$scratch/server.key" -out "$scratch/server.csr"
    openssl x509 -req -in "$scratch/server.csr" -CA "$scratch/ca.crt" -CAkey "$scratch/ca.key" -CAcreateserial -days 2 \
        -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n') -out "$scratch/server.crt"
} 2>"$scratch/openssl.log" || { cat "$scratch/openssl.log" >&2; exit 1; }

# suite TITLE [FILTER...]: runs the suite in the environment that the caller has set, and counts.
suite() {
    local title=$1 log=$scratch/suite.log ok=0
    shift
    echo "--- $title"
    CONFORMANCE_CA=$scratch/ca.crt cargo test --quiet --locked --workspace --test conformance -- "$@" >"$log" 2>&1 || ok=1
    grep -E '^(conformance:|error|test result:)' "$log" || true
    if [ "$ok" -ne 0 ]; then sed 's/^/    | /' "$log"; fi
    local counts
    counts=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed.*/\1 \2/p' "$log" | tail -1)
    # A suite that did not come to its end has failed once.
    read -r suite_passed suite_failed <<<"${counts:-0 1}"
    passed=$((passed + suite_passed))
    failed=$((failed + suite_failed))
}

# --- moto: versions, checksums, and signatures where it is asked to check them ---------------------------------------------

install_moto() {
    venv=$tools/moto-$moto_version
    if ! "$venv/bin/python" -c 'import moto.server' 2>/dev/null; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto_version"
    fi
}

# start_moto NAME [VARIABLE=VALUE...]: sets $endpoint and $access_log.
start_moto() {
    local name=$1 port
    shift
    free_port port
    access_log=$scratch/$name.log
    env "$@" "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" -c "$scratch/server.crt" -k "$scratch/server.key" \
        >"$access_log" 2>&1 &
    pids+=($!)
    wait_for "$port" $! "$access_log"
    endpoint=https://localhost:$port
}

moto() {
    install_moto
    start_moto moto
    AWS_CA_BUNDLE=$scratch/ca.crt "$venv/bin/python" - "$endpoint" <<'PYTHON'
import sys, boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="moto", aws_secret_access_key="moto-secret")
s3.create_bucket(Bucket="conformance")
s3.create_bucket(Bucket="versions")
s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
PYTHON
    CONFORMANCE_SERVER=moto CONFORMANCE_ENDPOINT=$endpoint CONFORMANCE_BUCKET=conformance CONFORMANCE_VERSIONED_BUCKET=versions \
        CONFORMANCE_ACCESS_KEY_ID=moto CONFORMANCE_SECRET_ACCESS_KEY=moto-secret CONFORMANCE_ACCESS_LOG=$access_log \
        suite "moto $moto_version"

    # It checks signatures once so many requests have made an identity that may use S3.
    start_moto moto-signatures INITIAL_NO_AUTH_ACTION_COUNT=3
    local keys
    keys=$(AWS_CA_BUNDLE=$scratch/ca.crt "$venv/bin/python" - "$endpoint" <<'PYTHON'
import sys, json, boto3
place = dict(endpoint_url=sys.argv[1], region_name="us-east-1")
iam = boto3.client("iam", aws_access_key_id="moto", aws_secret_access_key="moto-secret", **place)
iam.create_user(UserName="conformance")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="conformance", PolicyName="s3", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="conformance")["AccessKey"]
s3 = boto3.client("s3", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"], **place)
s3.create_bucket(Bucket="conformance")
print(key["AccessKeyId"], key["SecretAccessKey"])
PYTHON
    )
    CONFORMANCE_SERVER=moto CONFORMANCE_ENDPOINT=$endpoint CONFORMANCE_BUCKET=conformance CONFORMANCE_SIGNATURES=1 \
        CONFORMANCE_ACCESS_KEY_ID=${keys% *} CONFORMANCE_SECRET_ACCESS_KEY=${keys#* } \
        suite "moto $moto_version, signatures" --exact a_wrong_secret_is_denied
}

# --- Garage: no TLS of its own, no versions -------------------------------------------------------------------------------

install_garage() {
    garage=$tools/garage-$garage_version/bin/garage
    if [ ! -x "$garage" ]; then
        echo "building Garage $garage_version, once: a few minutes"
        # Quick to build matters more than quick to run, and nothing here waits for its cryptography.
        CARGO_TARGET_DIR=$tools/garage-build CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
            nice cargo install --quiet garage --version "$garage_version" --locked --no-default-features \
            --features bundled-libs,lmdb --root "$tools/garage-$garage_version"
        rm -rf "$tools/garage-build"
    fi
}

garage() {
    local nginx port s3_port rpc_port
    nginx=$(command -v nginx || echo /usr/sbin/nginx)
    if [ ! -x "$nginx" ]; then
        echo "servers.sh: there is no nginx here; see the beginning of this script" >&2
        exit 1
    fi
    install_garage
    free_port port
    free_port s3_port
    free_port rpc_port
    mkdir "$scratch/garage" "$scratch/nginx"
    cat >"$scratch/garage.toml" <<TOML
metadata_dir = "$scratch/garage/meta"
data_dir = "$scratch/garage/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc_port"
rpc_public_addr = "127.0.0.1:$rpc_port"
rpc_secret = "$(openssl rand -hex 32)"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "127.0.0.1:$s3_port"
TOML
    local id secret
    id=GK$(openssl rand -hex 12)
    secret=$(openssl rand -hex 32)
    GARAGE_DEFAULT_ACCESS_KEY=$id GARAGE_DEFAULT_SECRET_KEY=$secret GARAGE_DEFAULT_BUCKET=conformance RUST_LOG=garage=info \
        "$garage" -c "$scratch/garage.toml" server --single-node --default-bucket >"$scratch/garage.log" 2>&1 &
    pids+=($!)
    wait_for "$s3_port" $! "$scratch/garage.log"

    # The path goes on as it came, // and %2F included, and so does the Host that was signed.
    cat >"$scratch/nginx/nginx.conf" <<NGINX
pid nginx.pid;
error_log error.log;
daemon off;
events {}
http {
    access_log access.log;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $scratch/server.crt;
        ssl_certificate_key $scratch/server.key;
        merge_slashes off;
        client_max_body_size 0;
        client_body_temp_path bodies;
        proxy_temp_path replies;
        proxy_http_version 1.1;
        proxy_set_header Host \$http_host;
        location / { proxy_pass http://127.0.0.1:$s3_port; }
    }
}
NGINX
    "$nginx" -p "$scratch/nginx" -c nginx.conf -e error.log 2>"$scratch/nginx.log" &
    pids+=($!)
    wait_for "$port" $! "$scratch/nginx.log"
    CONFORMANCE_SERVER=garage CONFORMANCE_ENDPOINT=https://localhost:$port CONFORMANCE_BUCKET=conformance \
        CONFORMANCE_ACCESS_KEY_ID=$id CONFORMANCE_SECRET_ACCESS_KEY=$secret \
        CONFORMANCE_ACCESS_LOG=$scratch/nginx/access.log suite "Garage $garage_version behind nginx"
}

# --- what was asked for ----------------------------------------------------------------------------------------------------

certificates
[ $# -gt 0 ] || set -- moto garage
for server in "$@"; do
    case $server in
        moto | garage) "$server" ;;
        *) echo "servers.sh: \"$server\" is neither moto nor garage" >&2; exit 1 ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
