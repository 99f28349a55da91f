#!/bin/bash
# Installs the Debian packages that the lab, the tests, the benchmarks and the demo need: QEMU and busybox for the lab
# itself, runc and crun to compare with, a bootstrapper for a real root file system. No service is among them. Asks
# dpkg first, so that with everything in place it neither contacts a mirror nor needs root.
set -euo pipefail

packages=(
    # the lab; virtiofsd, which is built from source, links the two libraries
    qemu-system-x86 busybox-static kmod libcap-ng-dev libseccomp-dev
    # other runtimes to compare with
    runc crun
    # root file systems with a real userland
    mmdebstrap
    # what tests call
    iproute2 procps strace
)

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "install-lab-packages: missing ${missing[*]}; run this as root" >&2
    exit 1
fi

# QEMU's packages conflict across versions: a machine that has one of them from backports needs this one from there too.
release=()
if dpkg-query -W -f='${Version}\n' 'qemu-*' 2>/dev/null | grep -q '~bpo'; then
    . "$(dirname "${BASH_SOURCE[0]}")/apt-backports.sh"
    ensure_backports
    release=(-t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports")
fi

echo "install-lab-packages: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# The chosen release is for QEMU alone: everything else comes from the machine's own.
install() {
    local others=("${missing[@]}")
    if [ "${#release[@]}" -gt 0 ] && ! installed qemu-system-x86; then
        apt-get install -y -q --no-install-recommends "${release[@]}" qemu-system-x86 || return 1
        others=("${missing[@]/#qemu-system-x86/}")
    fi
    apt-get install -y -q --no-install-recommends ${others[@]}
}
# The index may be absent (a fresh image) or name versions the mirror has dropped: fetch it only then.
install >&2 || { apt-get update -q >&2 && install >&2; }
