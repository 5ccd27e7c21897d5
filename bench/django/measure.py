#!/usr/bin/python3
"""Runs wrk against a server and adds a line of figures to a file, as JSON.

usage: measure.py --out FILE --load NAME --target NAME --server PID --store PID... -- wrk ...

CPU is user and system time of the process and all its children from /proc, those that have ended and
were waited for included; its grain is 10 ms. Memory is the largest of one sample a second.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def main():
    args, command = arguments()
    start = cpu([args.server]), cpu(args.store), machine()
    wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGTERM, lambda *_: wrk.terminate())
    peak = watch(wrk, args.server)
    result = figures(wrk.stdout.read())
    if wrk.returncode != 0 or result is None:
        sys.exit(f"measure: wrk ended with {wrk.returncode}")
    result.update(load=args.load, target=args.target, rss=peak[0], pss=peak[1])
    result["cpu"] = cpu([args.server]) - start[0]
    result["stores"] = cpu(args.store) - start[1]
    client = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = result["cpu"] + result["stores"] + client.ru_utime + client.ru_stime
    busy, total = (now - then for now, then in zip(machine(), start[2]))
    result["others"] = max(0, busy - ours) / total
    with open(args.out, "a") as out:
        print(json.dumps(result), file=out)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--server", type=int, required=True)
    parser.add_argument("--store", type=int, nargs="+", required=True)
    at = sys.argv.index("--")
    return parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]


def watch(wrk, server):
    """Samples memory until wrk ends."""
    peak = (0, 0)
    while True:
        try:
            wrk.wait(timeout=1)
            return peak
        except subprocess.TimeoutExpired:
            peak = max(peak, memory(server))


def tree(roots):
    """The processes and all below them."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := stat(path.parent.name):
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = list(roots)
    for pid in found:
        found += parents.get(pid, [])
    return found


def stat(pid):
    """What follows the name in /proc/PID/stat: state, parent and so on."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def cpu(roots):
    """Seconds of CPU so far."""
    return sum(int(field) for pid in tree(roots) for field in stat(pid)[11:15]) / TICK


def machine():
    """Seconds of all CPUs so far: spent on work, and in all."""
    ticks = [int(field) for field in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK, sum(ticks) / TICK


def memory(root):
    """Resident and proportional set size in MiB; the second counts shared pages once."""
    sums = {"Rss": 0, "Pss": 0}
    for pid in tree([root]):
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0])
    return sums["Rss"] / 1024, sums["Pss"] / 1024


def read(path):
    """A file of /proc, empty when its process has gone."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def figures(output):
    """The line that load.lua prints."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    return None


if __name__ == "__main__":
    main()
