#!/bin/sh
# A CNI plugin for tests, by two names: "loopback" sets lo up; "e2e-wire" gives a pod eth0, joined to the host by a veth pair.
# The name of the network in its configuration is the first three numbers of its addresses.
set -e
prefix=$(sed -n 's/.*"name": *"\([0-9.]*\)".*/\1/p')
enter() { nsenter --net="$CNI_NETNS" ip "$@"; }
outside=e2e$(printf %.11s "$CNI_CONTAINERID")
case "$CNI_COMMAND,${0##*/}" in
ADD,loopback)
    enter link set lo up
    echo '{"cniVersion": "0.3.1", "interfaces": [{"name": "lo", "sandbox": "'"$CNI_NETNS"'"}]}'
    ;;
ADD,*)
    # Directories are made by one caller only.
    host=2
    until mkdir "$0.$prefix.$host"; do host=$((host + 1)); done
    ip link add "$outside" type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS"
    ip addr add "$prefix.1" peer "$prefix.$host" dev "$outside"
    ip link set "$outside" up
    enter addr add "$prefix.$host/24" dev "$CNI_IFNAME"
    enter link set "$CNI_IFNAME" up
    enter route add default via "$prefix.1"
    echo '{"cniVersion": "0.3.1",
        "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],
        "ips": [{"version": "4", "interface": 0, "address": "'"$prefix.$host/24"'", "gateway": "'"$prefix.1"'"}]}'
    ;;
DEL,loopback) ;;
DEL,*)
    ip link del "$outside" || :
    ;;
VERSION,*)
    echo '{"cniVersion": "0.3.1", "supportedVersions": ["0.3.1"]}'
    ;;
esac
