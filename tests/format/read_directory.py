#!/usr/bin/env python3
"""A second reader of database directories, written from the tables of src/persist/format.h alone.

    read_directory.py DIRECTORY    prints what is in it; exit status 1 where anything is wrong

It checks more than an open does: every checksum of every file, the chain and the LSNs of every frame, that syncs end
sectors, that what no table names is zero, that sections lie where they must. What it does not know: what a crash may
have left behind the end of the last log of a META that is not clean; that is shown, not judged.
"""
import os
import struct
import sys
import zlib

SLOT, BLOCK, LARGE = 4096, 8192, 65536
RECORD, ATTEST, SWITCH = 1, 2, 3
FIRST, LAST, COMMIT = 1, 2, 4
LENGTH_MAX, PIECE_MAX = 11264, 7168


class Wrong(Exception):
    """What is wrong, and where."""


def need(condition, file, offset, text):
    if not condition:
        raise Wrong("%s at %d: %s" % (file, offset, text))


def crc_without(data, at):
    """CRC-32 of the bytes without the four at `at`."""
    return zlib.crc32(data[at + 4:], zlib.crc32(data[:at]))


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def all_zero(data):
    return not any(data)


# ---- META ----
class Log:
    def __init__(self, number, salt, first, size, end=None):
        self.number, self.salt, self.first, self.size = number, salt, first, size
        self.end = end  # (LSN, offset, CRC), or None
        self.frames, self.records, self.next = [], [], None

    @property
    def name(self):
        return "wal-%d" % self.number


class Meta:
    def __init__(self, slot, offset):
        def check(condition, text):
            need(condition, "META", offset, text)
        check(slot[:8] == b"iqdbMETA", "no magic")
        check(u32(slot, 8) == crc_without(slot, 8), "checksum")
        check(u32(slot, 12) == 1 and u32(slot, 40) <= 15, "a newer version")
        self.has_collections, self.has_choices, self.has_elements, self.has_key_sets = (
            u32(slot, 40) & bit != 0 for bit in (1, 2, 4, 8))
        self.uuid, self.sequence = slot[16:32], u64(slot, 32)
        check(u32(slot, 48) in (0, 1), "state")
        self.clean = u32(slot, 48) == 1
        snapshots, logs = u32(slot, 52), u32(slot, 56)
        check(snapshots <= 32 and 1 <= logs <= 8, "too many files")
        self.applied = u64(slot, 64)
        self.dim, self.metric, self.element = u32(slot, 80), u32(slot, 84), u32(slot, 88)
        try:
            self.model = slot[96:160].rstrip(b"\0").decode()
        except UnicodeDecodeError:
            check(False, "model")
        check(slot[159] == 0 and "\0" not in self.model, "model")
        self.snapshots, self.logs = [], []
        for at in range(256, 256 + snapshots * 40, 40):
            self.snapshots.append((u64(slot, at), u64(slot, at + 8), u64(slot, at + 16), u32(slot, at + 24)))
            check(all_zero(slot[at + 28:at + 40]), "not zero")
        for at in range(1536, 1536 + logs * 64, 64):
            check(u32(slot, at + 44) in (0, 1) and all_zero(slot[at + 56:at + 64]), "state of a log")
            end = (u64(slot, at + 24), u64(slot, at + 32), u32(slot, at + 40)) if u32(slot, at + 44) else None
            self.logs.append(Log(u64(slot, at), u64(slot, at + 8), u64(slot, at + 16), u64(slot, at + 48), end))
        for start, end in ((44, 48), (60, 64), (72, 80), (92, 96), (160, 256), (256 + snapshots * 40, 1536),
                           (1536 + logs * 64, 2048)):
            check(all_zero(slot[start:end]), "not zero from %d on" % start)
        *entries, rest = slot[2048:].rstrip(b"\0").split(b"\0") + [b""] if any(slot[2048:]) else [b""]
        check(not rest and len(entries) <= 32 and all(entry[:1] in b"\1\2" for entry in entries), "indexed keys")
        self.keys = [(entry[1:], "hash" if entry[0] == 1 else "ordered") for entry in entries]
        check(self.applied == (self.snapshots[-1][2] if self.snapshots else 0), "applied LSN")
        lsn = self.applied
        for log in self.logs:
            check(log.first == lsn + 1 if log is not self.logs[0] else log.first <= lsn + 1, "a gap before " + log.name)
            check(log.end is not None or (log is self.logs[-1] and not self.clean), "no end of " + log.name)
            lsn = log.end[0] if log.end else None
        check([log.number for log in self.logs] == sorted({log.number for log in self.logs}), "order of logs")


# ---- logs ----
class Frame:
    def __init__(self, data, at, seed, name):
        self.offset, self.length, self.crc = at, u32(data, at), u32(data, at + 4)
        self.lsn, self.durable, self.batch, self.before, self.type, self.flags, zero = struct.unpack_from(
            "<QQQIBBH", data, at + 8)
        self.body = data[at + 40:at + 40 + self.length]
        self.end = at + 40 + self.length
        need(8 <= self.length <= LENGTH_MAX and self.length % 8 == 0 and len(self.body) == self.length, name, at, "length")
        need(self.crc == zlib.crc32(data[at + 8:self.end], zlib.crc32(data[at:at + 4], seed)), name, at, "checksum")
        need(zero == 0 and self.type in (RECORD, ATTEST, SWITCH) and self.flags <= 7, name, at, "type or flags")
        need(self.durable < self.batch <= self.lsn, name, at, "order of LSNs")


def read_header(folder, log, uuid):
    with open(os.path.join(folder, log.name), "rb") as file:
        data = file.read()
    need(len(data) >= max(log.size, 512) and data[:8] == b"iqdbWLOG", log.name, 0, "size or magic")
    sector = u32(data, 72)
    need(sector in (512, 1024, 2048, 4096), log.name, 0, "sector size")
    need(u32(data, 8) == crc_without(data[:sector], 8), log.name, 0, "checksum of the header")
    need(u32(data, 12) == 1 and u32(data, 76) == 0, log.name, 0, "a newer version")
    need(data[16:32] == uuid, log.name, 0, "another database")
    need((u64(data, 32), u64(data, 40), u64(data, 48)) == (log.number, log.salt, log.first), log.name, 0, "identity")
    need(all_zero(data[80:sector]), log.name, 80, "not zero")
    return data, sector


def take(log, frame, batch, sector):
    """Checks a frame against those before it in its batch, and keeps it."""
    name, at = log.name, frame.offset
    need(frame.batch == (batch[0].lsn if batch else frame.lsn), name, at, "batch")
    if frame.type == RECORD:
        begins = not batch or bool(batch[-1].flags & LAST)
        need(bool(frame.flags & FIRST) == begins, name, at, "pieces")
        need(not frame.flags & COMMIT or frame.flags & LAST, name, at, "a commit within a record")
        need(not batch or (batch[0].type, batch[0].durable) == (RECORD, frame.durable), name, at, "mixed batch")
        if not frame.flags & LAST:
            need(frame.length == PIECE_MAX, name, at, "a piece that could be longer")
    else:
        need(not batch and frame.flags == 7, name, at, "flags")
        need(frame.body[:8] == bytes([126 + frame.type]) + bytes(7), name, at, "head of the body")
        rest = 8 if frame.type == ATTEST else 32
        need(all_zero(frame.body[rest:]), name, at, "not zero")
    over = frame.end % sector
    need(over == 0 or sector - over >= 48 or not frame.flags & COMMIT or log.copied, name, at, "a sector too full")


def read_log(folder, meta, log, is_last):
    data, sector = read_header(folder, log, meta.uuid)
    seed = zlib.crc32(struct.pack("<Q", log.salt))
    log.copied = u64(data, 56) != 0  # frames of other logs, which may have lain otherwise in their sectors
    exact = log.end is not None and (meta.clean or not is_last)
    lsn, at, crc, batch = log.first - 1, sector, u32(data, 8), []
    while not (exact and lsn == log.end[0]):
        try:
            frame = Frame(data, at, seed, log.name)
            need((frame.lsn, frame.before) == (lsn + 1, crc), log.name, at, "chain")
        except (Wrong, struct.error):
            if exact or (log.end and log.end[0] > lsn):
                raise
            break  # the end, torn or not
        take(log, frame, batch, sector)
        batch.append(frame)
        lsn, at, crc = frame.lsn, frame.end, frame.crc
        if frame.flags & COMMIT:
            log.frames += batch
            batch = []
        if log.end and lsn == log.end[0]:
            need((at, crc) == log.end[1:], log.name, at, "not the end that META gives it")
        if frame.type == SWITCH:
            log.next = Log(u64(frame.body, 8), u64(frame.body, 16), lsn + 1, u64(frame.body, 24))
            break
    if exact:
        need(not batch and log.end == (lsn, at, crc), log.name, at, "the end")
        need(meta.clean or log.frames, log.name, at, "an empty log is named")
    if is_last and meta.clean:
        need(at % sector == 0 and len(data) % sector == 0, log.name, at, "a clean end within a sector")
    record = b""
    for frame in log.frames:
        if frame.type == RECORD:
            record = frame.body if frame.flags & FIRST else record + frame.body
            if frame.flags & LAST:
                log.records.append((frame.lsn, record))


# ---- snapshots ----
def unpack(data, name, at):
    """A packed section, by the one codec that Python has."""
    codec, plain, block = data[:32].rstrip(b"\0"), u64(data, 32), u32(data, 40)
    count = -(-plain // 65536)
    table, place, out = len(data) - 4 * count, 64, b""
    need(block == 65536 and all_zero(data[44:64]) and table >= 64, name, at, "head of a packed section")
    need(codec == b"zlib", name, at, "packed by a codec that this reader does not have: %r" % codec)
    for i in range(count):
        size, held = u32(data, table + 4 * i), min(65536, plain - 65536 * i)
        room = max(size, -(-held // 64))
        need(0 < size <= held and place + room <= table and all_zero(data[place + size:place + room]), name, at + place,
             "packed block")
        part = data[place:place + size]
        part = part if size == held else zlib.decompress(part)
        need(len(part) == held, name, at + place, "size of a packed block")
        out, place = out + part, place + room
    need(place == table, name, at + place, "bytes behind the packed blocks")
    return out


class Snapshot:
    def __init__(self, folder, meta, since, number, size, lsn, root):
        self.name = name = "snap-%d" % number
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        foot = len(data) - 64
        need(len(data) == size and size > BLOCK, name, 0, "size")
        need(data[foot:foot + 8] == b"iqdbSEND" and u32(data, foot + 8) == root, name, foot, "footer")
        need(root == crc_without(data[foot:], 8), name, foot, "checksum of the footer")
        need(u32(data, foot + 12) == 1 and data[foot + 16:foot + 32] == meta.uuid, name, foot, "identity")
        need(u64(data, foot + 32) == number, name, foot, "number")
        blocks, at_list, count = u64(data, foot + 40), u64(data, foot + 48), u32(data, foot + 56)
        tables = (blocks * 4 + BLOCK - 1) // BLOCK
        table, roots = blocks * BLOCK, (blocks + tables) * BLOCK
        need(roots + (tables * 4 + 63) // 64 * 64 == foot, name, foot, "shape")
        need(zlib.crc32(data[roots:foot]) == u32(data, foot + 60), name, roots, "checksum of the roots")
        need(all_zero(data[roots + tables * 4:foot]) and all_zero(data[table + blocks * 4:roots]), name, roots, "not zero")
        for i in range(tables):
            part = data[table + i * BLOCK:table + (i + 1) * BLOCK]
            need(zlib.crc32(part) == u32(data, roots + i * 4), name, table + i * BLOCK, "checksum of checksums")
        for i in range(blocks):
            need(zlib.crc32(data[i * BLOCK:(i + 1) * BLOCK]) == u32(data, table + i * 4), name, i * BLOCK, "checksum")
        need(data[:8] == b"iqdbSNAP" and u32(data, 8) == crc_without(data[:64], 8), name, 0, "header")
        need(u32(data, 12) == 1 and data[16:32] == meta.uuid, name, 0, "identity")
        need((u64(data, 32), u64(data, 40), u64(data, 48)) == (number, lsn, since), name, 0, "number or LSNs")
        need(all_zero(data[56:64]), name, 56, "not zero")
        self.lsn, self.sections, end = lsn, {}, 64
        for at in range(at_list, at_list + count * 32, 32):
            key, features = (u32(data, at), u32(data, at + 4)), u64(data, at + 8)
            offset, length = u64(data, at + 16), u64(data, at + 24)
            packed = features == 1 and key[1] == 6  # payloads, by a codec
            need((features == (key[1] in (8, 9, 11)) << 32 or packed) and key not in self.sections, name, at, "features, or twice")
            need(not self.sections or key[0] >= max(self.sections)[0], name, at, "order of collections")
            need(offset % (LARGE if length >= LARGE else 64) == 0 and offset >= end, name, at, "place")
            need(all_zero(data[end:offset]), name, end, "not zero")
            end = offset + length
            self.sections[key] = unpack(data[offset:end], name, offset) if packed else data[offset:end]
        need(end <= at_list and all_zero(data[end:at_list]), name, end, "not zero, or over the list")
        need(all_zero(data[at_list + count * 32:table]), name, at_list, "not zero behind the list")


def key_set(data):
    """The keys that a named collection indexes, [(key, kind)], or None where it is none."""
    *entries, last, rest = data.split(b"\0") if data.endswith(b"\0\0") else (b"", b"", b"x")
    fine = not last and not rest and all(entry[:1] in (b"\1", b"\2") for entry in entries)
    return [(entry[1:], "hash" if entry[0] == 1 else "ordered") for entry in entries] if fine else None


def wishes_well(data, at):
    """A recall below 1, and how much more than rows the queries take for which it is."""
    wish, stretch = struct.unpack_from("<2f", data, at)
    return 0 <= wish < 1 and 0 <= stretch < 1e5


class Derived:
    """What a base has that is made from its rows: codes of these, lists, whose codes have to be the same, a table of ids."""
    def __init__(self, snapshot, number, catalog):
        self.name, self.rows, self.dim = snapshot.name, u64(catalog, 16), u32(catalog, 0)
        self.block = 128 + (self.dim + 7) // 8 * 64
        self.codes, lists = snapshot.sections.get((number, 8)), snapshot.sections.get((number, 9))
        if self.codes is not None:
            self.need(struct.unpack_from("<4I", self.codes) == (1, self.dim, u32(catalog, 4) == 2, self.rows), "codes")
            self.need(len(self.codes) == 64 + (self.rows + 15) // 16 * self.block and all_zero(self.codes[16:64]), "codes")
            self.need(all(all_zero(self.code(self.codes, 64, row)) for row in range(self.rows, (self.rows + 15) // 16 * 16)),
                      "codes behind the last row")
        if (number, 11) in snapshot.sections:
            self.read_table(snapshot.sections[number, 11], snapshot.sections[number, 2])
        if lists is not None:
            (self.read_graph if u32(lists, 0) == 2 else self.read_lists)(lists)

    def need(self, condition, text):
        need(condition, self.name, 0, text)

    def code(self, data, at, row):
        at += row // 16 * self.block + row % 16 * 4
        return b"".join(data[i:i + 4] for i in range(at, at + self.block, 64))

    def read_table(self, data, ids):
        """The ids, put into it one after the other, give just these bytes."""
        count, mask = 32 if self.rows <= 20 else (self.rows + 4) // 5 * 8, (1 << 64) - 1
        table = [0] * count
        for row, x in enumerate(struct.unpack("<%dQ" % self.rows, ids)):
            x = (x + 0x9E3779B97F4A7C15) & mask
            x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
            x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
            tag = (x ^ x >> 31) >> 32 or 1
            place = tag * count >> 32
            while table[place]:
                place = (place + 1) % count
            table[place] = tag << 32 | row + 1
        self.need(data == struct.pack("<%dQ" % count, *table), "the table of ids")

    def read_graph(self, data):
        dims, at, nodes = u32(data, 4), 64 + 12 * u32(data, 4), {}
        self.need(dims == (self.dim + 63) // 64 * 64 and wishes_well(data, 56), "graph")
        self.need(all(abs(sign) == 1 for sign in struct.unpack_from("<%df" % (2 * dims), data, 64 + 4 * dims)), "signs")
        start, node = (at + 63) // 64 * 64, 384 + 9 * dims
        self.need(all_zero(data[at:start]) and (len(data) - start) % node == 0, "size of a graph")
        for at in range(start, len(data), node):
            row, count, total = struct.unpack_from("<3I", data, at)
            links = [link for link in struct.unpack_from("<32I", data, at + 64) if link != 0xFFFFFFFF]
            self.need(total == sum(data[at + 384:at + 384 + dims]) and all_zero(data[at + 24:at + 64]), "head of a node")
            self.need(count == len(links) == len(set(links)) and row not in links and row not in nodes, "links of a node")
            self.need((row < self.rows) == (at > start), "row of a node")
            nodes[row] = links
        entry = nodes.pop(0xFFFFFFFF)
        self.need(all(link in nodes for link in entry), "where walks start")
        self.need(all(row in nodes.get(link, ()) for row, links in nodes.items() for link in links), "a link of one end")

    def read_lists(self, data):
        tag, count, dim, coded, wanted, trained, length = struct.unpack_from("<6If", data)
        padded, homes, others = (count + 15) // 16 * 16, {}, {}
        self.need((tag, dim) == (1, self.dim) and coded in (0, 1) and length > 0 and wishes_well(data, 48), "lists")
        self.need(all_zero(data[60:64]), "lists")
        sizes_at = 64 + padded * ((dim + 15) // 16 * 64) + coded * (padded // 16) * self.block
        at = sizes_at + padded * 4
        self.need(count > 0 and all_zero(data[sizes_at + count * 4:at]), "sizes of lists")
        for number in range(count):
            left = u32(data, sizes_at + number * 4)
            while left > 0:
                part = left % 256 or 256
                step, blocks = (part + 15) // 16 * 64, at + (part + 15) // 16 * 128
                for i in range(part):
                    row, other = u32(data, at + i * 4), u32(data, at + step + i * 4)
                    second = other != 0xFFFFFFFF and other >= 1 << 31
                    self.need(row < self.rows and (row, second) not in homes, "a row of a list")
                    homes[row, second], others[row, second] = number, other
                    if coded and self.codes is not None:
                        self.need(self.code(data, blocks, i) == self.code(self.codes, 64, row), "a code in a list")
                self.need(all_zero(data[at + part * 4:at + step] + data[at + step + part * 4:blocks]), "not zero")
                at, left = blocks + coded * ((part + 15) // 16) * self.block, left - part
        self.need(at == len(data), "size of lists")
        for row, second in homes:
            wanted = homes[row, False] | 1 << 31 if second else homes.get((row, True), 0xFFFFFFFF)
            self.need(others[row, second] == wanted, "copies of a row")


# ---- the directory ----
class Directory:
    def __init__(self, folder):
        with open(os.path.join(folder, "META"), "rb") as file:
            data = file.read()
        need(len(data) == 2 * SLOT, "META", len(data), "size")
        slots, troubles = [], []
        for offset in (0, SLOT):
            try:
                slots.append(Meta(data[offset:offset + SLOT], offset))
            except Wrong as wrong:
                troubles.append(str(wrong))
        need(slots, "META", 0, "; ".join(troubles))
        self.meta = max(slots, key=lambda meta: meta.sequence)
        self.settled = data[:SLOT] == data[SLOT:]
        need(self.settled or not troubles, "META", 0, "; ".join(troubles))
        self.snapshots, since = [], 0
        for entry in self.meta.snapshots:  # a base, and deltas
            self.snapshots.append(Snapshot(folder, self.meta, since, *entry))
            since = entry[2]
        self.logs = list(self.meta.logs)
        for log in self.logs:  # switch frames make it longer
            is_last = log is self.logs[-1]
            read_log(folder, self.meta, log, is_last)
            if is_last and log.next:
                self.logs.append(log.next)
        self.records = [record for log in self.logs for record in log.records if record[0] > self.meta.applied]
        self.check_lsns()
        need(self.meta.has_collections or all(u32(record, 4) == 0 for _, record in self.records), "META", 40,
             "no mark of collections")
        need(self.meta.has_choices or all(body[0] != 5 for _, body in self.records), "META", 40, "no mark of choices")
        need(self.meta.has_key_sets or all(body[0] != 6 for _, body in self.records), "META", 40, "no mark of keys")

    def collections(self):
        """What the snapshots together hold: {name: {id: (vector, payload)}}. What one deletes goes, what it has counts; and
        of collections there are those of which the last one has a catalog."""
        found = {}
        for snapshot in self.snapshots:
            numbers = sorted({key[0] for key in snapshot.sections})
            after = u32(snapshot.sections[0, 1], 32) if len(snapshot.sections[0, 1]) == 36 else 1
            need(len(snapshot.sections[0, 1]) in (32, 36) and numbers[0] == 0 and numbers[-1] < after and
                 (after > 1) <= self.meta.has_collections, snapshot.name, 0, "numbers")
            need(all((number, 1) in snapshot.sections for number in numbers), snapshot.name, 0, "no catalog")
            found = {number: found.get(number, (snapshot.sections[number, 1][32:].decode() if number else "", {}))
                     for number in numbers}
            for number, (name, rows) in found.items():
                self.take(snapshot, number, name, rows)
            need(len({name for name, _ in found.values()}) == len(found), snapshot.name, 0, "a name twice")
            model = self.meta.model.encode()
            need(snapshot.sections.get((0, 12), model) == model, snapshot.name, 0, "model")
        return dict(found.values())

    def take(self, snapshot, number, name, found):
        catalog, ids, vectors, _, refs, heap, deleted = (snapshot.sections.get((number, kind), b"") for kind in range(1, 8))
        choice = snapshot.sections.get((number, 10))
        need(number == 0 or catalog[32:] == name.encode(), snapshot.name, 0, "another name")
        need(choice is None or (self.meta.has_choices and len(choice) == 32 and u32(choice, 0) in (0, 1, 2, 3)),
             snapshot.name, 0, "the choice of an index")
        keys = snapshot.sections.get((number, 13))
        need(keys is None or (number > 0 and key_set(keys)), snapshot.name, 0, "a set of keys")
        need(u32(catalog, 12) * 8 == len(deleted), snapshot.name, 0, "deleted ids")
        dim, metric, element = u32(catalog, 0), u32(catalog, 4), u32(catalog, 8)
        need(element < 6 and (metric == 5 if element == 5 else 1 <= metric <= 4), snapshot.name, 0, "element or metric")
        need(element == 0 or self.meta.has_elements, "META", 40, "no mark of elements")
        need(number > 0 or (metric, element) == (self.meta.metric, self.meta.element), snapshot.name, 0, "not META's")
        packed = (dim * (32, 16, 16, 8, 8, 1)[element] + 7) // 8
        size = (packed + 7) // 8 * 8 if element == 5 else (packed + 63) // 64 * 64
        need(len(vectors) == u64(catalog, 16) * size, snapshot.name, 0, "size of vectors")
        for at in range(0, len(deleted), 8):
            found.pop(u64(deleted, at), None)
        for row in range(u64(catalog, 16)):
            ref = u64(refs, row * 8)
            need(all_zero(vectors[row * size + packed:(row + 1) * size]), snapshot.name, row, "not zero behind a vector")
            payload = heap[ref + 4:ref + 4 + u32(heap, ref)] if ref else None
            found[u64(ids, row * 8)] = (vectors[row * size:(row + 1) * size], payload)
        need(snapshot is self.snapshots[0] or not {(number, 8), (number, 9)} & set(snapshot.sections), snapshot.name, 0,
             "made from rows, in a delta")
        Derived(snapshot, number, catalog)
        need(u64(catalog, 24) == (len(found) if snapshot is not self.snapshots[0] else 0), snapshot.name, 0, "records")

    def check_lsns(self):
        expected, durable = None, 0
        for log in self.logs:
            for frame in log.frames:
                need(expected in (None, frame.lsn), log.name, frame.offset, "LSN")
                need(frame.durable >= durable or log.copied, log.name, frame.offset, "durable LSN goes back")
                expected, durable = frame.lsn + 1, frame.durable

    def dump(self):
        meta = self.meta
        print("uuid %s, sequence %d, %s, dim %d, metric %d, element %d, applied %d" % (
            meta.uuid.hex(), meta.sequence, "clean" if meta.clean else "not clean", meta.dim, meta.metric, meta.element,
            meta.applied))
        if meta.model:
            print("model %s" % meta.model)
        for snapshot in self.snapshots:
            print("%s: up to LSN %d" % (snapshot.name, snapshot.lsn))
            for (collection, kind), data in sorted(snapshot.sections.items()):
                print("  collection %d, kind %d: %d bytes" % (collection, kind, len(data)))
        for log in self.logs:
            print("%s: from LSN %d, end %s" % (log.name, log.first, log.end))
            for frame in log.frames:
                print("  %d at %d: %d bytes, %s%s, batch %d, durable %d" % (
                    frame.lsn, frame.offset, frame.length, ("record", "attest", "switch")[frame.type - 1],
                    " commits" if frame.flags & COMMIT else "", frame.batch, frame.durable))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        Directory(sys.argv[1]).dump()
    except (Wrong, OSError) as trouble:
        sys.exit("%s: %s" % (sys.argv[1], trouble))


if __name__ == "__main__":
    main()
