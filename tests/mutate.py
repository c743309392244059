#!/usr/bin/env python3
"""A mutation run: lines of src/persist and src/codec are changed one at a time, and some quick test has to notice.

    mutate.py [--sample N] [--seed S] [--files PART] [--log FILE] [--seconds S] [--list]

Operators are textual: a comparison negated or moved by one, + and - swapped, && and ||, a constant one higher, `!`
dropped, a statement dropped. A mutant that does not compile, or compiles to the same object, does not count. Outcomes go
to the log (build/mutants.log), and a run that names a log goes on where that ends; survivors are printed with their line.
--list prints all mutants there are. Planted bugs that say what they break are in crash/test_mutants.py."""
import argparse
import glob
import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))
import test_mutants  # noqa: E402

# In the order in which they are asked: the cheap ones first.
ASKED = {
    "codec": ["codec/test_payload", "codec/test_value", "codec/test_with", "codec/test_record", "codec/test_utf8",
              "codec/test_number", "api/test_json", "api/test_values", "persist/test_meta"],
    "persist": ["persist/test_meta", "persist/test_volume", "persist/test_pack", "persist/test_recover",
                "persist/test_directory", "persist/test_wal", "persist/test_snapshot", "persist/test_checksum",
                "format/test_golden", "persist/test_faults", "db/test_ballast", "api/test_codecs", "db/test_copies",
                "crash/test_acceptance", "crash/test_hostile", "api/test_persistence", "db/test_follow",
                "db/test_repair"],
}

OPERATORS = [(re.compile(pattern), into) for pattern, into in (
    (r" == ", " != "), (r" != ", " == "), (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "),
    (r" < ", " >= "), (r" > ", " <= "), (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "),
    (r" \+= ", " -= "), (r" -= ", " += "), (r"(?<![\w=!])!(?=[\w(])", ""), (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"), (r"(?<![\w.\"])(\d+)(?![\w.\"])", None))]
# A call or an assignment by itself, on a line of its own, perhaps behind a condition.
STATEMENT = re.compile(r"^(\s+(?:if \(.*\) |else )?)((?:\(void\))?[\w\->.\[\]*]+(?:\(.*\)|(?: [|&^]?=|\+\+| \+=| -=) ?.*));$")


def code_of(line):
    """The line without strings and comments, which have spaces in their place."""
    line = re.sub(r'"(?:[^"\\]|\\.)*"', lambda found: '"' * len(found.group()), line)
    return re.sub(r"/\*.*?(\*/|$)|//.*", lambda found: " " * len(found.group()), line)


def mutants_of(name):
    """(line number, column, what, line) of each mutant of a file."""
    inside = False
    for number, line in enumerate(open(os.path.join(ROOT, name)).read().split("\n"), 1):
        code = code_of(line)
        if inside or line.startswith(("#", "IQ_STATIC_ASSERT", " *", "/*")) or "IQ_ASSERT(" in line or "IQ_NEVER" in line:
            inside = (inside or line.startswith("/*")) and "*/" not in line
            continue
        for pattern, into in OPERATORS:
            for found in pattern.finditer(code):
                new = into if into is not None else str(int(found.group()) + 1)
                yield (number, found.start(), "%s -> %s" % (found.group().strip(), new.strip() or "nothing"),
                       line[:found.start()] + new + line[found.end():])
        found = STATEMENT.match(code)
        if found and not found.group(2).startswith(("return", "const ")):
            yield number, found.start(2), "dropped", line[:found.start(2)] + ";" + line[found.end(2) + 1:]


class Run:
    def __init__(self, folder, layers):
        test_mutants.PROGRAMS = [program for layer in layers for program in ASKED[layer]]
        test_mutants.PROGRAMS = list(dict.fromkeys(test_mutants.PROGRAMS))
        test_mutants.TIMEOUT = 120
        self.shop = test_mutants.Workshop(folder)
        for program in test_mutants.PROGRAMS:  # an unchanged source has no complaints, or nothing below means anything
            trouble = self.shop.ask(program)
            if trouble:
                raise RuntimeError("%s complains without a mutant: %s" % (program, trouble))

    def fingerprint(self, name):
        with open(self.shop.objects[name], "rb") as file:
            return hashlib.sha256(file.read()).digest()

    def judge(self, name, number, line):
        """What became of the mutant: invalid, equal, killed by ..., or survived."""
        path = os.path.join(self.shop.folder, name)
        with open(path) as file:
            text = file.read()
        before = self.fingerprint(name)
        lines = text.split("\n")
        lines[number - 1] = line
        try:
            with open(path, "w") as file:
                file.write("\n".join(lines))
            try:
                self.shop.compile([name])
            except RuntimeError:
                return "invalid"
            if self.fingerprint(name) == before:
                return "equal"
            for program in ASKED[name.split("/")[1]]:
                trouble = self.shop.ask(program)
                if trouble:
                    return "killed by %s: %s" % (program, trouble)
            return "survived"
        finally:
            with open(path, "w") as file:
                file.write(text)
            self.shop.compile([name])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", default="")
    parser.add_argument("--log", default=os.path.join(ROOT, "build", "mutants.log"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after so long")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    names = [os.path.relpath(path, ROOT) for layer in sorted(ASKED)
             for path in sorted(glob.glob(os.path.join(ROOT, "src", layer, "*.c"))) if arguments.files in path]
    mutants = [(name,) + mutant for name in names for mutant in mutants_of(name)]
    if arguments.list:
        for mutant in mutants:
            print("%s:%d:%d %s\n%s" % mutant)
        return 0
    random.Random(arguments.seed).shuffle(mutants)
    chosen = mutants[:arguments.sample]
    done = {}
    if os.path.exists(arguments.log):
        for entry in open(arguments.log).read().split("\n"):
            key, _, outcome = entry.partition("\t")
            done[key] = outcome
    os.makedirs(os.path.dirname(os.path.abspath(arguments.log)), exist_ok=True)
    print("%d of %d mutants, seed %d" % (len(chosen), len(mutants), arguments.seed))
    folder = tempfile.mkdtemp(prefix="iqdb-mutants-")
    began, run = time.monotonic(), None
    try:
        for name, number, column, what, line in chosen:
            key = "%s %s %s" % (name, what, line.strip())  # which does not move with other lines
            if key not in done and time.monotonic() - began < arguments.seconds:
                run = run or Run(folder, sorted({one[0].split("/")[1] for one in chosen}))
                done[key] = run.judge(name, number, line)
                with open(arguments.log, "a") as file:
                    file.write("%s\t%s\n" % (key, done[key]))
            outcome = done.get(key, "not tried")
            print("%s:%d:%d %s: %s" % (name, number, column, what, outcome))
            if outcome == "survived":
                print("    " + line.strip())
            sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcomes = [done.get("%s %s %s" % (name, what, line.strip()), "") for name, _, _, what, line in chosen]
    killed = sum(outcome.startswith("killed") for outcome in outcomes)
    survived = outcomes.count("survived")
    print("%d killed, %d survived, %d equal or invalid, %d not tried: %.1f %%" % (
        killed, survived, outcomes.count("equal") + outcomes.count("invalid"), outcomes.count(""),
        100.0 * killed / max(1, killed + survived)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
