#!/usr/bin/env python3
"""The Redis module of examples/redis/module.c in real servers: its answers are a local handle's, to the last bit of each
score; keys survive files, copies, replicas and damage; bad input gets an error of Redis's kind and changes nothing."""
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from servers import (HERE, METRICS, ROOT, Local, Server, blob, clusters, hits, library, main, need,  # noqa: E402
                     redis, until)

DIM = 24
ROW = 4 * DIM


def rows(vectors):
    return [vectors[at:at + ROW] for at in range(0, len(vectors), ROW)]


def fill(server, key, ids, seed=1, metric="cosine", batch=500):
    """Records with payloads in the key, their vectors in a local handle."""
    ids, vectors, local = list(ids), clusters(len(ids), DIM, seed), Local(DIM, metric)
    arguments = [part for id, row in zip(ids, rows(vectors)) for part in (id, row, '{"n":%d}' % (id % 1000))]
    for at in range(0, len(arguments), 3 * batch):
        server("IQ.ADDMANY", key, "METRIC", metric, *arguments[at:at + 3 * batch])
    local.add(ids, vectors)
    return local


def compare(server, key, local, seed=77, count=5, k=20):
    for question in rows(clusters(count, DIM, seed)):
        theirs, ours = hits(server("IQ.SEARCH", key, "FP32", question, "K", k)), local.search(question, k)
        assert theirs == ours, "module:\n%s\nlocal handle:\n%s" % (theirs, ours)


def digest(server):
    return server("DEBUG", "DIGEST")


def error_of(server, *command):
    try:
        answer = server(*command)
    except redis.ResponseError as error:
        return type(error).__name__ + " " + str(error)
    raise AssertionError("%s answers %r" % (command[:3], answer))


def in_folder(test):
    def inside():
        need()
        with tempfile.TemporaryDirectory() as folder:
            test(folder)
    inside.__name__ = test.__name__
    return inside


@in_folder
def answers_are_a_local_handles(folder):
    with Server(folder) as server:
        for metric in METRICS:
            ids = [0, 2 ** 64 - 1, 2 ** 63] + [random.Random(metric + str(i)).getrandbits(64) for i in range(997)]
            local = fill(server, metric, ids, 3, metric)
            compare(server, metric, local)
            gone = ids[::7]
            assert server("IQ.DEL", metric, *gone, gone[0]) == len(gone)
            for id in gone:
                local.delete(id)
            assert server("IQ.ADD", metric, ids[1], "VALUES", DIM, *[1] * DIM) == 0
            assert server("IQ.ADD", metric, ids[0], "FP32", struct.pack("<%df" % DIM, *range(DIM))) == 1
            local.add([ids[1], ids[0]], struct.pack("<%df" % (2 * DIM), *[1] * DIM, *range(DIM)))
            compare(server, metric, local)
            question = rows(clusters(1, DIM, 5))[0]
            best = local.search(question, 30)
            pages, after = [], []
            while len(pages) < 30:
                page = server("IQ.SEARCH", metric, "FP32", question, "K", 7, *after)
                pages += hits(page)
                after = ["AFTER", page[-1][0], page[-1][1]]
            assert pages[:30] == best, (pages, best)
            near = server("IQ.SEARCH", metric, "FP32", question, "K", 10 ** 15, "MAXDISTANCE", repr(best[9][1]))
            assert hits(near) == [hit for hit in best if hit[1] <= best[9][1]], (near, best)
            all_there_are = server("IQ.SEARCH", metric, "FP32", question, "K", 10 ** 15)
            assert hits(all_there_are) == local.search(question, 2000)
            other = server("IQ.SEARCH", metric, "FP32", question, "K", 3, "METRIC", "l1")
            assert len(other) == 3 and (metric != "l1" or hits(other) == best[:3])
            assert len(server("IQ.SEARCH", metric, "FP32", question, "EF", 50)) == 10
            local.close()


@in_folder
def filters_and_payloads(folder):
    with Server(folder) as server:
        local = fill(server, "key", range(3000))
        question = rows(clusters(1, DIM, 9))[0]
        ranked = local.search(question, 3000)
        wanted = [hit for hit in ranked if hit[0] % 1000 < 50][:10]
        found = server("IQ.SEARCH", "key", "FP32", question, "FILTER", "n < 50", "WITHPAYLOADS")
        assert hits(found) == wanted, (found, wanted)
        assert [hit[2] for hit in found] == [b'{"n":%d}' % (id % 1000) for id, _ in wanted]
        for payload in ('{}', '{"a":{"$bytes":"00ff"},"b":[1,2.5,null,true,"\\u0000"]}', '{"z":"\u00e9"}'):
            assert server("IQ.ADD", "key", 1, "FP32", question, "PAYLOAD", payload) == 0
            assert server("IQ.GET", "key", 1, "FP32") == [payload.encode(), question]
        assert server("IQ.ADD", "key", 1, "FP32", question) == 0
        assert server("IQ.GET", "key", 1, "FP32") == [None, question]
        values = [float(text) for text in server("IQ.GET", "key", 1)[1]]
        assert struct.pack("<%df" % DIM, *values) == question
        # Numbers are those of printf, of any size, at ties of the ninth digit, and around the powers of ten.
        source = random.Random(3)
        numbers = [sign * ten * near for ten in map(float, ("1e-5", "1e-4", "1e-3", "0.1", "1", "10", "1e6", "1e8", "1e9", "1e30"))
                   for near in (1, 1 - 6e-8, 1 + 1.2e-7, 1.5, 9.9999995) for sign in (1, -1)]
        numbers += [source.uniform(-1, 1) * 10.0 ** source.randrange(-6, 11) for _ in range(4000)] + [0.0, -0.0]
        numbers += [source.randrange(1 << 24) / 2.0 ** source.randrange(1, 20) for _ in range(4000)]
        packed = struct.pack("<%df" % len(numbers), *numbers)
        server("IQ.ADD", "numbers", 1, "FP32", packed)
        for text, number in zip(server("IQ.GET", "numbers", 1)[1], struct.unpack("<%df" % len(numbers), packed)):
            assert text.decode() == "%.9g" % number, (text, number)
        assert server("IQ.GET", "key", 5000) is None and server("IQ.GET", "none", 1) is None
        assert server("IQ.STAT", "none") is None and server("IQ.SEARCH", "none", "VALUES", 1, 0) == []
        facts = server("IQ.STAT", "key")
        facts = dict(zip(facts[::2], facts[1::2]))
        assert (facts[b"records"], facts[b"dim"], facts[b"metric"]) == (3000, DIM, b"cosine"), facts
        local.close()


@in_folder
def bad_input(folder):
    with Server(folder) as server:
        fill(server, "key", range(100)).close()
        server("SET", "text", "x")
        before = digest(server)
        row, other = bytes(ROW), bytes(ROW + 4)
        nan = struct.pack("<%df" % DIM, *[float("nan")] * DIM)
        deep = '{"a":' + "[" * 100 + "]" * 100 + "}"
        wrong = [
            ("wrong number", "IQ.ADD"), ("wrong number", "IQ.ADD", "key", 1), ("wrong number", "IQ.SEARCH", "key"),
            ("wrong number", "IQ.GET", "key"), ("wrong number", "IQ.DEL", "key"), ("wrong number", "IQ.STAT"),
            ("wrong number", "IQ.ADDMANY", "key", 1), ("wrong number", "IQ.SEARCH", "key", "FP32"),
            ("WRONGTYPE", "IQ.ADD", "text", 1, "FP32", row), ("WRONGTYPE", "IQ.SEARCH", "text", "FP32", row),
            ("WRONGTYPE", "IQ.GET", "text", 1), ("WRONGTYPE", "IQ.DEL", "text", 1), ("WRONGTYPE", "IQ.STAT", "text"),
            ("WRONGTYPE", "IQ.ADDMANY", "text", 1, row, ""), ("WRONGTYPE", "GET", "key"), ("WRONGTYPE", "LPUSH", "key", 1),
            ("id is not a number", "IQ.ADD", "key", -1, "FP32", row),
            ("id is not a number", "IQ.ADD", "key", "", "FP32", row),
            ("id is not a number", "IQ.ADD", "key", "1 ", "FP32", row),
            ("id is not a number", "IQ.ADD", "key", 2 ** 64, "FP32", row),
            ("id is not a number", "IQ.ADD", "key", "9" * 100000, "FP32", row),
            ("id is not a number", "IQ.GET", "key", "0x1"), ("id is not a number", "IQ.DEL", "key", 1, "one"),
            ("a vector is FP32 bytes", "IQ.ADD", "key", 1, "F32", row), ("too early", "IQ.ADD", "key", 1, "VALUES", 2, 1),
            ("a vector is 1 to 65536 floats", "IQ.ADD", "key", 1, "FP32", b""),
            ("a vector is 1 to 65536 floats", "IQ.ADD", "key", 1, "FP32", row[:-1]),
            ("a vector is 1 to 65536 floats", "IQ.ADD", "new", 1, "FP32", bytes(4 * 65537)),
            ("a vector is 1 to 65536 floats", "IQ.SEARCH", "key", "FP32", bytes(100 << 20)),
            ("not a number from 0 to 65536", "IQ.ADD", "new", 1, "VALUES", 65537, *[0] * 65537),
            ("not a number from 0 to 65536", "IQ.SEARCH", "key", "VALUES", 2 ** 32 + 1, 0),
            ("an element is not a number", "IQ.ADD", "key", 1, "VALUES", 2, 1, "x"),
            ("an element is not a number", "IQ.ADD", "key", 1, "VALUES", 2, 1, "1" * 200),
            ("an element is not a number", "IQ.ADD", "key", 1, "VALUES", 2, 1, "nan"),
            ("empty", "IQ.ADD", "key", 1, "VALUES", 0, 1), ("NaN", "IQ.ADD", "key", 1, "FP32", nan),
            ("NaN", "IQ.ADD", "new", 1, "VALUES", 2, 1, "inf"), ("not finite", "IQ.SEARCH", "key", "FP32", nan),
            ("not finite", "IQ.SEARCH", "none", "FP32", nan), ("NaN", "IQ.ADDMANY", "key", 900, row, "", 901, nan, ""),
            ("has 25 elements, those of this key have 24", "IQ.ADD", "key", 1, "FP32", other),
            ("has 25 elements, those of this key have 24", "IQ.ADDMANY", "key", 900, row, "", 901, other, ""),
            ("has 25 elements, those of this key have 24", "IQ.SEARCH", "key", "FP32", other),
            ("has 25 elements, those of this key have 24", "IQ.ADDMANY", "new", 900, row, "", 901, other, ""),
            ("the METRIC of this key is cosine", "IQ.ADD", "key", "METRIC", "l2", 1, "FP32", row),
            ("METRIC is l2", "IQ.ADD", "new", "METRIC", "hamming", 1, "FP32", row),
            ("syntax error", "IQ.ADD", "key", 1, "FP32", row, "PAYLOD", "{}"),
            ("syntax error", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD"),
            ("syntax error", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD", "{}", 1),
            ("syntax error", "IQ.ADDMANY", "key", 1, row, "", 2), ("syntax error", "IQ.GET", "key", 1, "FP64"),
            ("payload, byte 1", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD", "{x}"),
            ("payload, byte 0", "IQ.ADD", "new", 1, "FP32", row, "PAYLOAD", "7"),
            ("payload, byte", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD", deep),
            ("payload, byte", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD", b'{"a":"\xff"}'),
            ("payload, byte", "IQ.ADDMANY", "key", 900, row, "{}", 901, row, '{"a":1,"a":2}'),
            ("would be larger than", "IQ.ADD", "key", 1, "FP32", row, "PAYLOAD", b'{"a":"' + b"x" * (65 << 20) + b'"}'),
            ("K is not a number", "IQ.SEARCH", "key", "FP32", row, "K", "-1"),
            ("K is not a number", "IQ.SEARCH", "key", "FP32", row, "K", 2 ** 64),
            ("EF is not a number", "IQ.SEARCH", "key", "FP32", row, "EF", 2 ** 32), ("too early", "IQ.SEARCH", "key", "FP32", row, "K"),
            ("MAXDISTANCE is not", "IQ.SEARCH", "key", "FP32", row, "MAXDISTANCE", ""),
            ("MAXDISTANCE is not", "IQ.SEARCH", "key", "FP32", row, "MAXDISTANCE", "nan"),
            ("too early", "IQ.SEARCH", "key", "FP32", row, "AFTER", 1), ("too early", "IQ.SEARCH", "key", "FP32", row, "FILTER"),
            ("an option", "IQ.SEARCH", "key", "FP32", row, "LIMIT", 1),
            ("filter, byte 2", "IQ.SEARCH", "key", "FP32", row, "FILTER", "a ~ 1"),
            ("filter, byte", "IQ.SEARCH", "none", "FP32", row, "FILTER", "(" * 1000),
            ("filter, byte", "IQ.SEARCH", "key", "FP32", row, "FILTER", b"a = '\xff'"),
        ]
        for expected, *command in wrong:
            message = error_of(server, *command)
            assert expected in message, "%s: %s" % ([str(part)[:40] for part in command], message)
            assert "\n" not in message and len(message) < 300
        assert server("IQ.SEARCH", "key", "FP32", row, "K", 0) == []
        assert server("EXISTS", "new") == 0 and digest(server) == before and server("PING")


@in_folder
def files(folder):
    """RDB files, AOF files of commands and rewritten ones, each read by a server that starts anew."""
    with Server(folder, "--appendonly", "no") as server:
        local = fill(server, "key", range(5000))
        fill(server, "other", range(10, 20), 8, "dot").close()
        before = digest(server)
        assert server("BGSAVE")
        until("the save", lambda: server("INFO", "persistence")["rdb_bgsave_in_progress"] == 0)
        assert server("INFO", "persistence")["rdb_last_bgsave_status"] == "ok"
        server("DEBUG", "RELOAD")
        assert digest(server) == before
        server.stop()
        server.start()
        assert digest(server) == before
        compare(server, "key", local)
        assert server("IQ.DEL", "key", 0) == 1 and digest(server) != before
        local.close()
    options = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--appendfsync", "no"]
    with Server(folder, *options) as server:
        local = fill(server, "key", range(3000))
        server("IQ.ADD", "key", 4000, "FP32", bytes(ROW), "PAYLOAD", "{}")
        server("IQ.DEL", "key", 4000, *range(50))
        for id in range(50):
            local.delete(id)
        fill(server, "other", [2 ** 64 - 1, 5], 8, "dot").close()
        before = digest(server)
        for rewritten in (False, True):
            if rewritten:
                assert server("BGREWRITEAOF")
                until("the rewrite", lambda: server("INFO", "persistence")["aof_rewrite_in_progress"] == 0
                      and server("INFO", "persistence")["aof_rewrite_scheduled"] == 0)
                assert server("INFO", "persistence")["aof_last_bgrewrite_status"] == "ok"
            server.stop()
            server.start()
            assert digest(server) == before, "rewritten %s" % rewritten
            compare(server, "key", local)
        facts = server("IQ.STAT", "other")
        assert dict(zip(facts[::2], facts[1::2]))[b"metric"] == b"dot"
        local.close()


@in_folder
def a_value_as_any_other(folder):
    """COPY, RENAME, DUMP and RESTORE, TYPE, OBJECT, EXPIRE, MULTI, scripts, WATCH and the counting of memory."""
    with Server(folder) as server:
        empty = server("INFO", "memory")["used_memory"]
        local = fill(server, "key", range(5000))
        first = server("MEMORY", "USAGE", "key")
        assert 5000 * ROW < first < 5000 * ROW * 3 + (1 << 20), first
        used = server("INFO", "memory")["used_memory"] - empty
        assert first * 0.9 < used < first * 1.5 + (1 << 20), (first, used)
        assert server("COPY", "key", "copy") == 1 and server("RENAME", "copy", "third")
        compare(server, "third", local)
        dump = server("DUMP", "key")
        assert server("RESTORE", "fourth", 0, dump) and server("DUMP", "fourth") == dump
        compare(server, "fourth", local)
        server("IQ.DEL", "third", 7)
        assert server("IQ.GET", "key", 7) is not None and server("IQ.GET", "third", 7) is None
        assert server("TYPE", "key") == b"iqdb-vecs"
        assert server("SCAN", 0, "COUNT", 100, "TYPE", "iqdb-vecs")[0] == 0
        for key in ("third", "fourth"):
            assert server("UNLINK", key) == 1
        assert server("PEXPIRE", "key", 1) == 1
        until("all is gone", lambda: server("EXISTS", "key") == 0)
        until("memory is back", lambda: server("INFO", "memory")["used_memory"] < empty + (1 << 20))
        assert server("IQ.ADD", "key", 1, "VALUES", 1, 1) == 1 and server("IQ.DEL", "key", 1) == 1
        assert server("EXISTS", "key") == 0
        with server.connection.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("IQ.ADD", "key", 1, "VALUES", 2, 3, 4)
            pipeline.execute_command("IQ.SEARCH", "key", "VALUES", 2, 3, 4)
            pipeline.execute_command("IQ.ADD", "key", 2, "VALUES", 1, 1)
            answers = pipeline.execute(raise_on_error=False)
        assert answers[0] == 1 and answers[1][0][0] == b"1" and "elements" in str(answers[2]), answers
        script = "return redis.call('IQ.SEARCH', KEYS[1], 'VALUES', 2, 3, 4)[1][1]"
        assert server("EVAL", script, 1, "key") == b"1"
        with server.connection.pipeline() as pipeline:
            pipeline.watch("key")
            server("IQ.ADD", "key", 2, "VALUES", 2, 0, 1)
            pipeline.multi()
            pipeline.execute_command("IQ.DEL", "key", 1)
            try:
                pipeline.execute()
                raise AssertionError("a watched key changed unseen")
            except redis.WatchError:
                pass
        local.close()


@in_folder
def full_memory(folder):
    with Server(folder) as server:
        local = fill(server, "key", range(2000))
        server("CONFIG", "SET", "maxmemory", server("INFO", "memory")["used_memory"] + (1 << 20))
        vectors, refused = rows(clusters(20000, DIM, 4)), ""
        for first in range(0, 20000, 100):
            try:
                server("IQ.ADDMANY", "more", *[part for i in range(first, first + 100) for part in (i, vectors[i], "")])
            except redis.RedisError as error:
                refused = str(error)
                break
        assert "maxmemory" in refused, refused
        compare(server, "key", local)
        assert server("IQ.DEL", "more", *range(first)) == first and server("EXISTS", "more") == 0
        assert server("IQ.ADD", "key", 5000, "FP32", vectors[0]) == 1
        local.close()


@in_folder
def damaged_blobs(folder):
    """A key whose bytes are wrong under a right checksum of Redis's: refused whole, and nothing else is touched."""
    with Server(folder) as server:
        local = fill(server, "key", range(40))
        server("CONFIG", "SET", "rdbcompression", "no")
        dump = server("DUMP", "key")
        server("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
        before, source = digest(server), random.Random(6)
        places = sorted(source.sample(range(len(dump) - 10), 400)) + list(range(40)) + list(range(len(dump) - 40, len(dump) - 10))
        refused = 0
        for place in places:
            damaged = dump[:place] + bytes([dump[place] ^ 1 << source.randrange(8)]) + dump[place + 1:]
            try:
                server("RESTORE", "bad", 0, damaged)
                raise AssertionError("restored with byte %d of %d wrong" % (place, len(dump)))
            except redis.ResponseError as error:
                assert "Bad data format" in str(error), error
                refused += 1
        for size in source.sample(range(10, len(dump) - 10), 60):
            assert "Bad data format" in error_of(server, "RESTORE", "bad", 0, dump[:size] + dump[-10:])
        assert refused == len(places) and digest(server) == before and server("EXISTS", "bad") == 0
        assert "iqdb: a key cannot be loaded" in server.log()
        compare(server, "key", local)
        server("SAVE")
        server.stop()
        path = server.folder + "/dump.rdb"
        with open(path, "rb") as file:
            whole = file.read()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 64
        with open(path, "wb") as file:
            file.write(damaged)
        server.start(ready=False)
        assert server.process.wait(60) != 0
        assert "iqdb: a key cannot be loaded: " in server.log().split("Redis is starting")[-1], server.log()[-2000:]
        with open(path, "rb") as file:
            assert file.read() == damaged, "the file was changed"
        with open(path, "wb") as file:
            file.write(whole)
        server.start()
        assert digest(server) == before
        local.close()


@in_folder
def blobs_of_others(folder):
    """Whole blobs that no command here could have made: of other elements, of more collections, of no record."""
    with Server(folder) as server:
        server("IQ.ADD", "key", 1, "VALUES", 2, 3, 4)
        server("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
        before, dump = digest(server), server("DUMP", "key")
        begin, end = dump[:10], dump[-10:]  # the type and the module's; version and checksum

        def restored(key, *of):
            made = blob(*of)
            return "RESTORE", key, 0, begin + b"\x05\x80" + struct.pack(">I", len(made)) + made + b"\x05\0\0" + end
        for element in range(1, 6):
            assert "Bad data format" in error_of(server, *restored("bad", element)), element
        for of in ((0, 3, 1), (0, 3, 2), (0, 0), (4, 0), (5, 3, 1)):
            assert "Bad data format" in error_of(server, *restored("bad", *of)), of
        assert server("EXISTS", "bad") == 0 and digest(server) == before and server("PING")
        assert "it is no collection of this module" in server.log()
        assert server(*restored("good", 0)) and len(server("IQ.SEARCH", "good", "VALUES", 8, *range(8))) == 3


@in_folder
def loaded_once_more(folder):
    """A second MODULE LOAD is refused, and the module goes on as before."""
    with Server(folder, "--enable-module-command", "yes") as server:
        local = fill(server, "key", range(100))
        before = digest(server)
        for _ in range(2):
            assert "rror" in error_of(server, "MODULE", "LOAD", library("module"))
        compare(server, "key", local)
        assert server("IQ.ADD", "new", 1, "VALUES", 1, 1) == 1 and server("DEL", "new") == 1
        server("DEBUG", "RELOAD")
        assert digest(server) == before
        local.close()


@in_folder
def replicas(folder):
    with Server(folder) as master, Server(folder) as replica:
        local = fill(master, "key", range(3000))
        replica("REPLICAOF", HERE, master.port)
        until("the replica", lambda: replica("INFO", "replication")["master_link_status"] == "up")
        more = rows(clusters(500, DIM, 21))
        for id, row in enumerate(more[:100]):
            master("IQ.ADD", "key", 2 * id, "FP32", row, "PAYLOAD", '{"i":%d}' % id)
            local.add([2 * id], row)
        assert master("IQ.DEL", "key", *range(2900, 3100)) == 100
        for id in range(2900, 3000):
            local.delete(id)
        error_of(master, "IQ.ADD", "key", 1, "VALUES", 1, 1)
        fill(master, "second", range(50), 4, "l1").close()
        with master.connection.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("IQ.ADD", "gone", 1, "VALUES", 1, 1)
            pipeline.execute_command("IQ.DEL", "gone", 1)
            pipeline.execute_command("WAIT", 1, 60000)
            assert pipeline.execute() == [1, 1, 1]
        assert digest(replica) == digest(master)
        for server in (master, replica):
            compare(server, "key", local)
            question = rows(clusters(1, DIM, 50))[0]
            assert server("IQ.SEARCH", "second", "FP32", question) == master("IQ.SEARCH", "second", "FP32", question)
        assert "ReadOnly" in error_of(replica, "IQ.ADD", "key", 1, "FP32", more[0])
        assert replica("EXISTS", "gone") == 0 and replica("DBSIZE") == 2
        local.close()


@in_folder
def large_keys_are_searched_exactly(folder):
    """More records than an index by itself begins at, of vectors that no lists suit, and writes enough to make one: the
    nearest are found, in a replica that got the key as a file, and from an AOF, too."""
    count, source = 50000, random.Random(11)
    vectors = struct.pack("<%df" % (count * DIM), *[source.uniform(-1, 1) for _ in range(count * DIM)])
    local, parts = Local(DIM), rows(vectors)
    local.add(range(count), vectors)
    options = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--appendfsync", "no"]
    with Server(folder, *options) as master, Server(folder) as replica:
        for at in list(range(0, count, 1000)) + [0] * 500:
            batch = [part for id in range(at, at + 1000) for part in (id, parts[id], "")]
            master("IQ.ADDMANY", "key", *batch)
        compare(master, "key", local, count=20, k=10)
        replica("REPLICAOF", HERE, master.port)
        until("the replica", lambda: replica("INFO", "replication")["master_link_status"] == "up")
        assert master("IQ.DEL", "key", 5) == 1 and master("WAIT", 1, 60000) == 1
        local.delete(5)
        compare(replica, "key", local, count=20, k=10)
        master("DEBUG", "LOADAOF")
        compare(master, "key", local, count=20, k=10)
    local.close()


@in_folder
def readme_transcript(folder):
    """What the README shows behind the prompt of redis-cli is asked, line by line, and answered as shown there."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        blocks = re.findall(r"^```redis\n(.*?)^```$", file.read(), re.M | re.S)
    assert blocks, "README.md has no transcript of redis-cli"
    with Server(folder) as server:
        for block in blocks:
            lines = re.findall(r"^127\.0\.0\.1:6379> (.*\n)", block, re.M)
            shown = [part.partition("\n")[2] for part in block.split("127.0.0.1:6379> ")[1:]]
            for line, expected in zip(lines, shown):
                done = subprocess.run(["redis-cli", "--no-raw", "-p", str(server.port)], input=line.encode(),
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
                got = done.stdout.decode()
                assert got == expected, "> %sshown:\n%s\nprinted:\n%s" % (line, expected, got)


def the_module_says_no_more_than_its_entry():
    """Nothing of iqdb is visible to other modules, and a server that lacks what is needed refuses the module."""
    need()
    names = subprocess.run(["nm", "-D", "--defined-only", library("module")], stdout=subprocess.PIPE).stdout.decode()
    assert [line.split()[-1] for line in names.splitlines()] == ["RedisModule_OnLoad"], names


if __name__ == "__main__":
    main("redis/module", [answers_are_a_local_handles, filters_and_payloads, bad_input, files, a_value_as_any_other,
                          full_memory, damaged_blobs, blobs_of_others, loaded_once_more, replicas,
                          large_keys_are_searched_exactly, readme_transcript, the_module_says_no_more_than_its_entry])
