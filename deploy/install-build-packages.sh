#!/bin/bash
# Installs the Debian packages that building Bulkhead needs: the guest kernel's tools and the C libraries the Rust
# crates link.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/apt-packages.sh"

packages=(
    # the guest kernel (linux-source-6.12 itself is fetched by guest-kernel-config/build.sh)
    bc bison flex gcc libc6-dev libelf-dev libssl-dev make xz-utils
    # what crates link or look up: virtiofsd needs libcap-ng, seccomp profiles are compiled by libseccomp
    libcap-ng-dev libseccomp-dev pkg-config
)

find_missing
with_fresh_index apt_install "${missing[@]}"
