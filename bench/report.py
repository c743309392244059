#!/usr/bin/env python3
"""Turn the figures of `make bench` into what README shows: a table between its two markers, and
the pictures in bench/plots/.

    report.py BENCH_JSON [--readme FILE] [--plots DIR]

Nothing is chosen or left out by hand: each row of the run that has a figure is a row of the table, short of its bar or
not, with the smallest and largest round beside the median, and each peer with its version, parameters and recall. The plot has the rows that compare two times. A run that was
quick, or in which a measure failed, is refused. Recall against rate, and the spread of single queries, have a picture
for each set of vectors.
"""
import argparse
import json
import math
import os
import re
import sys

from run import remark

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BEGIN, END = "<!-- figures: made by `make bench-report` -->\n", "<!-- end of figures -->\n"


def figure(values, unit):
    """The median of one side as the bench prints it."""
    if not values:
        return ""
    value = sorted(values)[len(values) // 2]
    if unit == "/s":
        return "%.3g k/s" % (1e-3 / value)
    if unit != "s":
        return "%.4g %s" % (value, unit)
    for name, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 1:
            return "%.3g %s" % (value * scale, name)
    return "%.3g ns" % (value * 1e9)


def table(run):
    yield "| measure | iqdb | the other | ratio | smallest to largest round |"
    yield "|---|---|---|---|---|"
    for row in run["measures"]:
        ratio = "%.2f" % row["median"] if row["ratios"] else ""
        spread = "%.2f - %.2f" % (row["min"], row["max"]) if row["ratios"] else ""
        said = remark(row["name"], row["note"], run["environment"]["versions"])
        name = row["name"] + (" (%s)" % said if said else "")
        yield "| %s | %s | %s | %s | %s |" % (name.replace("|", "/"), figure(row["ours"], row["unit"]),
                                             figure(row["peer"], row["unit"]), ratio, spread)


def section(run):
    about, guard = run["environment"], run["guard"]
    date = " and ".join(sorted({row["date"] for row in run["measures"]}))
    versions = ", ".join("%s %s" % item for item in about["versions"].items())
    lines = ["Measured on %s: %s (%s), Linux %s, %s, files on %s, %s. Versions: %s. Data: %s." % (
        date, about["cpu"], about["cpu_has"], about["kernel"], about["compiler"], about["files_on"], about["pinned"],
        versions, "; ".join("%s: %s" % (what.split(", ")[1], text) for what, text in sorted(run["notes"].items())
                            if what.startswith("data, "))),
             "A ratio above 1 says that iqdb is faster; where the name has `a / b` it is the rate of a in that of b. "
             "%d samples were taken, %d of them again because the machine was not quiet, and %d kept though it was not."
             % (guard["samples"], guard["redone"], guard["noisy"]), ""]
    return "\n".join(lines + list(table(run))) + "\n"


def put_into(path, text):
    with open(path, encoding="utf-8") as file:
        readme = file.read()
    assert readme.count(BEGIN) == 1 and readme.count(END) == 1, "%s has not one pair of markers" % path
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: BEGIN + "\n" + text + "\n" + END, readme,
                          flags=re.S))


def chart(folder, name, draw, size):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "iqdb"  # the same figures make the same file
    from matplotlib import pyplot
    figure_, axes = pyplot.subplots(figsize=size)
    draw(axes)
    axes.grid(axis="both" if name != "ratios" else "x", which="both", linewidth=0.3)
    figure_.tight_layout()
    os.makedirs(folder, exist_ok=True)
    figure_.savefig(os.path.join(folder, name + ".svg"), metadata={"Date": None})
    pyplot.close(figure_)


def draw_ratios(axes, rows):
    for place, row in enumerate(rows):
        axes.plot([row["min"], row["max"]], [place, place], color="#9aa7b1", linewidth=3, solid_capstyle="round")
        axes.plot(row["median"], place, "o", color="#1f5f8b", markersize=5)
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7)
    axes.set_xlabel("ratio: above 1 iqdb is faster; dot: median, bar: smallest to largest round")


def draw_curves(axes, curves):
    """Recall on a scale that gives each nine as much room as the one before."""
    for curve in curves:
        ours = curve["side"].startswith("iqdb")
        points = [(-math.log10(max(1 - recall, 1e-4)), rate) for _, recall, rate in curve["points"]]
        axes.plot(*zip(*points), marker="o", markersize=3, linewidth=2 if ours else 1,
                  label=curve["side"], linestyle="-" if ours else "--")
    marks = (0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
    axes.set_xticks([-math.log10(1 - mark) for mark in marks], ["%g" % mark for mark in marks])
    axes.set_yscale("log")
    axes.set_xlabel("recall of the nearest 10")
    axes.set_ylabel("queries a second, one thread")
    axes.set_title("%s: %d x %d" % (curves[0]["set"], curves[0]["count"], curves[0]["dim"]))
    axes.legend(fontsize=7)


def draw_histograms(axes, histograms):
    for one in histograms:
        times = [1e6 * t for t in one["times"]]
        axes.plot(times, [(i + 1) / len(times) for i in range(len(times))], linewidth=1.5,
                  label="%s, recall %.3f" % (one["side"], one["recall"]))
    axes.set_xscale("log")
    axes.set_xlabel("microseconds of a query")
    axes.set_ylabel("share of queries that take no longer")
    axes.set_title(histograms[0]["set"])
    axes.legend(fontsize=7)


def plot(run, folder):
    """Every picture the run has figures for."""
    rows = [row for row in run["measures"] if row["ratios"] and min(row["ratios"]) > 0][::-1]
    chart(folder, "ratios", lambda axes: draw_ratios(axes, rows), (9, 0.8 + 0.26 * len(rows)))
    for kind, what, draw in (("curves", "recall", draw_curves), ("histograms", "latency", draw_histograms)):
        for name in sorted({one["set"] for one in run[kind]}):
            of_set = [one for one in run[kind] if one["set"] == name]
            chart(folder, "%s-%s" % (what, name), lambda axes: draw(axes, of_set), (7, 4.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--readme", default=os.path.join(ROOT, "README.md"))
    parser.add_argument("--plots", default=os.path.join(ROOT, "bench", "plots"))
    arguments = parser.parse_args()
    with open(arguments.run) as file:
        run = json.load(file)
    if run["environment"]["quick"] or run["failed"]:
        print("report: a quick run, or one with failures (%s), is nothing to show" % " ".join(run["failed"]))
        return 1
    put_into(arguments.readme, section(run))
    plot(run, arguments.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
