"""A collection of vectors spread over a Redis Cluster whose nodes have loaded the module made of module.c.

    notes = Collection([("127.0.0.1", 7000)], "notes", shards=64)
    notes.add([(1, [1.0, 0.0, 0.1], {"word": "cat"}), (2, [0.9, 0.4, 0.0], {"word": "dog"})])
    for id, score in notes.search([1.0, 0.0, 0.1], 10, "FILTER", "word = 'dog'"):
        print(id, score)

The collection is `shards` keys, "notes:0", "notes:1" and so on, which Redis Cluster spreads over its hash slots and its
slots over its nodes. A record belongs to the shard that its id says; a search asks all shards, each for its k nearest,
and merges. The answer is that of one handle with all records, to the last bit of each score, because every shard is
exact and ranks by the same rule. The number of shards is for ever: 64 do for some dozens of nodes.

What a node does not answer (it failed, a replica is taking its place, a slot has just moved) is asked again, by a new
table of slots, until `timeout` seconds are over; then Unavailable says which nodes were silent. A write returns when
`replicas` replicas of each node have it (WAIT), and so survives the loss of a master whose replica takes over. One that
raised may have been stored in part, shard by shard: add the same records again. An object belongs to one thread.
"""
import concurrent.futures
import heapq
import json
import struct
import time
import zlib

import redis
from redis import exceptions as errors
from redis.crc import key_slot

# Errors that go by. Where redis-py has a class for one, it takes the first word away.
PASSING_WORDS = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")
PASSING = (errors.AskError, errors.TryAgainError, errors.ClusterDownError, errors.ReadOnlyError)


class Unavailable(redis.RedisError):
    """Some shards did not answer, or did not get their replicas' acknowledgement, in time."""


def passes(error):
    return (not isinstance(error, redis.ResponseError) or isinstance(error, PASSING)
            or str(error).split(" ")[0] in PASSING_WORDS)


def asked_address(error):
    """Where an ASK sends this one command; None for other errors."""
    is_ask = type(error) is errors.AskError or str(error).startswith("ASK ")
    host, _, port = str(error).split(" ")[-1].rpartition(":")
    return (host, int(port)) if is_ask else None


def packed(vector):
    return vector if isinstance(vector, bytes) else struct.pack("<%df" % len(vector), *vector)


def single(text):
    """The 32-bit number that nine digits stand for."""
    return struct.unpack("<f", struct.pack("<f", float(text)))[0]


class Collection:
    def __init__(self, nodes, name, shards=64, metric="cosine", replicas=1, timeout=10.0):
        self.name, self.metric, self.replicas, self.timeout = name, metric, replicas, timeout
        self.keys = ["%s:%d" % (name, shard) for shard in range(shards)]
        self.slots = [key_slot(key.encode()) for key in self.keys]
        self.known = list(nodes)  # addresses to ask for the table, the last one that answered first
        self.nodes = {}           # address: redis.Redis
        self.ranges = []          # (first slot, last slot, address of its master)
        self.pool = concurrent.futures.ThreadPoolExecutor(32)

    def close(self):
        self.pool.shutdown()
        for node in self.nodes.values():
            node.connection_pool.disconnect()

    # ---- where shards are ----

    def node(self, address):
        if address not in self.nodes:
            self.nodes[address] = redis.Redis(host=address[0], port=address[1], socket_connect_timeout=1,
                                              socket_timeout=max(2.0, self.timeout))
        return self.nodes[address]

    def read_table(self):
        """Asks the nodes one after the other which of them has which slots; silence leaves the table as it was."""
        for address in list(self.known):
            try:
                table = self.node(address).execute_command("CLUSTER", "SLOTS")
            except redis.RedisError:
                self.known.remove(address)
                self.known.append(address)
                continue
            self.ranges = [(first, last, (master[0].decode() or address[0], master[1]))
                           for first, last, master, *_ in table]
            self.known += {found for _, _, found in self.ranges} - set(self.known)
            return

    def owner(self, shard):
        return next((address for first, last, address in self.ranges if first <= self.slots[shard] <= last), None)

    # ---- sending ----

    def exchange(self, address, asking, commands, write):
        """One pipeline on one connection, so that WAIT is about the writes before it. An answer or error for each."""
        pipeline = self.node(address).pipeline(transaction=False)
        for command in commands:
            if asking:
                pipeline.execute_command("ASKING")
            pipeline.execute_command(*command)
        wait = write and self.replicas > 0
        if wait:
            pipeline.execute_command("WAIT", self.replicas, 1000)
        try:
            answers = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            return [error] * len(commands)
        have = answers.pop() if wait else 0
        answers = answers[1::2] if asking else answers
        if wait and (isinstance(have, Exception) or have < self.replicas):
            short = redis.ConnectionError("%s of %d replicas have acknowledged" % (have, self.replicas))
            return [answer if isinstance(answer, Exception) else short for answer in answers]
        return answers

    def send(self, commands, write=False):
        """{shard: command} to their nodes, all nodes at the same time; {shard: answer} when each has one."""
        answers, asked, pending, deadline = {}, {}, set(commands), time.monotonic() + self.timeout
        if not self.ranges:
            self.read_table()
        while pending:
            groups, refused = {}, None
            for shard in pending:
                groups.setdefault(asked.pop(shard, (self.owner(shard), False)), []).append(shard)
            trouble = {"slot %d" % self.slots[shard]: "has no node" for shard in groups.pop((None, False), ())}
            sent = [(address, shards, self.pool.submit(
                self.exchange, address, asking, [commands[shard] for shard in shards], write))
                for (address, asking), shards in groups.items()]
            for address, shards, future in sent:
                for shard, answer in zip(shards, future.result()):
                    if not isinstance(answer, Exception):
                        answers[shard] = answer
                        pending.discard(shard)
                    elif asked_address(answer):
                        asked[shard] = (asked_address(answer), True)
                    elif passes(answer):
                        trouble["%s:%d" % address] = str(answer) or type(answer).__name__
                    else:
                        refused = answer
            if refused is not None:
                raise refused
            if pending and time.monotonic() > deadline:
                raise Unavailable("%d of %d shards of %s did not answer within %g s: %s" % (
                    len(pending), len(self.keys), self.name, self.timeout,
                    "; ".join("%s %s" % pair for pair in sorted(trouble.items())) or "they keep moving"))
            if len(asked) < len(pending):
                time.sleep(0.05)
                self.read_table()
        return answers

    def everywhere(self, *command):
        """A reading command to all shards; their answers."""
        return self.send({shard: (command[0], key) + command[1:] for shard, key in enumerate(self.keys)}).values()

    # ---- records ----

    def shard(self, id):
        return zlib.crc32(struct.pack("<Q", id)) % len(self.keys)

    def add(self, records):
        """(id, vector) or (id, vector, payload): floats or their bytes, a dictionary, JSON or None. How many are new
        (records that had to be sent again are not)."""
        commands = {}
        for id, vector, *payload in records:
            shard = self.shard(id)
            if shard not in commands:
                commands[shard] = ["IQ.ADDMANY", self.keys[shard], "METRIC", self.metric]
            text = payload[0] if payload and payload[0] is not None else ""
            commands[shard] += (id, packed(vector), json.dumps(text) if isinstance(text, dict) else text)
        return sum(self.send(commands, True).values())

    def delete(self, ids):
        commands = {}
        for id in ids:
            shard = self.shard(id)
            commands.setdefault(shard, ["IQ.DEL", self.keys[shard]]).append(id)
        return sum(self.send(commands, True).values())

    def get(self, id):
        """(payload as JSON or None, bytes of the vector), or None."""
        shard = self.shard(id)
        return self.send({shard: ("IQ.GET", self.keys[shard], id, "FP32")})[shard]

    def search(self, vector, k=10, *options):
        """The k nearest as (id, score), with WITHPAYLOADS (id, score, payload); `options` as of IQ.SEARCH."""
        found = self.everywhere("IQ.SEARCH", "FP32", packed(vector), "K", k, *options)
        hits = ((int(id), single(score), *payload) for hits in found for id, score, *payload in hits)
        return heapq.nsmallest(k, hits, key=lambda hit: hit[1::-1])

    def stat(self):
        """Records and bytes of all shards together."""
        facts = [dict(zip(fact[::2], fact[1::2])) for fact in self.everywhere("IQ.STAT") if fact is not None]
        names = [name for name in (facts[0] if facts else ()) if name == b"records" or name.endswith(b"_bytes")]
        return {name.decode(): sum(fact[name] for fact in facts) for name in names}
