# Makes Debian's backports suite available to apt. Source it (`. deploy/apt-backports.sh`) from bash or dash.
#
# The mirror is the one that this machine uses for its own release. apt says its address, so both formats of sources files work, and no
# host name is written here. It is safe to call again: when backports is configured already, nothing changes.

# Usage: ensure_backports
# Returns 0 when packages of <codename>-backports can be installed, 1 with a message on stderr otherwise. Needs root.
ensure_backports() {
    _bp_codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    if [ -z "$_bp_codename" ]; then
        echo "apt-backports: /etc/os-release names no VERSION_CODENAME" >&2
        return 1
    fi
    _bp_suite="$_bp_codename-backports"

    if [ -z "$(_bp_configured "$_bp_suite")" ]; then
        _bp_base=$(_bp_configured "$_bp_codename" | head -n 1)
        _bp_uri=${_bp_base%%|*}
        _bp_key=$(_bp_signed_by "${_bp_base#*|}")
        if [ -z "$_bp_uri" ]; then
            echo "apt-backports: no configured source serves $_bp_codename main, so there is no mirror to take" >&2
            return 1
        fi
        # Written beside its final name and renamed: apt ignores the suffix, and never sees half a file.
        _bp_file=/etc/apt/sources.list.d/bulkhead-backports.sources
        {
            echo "Types: deb"
            echo "URIs: $_bp_uri"
            echo "Suites: $_bp_suite"
            echo "Components: main"
            [ -z "$_bp_key" ] || echo "Signed-By: $_bp_key"
        } >"$_bp_file.new" && mv "$_bp_file.new" "$_bp_file" || return 1
        echo "apt-backports: added $_bp_suite in $_bp_file" >&2
    fi

    # (No `grep -q`: it closes the pipe early, which fails under the caller's pipefail.)
    # A configured suite whose index was never fetched (a fresh image) offers nothing yet.
    if ! apt-cache policy | grep "n=$_bp_suite" >/dev/null; then
        apt-get update -qq >&2 || return 1
    fi
    if ! apt-cache policy | grep "n=$_bp_suite" >/dev/null; then
        echo "apt-backports: the mirror does not carry $_bp_suite" >&2
        return 1
    fi
}

# Prints "address|sources file:line" for each configured source of suite $1, component main.
_bp_configured() {
    apt-get indextargets 'Created-By: Packages' --format '$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)' |
        sed -n "s/^$1|main|//p"
}

# Prints the keyring that the sources file in "file:line" $1 names by path, in either format; nothing when it names
# none, which leaves the choice to apt's trusted keys.
_bp_signed_by() {
    sed -n -e 's/^[Ss]igned-[Bb]y:[[:space:]]*\(\/[^[:space:]]*\).*/\1/p' \
        -e 's/^deb[[:space:]].*signed-by=\(\/[^],[:space:]]*\).*/\1/p' "${1%:*}" | head -n 1
}
