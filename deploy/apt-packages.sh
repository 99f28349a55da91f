# What the install scripts beside this file share: which packages are missing, and installing them. To be sourced by
# bash, with `packages` set to the names that are wanted. Asks dpkg first, so that with everything in place it neither
# contacts a mirror nor needs root.

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Sets `missing`. Ends the script when there is nothing to do, or no right to do it.
find_missing() {
    local package
    missing=()
    for package in "${packages[@]}"; do
        installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || exit 0
    if [ "$(id -u)" != 0 ]; then
        echo "$(basename "$0"): missing ${missing[*]}; run this as root" >&2
        exit 1
    fi
    echo "$(basename "$0"): installing ${missing[*]}" >&2
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2; }

# Runs a command that calls apt_install. The index may be absent (a fresh image) or name versions the mirror has
# dropped: it is fetched only then.
with_fresh_index() { "$@" || { apt-get update -q >&2 && "$@"; }; }
