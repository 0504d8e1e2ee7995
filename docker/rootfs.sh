#!/bin/sh
# Lays out everything that the image holds: the binary, the shared libraries that it names, and how names are resolved.
# The Dockerfile runs it on the binary that it has built; for a binary from elsewhere, run it on the machine that built it:
#
#   docker/rootfs.sh target/release/storage-initializer docker/prebuilt
#   docker build --file docker/Dockerfile --target prebuilt .
#
# Usage: rootfs.sh BINARY DIRECTORY [binary-only]
#
# With "binary-only" the libraries are left out: a base image that is not `scratch` has its own C library, and two of
# them in one file system are one too many.
set -eu

binary=$1
root=$2
libraries=${3:-with-libraries}

rm -rf "$root"
mkdir -p "$root/usr/bin"
install -m 0755 "$binary" "$root/usr/bin/storage-initializer"

if [ "$libraries" != binary-only ]; then
    # The loader and the libraries keep their paths, because the binary names the loader by its path. The vdso has none.
    ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | sort -u | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        install -m 0755 "$(readlink -f "$library")" "$root$library"
    done
    # Since glibc 2.34 "files" and "dns" are inside libc.so.6: no further library is loaded to resolve a name. The file
    # says it, because what glibc does without it has changed over time.
    mkdir -p "$root/etc"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
fi

# The same times in every build of the same commit.
find "$root" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH:-0}" {} +
