#!/bin/bash
# Installs the Debian packages that a purpose needs. No package of them starts a service.
#
#   install-packages.sh GROUP...          installs what is missing (root). When nothing is missing, it asks no mirror.
#   install-packages.sh --check GROUP...  says what is missing and how to get it. Exit status 1 when something is missing.
#
# Groups: build, lab, qemu, demo, test, bench.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

packages_of() {
    case $1 in
        # The guest kernel's tools (its source is fetched by guest-kernel-config/build.sh), and what crates link.
        build) echo bc bison flex gcc libc6-dev libelf-dev libssl-dev make patch xz-utils libcap-ng-dev libseccomp-dev pkg-config ;;
        # The first two make the initramfs of the lab. virtiofsd, which is built from source, links the two libraries.
        lab) echo busybox-static kmod libcap-ng-dev libseccomp-dev ;;
        # For a lab that cannot fetch its own QEMU.
        qemu) echo qemu-system-x86 ;;
        # Makes a root file system with a real userland.
        demo) echo mmdebstrap ;;
        # What tests call, and what they compare documents with.
        test) echo busybox-static crun golang-github-opencontainers-specs-dev iproute2 procps python3-jsonschema runc strace ;;
        # The other runtimes, and a bare microVM.
        bench) echo busybox-static crun iproute2 procps qemu-system-x86 runc ;;
        *) echo "$(basename "$0"): no group $1 (see the head of this script)" >&2 && return 1 ;;
    esac
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2; }

# QEMU's packages conflict across versions. So a machine that has one of them from backports needs this one from backports too.
# All other packages come from the machine's own release.
install_missing() {
    local package release=() rest=()
    for package in "${missing[@]}"; do
        [ "$package" = qemu-system-x86 ] || rest+=("$package")
    done
    if [ "${#rest[@]}" != "${#missing[@]}" ]; then
        if dpkg-query -W -f='${Version}\n' 'qemu-*' 2>/dev/null | grep -q '~bpo'; then
            . "$here/apt-backports.sh"
            ensure_backports || return 1
            release=(-t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports")
        fi
        apt_install "${release[@]}" qemu-system-x86 || return 1
    fi
    [ "${#rest[@]}" = 0 ] || apt_install "${rest[@]}"
}

check=no
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
missing=()
for group; do
    wanted=$(packages_of "$group")
    for package in $wanted; do
        [[ " ${missing[*]} " == *" $package "* ]] || installed "$package" || missing+=("$package")
    done
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$check" = yes ] || [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages: ${missing[*]}" >&2
    echo "  hint: as root, \`make packages\` installs all that building and testing need" >&2
    exit 1
fi
echo "installing Debian packages: ${missing[*]}" >&2
# The index is fetched only when it is needed: it is absent on a fresh image, or names versions that the mirror has dropped.
install_missing || { apt-get update -q >&2 && install_missing; }
