#!/bin/bash
# record-calls.sh COMMAND...: runs a command and prints which system calls the confined threads of bulkhead-vmm made
# meanwhile, in the form of vmm/src/confine/recorded.txt. The command's own output goes to stderr. Needs root and tracefs, and nothing of
# the product: the kernel's tracepoint tells the threads apart by their names. `make calls` records the end-to-end tests.
set -euo pipefail

# Where libc's names of the numbers come from.
NUMBERS=/usr/include/x86_64-linux-gnu/asm/unistd_64.h
tracing=/sys/kernel/tracing/instances/bulkhead-calls-$$
end="bulkhead-calls-$$ end"

mkdir "$tracing"
trap 'rmdir "$tracing"' EXIT
echo 16384 >"$tracing/buffer_size_kb"
threads='comm ~ "vcpu*" || comm ~ "fs?" || comm ~ "lock*" || comm ~ "disk?" || comm == "devices" || comm == "bulkhead-vmm"'
echo "$threads" >"$tracing/events/raw_syscalls/sys_enter/filter"

# "     vcpu0-1234    [000] ..... 12.345678: sys_enter: NR 16 (c, ae80, 0, 0, 0, 0)"
# A thread is confined from its first seccomp(2) (317) on; a denied call ends the process before the tracepoint.
# "interactive": mawk hands on what it has read instead of waiting for more.
awk -W interactive -v numbers="$NUMBERS" -v end="$end" '
    BEGIN {
        while ((getline line <numbers) > 0)
            if (split(line, word, " ") == 3 && sub(/^__NR_/, "", word[2])) name[word[3]] = word[2]
        # The arguments that tell one call from another, counted from 1.
        telling["ioctl"] = 2; telling["fcntl"] = 2; telling["prctl"] = 1; telling["tgkill"] = 3
        telling["mmap"] = "3 4"; telling["mprotect"] = 3; telling["mremap"] = 4; telling["madvise"] = 3
    }
    index($0, end) { exit }
    /LOST/ { print "record-calls: " $0 >"/dev/stderr" }
    {
        for (i = 1; i <= NF && $i != "NR"; i++);
        if (i > NF) next
        thread = $1; number = $(i + 1)
        if (number == 317) { confined[thread] = 1; next }
        if (!(thread in confined)) next
        kind = thread
        kind = kind ~ /^vcpu/ ? "vcpu" : kind ~ /^fs/ ? "files" : kind ~ /^lock[0-9]/ ? "locks" : kind ~ /^disk[0-9]/ ? "disks" : kind ~ /^devices/ ? "devices" : "control"
        line = kind " " (number in name ? name[number] : number)
        shown = split(telling[name[number]], places, " ")
        for (argument = 1; shown && argument <= places[shown]; argument++) {
            value = "-"
            for (s = 1; s <= shown; s++)
                if (places[s] == argument) { value = $(i + 1 + argument); gsub(/[(),]/, "", value) }
            line = line " " value
        }
        seen[line] = 1
        if (number == 60 || number == 231) delete confined[thread]
    }
    END { for (line in seen) print line }
' <"$tracing/trace_pipe" | LC_ALL=C sort &
echo 1 >"$tracing/events/raw_syscalls/sys_enter/enable"

status=0
"$@" >&2 || status=$?
echo 0 >"$tracing/events/raw_syscalls/sys_enter/enable"
echo "$end" >"$tracing/trace_marker"
wait
exit "$status"
