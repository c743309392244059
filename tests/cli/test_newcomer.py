#!/usr/bin/env python3
"""Somebody who has just cloned the repository searches vectors of their own in three commands: the ones README shows,
as they stand there, with an empty home, a bare environment and a file of numpy that numpy did not write."""
import os
import re
import shutil
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, main, must  # noqa: E402

ROWS, DIM = 200, 5


def npy(rows):
    """Version 1.0 of the format: magic, version, the length of a header of text, the header, the elements."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (len(rows), len(rows[0]))
    header += " " * (-(len(header) + 11) % 64) + "\n"
    body = b"".join(struct.pack("<%df" % len(row), *row) for row in rows)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def commands():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        block = re.search(r"^```sh\n(make iqdb\n.*?)^```$", file.read(), re.M | re.S)
    assert block, "README.md has no block that begins with `make iqdb`"
    lines = block.group(1).strip().split("\n")
    assert len(lines) <= 3, lines
    return lines


def three_commands():
    if shutil.which("git") is None or not os.path.exists(os.path.join(ROOT, ".git")):
        raise Skip("no git, or not a checkout")
    rows = [[(37 * i + 11 * j * j + i * i * j) % 97 / 97.0 - 0.5 for j in range(DIM)] for i in range(ROWS)]
    lengths = [sum(x * x for x in row) ** 0.5 for row in rows]
    near = sorted(range(ROWS), key=lambda i: 1 - sum(x * y for x, y in zip(rows[0], rows[i])) / lengths[0] / lengths[i])
    with tempfile.TemporaryDirectory() as home:
        bare = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=" + home]
        clone = os.path.join(home, "clone")
        must(bare + ["git", "-c", "safe.directory=*", "clone", "-q", ROOT, clone])
        # What is not committed yet is tried too.
        for path in ("iqdb.h", "Makefile", "tools/iqdb.c", "tools/app.h", "tools/rows.h"):
            shutil.copy(os.path.join(ROOT, path), os.path.join(clone, path))
        with open(os.path.join(clone, "vectors.npy"), "wb") as file:
            file.write(npy(rows))
        output = [must(bare + ["/bin/sh", "-c", command], cwd=clone) for command in commands()][-1]
        found = [int(line.split()[0]) for line in output.strip().split("\n")]
        assert found[0] == 0 and len(found) == 5 and set(found) == set(near[:5]), (found, near[:8])


if __name__ == "__main__":
    main("cli/newcomer", [three_commands])
