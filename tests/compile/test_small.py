#!/usr/bin/env python3
"""The smallest set of features, a reader of one blob in place: it finds what a computation in double precision finds, by
every metric, for ids, a predicate and batches; and no bytes do it harm, whatever their checksums say.

Blobs are made by the whole library, and forged with zlib's CRC.
"""
import math
import os
import random
import re
import struct
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import ROOT, compiler, main, must, run  # noqa: E402

SMALL = ["-DIQDB_SMALL", "-DIQDB_READONLY", "-DIQDB_NO_FILES", "-DIQDB_NO_FILTERS", "-DIQDB_NO_TEXT",
         "-DIQDB_NO_THREADS", "-DIQDB_NO_SIMD"]
ROWS, DIM, K = 70, 37, 9
BLOCK, HEADER, FOOTER = 8192, 64, 64  # as persist/format.h has them
METRICS = ("L2", "COSINE", "DOT", "L1")

WRITER = """
#define IQDB_IMPLEMENTATION
#include "iqdb.h"
#include <stdio.h>
static bool put(const void *bytes, size_t size, void *user) { return fwrite(bytes, 1, size, (FILE *)user) == size; }
int main(int argc, char **argv) {
    for (int element = 0; element < 2; element++) {
        iqdb *db;
        iqdb_options options = iqdb_options_default();
        FILE *file = fopen(argv[argc - 2 + element], "wb");
        options.element = element == 0 ? IQDB_ELEMENT_F32 : IQDB_ELEMENT_I8;
        if (file == NULL || iqdb_open_in_memory(&options, &db) != IQDB_OK) return 1;
        for (int i = 0; i < %(rows)d; i++) {
            float floats[%(dim)d];
            signed char bytes[%(dim)d];
            iqdb_field field;
            iqdb_record record = iqdb_record_default();
            for (int j = 0; j < %(dim)d; j++) floats[j] = (float)(bytes[j] = (signed char)((i * i * 37 + j * (i + 11)) %% 23 - 11));
            field.key = "n";
            field.value = iqdb_int(i);
            record.id = (uint64_t)i * 7 + 1;
            record.vector = floats;
            record.raw = bytes;
            record.dim = %(dim)d;
            record.fields = &field;
            record.field_count = i %% 5 != 0;
            if (i %% 5 == 0) record.fields = NULL;
            if (iqdb_upsert(db, &record) != IQDB_OK) return 1;
        }
        if (iqdb_export_blob(db, put, file) != IQDB_OK || iqdb_close(db) != IQDB_OK || fclose(file) != 0) return 1;
    }
    return 0;
}
"""

# Blobs in a file, each behind its size. What is found in each is printed, or the code with which it is refused.
READER = """
#define IQDB_IMPLEMENTATION
#include "iqdb.h"
#include <stdio.h>
#include <stdlib.h>
static bool is_even(const iqdb_record *record, void *user) {
    (void)user;
    return iqdb_payload_int(record->payload, "n", 1) %% 2 == 0;
}
static void show(const iqdb_hit *hits, size_t count) {
    for (size_t i = 0; i < count; i++)
        printf(" %%lu:%%.9g", (unsigned long)hits[i].id, (double)hits[i].score);
    printf("\\n");
}
static void look(iqdb *db) {
    float vectors[2][%(dim)d];
    signed char bytes[2][%(dim)d];
    iqdb_hit hits[2 * %(k)d];
    size_t counts[2];
    uint64_t ids[9];
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_stats stats;
    iqdb_record record;
    if (iqdb_stat(db, &stats) != IQDB_OK) return;
    for (int j = 0; j < %(dim)d; j++)
        for (int q = 0; q < 2; q++) vectors[q][j] = (float)(bytes[q][j] = (signed char)((j * 5 + q * 3) %% 17 - 8));
    for (int i = 0; i < 9; i++) ids[i] = (uint64_t)i * 35 + 1;
    for (int metric = IQDB_L2; metric <= IQDB_L1; metric++) {
        for (int way = 0; way < 3; way++) {
            iqdb_query query = iqdb_query_default();
            query.metric = (iqdb_metric)metric;
            query.k = %(k)d;
            query.flags = IQDB_WITH_PAYLOAD | IQDB_WITH_VECTOR;
            query.buffer = &buffer;
            query.dim = %(dim)d;
            if (way == 1) query.ids = ids;
            if (way == 1) query.id_count = 9;
            if (way == 2) query.predicate = is_even;
            const void *all = stats.element == IQDB_ELEMENT_F32 ? (const void *)vectors : (const void *)bytes;
            if (iqdb_search_batch(db, &query, all, 2, hits, counts) != IQDB_OK) continue;
            show(hits, counts[0]);
            show(hits + %(k)d, counts[1]);
        }
    }
    iqdb_iter iter = iqdb_iter_begin(db, NULL);
    while (iqdb_iter_next(&iter)) {
        if (iqdb_get(db, iter.record.id, &buffer, &record) != IQDB_OK) printf("no record\\n");
        for (size_t i = 0; i < iqdb_payload_count(record.payload); i++) {
            iqdb_field field;
            (void)iqdb_payload_at(record.payload, i, &field);
        }
    }
    if (iqdb_close(db) != IQDB_ERR_BUSY) printf("closed under an iterator\\n");
    iqdb_iter_end(&iter);
    bool done = false;
    if (iqdb_maintain(db, 1000, &done) != IQDB_OK || !done || iqdb_flush(db) != IQDB_OK) printf("no upkeep\\n");
    if (iqdb_count(db, NULL, counts) != IQDB_OK || counts[0] != iqdb_len(db)) printf("no count\\n");
    (void)iqdb_verify(db, IQDB_DEPTH_RECORDS, NULL, NULL);
    iqdb_buffer_free(&buffer);
}
int main(int argc, char **argv) {
    FILE *file = fopen(argv[argc - 1], "rb");
    uint32_t size;
    while (file != NULL && fread(&size, sizeof size, 1, file) == 1) {
        iqdb *db = NULL;
        void *blob = malloc(size + (size == 0)); /* of just this size, for who looks for reads beyond it */
        if (fread(blob, 1, size, file) != size) return 1;
        const iqdb_result result = iqdb_open_blob(blob, size, NULL, &db);
        printf("%%d\\n", (int)result);
        if (result == IQDB_OK) look(db);
        if (iqdb_close(db) != IQDB_OK) return 1;
        free(blob);
    }
    return file == NULL;
}
"""
VALUES = {"rows": ROWS, "dim": DIM, "k": K}


def build(folder, name, source, flags):
    path = os.path.join(folder, name + ".c")
    with open(path, "w") as file:
        file.write(source % VALUES)
    must(compiler("CC", "cc") + ["-std=gnu99", "-Wall", "-Wextra", "-I", ROOT, *flags, path, "-o", path[:-2], "-pthread"])
    return path[:-2]


def blobs(folder):
    names = [os.path.join(folder, element) for element in ("f32", "i8")]
    must([build(folder, "writer", WRITER, ["-O0"]), *names])
    return [open(name, "rb").read() for name in names]


def read(reader, folder, many):
    path = os.path.join(folder, "many")
    with open(path, "wb") as file:
        for blob in many:
            file.write(struct.pack("=I", len(blob)) + blob)
    return must([reader, path]).split("\n")


def row(i):
    """As C has it: the rest of a number that is not negative."""
    return [(i * i * 37 + j * (i + 11)) % 23 - 11 for j in range(DIM)]


def score(metric, a, b):
    if metric == "L1":
        return sum(abs(x - y) for x, y in zip(a, b))
    if metric == "L2":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))
    dot = sum(x * y for x, y in zip(a, b))
    if metric == "DOT":
        return -dot
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return 1 - dot / norms if norms else 1.0


def expected():
    for metric in METRICS:
        for way in range(3):
            rows = [i for i in range(ROWS) if way != 1 or (i % 5 == 0 and i < 45)]
            if way == 2:
                rows = [i for i in rows if i % 5 != 0 and i % 2 == 0]
            for q in range(2):
                vector = [(j * 5 + q * 3) % 17 - 8 for j in range(DIM)]
                yield metric != "COSINE", sorted((score(metric, vector, row(i)), i * 7 + 1) for i in rows)[:K]


def found_is_what_double_precision_finds():
    with tempfile.TemporaryDirectory() as folder:
        lines = iter(read(build(folder, "reader", READER, ["-O1", *SMALL]), folder, blobs(folder)))
        for element in ("f32", "i8"):
            assert next(lines) == "0", element
            for wanted_is_exact, wanted in expected():
                hits = [hit.split(":") for hit in next(lines).split()]
                assert len(hits) == len(wanted), "%s: %s and not %s" % (element, hits, wanted)
                for (number, found), (exact, _) in zip(hits, wanted):
                    assert abs(float(found) - exact) <= 1e-5 * max(1.0, abs(exact)), "%s: %s, %s" % (element, hits, wanted)
                for at, ((number, _), (exact, right)) in enumerate(zip(hits, wanted)):
                    around = [other for other, _ in wanted[max(at - 1, 0):at] + wanted[at + 1:at + 2]]
                    # Sums of small whole numbers are exact in f32, ties among them too; a quotient may make a near tie.
                    if wanted_is_exact or (at + 1 < len(wanted) and all(abs(exact - other) > 1e-5 for other in around)):
                        assert int(number) == right, "%s: %s and not %s" % (element, hits, wanted)
        assert list(lines) == [""], "nothing else is said"


def reseal(blob):
    """Makes all checksums right again: of the header, the blocks, their table, its roots and the footer."""
    def put(at, value):
        blob[at:at + 4] = struct.pack("<I", value)

    def page(at, size):
        put(at + 8, zlib.crc32(bytes(blob[at + 12:at + size]), zlib.crc32(bytes(blob[at:at + 8]))))
    table, footer = len(blob) // BLOCK * BLOCK - BLOCK, len(blob) - FOOTER
    page(0, HEADER)
    for at in range(0, table, BLOCK):
        put(table + at // BLOCK * 4, zlib.crc32(bytes(blob[at:at + BLOCK])))
    put(table + BLOCK, zlib.crc32(bytes(blob[table:table + BLOCK])))
    put(footer + 60, zlib.crc32(bytes(blob[table + BLOCK:footer])))
    page(footer, FOOTER)


def no_bytes_do_harm():
    """Each byte damaged is found; with checksums made right again, as a forger would, it is refused or does nothing."""
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        sanitize, trial = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], os.path.join(folder, "trial")
        with open(trial + ".c", "w") as file:
            file.write("int main(void) { return 0; }\n")
        if run(compiler("CC", "cc") + sanitize + [trial + ".c", "-o", trial])[0] != 0 or run([trial])[0] != 0:
            sanitize = []
        sound = blobs(folder)
        reader = build(folder, "reader", READER, ["-O1", *sanitize, *SMALL])
        rotten, forged = [], []
        for blob in sound:
            again = bytearray(blob)
            reseal(again)
            assert bytes(again) == blob, "the checksums are where they are thought to be"
            ends = [0, 1, 63, FOOTER, len(blob) - BLOCK, len(blob) - 1]
            rotten += [blob[:end] for end in ends] + [blob + bytes(8)]
            used = [at for at, byte in enumerate(blob) if byte != 0]
            for at in range(0, len(blob), 97):
                bad = bytearray(blob)
                bad[at] ^= 1 << chance.randrange(8)
                rotten.append(bytes(bad))
            for _ in range(600):
                bad = bytearray(blob)
                for _ in range(chance.randrange(1, 4)):
                    bad[chance.choice(used)] = chance.choice((0, 1, 7, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                reseal(bad)
                forged.append(bytes(bad))
        codes = [line for line in read(reader, folder, rotten) if line]
        assert codes == ["-5"] * len(rotten), "damage is CORRUPT: %s" % [line for line in codes if line != "-5"][:5]
        codes = [line for line in read(reader, folder, forged) if re.fullmatch(r"-?\d+", line)]
        assert len(codes) == len(forged) and "0" in codes and "-5" in codes


def tests():
    yield found_is_what_double_precision_finds
    yield no_bytes_do_harm


if __name__ == "__main__":
    main("compile/small", list(tests()))
