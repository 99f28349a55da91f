#!/bin/sh
# Installs Bulkhead on a node of Kubernetes, or takes it away. Calling it again changes nothing.
#
#   node.sh install [OPTION]...     asks `doctor` first: on a machine that cannot run microVMs nothing is changed
#   node.sh uninstall [OPTION]...   refuses while microVMs run
#
#   --from DIR         what `make stage` or `make install` made: bin, libexec, share (default: ../target/stage beside this script)
#   --prefix DIR       where it goes (default: /usr/local)
#   --host DIR         the root of the node, when this runs in a container (default: /)
#   --config FILE      containerd's configuration on the node (default: /etc/containerd/config.toml)
#   --restart          restarts containerd when its configuration has changed. Pods go on.
#   --stay             does not end after it is done, as a pod of a DaemonSet must not
set -eu

here=$(cd "$(dirname "$0")" && pwd)
from=$here/../target/stage prefix=/usr/local host= config=/etc/containerd/config.toml restart=no stay=no
begin='# bulkhead: begin (deploy/node.sh; it is replaced as a whole)' end='# bulkhead: end'
files='bin/bulkhead libexec/bulkhead/bulkhead-vmm libexec/bulkhead/bulkhead-probe share/bulkhead/vmlinux share/bulkhead/initramfs.img'

fail() { echo "node.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# Runs a program of the node.
on_node() {
    if [ -n "$host" ]; then chroot "$host" "$@"; else "$@"; fi
}

# The configuration without what this script wrote. The empty line before it goes as well.
without_block() {
    awk -v begin="$begin" -v end="$end" '
        $0 == begin { skip = 1; held = ""; next }
        skip && $0 == end { skip = 0; next }
        skip { next }
        { printf "%s", held; held = ""; if ($0 == "") held = "\n"; else print }
        END { printf "%s", held }' "$1"
}

# Which tables containerd reads is said by the version of the file, and where there is none by the version of the program.
version_of() {
    version=$(sed -n 's/^[[:space:]]*version[[:space:]]*=[[:space:]]*\([0-9]*\).*/\1/p' | head -n 1)
    if [ -z "$version" ]; then
        case $(on_node containerd --version 2>/dev/null) in
            *' v2.'* | *' 2.'*) version=3 ;;
            *) version=2 ;;
        esac
    fi
    [ -f "$here/containerd/bulkhead-$version.toml" ] || fail "$config: version $version is not known; see docs/kubernetes.md"
    echo "$version"
}

# Writes a file anew only when it differs, in one step: a program that runs keeps the old one.
replace() {
    if [ -f "$2" ] && cmp -s "$1" "$2"; then rm -f "$1"; return 1; fi
    mv -f "$1" "$2"
}

changed_config() {
    if [ "$restart" = no ]; then
        echo "restart containerd for $config to count: systemctl restart containerd"
    elif [ -n "$host" ]; then
        nsenter --target 1 --mount -- systemctl restart containerd
    else
        systemctl restart containerd
    fi
}

install_files() {
    for file in $files; do
        [ -f "$from/$file" ] || fail "$from/$file is not there: run make stage, or give --from"
        mkdir -p "$host$prefix/$(dirname "$file")"
        temporary=$host$prefix/$file.new
        cp "$from/$file" "$temporary"
        replace "$temporary" "$host$prefix/$file" || true
    done
    ln -sfn bulkhead "$host$prefix/bin/containerd-shim-bulkhead-v2"
}

# The configuration as it is to be, on standard output.
new_config() {
    file=$host$config
    old=
    [ ! -e "$file" ] || old=$(without_block "$file"; echo .)
    old=${old%.}
    version=$(printf %s "$old" | version_of)
    if printf %s "$old" | grep -q 'containerd\.runtimes\.bulkhead\]'; then
        fail "$config has a table for bulkhead already, which this script did not write"
    fi
    printf '%s\n%s\n' "${old:-version = $version
}" "$begin"
    cat "$here/containerd/bulkhead-$version.toml"
    # The first table of a runtime takes the place of containerd's own, and the CRI plugin does not load without its default runtime.
    if ! printf %s "$old" | grep -v '^[[:space:]]*#' | grep -q 'containerd\.runtimes\.'; then
        sed '/^#/d; s/runtimes\.bulkhead]/runtimes.runc]/; s/io\.containerd\.bulkhead\.v2/io.containerd.runc.v2/' \
            "$here/containerd/bulkhead-$version.toml"
    fi
    echo "$end"
}

install() {
    [ "$(id -u)" = 0 ] || fail "only root can install"
    # Before anything is touched, by what is to be installed.
    checked=$from
    if [ -n "$host" ]; then
        checked=$(mktemp -d "$host/tmp/bulkhead.XXXXXX")
        cp -r "$from/." "$checked"
    fi
    if ! on_node "${checked#"$host"}/bin/bulkhead" doctor >&2; then
        [ -z "$host" ] || rm -rf "$checked"
        fail "this machine cannot run microVMs yet; nothing was changed"
    fi
    [ -z "$host" ] || rm -rf "$checked"
    # Before anything is touched as well.
    wanted=$(new_config) || exit 1
    install_files
    mkdir -p "$(dirname "$host$config")"
    printf '%s\n' "$wanted" >"$host$config.new"
    if replace "$host$config.new" "$host$config"; then changed_config; fi
    echo "Bulkhead is installed below $prefix. Tell Kubernetes of it: kubectl apply -f $here/kubernetes/runtimeclass.yaml"
}

uninstall() {
    [ "$(id -u)" = 0 ] || fail "only root can uninstall"
    for exe in /proc/[0-9]*/exe; do
        # Of one that was installed over, the kernel says " (deleted)" behind the path.
        case $(readlink "$exe") in
            "$prefix/libexec/bulkhead/bulkhead-vmm" | "$prefix/libexec/bulkhead/bulkhead-vmm (deleted)")
                fail "microVMs run: remove their pods first"
                ;;
        esac
    done
    if [ -f "$host$config" ]; then
        without_block "$host$config" >"$host$config.new"
        if replace "$host$config.new" "$host$config"; then changed_config; fi
    fi
    for file in $files bin/containerd-shim-bulkhead-v2; do rm -f "$host$prefix/$file"; done
    for dir in libexec share; do rmdir "$host$prefix/$dir/bulkhead" 2>/dev/null || true; done
}

[ $# -gt 0 ] || usage
action=$1
shift
while [ $# -gt 0 ]; do
    case $1 in
        --restart) restart=yes ;;
        --stay) stay=yes ;;
        --from | --prefix | --host | --config)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in
                --from) from=$2 ;;
                --prefix) prefix=$2 ;;
                --host) host=${2%/} ;;
                --config) config=$2 ;;
            esac
            shift
            ;;
        *) usage ;;
    esac
    shift
done
case $action in
    install) install ;;
    uninstall) uninstall ;;
    *) usage ;;
esac
if [ "$stay" = yes ]; then exec sleep infinity; fi
