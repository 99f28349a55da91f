#!/bin/bash
# Installs the Debian packages that the lab, the tests, the benchmarks and the demo need: QEMU and busybox for the lab
# itself, runc and crun to compare with, a bootstrapper for a real root file system. No service is among them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/apt-packages.sh"

packages=(
    # the lab; virtiofsd, which is built from source, links the two libraries
    qemu-system-x86 busybox-static kmod libcap-ng-dev libseccomp-dev
    # other runtimes to compare with
    runc crun
    # root file systems with a real userland
    mmdebstrap
    # what tests call
    iproute2 procps strace
    # what tests compare documents with
    python3-jsonschema golang-github-opencontainers-specs-dev
)

find_missing

# QEMU's packages conflict across versions: a machine that has one of them from backports needs this one from there too.
release=()
if dpkg-query -W -f='${Version}\n' 'qemu-*' 2>/dev/null | grep -q '~bpo'; then
    . "$(dirname "${BASH_SOURCE[0]}")/apt-backports.sh"
    ensure_backports
    release=(-t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports")
fi

# The chosen release is for QEMU alone: everything else comes from the machine's own.
install_missing() {
    local others=("${missing[@]}")
    if [ "${#release[@]}" -gt 0 ] && ! installed qemu-system-x86; then
        apt_install "${release[@]}" qemu-system-x86 || return 1
        others=("${missing[@]/#qemu-system-x86/}")
    fi
    apt_install ${others[@]}
}
with_fresh_index install_missing
