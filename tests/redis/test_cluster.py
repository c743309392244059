#!/usr/bin/env python3
"""A collection over a Redis Cluster of three masters and three replicas, by examples/redis/client.py.

Each round begins with six new servers and one local handle that gets the same records. While 100,000 vectors are added,
each batch acknowledged by a replica (WAIT 1), a master is killed; its replica takes over. Then every acknowledged record
has to be there with its bytes, and answers have to be the local handle's, ids and bits of scores. The dead node comes
back as a replica, slots move from one master to another while records are added, replaced, deleted and searched, and
all is compared again. At last a shard loses master and replica, and its client has to be told so.
"""
import contextlib
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from servers import HERE, ROOT, Local, Server, clusters, main, must, need, redis, run, until  # noqa: E402

ROUNDS = {"quick": 1, "long": 10}.get(os.environ.get("IQDB_TEST_TIER"), 3)
RECORDS, DIM, SHARDS, BATCH, QUESTIONS, K, SLOTS = 100000, 32, 64, 1000, 40, 10, 1000
ROW = 4 * DIM
OPTIONS = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0"]


def start_cluster(folder, stack):
    servers = []
    for _ in range(6):
        server = stack.enter_context(Server(folder, *OPTIONS))
        servers.append(server)
    at = ["%s:%d" % (HERE, server.port) for server in servers]
    must(["redis-cli", "--cluster", "create"] + at + ["--cluster-replicas", "1", "--cluster-yes"], timeout=120)
    until("a whole cluster", lambda: all(b"cluster_state:ok" in raw(server, "CLUSTER", "INFO") for server in servers))
    until("replicas in step", lambda: all(in_step(server) for server in servers))
    return servers


def raw(server, *command):
    return server(*command)


def role(server):
    return server("ROLE")[0].decode()


def in_step(server):
    facts = server("ROLE")
    return facts[3] == b"connected" if facts[0] == b"slave" else len(facts[2]) == 1


def name_of(server):
    return server("CLUSTER", "MYID").decode()


class Load:
    """What was written, to the cluster and to the local handle alike."""

    def __init__(self, servers):
        from client import Collection
        self.cluster = Collection([(HERE, server.port) for server in servers], "points", SHARDS, "l2", 1, 60.0)
        self.local, self.rows = Local(DIM, "l2"), {}
        self.acknowledged = 0

    def add(self, ids, vectors):
        rows = [vectors[ROW * i:ROW * (i + 1)] for i in range(len(ids))]
        self.cluster.add(zip(ids, rows))
        self.acknowledged += len(ids)
        self.rows.update(zip(ids, rows))
        self.local.add(ids, vectors)

    def delete(self, ids):
        self.cluster.delete(ids)
        for id in ids:
            del self.rows[id]
            self.local.delete(id)

    def compare(self, questions):
        for at in range(0, len(questions), ROW):
            ours, theirs = self.local.search(questions[at:at + ROW], K), self.cluster.search(questions[at:at + ROW], K)
            assert ours == theirs, "local handle:\n%s\ncluster:\n%s" % (ours, theirs)

    def found(self):
        """How many of the records are there, byte by byte, and nothing else is."""
        count, shards = 0, {}
        for id in self.rows:
            shards.setdefault(self.cluster.shard(id), []).append(id)
        for shard, ids in shards.items():
            pipeline = self.cluster.node(self.cluster.owner(shard)).pipeline(transaction=False)
            for id in ids:
                pipeline.execute_command("IQ.GET", self.cluster.keys[shard], id, "FP32")
            answers = pipeline.execute()
            count += sum(answer == [None, self.rows[id]] for id, answer in zip(ids, answers))
        assert self.cluster.stat()["records"] == len(self.rows), (self.cluster.stat(), len(self.rows))
        return count


def fill(load, servers, victim):
    """Adds all, and kills the victim somewhere on the way, whatever is being sent at that moment. It is started again
    when its replica has its place, because without one nothing more is acknowledged there. Seconds until then."""
    begun, took = threading.Event(), []

    def accident():
        begun.wait()
        time.sleep(random.uniform(0, 0.1))
        victim.kill()
        start = time.monotonic()
        others = [server for server in servers if server is not victim]
        until("a replica in the place of its master", lambda: sum(role(server) == "master" for server in others) == 3)
        took.append(time.monotonic() - start)
        victim.start()
    killer = threading.Thread(target=accident)
    killer.start()
    for first in range(0, RECORDS, BATCH):
        if first == RECORDS * 2 // 5:
            begun.set()
        load.add(range(first, first + BATCH), clusters(BATCH, DIM, first=first))
        if first % (10 * BATCH) == 0:
            load.compare(clusters(1, DIM, first=6 * RECORDS + first))
    killer.join()
    return took


def reshard(load, source, target):
    """Slots with what is in them move; meanwhile the cluster is written and asked. How many batches that were."""
    command = ["redis-cli", "--cluster", "reshard", "%s:%d" % (HERE, source.port), "--cluster-from", name_of(source),
               "--cluster-to", name_of(target), "--cluster-slots", str(SLOTS), "--cluster-yes"]
    with tempfile.TemporaryFile() as output:
        moving, batches = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output), 0
        try:
            while moving.poll() is None:
                ids = random.sample(range(RECORDS), 50) + list(range(RECORDS + 50 * batches, RECORDS + 50 * batches + 50))
                load.add(ids, clusters(100, DIM, first=2 * RECORDS + 100 * batches))
                load.delete(random.sample(sorted(load.rows), 5))
                load.compare(clusters(2, DIM, first=3 * RECORDS + 2 * batches))
                batches += 1
        finally:
            moving.kill()
            moving.wait()
        output.seek(0)
        assert moving.returncode == 0, output.read().decode()[-2000:]
    return batches


def what_the_readme_shows(server):
    """Its program prints what stands beside it."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        program = re.search(r"^```python\n(from client .*?)^```$", file.read(), re.M | re.S).group(1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program.replace("7000", str(server.port)), {})
    assert printed.getvalue() == program.split("# ")[1], printed.getvalue()


def told_of_failed_nodes(servers, load):
    """A master and all who could take over are dead: a clear error, for as long as that is so, and nothing else."""
    from client import Collection, Unavailable
    master = next(server for server in servers if role(server) == "master")
    name = name_of(master)
    replicas = [server for server in servers if server is not master
                and any(name in line and b"myself" in line.encode() for line in
                        must(["redis-cli", "-p", str(server.port), "cluster", "nodes"]).splitlines())]
    assert replicas, "a master without a replica"
    hasty = Collection([(HERE, server.port) for server in servers], "points", SHARDS, "l2", 1, 1.5)
    hasty.search(bytes(ROW), 1)
    for server in [master] + replicas:
        server.kill()
    try:
        hasty.search(bytes(ROW), 1)
        raise AssertionError("an answer without all shards")
    except Unavailable as error:
        assert "%s:%d" % (HERE, master.port) in str(error) or "CLUSTERDOWN" in str(error), error
        assert "of 64 shards of points did not answer within 1.5 s" in str(error), error
    try:
        hasty.add([(id, bytes(ROW)) for id in range(1000)])
        raise AssertionError("a write that nobody has")
    except Unavailable as error:
        assert "did not answer" in str(error), error
    try:
        redis.Redis(HERE, master.port).execute_command("IQ.STAT", load.cluster.keys[0])
        raise AssertionError("an answer of a dead node")
    except redis.ConnectionError:
        pass
    left = next(server for server in servers if server not in [master] + replicas)
    until("the others know", lambda: b"cluster_state:fail" in raw(left, "CLUSTER", "INFO"))
    answer = run(["redis-cli", "-p", str(left.port), "iq.stat", load.cluster.keys[0]])[1]
    assert answer.startswith(("CLUSTERDOWN", "MOVED")), answer
    hasty.close()


def round_of_its_own(number):
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = start_cluster(folder, stack)
        masters = [server for server in servers if role(server) == "master"]
        assert len(masters) == 3
        what_the_readme_shows(masters[0])
        load = Load(servers)
        victim = random.choice(masters)
        took = fill(load, servers, victim)
        failed_over = sum(role(server) == "master" for server in servers if server is not victim) - 2
        load.compare(clusters(QUESTIONS, DIM, first=4 * RECORDS))
        found = load.found()
        assert (load.acknowledged, found, failed_over) == (RECORDS, RECORDS, 1), (load.acknowledged, found, failed_over)
        until("the dead node's return", lambda: role(victim) == "slave" and all(in_step(s) for s in servers))
        until("peace", lambda: run(["redis-cli", "--cluster", "check", "%s:%d" % (HERE, victim.port)])[0] == 0)
        source, target = random.sample([server for server in servers if role(server) == "master"], 2)
        before = [load.cluster.owner(shard) for shard in range(SHARDS)]
        batches = reshard(load, source, target)
        load.compare(clusters(QUESTIONS, DIM, first=5 * RECORDS))
        load.cluster.read_table()
        moved = sum(was != load.cluster.owner(shard) for shard, was in enumerate(before))
        last = load.found()
        assert batches > 0 and moved > 0 and last == len(load.rows), (batches, moved, last, len(load.rows))
        told_of_failed_nodes(servers, load)
        load.cluster.close()
        load.local.close()
    print("  note round %d: %d acknowledged, %d found, %d failed over in %.1f s; %d slots with %d of %d shards moved "
          "under %d batches, then %d of %d records found; %.0f s"
          % (number, RECORDS, found, failed_over, took[0], SLOTS, moved, SHARDS, batches, last, len(load.rows),
             time.monotonic() - begin))
    sys.stdout.flush()


def failover_and_resharding():
    need()
    for number in range(1, ROUNDS + 1):
        round_of_its_own(number)


if __name__ == "__main__":
    main("redis/cluster", [failover_and_resharding])
