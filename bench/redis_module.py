#!/usr/bin/env python3
"""The rate of searches through the Redis module, pipelined, beside that of a local handle with the same records.

    redis_module.py [--quick]      needs redis-server and the redis package for Python, as tests/redis does

One connection over loopback TCP sends commands that were made beforehand, two pipelines of DEPTH at a time, so that the
server always has something to do; replies are counted, not parsed. The local handle answers the same questions one by
one, in C. Each round runs both, in turns; the ratio is taken within a round: 1 means that Redis costs nothing. Median,
smallest and largest of the rounds are printed, and what a command takes beyond its search. Beside it, what Redis takes
for K members of a sorted set of its own with their scores: a search that is as short as a command cannot come close
to 1. Answers are compared before anything is timed.
"""
import os
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "redis"))
from servers import HERE, Local, Server, clusters, hits, need  # noqa: E402
from harness import Skip  # noqa: E402

K, DEPTH, BAR = 10, 64, 0.8
SIZES = ((1000, 32, 20000), (10000, 128, 4000), (100000, 128, 400), (100000, 384, 150))  # records, dim, searches a round


def command(*parts):
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def seconds(port, batches, answer_lines=1 + 5 * K):
    """For all commands of all batches; the answer of a search has K hits, and so 1 + 5 K lines."""
    with socket.create_connection((HERE, port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin, sent, lines = time.perf_counter(), 0, 0
        for number, (count, data) in enumerate(batches):
            if number == 0:
                connection.sendall(data)
            if number + 1 < len(batches):
                connection.sendall(batches[number + 1][1])
            sent += count * answer_lines
            while lines < sent:
                lines += connection.recv(1 << 20).count(b"\n")
        return time.perf_counter() - begin


def measure(folder, records, dim, searches, rounds):
    row, local = 4 * dim, Local(dim)
    vectors = clusters(records, dim)
    local.add(range(records), vectors)
    with Server(folder) as server:
        for first in range(0, records, 1000):
            server("IQ.ADDMANY", "key", *[part for id in range(first, min(first + 1000, records))
                                          for part in (id, vectors[row * id:row * (id + 1)], "")])
        del vectors
        questions = clusters(searches, dim, first=records)
        each = [questions[at:at + row] for at in range(0, len(questions), row)]
        for question in each[:20]:
            assert hits(server("IQ.SEARCH", "key", "FP32", question, "K", K)) == local.search(question, K)
        made = [command("IQ.SEARCH", "key", "FP32", question, "K", K) for question in each]
        batches = [(len(made[at:at + DEPTH]), b"".join(made[at:at + DEPTH])) for at in range(0, searches, DEPTH)]
        ours, theirs = [], []
        for number in range(rounds + 1):
            sides = [lambda: ours.append(searches / local.code.local_seconds(local.db, questions, searches, dim, K)),
                     lambda: theirs.append(searches / seconds(server.port, batches))]
            for side in sides[::-1] if number % 2 else sides:
                side()
    local.close()
    ratios = [their / our for our, their in zip(ours[1:], theirs[1:])]  # the first round warms up
    middle = statistics.median(ratios)
    beyond = statistics.median(1e6 / their - 1e6 / our for our, their in zip(ours[1:], theirs[1:]))
    print("%8d x %-4d %12.0f %12.0f %12.1f   %.3f (%.3f-%.3f)%s" % (
        records, dim, statistics.median(ours[1:]), statistics.median(theirs[1:]), beyond, middle, min(ratios), max(ratios),
        "" if middle >= BAR else "   below %.1f" % BAR))
    sys.stdout.flush()
    return middle


def measure_redis(folder, rounds):
    """Microseconds of a command of Redis's own with an answer of as many members and scores."""
    with Server(folder) as server:
        for member in range(K):
            server("ZADD", "set", (member + 1) / 81, member)
        batches = [(DEPTH, DEPTH * command("ZRANGE", "set", 0, K - 1, "WITHSCORES"))] * 300
        return statistics.median(1e6 * seconds(server.port, batches, 1 + 4 * K) / (DEPTH * 300) for _ in range(rounds))


def run():
    quick = "--quick" in sys.argv[1:]
    try:
        need()
    except Skip as why:
        print("skipped: %s" % why)
        return
    with tempfile.TemporaryDirectory() as folder:
        print("ZRANGE of %d with their scores: %.1f us a command" % (K, measure_redis(folder, 1 if quick else 7)))
        print("%15s %12s %12s %12s   %s" % ("records", "local 1/s", "module 1/s", "us beyond", "module / local"))
        for records, dim, searches in SIZES[:2] if quick else SIZES:
            measure(folder, records, dim, searches // 20 if quick else searches, 1 if quick else 7)


if __name__ == "__main__":
    run()
