#!/usr/bin/python3
"""Prints the table of what measure.py wrote: each turn, the medians, and Gantry's in parts of Django's.

usage: report.py FILE
"""

import json
import statistics
import sys

COLUMNS = {  # heading: (figure of one turn, format)
    "requests/s": (lambda r: r["requests"] / seconds(r), "{:.0f}"),
    "p50 ms": (lambda r: r["p50"] / 1000, "{:.1f}"),
    "p95 ms": (lambda r: r["p95"] / 1000, "{:.1f}"),
    "p99 ms": (lambda r: r["p99"] / 1000, "{:.1f}"),
    "errors": (lambda r: r["refused"] + r["socket"] + r["late"], "{:.0f}"),
    "CPU us/req": (lambda r: r["cpu"] / r["requests"] * 1e6, "{:.1f}"),
    "stores us/req": (lambda r: r["stores"] / r["requests"] * 1e6, "{:.1f}"),
    "RSS MiB": (lambda r: r["rss"], "{:.0f}"),
    "PSS MiB": (lambda r: r["pss"], "{:.0f}"),
    "others %": (lambda r: r["others"] * 100, "{:.0f}"),
}


def main():
    with open(sys.argv[1]) as file:
        results = [json.loads(line) for line in file]
    for load in dict.fromkeys(r["load"] for r in results):
        table(load, [r for r in results if r["load"] == load])


def table(load, results):
    """One load: turns in the order they ran."""
    print(f"\n{load}")
    row("", COLUMNS)
    counts = {}
    for r in results:
        counts[r["target"]] = counts.get(r["target"], 0) + 1
        row(f"{r['target']} {counts[r['target']]}", [form.format(of(r)) for of, form in COLUMNS.values()])
    medians = {name: middle(results, name) for name in counts}
    for name, values in medians.items():
        row(f"{name} median", [form.format(v) for v, (_, form) in zip(values, COLUMNS.values())])
    for name in medians.keys() - {"gantry"} if "gantry" in medians else ():
        row(f"gantry : {name}", [ratio(a, b) for a, b in zip(medians["gantry"], medians[name])][:-1])


def middle(results, target):
    mine = [r for r in results if r["target"] == target]
    return [statistics.median(of(r) for r in mine) for of, _ in COLUMNS.values()]


def ratio(a, b):
    return "-" if b == 0 else f"{a / b:.3g}"


def seconds(r):
    return r["duration"] / 1e6


def row(name, cells):
    print(f"{name:<24}" + "".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
