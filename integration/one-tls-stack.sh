#!/bin/sh
# One TLS stack, one crypto provider, one HTTP implementation: whatever else cargo finds in the tree fails.
set -eu
cd "$(dirname "$0")/.."
failed=0
for crate in ring openssl-sys native-tls; do
    # `cargo tree -i` prints nothing, or complains that there is no such package.
    if cargo tree --locked --workspace --edges all --target all --invert "$crate" 2>/dev/null | grep -q .; then
        echo "one-tls-stack: $crate is in the tree:" >&2
        cargo tree --locked --workspace --edges all --target all --invert "$crate" >&2
        failed=1
    fi
done
for crate in hyper rustls aws-lc-sys; do
    versions=$(cargo tree --locked --workspace --edges all --target all --prefix none | sed -n "s/^$crate v\([^ ]*\).*/\1/p" | sort -u)
    if [ "$(echo "$versions" | wc -l)" -ne 1 ]; then
        echo "one-tls-stack: several versions of $crate:" $versions >&2
        failed=1
    fi
done
[ "$failed" -eq 0 ] && echo "one-tls-stack: one rustls on aws-lc-rs, one hyper, no ring, no OpenSSL"
exit "$failed"
