#!/usr/bin/env python3
"""An import that ends early loses nothing and doubles nothing: by a signal, by kill, by a bad row, by a full disk; and
what is running is shown on a terminal only."""
import fcntl
import os
import pty
import random
import resource
import signal
import struct
import subprocess
import tempfile
import time
import tty

from cli import (COMMAND, ROOT, Skip, bins, compiler, iqdb, main, must, read, records, rows_of_floats, vecs,  # noqa: F401
                 write)

ROWS = rows_of_floats(6000, 128)  # several blocks
DATA = vecs(ROWS, "f")
FBIN = bins(ROWS, "f")
CSV = "".join(",".join("%.9g" % x for x in row) + "\n" for row in ROWS).encode()
JSONL = b"".join(b'{"vector":[' + line + b"]}\n" for line in CSV.splitlines())


def cut(data, before):
    """The first half, up to `before` bytes before the end of a line."""
    return data[:data.index(b"\n", len(data) // 2) - before]


# All, and what of it comes before the signal. A number that was cut short is a number still, and a row of such a row.
PARTS = {"fvecs": (DATA, DATA[:len(DATA) // 2 + 100]), "csv": (CSV, cut(CSV, 3)), "csv, a whole line": (CSV, cut(CSV, -1)),
         "jsonl": (JSONL, cut(JSONL, 5)), "jsonl, all but the newline": (JSONL, cut(JSONL, 0))}


def folder():
    return tempfile.TemporaryDirectory()


def half_way(at, number, part, closes):
    """An import that has got half of its rows through a pipe, waits for the rest, and then gets a signal. `closes`: whoever
    writes into the pipe gets it too, and ends."""
    process = subprocess.Popen([COMMAND, "import", "db", "-"], cwd=at, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdin.write(part)
    process.stdin.flush()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until the pipe is empty and it sleeps in read
        left = struct.unpack("i", fcntl.ioctl(process.stdin.fileno(), 0x541B, b"\0\0\0\0"))[0]  # FIONREAD
        with open("/proc/%d/stat" % process.pid) as stat:
            if left == 0 and stat.read().rsplit(")", 1)[1].split()[0] == "S":
                break
        time.sleep(0.02)
    process.send_signal(number)
    if closes:
        process.stdin.close()
    process.wait(timeout=120)
    error = process.stderr.read().decode()
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()
    return process.returncode, error


def goes_on(at, at_least, data=DATA):
    """The same command again: everything is there once."""
    [told] = iqdb(at, "import", "db", "-", "--json", stdin=data).json()
    assert told["rows"] == len(ROWS) == told["new"] + told["unchanged"] and told["replaced"] == 0, told
    assert told["unchanged"] >= at_least, told
    iqdb(at, "export", "db", "out.fbin")
    assert read(at, "out.fbin") == FBIN
    [again] = iqdb(at, "import", "db", "-", "--json", stdin=data).json()
    assert again["unchanged"] == len(ROWS), again
    iqdb(at, "verify", "db")


def resumes(number, code, kind="fvecs", closes=False):
    data, part = PARTS[kind]
    if not os.path.exists("/proc/self/stat"):
        raise Skip("no /proc")
    with folder() as at:
        got, error = half_way(at, number, part, closes)
        assert got == code, (got, error)
        if number != signal.SIGKILL:
            assert error.count("\n") == 1 and "rows are imported, and the same command goes on" in error, error
            [told] = iqdb(at, "stat", "db", "--json").json()
            assert told["records"] >= 1024, told
            if "fvecs" not in kind:  # none of the line that was cut, and all before it
                assert told["records"] == part.count(b"\n"), told
        goes_on(at, 1024, data)


def stopped_before_the_first_row():
    with folder() as at:
        got, error = half_way(at, signal.SIGINT, b"1,2", True)
        assert got == 130 and error.count("\n") == 1 and "stopped before the first row of stdin" in error, (got, error)
        assert not os.path.exists(at + "/db")


def killed_at_any_time():
    with folder() as at:
        write(at, "in", DATA)
        for milliseconds in (5, 20, 40, 80, 160, 320):
            process = subprocess.Popen([COMMAND, "import", "db", "in", "--quiet"], cwd=at, stdout=subprocess.DEVNULL)
            time.sleep(milliseconds / 1e3)
            process.kill()
            process.wait()
        goes_on(at, 0)


def bad_row_in_the_middle():
    rows = [list(row) for row in ROWS]
    rows[5000][3] = float("nan")
    with folder() as at:
        write(at, "in.fbin", bins(rows, "f"))
        answer = iqdb(at, "import", "db", "in.fbin", code=3)
        assert "in.fbin, row 5000: element 3" in answer.err and "5000 rows before it" in answer.err, answer.err
        write(at, "in.fbin", FBIN)
        [told] = iqdb(at, "import", "db", "in.fbin", "--json").json()
        assert told["unchanged"] == 5000 and told["new"] == 1000, told
        iqdb(at, "export", "db", "out.fbin")
        assert read(at, "out.fbin") == FBIN


def counted_ids_replace_nothing():
    with folder() as at:
        write(at, "one", "1,2\n3,4\n")
        write(at, "two", "5,6\n7,8\n")
        iqdb(at, "import", "db", "one")
        answer = iqdb(at, "import", "db", "two", code=3)
        assert "two:1: db has another record 0" in answer.err and "--first-id" in answer.err, answer.err
        assert records(at, "db") == {0: ([1, 2], None), 1: ([3, 4], None)}
        iqdb(at, "import", "db", "two", "--first-id", 2)
        assert records(at, "db")[3] == ([7, 8], None)
        [told] = iqdb(at, "import", "db", "two", "--replace", "--limit", 1, "--json").json()
        assert told["replaced"] == 1 and told["rows"] == 1, told
        assert records(at, "db")[0] == ([5, 6], None)
        # Ids that stand in the data mean what they say.
        [told] = iqdb(at, "import", "db", "-", "--json", stdin=b'{"id":1,"vector":[9,9]}').json()
        assert told["replaced"] == 1, told
        assert "ids of its own" in iqdb(at, "import", "db", "-", "--first-id", 3, code=2,
                                        stdin=b'{"id":1,"vector":[9,9]}').err


def what_cannot_be_read_on():
    """The end of a terminal is an error of reading: the row that it cuts is none."""
    with folder() as at:
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        os.write(theirs, b"1,2\n3,4\n5,6")
        os.close(theirs)
        done = subprocess.run([COMMAND, "import", "db", "-"], cwd=at, stdin=ours, stderr=subprocess.PIPE)
        os.close(ours)
        assert done.returncode == 3 and b"cannot be read further: " in done.stderr, done
        assert b"the 2 rows before it are imported" in done.stderr, done
        assert records(at, "db") == {0: ([1, 2], None), 1: ([3, 4], None)}


def conflicts_name_their_line():
    with folder() as at:
        write(at, "one.csv", "1,2\n3,4\n")
        iqdb(at, "import", "db", "one.csv")
        write(at, "two.csv", "vector,name\n1 2,\n\n\n3 5,\n")
        write(at, "two.jsonl", '{"vector":[1,2]}\n\n{"vector":[3,5]}\n')
        write(at, "two.fvecs", vecs([[1, 2], [3, 5]], "f"))
        for name, place in (("two.csv", ":5: "), ("two.jsonl", ":3: "), ("two.fvecs", ", row 1: ")):
            answer = iqdb(at, "import", "db", name, code=3)
            assert name + place + "db has another record 1" in answer.err, answer.err


def ids_end_somewhere():
    last = 2 ** 64 - 1
    with folder() as at:
        answer = iqdb(at, "import", "db", "-", "--first-id", last, stdin=b"1,2\n3,4\n", code=3)
        assert "stdin:2: its id would be beyond" in answer.err and "--first-id" in answer.err, answer.err
        assert records(at, "db") == {last: ([1, 2], None)}
        iqdb(at, "import", "db", "-", "--first-id", last - 1, "--replace", stdin=b"1,2\n3,4\n")
        assert records(at, "db") == {last - 1: ([1, 2], None), last: ([3, 4], None)}


def two_commands_on_one_directory():
    with folder() as at:
        iqdb(at, "create", "db", "--dim", 2)
        process = subprocess.Popen([COMMAND, "shell", "db"], cwd=at, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(b"put 1 --vector '1 2'\nlist\n")
        process.stdin.flush()
        assert process.stdout.readline() == b'{"id":1,"payload":null}\n'
        for command in (["list", "db"], ["verify", "db"]):  # who only reads is in nobody's way
            iqdb(at, *command)
        assert iqdb(at, "list", "db").out == '{"id":1,"payload":null}\n'
        for command in (["put", "db", "2", "--vector", "1 2"], ["import", "db", "-"], ["delete", "db", "1"]):
            answer = iqdb(at, *command, stdin=b"1,2\n", code=4)
            assert "another program has it open" in answer.err, answer.err
        [told] = iqdb(at, "dump", "db", "--json").json()
        assert told["dim"] == 2, told
        process.communicate()
        assert records(at, "db") == {1: ([1, 2], None)}


def full_disk():
    with folder() as at:
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", at],
                                               stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("no file system of one's own to fill")
        try:
            with tempfile.TemporaryDirectory() as elsewhere:
                source = os.path.join(elsewhere, write(elsewhere, "in.fbin", FBIN))
                answer = iqdb(at, "import", "db", source, "--format", "fbin", code=4)
                assert "make room and run the same command again" in answer.err, answer.err
                iqdb(at, "verify", "db")
                [told] = iqdb(at, "stat", "db", "--json").json()
                kept = told["records"]
                assert 0 < kept < len(ROWS), told
                answer = iqdb(at, "export", "db", "out.fbin", code=5)
                assert "make room" in answer.err and not os.path.exists(at + "/out.fbin.part"), answer.err
                subprocess.run(["mount", "-o", "remount,size=64m", at], check=True)
                [told] = iqdb(at, "import", "db", source, "--json").json()
                assert told["unchanged"] == kept and told["new"] == len(ROWS) - kept, (told, kept)
                iqdb(at, "export", "db", "out.fbin")
                assert read(at, "out.fbin") == FBIN
        finally:
            subprocess.run(["umount", at])


def larger_than_memory():
    """Sixteen thousand rows of a KiB in twelve MiB, which are not enough for all; then once more, with others."""
    count, dim, room = 16000, 256, 12 << 20
    data = struct.pack("<II", count, dim) + b"".join(
        struct.pack("<%df" % dim, *(b / 8 - 16 for b in random.Random(i).getrandbits(8 * dim).to_bytes(dim, "little")))
        for i in range(count))
    with folder() as at:
        plain = os.path.join(at, "plain")  # sanitizers have memory of their own
        must(compiler("CC", "cc") + ["-std=gnu99", "-O1", "-pthread", "-I", ROOT,
                                     os.path.join(ROOT, "tools/iqdb.c"), "-o", plain, "-lm"])
        write(at, "in.fbin", data)
        write(at, "again.fbin", struct.pack("<II", count, dim) + data[8 + 4 * dim * 10:] + data[8:8 + 4 * dim * 10])

        def limited(*arguments):
            def limit():
                resource.setrlimit(resource.RLIMIT_DATA, (room, room))
            done = subprocess.run([plain, *arguments], cwd=at, preexec_fn=limit, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
            return done.returncode, done.stderr.decode()
        code, said = limited("import", "all", "in.fbin")
        assert code == 4 and "not enough; an import takes less with --memory" in said, (code, said)
        code, said = limited("import", "db", "in.fbin", "--memory", "1")
        assert (code, said) == (0, ""), said
        iqdb(at, "verify", "db")
        iqdb(at, "export", "db", "out.fbin")
        assert read(at, "out.fbin") == data
        code, said = limited("import", "db", "again.fbin", "--memory", "1", "--replace")
        assert (code, said) == (0, ""), said
        iqdb(at, "export", "db", "out.fbin")
        assert read(at, "out.fbin") == read(at, "again.fbin")
        iqdb(at, "import", "all", "in.fbin")  # what had no room is taken up again
        iqdb(at, "export", "all", "out.fbin")
        assert read(at, "out.fbin") == data


def on_a_terminal(at, *arguments):
    """What the command tells one."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([COMMAND, *arguments], cwd=at, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown


def progress_on_a_terminal_only():
    with folder() as at:
        write(at, "in.fvecs", DATA)
        assert iqdb(at, "import", "piped", "in.fvecs").err == ""
        for arguments in (("import", "db", "in.fvecs"), ("export", "db", "out.fvecs"), ("reindex", "db", "--index", "ivf")):
            shown = on_a_terminal(at, *arguments)
            for word in (b"rows/s", b"ETA", b"6000 rows", b"%"):
                assert word in shown, (arguments, shown)
            assert shown.endswith(b"\r\033[K"), (arguments, shown)
            assert arguments[0] == "import" or iqdb(at, *arguments).err == "", arguments
        assert read(at, "out.fvecs") == DATA
        assert on_a_terminal(at, "export", "db", "out.fvecs", "--quiet") == b"" == on_a_terminal(at, "export", "db")


def shell_on_a_terminal():
    with folder() as at:
        iqdb(at, "create", "db", "--dim", 2)
        ours, theirs = pty.openpty()
        process = subprocess.Popen([COMMAND, "shell", "db"], cwd=at, stdin=theirs, stdout=theirs, stderr=theirs,
                                   start_new_session=True)
        os.close(theirs)

        def until(text):
            got = b""
            while not got.endswith(text):
                got += os.read(ours, 1)
            return got
        until(b"iqdb> ")
        os.write(ours, b"put 4 --vector \"1 2\" --payload '{\"a b\": 1}'\n")
        until(b"iqdb> ")
        os.write(ours, b"get 4\n")
        assert b'{"id":4,"vector":[1,2],"payload":{"a b":1}}' in until(b"iqdb> ")
        os.write(ours, b"frob\n")
        assert b"'frob' is no verb here" in until(b"iqdb> ")
        os.write(ours, b"exit\n")
        assert process.wait(timeout=60) == 2
        os.close(ours)
        assert records(at, "db") == {4: ([1, 2], {"a b": 1})}


if __name__ == "__main__":
    main("cli/import", [
        ("resumes after Ctrl-C", lambda: resumes(signal.SIGINT, 130)),
        ("resumes after SIGTERM", lambda: resumes(signal.SIGTERM, 143)),
        ("resumes after kill -9", lambda: resumes(signal.SIGKILL, -9))] + [
        ("resumes %s after Ctrl-C%s" % (kind, ", of both ends" if closes else ""),
         lambda kind=kind, closes=closes: resumes(signal.SIGINT, 130, kind, closes))
        for kind in PARTS for closes in (False, True) if closes or kind != "fvecs"] + [
        stopped_before_the_first_row, what_cannot_be_read_on, killed_at_any_time, bad_row_in_the_middle,
        counted_ids_replace_nothing, conflicts_name_their_line, ids_end_somewhere, two_commands_on_one_directory,
        full_disk, larger_than_memory, progress_on_a_terminal_only, shell_on_a_terminal])
