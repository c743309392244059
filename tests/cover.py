#!/usr/bin/env python3
"""Line and branch coverage by folder and file, read by gcov from the objects below the directory given."""
import json
import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def read_counts(directory):
    """{file: {line: [count, [branch counts]]}}; code in headers is met in many objects and added up."""
    files = {}
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            if not name.endswith(".gcda"):
                continue
            text = subprocess.run([os.environ.get("GCOV", "gcov"), "--json-format", "--stdout",
                                   "--branch-probabilities", os.path.abspath(os.path.join(folder, name))], cwd=ROOT,
                                  check=True, stdout=subprocess.PIPE).stdout.decode()
            for unit in (json.loads(line) for line in text.split("\n") if line):
                for source in unit["files"]:
                    if not source["file"].startswith("src/"):
                        continue
                    lines = files.setdefault(source["file"], {})
                    for line in source["lines"]:
                        seen = lines.setdefault(line["line_number"], [0, []])
                        branches = [branch["count"] for branch in line["branches"]]
                        seen[0] += line["count"]
                        if len(seen[1]) == len(branches):
                            seen[1] = [a + b for a, b in zip(seen[1], branches)]
                        elif len(branches) > len(seen[1]):
                            seen[1] = branches
    return files


def share(part, whole):
    return "%6.1f %% of %5d" % (100.0 * part / whole if whole else 100.0, whole)


def main():
    files = read_counts(sys.argv[1])
    if not files:
        print("no counts below %s" % sys.argv[1])
        return 1
    rows, folders = [], {}
    for name in sorted(files):
        lines = files[name].values()
        branches = [count for line in lines for count in line[1]]
        row = [sum(line[0] > 0 for line in lines), len(lines), sum(count > 0 for count in branches), len(branches)]
        rows.append((name, row))
        for key in (os.path.dirname(name) + "/", "all"):
            folders[key] = [a + b for a, b in zip(folders.get(key, [0] * 4), row)]
    print("%-28s %-18s  %-18s" % ("", "lines", "branches"))
    for name, row in rows + sorted(folders.items(), key=lambda item: (item[0] == "all", item[0])):
        print("%-28s %-18s  %-18s" % (name, share(*row[:2]), share(*row[2:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
