#!/usr/bin/env python3
"""Measure iqdb.h beside what people use instead.

    run.py [--quick] [--build DIR] [--directory DIR] [MEASURE...]     all measures, or those of these names

How figures are made:
- One process, one thread, one core. Ours and the C peers are shared libraries called through ctypes and timed in C. The
  Python peers are called through their own interface with arrays made beforehand; such a call costs 10-50 us before it
  reaches their code, against 5 ms and more for each query that is compared: under 1 %, and left in.
- Interleaved: every round runs each side once, in an order that shifts by one from round to round. Ratios are taken
  within a round; the table shows the median of the rounds, and the smallest and largest.
- Noise guard: before and after each sample runs a fixed loop. Where it is more than 10 % slower than on the quiet
  machine the sample is thrown away and taken again, three times at most, and at most as often in a race as it has
  samples; what is noisy then is kept and counted. Samples that write durable files cannot be repeated: only counted.
  Where several threads are measured the loop runs on as many cores at once, and the slowest counts.
- ratio = the peer's time / our time: above 1 we are faster. The bar is a bar on its median, or on our figure where no
  peer is named.
- Answers are compared with the peers' before anything is timed; where they differ the bench fails. Speed never does.
"""
import argparse
import concurrent.futures
import ctypes
import datetime
import gc
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before any peer is imported

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
NOISE, RETRIES = 1.10, 3
TYPES = {"d": ctypes.c_double, "i": ctypes.c_int, "u": ctypes.c_uint32, "Q": ctypes.c_uint64, "z": ctypes.c_size_t,
         "f": ctypes.c_float, "s": ctypes.c_char_p, "p": ctypes.c_void_p, "v": None}

# library: (compiler flags, what it links with, {function: result and arguments as in TYPES})
LIBRARIES = {
    "bare": (["-O3", "-fno-tree-vectorize"], [], {
        "bare_alloc": "pz", "bare_free": "vpz", "bare_spin": "d", "bare_read_name": "sz", "bare_read": "dzpzp",
        "bare_open": "pzu", "bare_close": "vp", "bare_write": "dppzz", "bare_get": "dppz", "bare_delete": "dppz",
        "bare_count": "zp"}),
    "data": (["-O3"], ["-lm"], {
        "data_ids": "vpzi", "data_shuffle": "vpz", "data_from_u8": "vppz", "data_from_f16": "vppz",
        "data_tile": "vpzupzufQ", "data_clusters": "ipzuQ"}),
    "ours": (["-O2"], ["-pthread", "-lm"], {  # what a user without flags of his own gets; no -march
        "ours_open": "isiiip", "ours_open_seconds": "dsi", "ours_map_seconds": "dsi", "ours_write": "dppzzzi",
        "ours_get": "dppz",
        "ours_delete": "dppz", "ours_write_and_flush": "dppzz", "ours_checkpoint": "dp",
        "ours_slices": "dpup", "ours_search": "dppzuziiipp",
        "ours_search_apart": "dppzuzpzpz", "ours_keep_codes": "vi",
        "ours_use_index": "vi", "ours_probe": "vu", "ours_maintain": "dp", "ours_index_bytes": "dp",
        "ours_ranges": "zpupz", "ours_vector_new": "dpuz", "ours_distance": "dpuiz", "ours_crc32": "dpzzp",
        "ours_latencies": "dppziipzzp", "ours_threads": "dppzizzpzz", "ours_pin": "dpz",
        "ours_filtered_open": "iip", "ours_filtered_write": "dppzp", "ours_filtered_search": "dppzuzipp",
        "ours_filtered_count": "dpip", "ours_bits_open": "izp", "ours_bits_search": "dpQz",
        "ours_resident": "dpzi", "ours_payload_bytes": "d", "iqdb_close": "ip", "iqdb_len": "zp", "iqdb_strerror": "si",
        "iqdb_version": "u", "iqdb_simd_name": "sp"}),
    "peer_sqlite": (["-O2"], ["-lsqlite3"], {
        "peer_sqlite_open": "ps", "peer_sqlite_close": "vp", "peer_sqlite_write": "dppzzz", "peer_sqlite_count": "zp",
        "peer_sqlite_version": "s", "peer_vec_open": "pssspzu", "peer_vec_search": "dppzuzp"}),
    "peer_lmdb": (["-O2"], ["-llmdb"], {
        "peer_lmdb_open": "pszi", "peer_lmdb_close": "vp", "peer_lmdb_write": "dppzzz", "peer_lmdb_count": "zp",
        "peer_lmdb_version": "s"}),
    "peer_hnswlib": (["-O3", "-march=native"], ["-lstdc++"], {
        "peer_hnswlib_make": "pzzzz", "peer_hnswlib_free": "vp", "peer_hnswlib_bytes": "dp",
        "peer_hnswlib_write": "dppzzzi", "peer_hnswlib_search": "dppzzzzppp"}),
    "peer_zlib": (["-O2"], ["-lz"], {"peer_zlib_crc32": "dpzzp", "peer_zlib_version": "s"}),
}


class Skip(Exception):
    """Something that this machine lacks, with the reason."""


class Records(ctypes.Structure):
    """bench_records of bench.h."""
    _fields_ = [("ids", ctypes.c_void_p), ("rows", ctypes.c_void_p),
                ("pool", ctypes.c_size_t), ("dim", ctypes.c_uint32)]


def seconds_text(value):
    for unit, scale in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1:
            return "%.3g %s" % (value * scale, unit) if value * scale < 1000 else "%.0f %s" % (value * scale, unit)
    return "%.3g ns" % (value * 1e9)


def first_error(text):
    """The line of a compiler's output that says why."""
    lines = text.strip().split("\n")
    return ([line for line in lines if "error: " in line or "cannot find" in line] or lines)[0].split("error: ")[-1]


def remark(name, note, versions):
    """What stands on the line of a row beside its figures: the version of each peer that it names, then parameters and
    recall, and whatever else is to be said."""
    found = [(re.search(r"(?<![\w-])%s(?![\w-])" % re.escape(peer.replace("_", "-")), name, re.I), version)
             for peer, version in versions.items() if peer != "iqdb"]
    return "; ".join(["%s %s" % (match.group(), version) for match, version in found if match] + ([note] if note else []))


class Bench:
    def __init__(self, arguments):
        self.quick, self.child = arguments.quick, arguments.resident is not None
        self.build = os.path.join(os.path.abspath(arguments.build), "bench")
        self.directory = os.path.abspath(arguments.directory) if arguments.directory else self.build
        self.cc = os.environ.get("CC") or "cc"
        self.rows, self.skipped, self.failed, self.notes = [], [], [], {}
        self.curves, self.histograms, self.here = [], [], ""
        self.date = datetime.date.today().isoformat()
        self.redone = self.kept_noisy = self.samples = 0
        self.libraries, self.versions, self.made = {}, {}, set()
        os.makedirs(self.build, exist_ok=True)
        os.makedirs(self.directory, exist_ok=True)

    def size(self, full, quick):
        return quick if self.quick else full

    # ---- what is measured with ----

    def load(self, name):
        """The functions of one C part, compiled on first use (not by a child); Skip where that does not work."""
        if name not in self.libraries:
            flags, links, functions = LIBRARIES[name]
            path = os.path.join(self.build, "lib%s.so" % name)
            source = os.path.join(HERE, name + ".c")
            language = ["-std=gnu99", "-Wall", "-Wextra"]
            if not os.path.exists(source):
                source, language = source + "pp", ["-std=c++11", "-isystem", os.path.join(self.build, "..", "bench-peers")]
            flags = self.size(flags, ["-O0"])  # compiling would take longer than anything that is quick
            command = self.cc.split() + language + ["-fPIC", "-shared", "-I" + ROOT] + flags + [source, "-o", path] + links
            done = None if self.child else subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done and done.returncode:
                self.libraries[name] = Skip(first_error(done.stdout.decode("utf-8", "replace")))
            else:
                loaded = ctypes.CDLL(path)
                for function, types in functions.items():
                    getattr(loaded, function).restype = TYPES[types[0]]
                    getattr(loaded, function).argtypes = [TYPES[t] for t in types[1:]]
                self.libraries[name] = loaded
        if isinstance(self.libraries[name], Skip):
            raise self.libraries[name]
        return self.libraries[name]

    def module(self, name):
        try:
            return __import__(name, fromlist=["index"])
        except ImportError as error:
            raise Skip("%s; see make bench-deps" % error)

    def optional(self, what, get):
        """get(), or None with a printed reason where it skips."""
        try:
            return get()
        except Skip as reason:
            self.skip(what, reason)
            return None

    def skip(self, what, reason):
        if not any(what == known for known, _ in self.skipped):
            print("  skipped: %s (%s)" % (what, reason), flush=True)
            self.skipped.append((what, str(reason)))

    def note(self, about, text):
        if self.notes.get(about) != text:
            print("  %s: %s" % (about, text), flush=True)
            self.notes[about] = text

    def ok(self, seconds, peer=None):
        """The result of a measuring function; codes become exceptions."""
        if seconds < 0:
            raise RuntimeError("%s: code %d" % (peer, seconds) if peer else
                               self.load("ours").iqdb_strerror(int(seconds)).decode())
        return seconds

    def scratch(self):
        return tempfile.mkdtemp(prefix="run-", dir=self.directory)

    # ---- how it is measured ----

    def find_quiet(self):
        """What the guard's loop takes on this machine in a quiet moment: the fifth fastest of many."""
        self.quiet = sorted(self.load("bare").bare_spin() for _ in range(60))[4]

    def spin(self, cores):
        """What the guard's loop takes now, on the slowest of so many cores at once."""
        loop = self.load("bare").bare_spin
        if cores == 1:
            return loop()
        with concurrent.futures.ThreadPoolExecutor(cores) as pool:  # ctypes lets go of Python's lock
            return max(pool.map(lambda _: loop(), range(cores)))

    def sample(self, side, number, cores):
        for attempt in range(1 + RETRIES):
            before = self.spin(cores)
            figure = side(number)
            noisy = max(before, self.spin(cores)) > NOISE * self.quiet
            if not noisy or attempt == RETRIES or self.retries_left == 0:
                break
            self.retries_left -= 1
            self.redone += 1
        self.kept_noisy += noisy
        self.samples += 1
        return figure

    def race(self, sides, rounds, once=False, cores=1):
        """{side: [seconds of each round]}. A side is a function of the round's number; it may return a dictionary of
        several figures, which become sides of their own. once: what a side does cannot be repeated. cores: that a side
        keeps busy."""
        times, names = {}, list(sides)
        self.retries_left = 0 if once else rounds * len(names)
        if not once:
            for name in names:
                sides[name](0)  # warm
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                figure = self.sample(sides[name], number, cores)
                for key, value in figure.items() if isinstance(figure, dict) else [(name, figure)]:
                    times.setdefault(key, []).append(value)
        return times

    # ---- what comes out ----

    def report(self, name, ours, peer=None, unit="s", bar=None, note="", ratios=None):
        """One row. ours, peer: lists of one figure per round; unit "s" or "/s" (both given in seconds) or any other.
        bar: (">=" or "<=", number), held against the ratio, or against our figure where there is no peer."""
        if ratios is None and peer:
            ratios = [p / o for o, p in zip(ours, peer)]
        figure = statistics.median(ratios if ratios else ours)
        verdict = "quick" if self.quick else "-"
        if bar and not self.quick:
            verdict = "pass" if (figure >= bar[1] if bar[0] == ">=" else figure <= bar[1]) else "SHORT"

        def show(values):
            if not values:
                return ""
            value = statistics.median(values)
            if unit == "s":
                return seconds_text(value)
            return "%.3g k/s" % (1e-3 / value) if unit == "/s" else "%.4g %s" % (value, unit)

        spread, said = ratios or ours, remark(name, note, self.versions)
        middle = "%.2f [%.2f-%.2f]" % (figure, min(spread), max(spread)) if ratios else ""
        print("%-58s %-10s %-10s %-22s %-9s %s%s" % (
            name, show(ours), show(peer), middle, "%s %g" % bar if bar else "", verdict, "  " + said if said else ""),
            flush=True)
        self.rows.append({"group": self.here, "date": self.date, "name": name, "unit": unit, "ours": ours, "peer": peer or [], "ratios": ratios or [],
                          "median": figure, "min": min(spread), "max": max(spread),
                          "bar": "%s %g" % bar if bar else None, "verdict": verdict, "note": note})

    def environment(self):
        def first_line(command):
            try:
                return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().split("\n")[0]
            except (OSError, subprocess.CalledProcessError):
                return ""

        def read(path):
            try:
                with open(path) as file:
                    return file.read()
            except OSError:
                return ""

        info = {}
        for line in read("/proc/cpuinfo").split("\n"):
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
        mounts = [line.split()[:3] for line in read("/proc/mounts").split("\n") if line]
        within = [m for m in mounts if (self.directory + "/").startswith(m[1].rstrip("/") + "/")]
        self.cpu_flags = set(info.get("flags", info.get("Features", "")).split())
        wanted = ("avx2", "avx512f", "pclmulqdq", "vpclmulqdq", "asimd", "pmull")
        ours = self.load("ours")
        number = ours.iqdb_version()
        versions = {"iqdb": "%d.%d.%d (%s)" % (number // 10000, number // 100 % 100, number % 100,
                                               ours.iqdb_simd_name(None).decode())}
        for name, function in (("peer_sqlite", "sqlite"), ("peer_lmdb", "lmdb"), ("peer_zlib", "zlib")):
            library = self.optional(function, lambda: self.load(name))
            if library:
                versions[function] = getattr(library, name + "_version")().decode().split(":")[0].replace("LMDB ", "")
        if self.optional("hnswlib", lambda: self.load("peer_hnswlib")):
            with open(os.path.join(self.build, "..", "bench-peers", "PKG-INFO")) as file:
                versions["hnswlib"] = [line.split()[1] for line in file if line.startswith("Version:")][0]
        for name in ("faiss", "usearch", "sqlite_vec"):
            module = self.optional(name, lambda: self.module(name))
            if module:
                versions[name] = getattr(module, "__version__", "as in requirements.txt")
        self.versions = versions
        if not shutil.which("hyperfine"):
            self.skip("hyperfine", "not installed")
        return {"cpu": info.get("model name", platform.machine()),
                "cpu_has": " ".join(w for w in wanted if w in self.cpu_flags),
                "kernel": platform.release(), "compiler": first_line(self.cc.split() + ["--version"]),
                "python": platform.python_version(),
                "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled").strip(),
                "files_on": max(within, key=lambda m: len(m[1]))[2] if within else "unknown",
                "versions": versions, "quick": self.quick}


def with_earlier(path, result, only, order):
    """The result, and, where only some measures were run, what an earlier run of the same things on the same machine
    found for the others; each row has its date."""
    try:
        with open(path) as file:
            earlier = json.load(file)
    except (OSError, ValueError):
        return result
    same = ("cpu", "cpu_has", "kernel", "compiler", "versions", "quick", "files_on")
    if not only or any(earlier["environment"].get(key) != result["environment"][key] for key in same):
        return result
    rows = [row for row in earlier["measures"] if row.get("group") not in only] + result["measures"]
    result["measures"] = sorted(rows, key=lambda row: order.index(row["group"]))
    result["failed"] += [name for name in earlier["failed"] if name not in only]
    result["notes"] = {**earlier["notes"], **result["notes"]}
    for key in ("samples", "redone", "noisy"):
        result["guard"][key] += earlier["guard"][key]
    for key in ("curves", "histograms"):
        result[key] = result[key] or earlier[key]
    return result


def main():
    import measures
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every measure on tiny sizes; the figures mean nothing")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--directory", help="where durable files are written; default: in the build directory")
    parser.add_argument("--resident", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("measures", nargs="*", help=" ".join(measures.MEASURES))
    arguments = parser.parse_args()
    if arguments.resident:
        return measures.resident_child(Bench(arguments), *arguments.resident)
    unknown = set(arguments.measures) - set(measures.MEASURES)
    if unknown:
        parser.error("no measure %s; there are: %s" % (" ".join(sorted(unknown)), " ".join(measures.MEASURES)))

    bench, start = Bench(arguments), time.monotonic()
    try:
        core = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})  # the last one: the first serves most interrupts
        pinned = "core %d" % core
    except (AttributeError, OSError):
        pinned = "not pinned"
    try:
        bench.load("bare"), bench.load("ours")
    except Skip as error:
        print("bench: the C parts do not compile: %s" % error)
        return 1
    environment = bench.environment()
    environment["pinned"], load_before = pinned, os.getloadavg()
    for key, value in environment.items():
        if key not in ("versions", "quick"):
            print("  %-11s %s" % (key, value))
    print("  %-11s %s" % ("versions", ", ".join("%s %s" % item for item in environment["versions"].items())))
    if environment["files_on"] in ("tmpfs", "ramfs"):
        print("  Durable files would lie in memory here: name a disk with --directory, or disregard those figures.")
    if bench.quick:
        print("  QUICK: sizes are tiny. This shows that the bench works; its figures mean nothing.")
    bench.find_quiet()
    gc.disable()

    print("\n%-58s %-10s %-10s %-22s %-9s" % ("measure", "ours", "peer", "ratio [min-max]", "bar"), flush=True)
    for name in arguments.measures or measures.MEASURES:
        bench.here = name
        try:
            measures.MEASURES[name](bench)
        except Skip as reason:
            bench.skip(name, reason)
        except Exception:
            traceback.print_exc()
            bench.failed.append(name)
        gc.collect()

    verdicts = [row["verdict"] for row in bench.rows]
    guard = {"loop_ms": bench.quiet * 1e3, "samples": bench.samples, "redone": bench.redone, "noisy": bench.kept_noisy,
             "load_before": load_before, "load_after": os.getloadavg()}
    out = os.path.join(os.path.abspath(arguments.build), "bench.json")
    result = {"environment": environment, "notes": bench.notes, "guard": guard, "skipped": bench.skipped,
              "failed": bench.failed, "measures": bench.rows, "curves": bench.curves, "histograms": bench.histograms}
    with open(out + ".new", "w") as file:
        json.dump(with_earlier(out, result, arguments.measures, list(measures.MEASURES)), file, indent=1)
    os.replace(out + ".new", out)
    print("\n  noise: %d samples, %d taken again, %d kept though noisy; load average %.2f before, %.2f after" % (
        bench.samples, bench.redone, bench.kept_noisy, load_before[0], guard["load_after"][0]))
    print("  %d pass, %d short, %d without a verdict, %d skipped, %d failed; %.0f s; %s" % (
        verdicts.count("pass"), verdicts.count("SHORT"), verdicts.count("-") + verdicts.count("quick"),
        len(bench.skipped), len(bench.failed), time.monotonic() - start, os.path.relpath(out)))
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.modules["run"] = sys.modules["__main__"]
    sys.path.insert(0, HERE)
    sys.dont_write_bytecode = True
    sys.exit(main())
