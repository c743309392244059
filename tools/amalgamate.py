#!/usr/bin/env python3
"""Make iqdb.h out of src/.

    amalgamate.py            write iqdb.h
    amalgamate.py --check    compare iqdb.h with what src/ gives; exit 1 and say how to fix it when they differ
    amalgamate.py --line     write build/line/iqdb.h, a developer's copy whose #line directives lead back to src/

The header reads bottom-up like a book. A chapter is x.h followed by x.c; a .c without a header of its name is a
chapter of its own. Chapters come in topological order of their includes, lowest layer first, names sorted within a
layer. So the result compiles in one translation unit only when the layering holds, and that is checked here: every
broken rule is reported with its reason and its cure. Quoted includes and include guards vanish (each file stands
exactly once); system includes stay where they are, repeats too, because leaving one out is unsafe across #if. The
manual, api.h, is taken word for word; behind it comments on lines of their own and empty lines stay in src/, where the
implementation is read and changed, and so do prototypes of functions that are defined before they are used. Nothing in the output depends on the date, the machine, the path or the commit.
"""
import argparse
import hashlib
import heapq
import os
import re
import sys
import textwrap

LAYERS = {"base": 0, "sys": 1, "codec": 2, "kernel": 2, "store": 3, "persist": 3, "index": 4, "db": 5}
API = "api.h"
PROLOGUE = "base/feature.h"  # feature macros: they must stand before the first system include of a unit
LICENCE = "UNLICENSE"
# Chapters that only tests use: part of the modules, not of iqdb.h.
LEFT_OUT = {"sys/memory"}
API_SYSTEM_HEADERS = {"stddef.h", "stdint.h", "stdbool.h"}
# Macros that speak to system headers keep their names; they are the only ones that may outlive the header.
SYSTEM_SWITCHES = {"_GNU_SOURCE", "_DARWIN_C_SOURCE", "_FILE_OFFSET_BITS", "WIN32_LEAN_AND_MEAN", "NOMINMAX",
                   "_CRT_SECURE_NO_WARNINGS"}

# Names of the C library that src/base/config.h gives a meaning of its own under this switch.
LIBRARY_SWITCH, LIBRARY = "IQDB_NO_LIBC", {"memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "strcmp",
                                           "strncmp", "strchr"}

TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]*(?:"([^"]*)"|<([^>]*)>)')
LONE_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]*"[^"]*"[ \t]*(?:/\*((?!\*/).)*\*/[ \t]*|//.*)?$')
DEFINE = re.compile(r'[ \t]*#[ \t]*define[ \t]+(\w+)')
UNDEF = re.compile(r'[ \t]*#[ \t]*undef[ \t]+(\w+)')
OPENS, CLOSES = re.compile(r"[ \t]*#[ \t]*if"), re.compile(r"[ \t]*#[ \t]*endif")
# A function of a module, which has one of these marks: at the beginning of a line, its name in group 1.
FUNCTION = r"^(?:IQ_FN|IQ_HOT|IQ_SPREAD) [^;{}#]*?\b(iq_\w+)\([^;{}]*?\)"
PROTOTYPE = re.compile(FUNCTION + r";(?:[ \t]*/\*[\s\S]*?\*/)?[^\n]*\n", re.M)
DEFINITION = re.compile(FUNCTION + r"\s*\{", re.M)
GUARD = re.compile(r'\s*#[ \t]*ifndef[ \t]+(\w+)[ \t]*\n\s*#[ \t]*define[ \t]+(\w+)[ \t]*\n')


class Broken(Exception):
    """One or more rules of the house are broken; each message says what, why and how to fix it."""


def message(what, why, fix):
    return "error: %s\n  why: %s\n  fix: %s" % (what, why, fix)


def without_comments(text):
    """The text with comments blanked out, so that an example in a comment is not taken for a directive."""
    return TOKEN.sub(lambda m: re.sub(r"[^\n]", " ", m.group()) if m.group()[0] == "/" else m.group(), text)


class Source:
    """One file of src/ and what its directives say."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), "rb") as file:
            self.bytes = file.read()
        self.text = self.bytes.decode("utf-8", "replace")
        self.lines = self.text.split("\n")
        self.code = without_comments(self.text)
        self.includes = []  # (line number, name) of quoted ones
        self.system_includes = []
        self.defines = []
        self.undefs = set()
        for number, line in enumerate(self.code.split("\n"), 1):
            include, define, undef = INCLUDE.match(line), DEFINE.match(line), UNDEF.match(line)
            if include and include.group(1) is not None:
                self.includes.append((number, include.group(1)))
            elif include:
                self.system_includes.append((number, include.group(2)))
            elif define:
                self.defines.append((number, define.group(1)))
            elif undef:
                self.undefs.add(undef.group(1))

    @property
    def folder(self):
        return self.path.split("/")[0] if "/" in self.path else ""

    @property
    def chapter(self):
        return self.path[:-2]

    @property
    def order(self):
        return (LAYERS[self.folder], self.folder, self.chapter)

    def guard(self):
        """The line numbers of the include guard and its name; without a guard none and None."""
        found = GUARD.search(self.code)
        if not found or not self.path.endswith(".h") or self.path in (API, PROLOGUE):
            return set(), None
        first = self.code.count("\n", 0, found.start(1)) + 1
        last = max(n for n, line in enumerate(self.code.split("\n"), 1) if re.match(r"[ \t]*#[ \t]*endif", line))
        return {first, first + 1, last}, found.group(1)

    def comment_lines(self):
        """The numbers of lines that belong to comments with nothing before and nothing behind them."""
        lines = set()
        for found in TOKEN.finditer(self.text):
            before = self.text[self.text.rfind("\n", 0, found.start()) + 1:found.start()]
            behind = self.text[found.end():].split("\n", 1)[0]
            if found.group()[0] == "/" and not before.strip() and not behind.strip():
                first = self.text.count("\n", 0, found.start()) + 1
                lines.update(range(first, first + found.group().count("\n") + 1))
        return lines

    def body(self, keep_line_numbers):
        """The text without its quoted includes and its guard, since each file stands once, and without the comments
        that stand alone and empty lines; a developer's copy keeps those."""
        gone = {number for number, _ in self.includes} | self.guard()[0]
        if keep_line_numbers:
            return "\n".join("" if number in gone else line for number, line in enumerate(self.lines, 1))
        gone |= self.comment_lines()
        return "".join(line + "\n" for number, line in enumerate(self.lines, 1) if number not in gone and line.strip())


def read_sources(root):
    src = os.path.join(root, "src")
    sources, errors = {}, []
    for folder, folders, names in os.walk(src):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), src).replace(os.sep, "/")
            if name.startswith("."):
                continue
            known = path == API or (path.count("/") == 1 and path.split("/")[0] in LAYERS)
            if not known or not name.endswith((".c", ".h")):
                errors.append(message(
                    "src/%s has no place in the house" % path,
                    "src/ holds api.h and .c and .h files directly in the folders " + ", ".join(LAYERS),
                    "move it there, or out of src/"))
            else:
                sources[path] = Source(src, path)
    if API not in sources:
        errors.append(message("src/%s is missing" % API, "it is the public part of iqdb.h", "write it"))
    if errors:
        raise Broken("\n".join(errors))
    return sources


def check_text(source):
    """What a compiler elsewhere would trip over."""
    where = "src/" + source.path
    if source.bytes.startswith(b"\xef\xbb\xbf") or b"\r" in source.bytes:
        yield message(where + " has a byte order mark or carriage returns",
                      "iqdb.h is UTF-8 without BOM and with LF, the same bytes on every platform",
                      "save it that way; .editorconfig says so to your editor")
    try:
        source.bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        yield message("%s is not UTF-8 (byte %d)" % (where, error.start), "iqdb.h is UTF-8", "re-encode it")
    for number, _ in source.includes:
        if not LONE_INCLUDE.match(source.lines[number - 1]):
            yield message("%s:%d: something follows a quoted include" % (where, number),
                          "that line is left out of iqdb.h as a whole", "move what follows to a line of its own")


def check_includes(source, sources):
    where = "src/" + source.path
    if source.path == API:
        for number, name in source.includes + source.system_includes:
            if name not in API_SYSTEM_HEADERS:
                yield message('%s:%d: includes %s' % (where, number, name),
                              "the public part costs its users only " + ", ".join(sorted(API_SYSTEM_HEADERS)),
                              "include it in the .c file that needs it")
        return
    for number, name in source.includes:
        line = '%s:%d: #include "%s"' % (where, number, name)
        if name not in sources:
            yield message(line + " leads nowhere", "there is no src/%s; quoted includes are relative to src/" % name,
                          'correct the name, or use <%s> if it is a system header' % name)
        elif name == PROLOGUE:
            yield message(line + " is not needed", "it opens iqdb.h, and the module build includes it by a flag",
                          "delete the line")
        elif name.endswith(".c"):
            yield message(line + " takes in a .c file", "every .c is emitted once by itself",
                          "declare what you need in a header")
        elif name != API:
            own, other = LAYERS[source.folder], LAYERS[sources[name].folder]
            if source.folder != sources[name].folder and other >= own:
                kind = "upward" if other > own else "sideways"
                yield message(
                    "%s is an %s include (%s/ is layer %d, %s/ is layer %d)"
                    % (line, kind, source.folder, own, sources[name].folder, other) if kind == "upward" else
                    "%s is a sideways include (%s/ and %s/ are both layer %d)"
                    % (line, source.folder, sources[name].folder, own),
                    "a file may use its own folder, api.h and folders of a strictly lower layer",
                    "move what both need to a lower layer, or have the caller pass it in (a value or a callback)")


def check_macros(source):
    where = "src/" + source.path
    if source.path.endswith(".h") and source.path not in (API, PROLOGUE):
        want = "IQ_" + re.sub(r"\W", "_", source.path).upper()
        found = GUARD.match(source.code)
        if not found or found.group(1) != want or found.group(2) != want:
            yield message("%s does not open with its include guard %s" % (where, want),
                          "a guard shared by two headers would silently drop one of them from iqdb.h",
                          "#ifndef %s / #define %s / ... / #endif" % (want, want))
    for number, name in source.defines if source.path != API else ():
        if not name.startswith(("IQ_", "IQDB_")) and name not in SYSTEM_SWITCHES | LIBRARY | source.undefs:
            yield message("%s:%d: the macro %s would leak to the user of iqdb.h" % (where, number, name),
                          "only IQ_ macros are undefined at the end of the header",
                          "name it IQ_%s, or #undef it in the same file" % name)


def order_chapters(sources):
    """Files in chapter order. A cycle among chapters is an error even where the files have none: x.h and x.c stay
    together, so that the header can be read as a book."""
    members, depends = {}, {}
    for source in sources.values():
        if source.path not in (API, PROLOGUE):
            members.setdefault(source.chapter, []).append(source)
    for chapter, files in members.items():
        files.sort(key=lambda source: source.path.endswith(".c"))
        depends[chapter] = {}
        for source in files:
            for _, name in source.includes:
                if name != API and (name[:-2] != chapter or name == source.path):
                    depends[chapter].setdefault(name[:-2], (source.path, name))
    waiting = {chapter: set(needed) for chapter, needed in depends.items()}
    ready = [(members[chapter][0].order, chapter) for chapter, needed in waiting.items() if not needed]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, done = heapq.heappop(ready)
        del waiting[done]
        ordered.extend(members[done])
        for chapter, needed in waiting.items():
            if done in needed:
                needed.discard(done)
                if not needed:
                    heapq.heappush(ready, (members[chapter][0].order, chapter))
    if waiting:
        raise Broken(describe_cycle(waiting, depends))
    return ordered


def describe_cycle(waiting, depends):
    """Follows unmet needs until a chapter comes up again: each waiting chapter needs another waiting one."""
    chain, chapter = [], min(waiting)
    while chapter not in chain:
        chain.append(chapter)
        chapter = min(waiting[chapter])
    cycle = chain[chain.index(chapter):] + [chapter]
    steps = ["%s includes %s" % depends[a][b] for a, b in zip(cycle, cycle[1:])]
    return message("the includes run in a circle: %s\n    %s" % (" -> ".join(cycle), "\n    ".join(steps)),
                   "chapters (x.h with x.c) follow one another, each using only earlier ones",
                   "move what both need to a file below them; or give the part that looks back a .c file of its own,\n"
                   "       with a name that no header has")


def check_reached(sources):
    included = {name for source in sources.values() for _, name in source.includes}
    for path in sorted(sources):
        if path.endswith(".h") and path not in included and path not in (API, PROLOGUE):
            yield message("src/%s is reached by no file" % path, "dead text would be shipped to every user",
                          "include it where it is used, or delete it")


def version_of(api):
    parts = [re.search(r"^#define IQDB_VERSION_%s +(\d+)" % part, api.text, re.M) for part in
             ("MAJOR", "MINOR", "PATCH")]
    if not all(parts):
        raise Broken(message("src/api.h does not tell its version", "the banner of iqdb.h names it",
                             "#define IQDB_VERSION_MAJOR, _MINOR and _PATCH as plain numbers"))
    return ".".join(part.group(1) for part in parts)


def digest(root, sources):
    total = hashlib.sha256()
    with open(os.path.join(root, LICENCE), "rb") as file:
        inputs = [(LICENCE, file.read())] + [("src/" + path, sources[path].bytes) for path in sorted(sources)]
    for name, data in inputs:
        total.update(("%s %d\n" % (name, len(data))).encode())
        total.update(data)
    return total.hexdigest()


def contents(files):
    lines = ["/* Chapters, each using only those before it; search for the bracketed name.", " *"]
    for folder in dict.fromkeys(source.folder for source in files):
        names = " ".join("[%s]" % source.path for source in files if source.folder == folder)
        lines += textwrap.wrap(names, 97, initial_indent=" * ", subsequent_indent=" * ", break_on_hyphens=False)
    return "\n".join(lines + [" */"]) + "\n"


def without_prototypes(text):
    """The text of all chapters without what only separate units need: a prototype whose function is defined before
    anything names it again, outside of any condition. In one it stays, for calls that are there but never made."""
    depth, depths = 0, []
    for line in text.split("\n"):
        depth += bool(OPENS.match(line)) - bool(CLOSES.match(line))
        depths.append(depth)
    defined = {}
    for found in DEFINITION.finditer(text):
        defined.setdefault(found.group(1), found.start())
    kept, end = [], 0
    for found in PROTOTYPE.finditer(text):
        name, place = found.group(1), defined.get(found.group(1), -1)
        if place < found.end() or depths[text.count("\n", 0, place)] > 0:
            continue
        if not re.search(r"\b%s\b" % name, text[found.end():place]):
            kept.append(text[end:found.start()])
            end = found.end()
    return "".join(kept) + text[end:]


def amalgamate(root, with_line=False):
    sources = read_sources(root)
    errors = [error for path in sorted(sources) for check in (check_text, check_macros)
              for error in check(sources[path])]
    errors += [error for path in sorted(sources) for error in check_includes(sources[path], sources)]
    errors += list(check_reached(sources))
    if errors:
        raise Broken("\n".join(errors))
    files = [source for source in order_chapters(sources) if source.chapter not in LEFT_OUT]
    assert len(files) == len({source.path for source in files})

    def text_of(path):
        if path not in sources:
            return ""
        line = '#line 1 "src/%s"\n' % path if with_line else ""
        return line + sources[path].body(with_line)

    with open(os.path.join(root, LICENCE), encoding="utf-8") as file:
        licence = file.read().strip("\n")
    macros = sorted({name for source in files for _, name in source.defines
                     if name.startswith("IQ_") and name != source.guard()[1]})
    out = [BANNER % (version_of(sources[API]), digest(root, sources))]
    if PROLOGUE in sources:
        out += ["\n", GATE, "\n", text_of(PROLOGUE), "#endif\n"]
    out += ["\n", text_of(API) if with_line else sources[API].text, "\n", SEAM, "\n", contents(files), "\n",
            GATE, "#define IQDB_IMPLEMENTED\n"]
    chapters = "".join("\n/* ======== [%s] ======== */\n%s" % (source.path, text_of(source.path)) for source in files)
    out.append(chapters if with_line else without_prototypes(chapters))
    if with_line:
        out.append('#line 1 "end of iqdb.h"\n')
    out += ["\n/* ======== the end: nothing of the above leaks ======== */\n"]
    out += ["#undef %s\n" % name for name in macros]
    library = sorted({name for source in files for _, name in source.defines if name in LIBRARY})
    if library:
        out += ["#if defined(%s)\n" % LIBRARY_SWITCH, *("#undef %s\n" % name for name in library), "#endif\n"]
    out += ["\n#endif /* IQDB_IMPLEMENTATION */\n\n/*\n", licence, "\n*/\n"]
    return "".join(out)


BANNER = """\
/* iqdb.h %s, generated from src/ by tools/amalgamate.py - do not edit; edit src/ and run `make header`.
 * SHA-256 of the inputs: %s
 *
 * Copy this file into your project and add one source file, iqdb.c, of two lines:
 *     #define IQDB_IMPLEMENTATION
 *     #include "iqdb.h"
 * Everything else includes iqdb.h alone. Public domain; the licence stands at the end. */
"""
GATE = "#if defined(IQDB_IMPLEMENTATION) && !defined(IQDB_IMPLEMENTED)\n"
SEAM = "/* ======== declarations end here; below is the implementation, whose reasons stand in src/ ======== */\n"


def read_or_none(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def check(path, want):
    have = read_or_none(path)
    if have == want:
        return 0
    fix = "  fix: run `make header` and commit iqdb.h together with the change of src/"
    if have is None:
        print("error: iqdb.h is missing\n" + fix, file=sys.stderr)
        return 1
    old, new = have.split(b"\n"), want.split(b"\n")
    line = next((i for i, (a, b) in enumerate(zip(old, new), 1) if a != b), min(len(old), len(new)) + 1)
    seal = re.compile(rb"SHA-256 of the inputs: (\w+)")
    stated, current = seal.search(have), seal.search(want)
    if stated and current and stated.group(1) == current.group(1):
        print("error: iqdb.h is stale: src/ is the same, but iqdb.h differs from line %d on\n"
              "  why: it was edited by hand, or tools/amalgamate.py has changed\n"
              "  fix: bring what is worth keeping over to src/, then run `make header`" % line, file=sys.stderr)
    else:
        print("error: iqdb.h is stale: src/ has changed since it was made (first difference: line %d)\n%s"
              % (line, fix), file=sys.stderr)
    return 1


def main():
    parser = argparse.ArgumentParser(description="Make iqdb.h out of src/.")
    parser.add_argument("--root", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--line", action="store_true", help="write build/line/iqdb.h with #line directives")
    arguments = parser.parse_args()
    try:
        text = amalgamate(arguments.root, arguments.line).encode("utf-8")
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    out = os.path.join(arguments.root, "build/line/iqdb.h" if arguments.line else "iqdb.h")
    if arguments.check:
        return check(out, text)
    if read_or_none(out) != text:  # an unchanged file keeps its time, so nothing is rebuilt for it
        os.makedirs(os.path.dirname(out), exist_ok=True)
        with open(out, "wb") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
