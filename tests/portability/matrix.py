#!/usr/bin/env python3
"""The tape of tape.c on every compiler, processor and system that can be had here, one line a row: the tool, the checks
that were run, the hash of all answers and of the exported blob, seconds. Every row must print the same hash. Where
nothing can be run, the header is compiled without a warning.

    matrix.py BUILD [--rows NAME,...] [--required NAME,...]

BUILD is a directory for what is built. A row whose tools are missing is skipped, and fails where it is required."""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
TAPE = os.path.join(HERE, "tape.c")
HEADER = os.path.join(HERE, "header.c")
TIMEOUT = 600

HOSTED = "-O1 -DTAPE_FILES=1 -pthread"
LINKED = "{tape} -o {out} -lm"
WINE = "/usr/lib/x86_64-linux-gnu/wine/x86_64-windows"  # where Debian's libwine-dev has its import libraries
WASI_RUN = ("--no-warnings", "-e", """
const {WASI} = require('node:wasi'), fs = require('fs');
const wasi = new WASI({version: 'preview1', args: ['tape'], preopens: {'.': '.'}, returnOnExit: true});
WebAssembly.instantiate(fs.readFileSync(process.argv[1]), {wasi_snapshot_preview1: wasi.wasiImport})
    .then(made => process.exit(wasi.start(made.instance)));""")


def native(compile_, *flags):
    return [" ".join((compile_, HOSTED) + flags) + " " + LINKED], ["{out}"]


def foreign(compile_, emulator, *flags):
    return [" ".join((compile_, HOSTED, "-static") + flags) + " " + LINKED], emulator.split() + ["{out}"]


def cortex(cpu, machine):
    flags = ("-mthumb -Os -std=c99 --specs=rdimon.specs -nostartfiles -DIQDB_SMALL -DIQDB_NO_THREADS -DIQDB_NO_FILES -Wl,--no-warn-rwx-segments"
             " -T {here}/cortex_m.ld {here}/cortex_m.c")
    return (["arm-none-eabi-gcc %s %s %s" % (cpu, flags, LINKED)],
            ["qemu-system-arm", "-M", machine, "-semihosting-config", "enable=on,target=native", "-nographic",
             "-monitor", "none", "-serial", "none", "-kernel", "{out}"])


BARE = "-DIQDB_NO_THREADS -DIQDB_NO_FILES -DIQDB_NO_MALLOC -DIQDB_NO_LIBC -Wall -Werror"


def compiled(compile_):
    return ["%s %s {header} -o {out}.o" % (compile_, BARE)], None


def compiled_by_cl(processor):
    return ["clang-cl-19 --target=%s-pc-windows-msvc /c /O1 /W3 /WX %s /I{root} %s /Fo{out}.obj"
            % (processor, BARE.replace("-Wall -Werror", ""), HEADER)], None


# name: (compile commands, run command). {tape} {out} {here} are filled in; the run is in a directory of its own.
# Without a run command, compiling is all; with a text in its place, the compiler has to refuse with it.
ROWS = {
    "gcc-c99": native("gcc -std=c99"),
    "gcc-c11-O3": native("gcc -std=c11 -O3 -march=native"),
    "gcc-fast-math": native("gcc -O2 -ffast-math"),
    "clang-14": native("clang-14 -std=c99"),
    "clang-19": native("clang-19 -std=c11 -O2"),
    "g++-c++11": native("g++ -x c++ -std=c++11"),
    "g++-c++17": native("g++ -x c++ -std=c++17"),
    "clang++-c++20": native("clang++-19 -x c++ -std=c++20"),
    "sanitizers": native("clang-19 -fsanitize=address,undefined -fno-sanitize-recover=all"),
    "plain-c": native("gcc -std=c99 -DIQDB_NO_SIMD -DIQDB_NO_THREADS"),
    "x86-32": native("gcc-12 -m32 -std=c99 -idirafter /usr/include/x86_64-linux-gnu"),
    "musl": native("musl-gcc -static -std=c99"),
    "tcc": native("tcc -DIQDB_NO_THREADS"),
    "x86-64-qemu64": foreign("gcc -std=c99", "qemu-x86_64-static -cpu qemu64"),
    "x86-64-Nehalem": foreign("gcc -std=c99", "qemu-x86_64-static -cpu Nehalem"),
    "x86-64-Haswell": foreign("gcc -std=c99", "qemu-x86_64-static -cpu Haswell"),
    "aarch64-a53": foreign("aarch64-linux-gnu-gcc -std=c99", "qemu-aarch64-static -cpu cortex-a53"),
    "aarch64-a76": foreign("aarch64-linux-gnu-gcc -std=gnu11 -O3", "qemu-aarch64-static -cpu cortex-a76"),
    "armhf": foreign("arm-linux-gnueabihf-gcc -std=c99", "qemu-arm-static"),
    "armhf-neon": foreign("arm-linux-gnueabihf-gcc -std=gnu99 -mfpu=neon -O3", "qemu-arm-static"),
    "riscv64": foreign("riscv64-linux-gnu-gcc -std=c99", "qemu-riscv64-static"),
    "s390x": foreign("s390x-linux-gnu-gcc -std=c99", "qemu-s390x-static"),
    "ppc64": foreign("powerpc64-linux-gnu-gcc -std=c99", "qemu-ppc64-static"),
    "mingw-wine": (["x86_64-w64-mingw32-gcc -std=c99 %s -static -D__USE_MINGW_ANSI_STDIO=1 {tape} -o {out}.exe" % HOSTED],
                   ["wine", "{out}.exe"]),
    "clang-cl-wine": (["clang-cl-19 --target=x86_64-pc-windows-msvc /c /O2 /W3 /GS- /Zl /DTAPE_FILES=1 /I{root} /I{root}/tests"
                       " -imsvc /usr/include/wine/wine/msvcrt -imsvc /usr/include/wine/wine/windows {tape} /Fo{out}.obj",
                       "lld-link-19 {out}.obj /out:{out}.exe /subsystem:console /nodefaultlib "
                       + " ".join("%s/lib%s.a" % (WINE, name) for name in
                                  ("winecrt0", "ucrtbase", "kernel32", "ntdll", "advapi32"))],
                      ["wine", "{out}.exe"]),
    "wasi": (["clang-19 --target=wasm32-wasi --sysroot=/usr -O2 -DIQDB_NO_THREADS -DIQDB_NO_FILES " + LINKED],
             ["node"] + list(WASI_RUN) + ["{out}"]),
    "wasi-simd": (["clang-19 --target=wasm32-wasi --sysroot=/usr -O2 -msimd128 -DIQDB_NO_THREADS -DIQDB_NO_FILES " + LINKED],
                  ["node"] + list(WASI_RUN) + ["{out}"]),
    "wasi-fast-math": (["clang-19 --target=wasm32-wasi --sysroot=/usr -O3 -msimd128 -ffast-math -fno-finite-math-only"
                        " -DIQDB_NO_THREADS -DIQDB_NO_FILES " + LINKED], ["node"] + list(WASI_RUN) + ["{out}"]),
    "cortex-m3": cortex("-mcpu=cortex-m3", "mps2-an385"),
    "cortex-m0": compiled("arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb -Os -DIQDB_SMALL -c"),
    "rv32imc": compiled("riscv64-unknown-elf-gcc -march=rv32imc -mabi=ilp32 -ffreestanding -Os -c"),
    "wasm32-bare": compiled("clang-19 --target=wasm32 -nostdlib -ffreestanding -O2 -c"),
    "macos-arm64": compiled("clang-19 --target=arm64-apple-macos11 -ffreestanding -O1 -c"),
    "macos-x86-64": compiled("clang-19 --target=x86_64-apple-macos10.15 -ffreestanding -O1 -c"),
    "ios-arm64": compiled("clang-19 --target=arm64-apple-ios15 -ffreestanding -O1 -c"),
    "windows-i686": compiled_by_cl("i686"),
    "windows-arm64": compiled_by_cl("aarch64"),
    "avr": (["clang-19 --target=avr -mmcu=atmega328p -ffreestanding -c %s {header} -o {out}.o" % BARE], "size_t has 16 bits here"),
    "cortex-m4f": cortex("-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16", "mps2-an386"),
}


# The table of README.md: what is run where, from the rows of table.txt.
PLACES = (("x86-64, Linux", ("gcc-c99", "gcc-c11-O3", "gcc-fast-math", "clang-14", "clang-19", "g++-c++11", "g++-c++17",
                             "clang++-c++20", "sanitizers", "plain-c", "musl", "tcc")),
          ("x86-64 without AVX2, without AVX-512; qemu", ("x86-64-qemu64", "x86-64-Nehalem", "x86-64-Haswell")),
          ("x86, 32 bit, Linux", ("x86-32",)),
          ("x86-64, Windows, under Wine", ("mingw-wine", "clang-cl-wine")),
          ("aarch64, Linux, qemu", ("aarch64-a53", "aarch64-a76")),
          ("arm, Linux, qemu", ("armhf", "armhf-neon")),
          ("riscv64, Linux, qemu", ("riscv64",)),
          ("s390x and ppc64 (big-endian), Linux, qemu", ("s390x", "ppc64")),
          ("wasm32, WASI, node", ("wasi", "wasi-simd", "wasi-fast-math")),
          ("Cortex-M3 and M4F, no system, qemu", ("cortex-m3", "cortex-m4f")),
          ("compiled only: Cortex-M0, rv32imc, bare wasm32",  ("cortex-m0", "rv32imc", "wasm32-bare")),
          ("compiled only: macOS, iOS", ("macos-arm64", "macos-x86-64", "ios-arm64")),
          ("compiled only: Windows, 32 bit and arm64", ("windows-i686", "windows-arm64")),
          ("refused by `#error`: AVR, where `size_t` has 16 bits", ("avr",)))


def readme_table():
    """Lines of markdown, from the committed table; a row that is in neither list would be forgotten."""
    lines = ["| processor, system | rows | played | checks |", "|---|---|---|---|"]
    with open(os.path.join(HERE, "table.txt"), encoding="utf-8") as file:
        found = {line.split()[0]: line for line in file.read().split("\n")[1:-2]}
    assert set(found) == set(ROWS) == {name for _, names in PLACES for name in names}, "table.txt has other rows"
    for place, names in PLACES:
        numbers = [int(re.match(r"\S+ +.*? +(\d+)  \S+ +[\d.]+$", found[name]).group(1)) for name in names]
        files = any("TAPE_FILES" in " ".join(ROWS[name][0]) for name in names)
        played = "" if not isinstance(ROWS[names[0]][1], list) else "memory, blobs" + (", directories" if files else "")
        lines.append("| %s | %s | %s | %s |" % (place, ", ".join("`%s`" % name for name in names), played,
                                              "{:,}".format(sum(numbers)) if played else ""))
    return "\n".join(lines)


def filled(text, out):
    return text.replace("{tape}", TAPE).replace("{header}", "-I%s %s" % (ROOT, HEADER)).replace("{out}", out).replace("{here}", HERE).replace("{root}", ROOT)


def version_of(tool):
    for flag in ("--version", "-v"):
        done = subprocess.run([tool, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout.decode("utf-8", "replace"))
        if found:
            return "%s %s" % (tool, found.group())
    return tool


def missing(row):
    programs = [command.split()[0] for command in row[0]] + (row[1] if isinstance(row[1], list) else [])[:1]
    return [name for name in programs if "{" not in name and shutil.which(name) is None]


def absent_header(said):
    """A header of the C library that a tool looked for in vain: that library is not installed."""
    found = re.search(r"fatal error: '?([\w./-]+\.h)'?(: No such file| file not found)", said)
    ours = found and any(os.path.exists(os.path.join(ROOT, folder, found.group(1))) for folder in ("", "tests"))
    return found.group(1) if found and not ours else None


def play(name, row, build):
    """(checks, hash), or what went wrong as text."""
    folder = os.path.join(build, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    out = os.path.join(folder, "tape")
    includes = "-I%s -I%s" % (ROOT, os.path.join(ROOT, "tests"))
    environment = dict(os.environ, WINEDEBUG="-all", WINEPREFIX=os.path.join(build, "wine"))
    for command in row[0]:
        if "{tape}" in command and "/I" not in command:
            command = command.replace("{tape}", includes + " {tape}")
        done = subprocess.run(filled(command, out).split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
        said = done.stdout.decode("utf-8", "replace")
        if isinstance(row[1], str):
            return (1, "refused") if done.returncode != 0 and row[1] in said else "not refused:\n" + said[-2000:]
        if done.returncode != 0:
            return said[-2000:]
    if row[1] is None:
        return 1, "compiled"
    done = subprocess.run([filled(word, out) for word in row[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, cwd=folder, env=environment, timeout=TIMEOUT)
    text = done.stdout.decode("utf-8", "replace")
    found = re.search(r"hash ([0-9a-f]{16})\s+(\d+) passed, (\d+) failed", text)
    if not found or done.returncode != 0 or found.group(3) != "0":
        return "exit status %d\n%s" % (done.returncode, text[-2000:])
    return int(found.group(2)), found.group(1)


def main():
    parser = argparse.ArgumentParser(description="The tape on everything that can be had here.")
    parser.add_argument("build", help="a directory, or README.md: its table is made from table.txt")
    parser.add_argument("--rows", help="only these, by name")
    parser.add_argument("--required", default="", help="rows that may not be skipped")
    arguments = parser.parse_args()
    if os.path.basename(arguments.build) == "README.md":
        with open(arguments.build, encoding="utf-8") as file:
            text = file.read()
        with open(arguments.build, "w", encoding="utf-8") as file:
            file.write(re.sub(r"(<!-- table.txt -->\n).*?(\n<!-- end -->)",
                              lambda marks: marks.group(1) + readme_table() + marks.group(2), text, flags=re.S))
        return
    required = set(filter(None, arguments.required.split(",")))
    names = arguments.rows.split(",") if arguments.rows else list(ROWS)
    unknown = (set(names) | required) - set(ROWS)
    if unknown:
        parser.error("no such row: " + ", ".join(sorted(unknown)))
    build, passed, failed, skipped, hashes = os.path.abspath(arguments.build), 0, 0, 0, {}
    print("%-16s %-32s %7s  %-16s %7s" % ("row", "tool", "checks", "hash", "seconds"))
    for name in names:
        gone = missing(ROWS[name])
        if gone and name not in required:
            print("%-16s skipped: no %s" % (name, ", ".join(gone)))
            skipped += 1
            continue
        start = time.monotonic()
        try:
            result = "no " + ", ".join(gone) if gone else play(name, ROWS[name], build)
        except subprocess.TimeoutExpired:
            result = "not finished in %d s" % TIMEOUT
        if isinstance(result, str) and absent_header(result) and name not in required:
            print("%-16s skipped: no %s" % (name, absent_header(result)))
            skipped += 1
            continue
        if isinstance(result, str):
            print("%-16s FAILED: %s" % (name, result))
            failed += 1
            continue
        if isinstance(ROWS[name][1], list):
            hashes.setdefault(result[1], []).append(name)
        passed += 1
        print("%-16s %-32s %7d  %-16s %7.1f" % (name, version_of(ROWS[name][0][0].split()[0]), result[0], result[1],
                                            time.monotonic() - start), flush=True)
    if len(hashes) > 1:
        print("the hashes differ: " + "; ".join("%s of %s" % (key, ", ".join(rows)) for key, rows in hashes.items()))
        failed += 1
    print("portability: %d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
