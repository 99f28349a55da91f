#!/bin/bash
# Builds the guest kernel: the fragments beside this script over an otherwise empty configuration -> vmlinux.
#
#   build.sh            prints the path of the finished vmlinux on stdout; progress and errors go to stderr
#   build.sh --update   same, but first asks apt for the newest linux-source-6.12 instead of the one last used
#   KERNEL_SRC=PATH     a source directory or tarball of Linux 6.12 or later instead of Debian's package
#
# The result lives in ${XDG_CACHE_HOME:-~/.cache}/bulkhead/kernel/<hash>/ (vmlinux, config, source). The hash covers the
# build steps, the fragments and the identity of the source, so a second call with nothing changed only prints the path.
set -euo pipefail
shopt -s inherit_errexit

# Inside `make`, its flags and job server would leak into the kernel's own make.
unset MAKEFLAGS MFLAGS MAKELEVEL
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/kernel
package=linux-source-6.12
# Lines a 6.12 build prints. It only scales the progress display.
expected_steps=2000

say() { echo "guest kernel: $*" >&2; }
die() { say "error: $*"; exit 1; }

# --- which source -------------------------------------------------------------------------------------------------

# The version of Debian's package to build: the one last built (so that an index update in the middle of the day does
# not cost a rebuild), else the one installed, else the newest apt offers.
debian_version() {
    local version
    if [ "$update" = no ] && [ -s "$cache/debian-version" ]; then
        cat "$cache/debian-version"
        return
    fi
    version=$(dpkg-query -W -f='${Version}' "$package" 2>/dev/null || true)
    if [ -n "$version" ] && [ "$update" = no ]; then
        echo "$version"
        return
    fi
    if [ "$update" = yes ] && [ "$(id -u)" = 0 ]; then
        apt-get update -qq >&2
    fi
    version=$(apt_candidate)
    if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then
        . "$here/../deploy/apt-backports.sh"
        ensure_backports >&2
        version=$(apt_candidate)
    fi
    [ -n "$version" ] || die "apt offers no $package; add Debian's backports suite (as root this script does it), or" \
        "point KERNEL_SRC at a Linux 6.12+ source tree"
    echo "$version"
}

apt_candidate() { apt-cache policy "$package" | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'; }

# One line that changes whenever the source does.
source_identity() {
    local version
    if [ -z "${KERNEL_SRC:-}" ]; then
        version=$(debian_version)
        echo "debian $package $version"
    elif [ -d "$KERNEL_SRC" ]; then
        echo "tree $(cd "$KERNEL_SRC" &&
            find . -name .git -prune -o -type f -printf '%p %s %T@\n' | sort | sha256sum | cut -c1-64)"
    elif [ -f "$KERNEL_SRC" ]; then
        echo "tarball $(sha256sum <"$KERNEL_SRC" | cut -c1-64)"
    else
        die "KERNEL_SRC=$KERNEL_SRC is neither a directory nor a file"
    fi
}

# Puts the source of identity $1 in place and prints its directory.
fetch_source() {
    local tarball version
    if [ -d "${KERNEL_SRC:-}" ]; then
        cp -a --reflink=auto "$KERNEL_SRC" "$work/src"
        echo "$work/src"
        return
    fi
    tarball=${KERNEL_SRC:-}
    if [ -z "$tarball" ]; then
        version=${1##* }
        tarball=/usr/src/$package.tar.xz
        if [ "$(dpkg-query -W -f='${Version}' "$package" 2>/dev/null || true)" != "$version" ] || [ ! -f "$tarball" ]; then
            say "downloading $package $version (about 150 MB)"
            (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package=$version" >&2) ||
                die "download of $package=$version failed; \`build.sh --update\` takes the version apt offers today"
            (cd "$work" && dpkg-deb -x ./"$package"_*.deb deb && rm -f ./*.deb)
            tarball=$work/deb/usr/src/$package.tar.xz
        fi
    fi
    say "unpacking $(basename "$tarball")"
    mkdir "$work/src"
    tar -xf "$tarball" -C "$work/src" --strip-components=1 || die "$tarball does not unpack"
    rm -rf "$work/deb"
    echo "$work/src"
}

# Ours, over source $1. Each says what it is for.
change_source() {
    local change
    for change in "$here"/patches/*.patch; do
        patch -d "$1" -p1 --silent --forward --fuzz=0 <"$change" >&2 || die "$(basename "$change") does not fit this source"
    done
}

check_version() {
    local version major rest minor
    version=$(make -s -C "$1" kernelversion 2>/dev/null) || die "$1 is not a Linux source tree"
    major=${version%%.*} rest=${version#*.} minor=${rest%%.*}
    minor=${minor%%-*}
    [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 12 ]; } ||
        die "the source is Linux $version, and 6.12 or later is needed"
    echo "$version"
}

# --- configuration ------------------------------------------------------------------------------------------------

# All requests of all fragments, one per line: `CONFIG_X=value` or `# CONFIG_X is not set`.
requests() { cat "$here"/*.config | grep -E '^(CONFIG_[A-Za-z0-9_]+=|# CONFIG_[A-Za-z0-9_]+ is not set$)'; }

symbol_of() { sed -E 's/^# (CONFIG_[A-Za-z0-9_]+) is not set$/\1/; s/=.*//'; }

# Writes .config into build directory $2 from source $1, then fails naming each request that Kconfig did not honour.
configure() {
    local twice lost
    twice=$(requests | symbol_of | sort | uniq -d)
    [ -z "$twice" ] || die "asked for more than once in the fragments:" $twice
    requests >"$work/requests"
    # allnoconfig with a list of exceptions is how the kernel itself makes tinyconfig: what nobody asks for stays off.
    make -s -C "$1" O="$2" KCONFIG_ALLCONFIG="$work/requests" allnoconfig >&2
    lost=$(unmet "$2/.config" <"$work/requests")
    [ -z "$lost" ] || die "these options did not survive (an unmet dependency, or renamed in this version):
$lost"
}

# Filters the requests on stdin down to those that the finished configuration $1 does not carry.
unmet() {
    awk -v final="$1" '
        BEGIN { while ((getline line < final) > 0) if (line ~ /^CONFIG_/) { split(line, p, "="); has[p[1]] = line } }
        /^#/ { if ($2 in has) print "  wanted off, got " has[$2]; next }
        {
            split($0, p, "=")
            got = p[1] in has ? has[p[1]] : "nothing"
            if (got != $0) print "  wanted " $0 ", got " got
        }'
}

# --- compilation --------------------------------------------------------------------------------------------------

# Copies make's output to log $1 and shows how far it is: in place on a terminal, else a line every 15 seconds.
# (Not awk: Debian's reads pipes in blocks, and the display would stand still for minutes.)
progress() {
    local line steps=0 percent started=$SECONDS shown=$SECONDS every=15 before='' after='\n'
    if [ -t 2 ]; then
        every=1 before='\r' after=' '
    fi
    while IFS= read -r line; do
        printf '%s\n' "$line"
        steps=$((steps + 1))
        if [ $((SECONDS - shown)) -ge "$every" ]; then
            shown=$SECONDS
            percent=$((steps * 100 / expected_steps))
            # The estimate must not claim to be done.
            [ "$percent" -le 99 ] || percent=99
            printf "${before}guest kernel: compiling, %d%% (%d steps, %d:%02d)${after}" "$percent" "$steps" \
                $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) >&2
        fi
    done >"$1"
    [ -z "$before" ] || printf '\r\033[K' >&2
}

compile() {
    local src=$1 out=$2 log=$cache/last-build.log
    # Fixed names and the age of the source: the same source and compiler give the same bytes anywhere.
    if ! make -C "$src" O="$out" -j"$(nproc)" vmlinux \
        KBUILD_BUILD_USER=bulkhead KBUILD_BUILD_HOST=bulkhead KBUILD_BUILD_VERSION=1 \
        KBUILD_BUILD_TIMESTAMP="$(date -u -r "$src/Makefile")" </dev/null 2>&1 | progress "$log"; then
        grep -n -m 20 -iE 'error|not found|\*\*\*' "$log" >&2 || tail -n 20 "$log" >&2
        die "compilation failed; the whole log is $log"
    fi
    strip --strip-all -o "$work/result/vmlinux" "$out/vmlinux"
}

# --- main ---------------------------------------------------------------------------------------------------------

update=no
case "${1:-}" in
    "") ;;
    --update) update=yes ;;
    *) die "unknown argument $1 (see the head of $0)" ;;
esac

mkdir -p "$cache"
identity=$(source_identity)
# What the bytes depend on: the steps that make them, the source and the fragments. A reworded message costs no rebuild.
hash=$({ declare -f requests change_source configure compile; echo "$identity"
    (cd "$here" && sha256sum -- *.config patches/*.patch); } |
    sha256sum | cut -c1-16)
final=$cache/$hash

if [ ! -f "$final/vmlinux" ]; then
    # One build at a time: a second caller waits here and may find its work done.
    exec 9>"$cache/lock"
    flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
fi

if [ ! -f "$final/vmlinux" ]; then
    # Under the lock every build tree is one that a killed build left behind.
    rm -rf "$cache"/build.*
    for tool in gcc make flex bison bc patch strip; do
        command -v "$tool" >/dev/null || die "$tool is missing; run deploy/install-packages.sh build as root"
    done
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$work/out" "$work/result"

    src=$(fetch_source "$identity")
    version=$(check_version "$src")
    change_source "$src"
    configure "$src" "$work/out"
    say "compiling Linux $version with $(grep -c '=y$' "$work/out/.config") options on, $(nproc) jobs (7 minutes on 2 cores)"
    started=$SECONDS
    compile "$src" "$work/out"
    cp "$work/out/.config" "$work/result/config"
    echo "$identity, Linux $version" >"$work/result/source"
    # Seen whole or not at all.
    rm -rf "$final"
    mv -T "$work/result" "$final"
    say "done in $((SECONDS - started)) s, $(($(stat -c %s "$final/vmlinux") / 1024)) KiB"
fi
[ -n "${KERNEL_SRC:-}" ] || echo "${identity##* }" >"$cache/debian-version"
echo "$final/vmlinux"
