#!/bin/bash
# Installs the Debian packages that building Bulkhead needs: the guest kernel's tools and the C libraries the Rust
# crates link. Asks dpkg first, so that with everything in place it neither contacts a mirror nor needs root.
set -euo pipefail

packages=(
    # the guest kernel (linux-source-6.12 itself is fetched by guest-kernel-config/build.sh)
    bc bison flex gcc libc6-dev libelf-dev libssl-dev make xz-utils
    # what crates link or look up: virtiofsd needs libcap-ng, seccomp profiles are compiled by libseccomp
    libcap-ng-dev libseccomp-dev pkg-config
)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "install-build-packages: missing ${missing[*]}; run this as root" >&2
    exit 1
fi

echo "install-build-packages: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends "${missing[@]}"; }
# The index may be absent (a fresh image) or name versions the mirror has dropped: fetch it only then.
install >&2 || { apt-get update -q >&2 && install >&2; }
