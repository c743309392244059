#!/usr/bin/env python3
"""Every examples/x.c (or .cpp) compiles without a warning, runs, and prints what examples/expected/x.txt says.

A .c example is built and run as C and, where there is a compiler, compiled as C++ too: the two share one text, which need
not run twice. To compile the implementation once and not for each of them, those without switches of their own are linked
with one object of it; basic.c is built as a reader of it would. Each run has an empty directory of its own as working
directory and as TMPDIR, which it must leave as empty as it was. Only the demo is given an argument, the path of
examples/data. An example without an expected text has only to succeed; where a time or a number of instructions is
printed, the text has `...` in its place.

Those in folders are built in their own way: mcu is baked here and played on an emulated Cortex-M4F, wasm in node and in a
browser without a screen.
"""
import functools
import http.server
import json
import math
import operator
import os
import queue
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, Skip, compiler, main, must, run  # noqa: E402

FLAGS = ["-Wall", "-Wextra", "-Werror", "-pthread", "-I", ROOT]
EXAMPLES = os.path.join(ROOT, "examples")
SHARED = tempfile.TemporaryDirectory()


def compare(stem, output):
    path = os.path.join(EXAMPLES, "expected", stem + ".txt")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            expected = file.read()
        pattern = "[0-9.]+".join(re.escape(part) for part in expected.split("..."))
        assert re.fullmatch(pattern, output), "expected:\n%s\nprinted:\n%s" % (expected, output)


def libraries(name):
    """An example may ask for some in its first line, as tests do: /* link: -lz */. Without them it is skipped."""
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        found = re.match(r"/\* link: (.*) \*/\n", file.readline())
    names = found.group(1).split() if found else []
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/x.c", "w") as file:
            file.write("int main(void) { return 0; }\n")
        if names and run(compiler("CC", "cc") + [folder + "/x.c", "-o", folder + "/x", *names])[0] != 0:
            raise Skip("does not link with %s" % " ".join(names))
    return names


@functools.lru_cache(maxsize=None)
def implementation():
    """A directory with iqdb.o, and with an iqdb.h that leaves the implementation to it."""
    folder = tempfile.mkdtemp(dir=SHARED.name)
    with open(os.path.join(folder, "implementation.c"), "w") as file:
        file.write('#define IQDB_IMPLEMENTATION\n#include "%s"\n' % os.path.join(ROOT, "iqdb.h"))
    with open(os.path.join(folder, "iqdb.h"), "w") as file:
        file.write('#undef IQDB_IMPLEMENTATION\n#include "%s"\n' % os.path.join(ROOT, "iqdb.h"))
    must(compiler("CC", "cc") + ["-std=gnu99", "-O1", "-pthread", "-c", os.path.join(folder, "implementation.c"), "-o",
                                 os.path.join(folder, "iqdb.o")])
    return folder


def sharing(name):
    """What an example is compiled with to share the implementation; nothing where it wants one of its own."""
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        if name == "basic.c" or re.search(r"#define IQDB_(?!IMPLEMENTATION)", file.read()):
            return []
    return ["-I", implementation(), os.path.join(implementation(), "iqdb.o")]


def example(name, which, dialect):
    stem = os.path.splitext(name)[0]

    def test():
        with tempfile.TemporaryDirectory() as folder:
            program, empty = os.path.join(folder, "program"), os.path.join(folder, "empty")
            os.mkdir(empty)
            command = compiler(*which) + dialect
            if name.endswith(".c") and "c++" in dialect[-1]:
                must(command + sharing(name)[:2] + FLAGS + ["-fsyntax-only", os.path.join(EXAMPLES, name)])
                return
            must(command + sharing(name) + FLAGS + [os.path.join(EXAMPLES, name), "-o", program, "-lm",
                                                    *libraries(name)])
            arguments = [os.path.join(EXAMPLES, "data")] if stem == "demo" else []
            output = must(["env", "TMPDIR=" + empty, program] + arguments, cwd=empty)
            assert not os.listdir(empty), "left behind: %s" % os.listdir(empty)
        compare(stem, output)
    return "%s as %s" % (name, dialect[-1].split("=")[1]), test


def wrapper(dialect):
    """examples/cpp, without exceptions or run-time types."""
    def test():
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "notes")
            must(compiler("CXX", "c++") + ["-std=" + dialect, "-O0", "-fno-exceptions", "-fno-rtti", *FLAGS, "-I",
                 os.path.join(EXAMPLES, "cpp"), os.path.join(EXAMPLES, "cpp", "notes.cpp"), "-o", program])
            compare("cpp", must([program], cwd=folder))
            with open(os.path.join(EXAMPLES, "cpp", "iqdb.hpp")) as file:
                assert len(file.readlines()) <= 250, "the wrapper is short"
    return "cpp/notes.cpp as %s" % dialect, test


def microcontroller():
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            raise Skip("no %s" % tool)
    source = os.path.join(EXAMPLES, "mcu")
    with tempfile.TemporaryDirectory() as folder:
        bake, image = os.path.join(folder, "bake"), os.path.join(folder, "mcu.elf")
        must(compiler("CC", "cc") + ["-std=gnu99", "-O1", *FLAGS, os.path.join(source, "bake.c"), "-o", bake])
        with open(os.path.join(folder, "faces.h"), "w") as file:
            file.write(must([bake]))
        must(["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-Os", "-std=c11",
              "-Wall", "-Werror", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections",
              "-Wl,--no-warn-rwx-segments", "-nostdlib", "-I", ROOT, "-I", folder, "-T", os.path.join(source, "flash.ld"),
              os.path.join(source, "main.c"), os.path.join(source, "start.c"), "-lgcc", "-o", image])
        compare("mcu", must(["qemu-system-arm", "-M", "mps2-an386", "-icount", "shift=0", "-semihosting-config",
                             "enable=on,target=native", "-nographic", "-monitor", "none", "-serial", "none", "-kernel",
                             image]))


def page(folder):
    for tool in ("clang-19", "wasm-ld-19", "node"):
        if shutil.which(tool) is None:
            raise Skip("no %s" % tool)
    must(["make", "--no-print-directory", "-C", ROOT, "wasm", "BUILD=" + folder])
    return os.path.join(folder, "wasm")


def page_in_node():
    """All answers are the true ones, and those of plain C; the stack is the linker's 32 KiB."""
    with tempfile.TemporaryDirectory() as folder:
        served = page(folder)
        compare("wasm", must(["node", "--no-warnings", os.path.join(served, "check.mjs"), served]))


# Opens the page as a visitor would, types questions into it, and sends back what it shows. The answer is there when `input`
# has been handled; that the page is ready is what its line of state says.
DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="page" src="index.html"></iframe><script>
const asked = %s, frame = document.getElementById('page'), at = id => frame.contentDocument.getElementById(id);
function type(text) {
    at('typed').value = text;
    at('typed').dispatchEvent(new Event('input'));
    return { question: at('question').textContent, state: at('state').textContent,
             hits: [...at('hits').children].map(hit => [Number(hit.dataset.id), hit.textContent]) };
}
function wait() {
    const state = at('state')?.textContent ?? 'loading';
    if (state === 'loading') setTimeout(wait, 20);
    else fetch('shown', { method: 'POST', body: JSON.stringify(asked.map(type)) });
}
wait();
</script>"""
DRIVEN = 8


def nearest(question, rows, count):
    """Ids by cosine in double precision, from the vectors that the blob was made of."""
    def distance(row):
        dot, norm = sum(map(operator.mul, question, row)), sum(map(operator.mul, row, row))
        return -dot / math.sqrt(norm)
    return [number for _, number in sorted((distance(row), number) for number, row in rows)[:count]]


def vectors_of(name):
    with open(os.path.join(EXAMPLES, "data", name + ".fbin"), "rb") as file:
        count, dim = struct.unpack("<II", file.read(8))
        return [struct.unpack("<%df" % dim, file.read(4 * dim)) for _ in range(count)]


def lines_of(name):
    with open(os.path.join(EXAMPLES, "data", name + ".jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Visited(http.server.SimpleHTTPRequestHandler):
    """A folder, and a place to send one answer to. Isolated pages have a clock that tells microseconds."""
    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self):
        self.server.answers.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def visit(browser, served, name):
    """What a page posts. In real time: in a browser's virtual one no search takes any."""
    user = tempfile.mkdtemp()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Visited, directory=served)) as server:
        server.answers = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        visitor = subprocess.Popen(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + user, "--remote-debugging-port=0",
             "http://127.0.0.1:%d/%s" % (server.server_address[1], name)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            return server.answers.get(timeout=120)
        except queue.Empty:
            raise AssertionError("%s has not answered from %s in 120 s" % (browser, name)) from None
        finally:
            os.killpg(visitor.pid, signal.SIGKILL)  # what was started may be a script that starts the browser,
            visitor.wait()
            server.shutdown()
            shutil.rmtree(user, ignore_errors=True)  # and the last of it may be on its way out


def page_in_a_browser():
    """Typed questions get the notes that a computation of ours finds, in its order, and the time of each is told."""
    browser = next(filter(shutil.which, ("chromium-headless-shell", "chromium")), None)
    if browser is None:
        raise Skip("no chromium-headless-shell, nor chromium")
    questions, notes = lines_of("questions"), lines_of("notes")
    texts, rows = {note["id"]: note["text"] for note in notes}, list(zip((n["id"] for n in notes), vectors_of("notes")))
    asked = [question["text"] for question in questions[::len(questions) // DRIVEN][:DRIVEN]]
    with tempfile.TemporaryDirectory() as folder:
        served = page(folder)
        with open(os.path.join(served, "driver.html"), "w", encoding="utf-8") as file:
            file.write(DRIVER % json.dumps(asked))
        shown = json.loads(visit(browser, served, "driver.html"))
    assert [answer["question"] for answer in shown] == asked
    vectors = {question["text"]: vector for question, vector in zip(questions, vectors_of("questions"))}
    for answer in shown:
        assert re.fullmatch(r"[1-9]\d* µs for %d notes, by wasm" % len(notes), answer["state"]), answer["state"]
        ids = [number for number, _ in answer["hits"]]
        expected = nearest(vectors[answer["question"]], rows, 5)
        assert ids == expected, "%s: %s, but nearest are %s" % (answer["question"], ids, expected)
        for number, text in answer["hits"]:
            assert text.endswith("  " + texts[number]), "of note %d the page shows: %s" % (number, text)


def examples():
    yield microcontroller
    yield page_in_node
    yield page_in_a_browser
    for dialect in ("c++17", "c++20"):
        yield wrapper(dialect)
    names = sorted(os.listdir(EXAMPLES)) if os.path.isdir(EXAMPLES) else []
    for name in names:
        if name.endswith(".c"):
            yield example(name, ("CC", "cc"), ["-O1", "-std=gnu99"])
        if name.endswith((".c", ".cpp")):
            yield example(name, ("CXX", "c++"), ["-O1", "-x", "c++", "-std=c++11"])


if __name__ == "__main__":
    main("examples", list(examples()))
