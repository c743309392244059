#!/usr/bin/env python3
"""Planted bugs: each rule of durability is broken in a copy of src/, and some test has to notice.

A mutant is a list of edits of text that must stand exactly once in the file; when a rule has moved, this test fails
and says which. IQDB_TEST_TIER=long tries all of them, else five are chosen by a seed that is printed (the day's, or
IQDB_TEST_SEED). Arguments: names of mutants, or parts of names, to try just those."""
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
SAMPLE = 5
TIMEOUT = 300
# In the order in which they are asked.
PROGRAMS = ["crash/test_acceptance", "crash/test_enumerate", "crash/test_failures", "crash/test_rot",
            "persist/test_recover", "persist/test_wal", "persist/test_meta", "db/test_checkpoints", "db/test_follow",
            "db/test_ballast", "api/test_memory_max"]

D, W, M, R, S, N, C, E, L, O, F, I, K, P, Q = ("src/%s.c" % name for name in (
    "persist/directory", "persist/wal", "persist/meta", "persist/recover", "persist/scan", "persist/snapshot", "db/write",
    "store/records", "db/lock", "db/open", "db/refresh", "db/image", "db/checkpoint", "persist/repair", "db/collection"))
MUTANTS = [
    # -- what is synced, and in which order
    ("no directory fsync for a new log", [(W, "if (result == IQDB_OK && iq_volume_sync(wal->file.volume) != IQDB_OK)",
                                           "if (result == IQDB_OK && false)")]),
    ("no directory fsync for a new snapshot", [
        (D, "if (result == IQDB_OK) result = iq_directory_poison(directory, iq_volume_sync(&directory->volume));", "")]),
    ("no directory fsync for META", [
        (D, "return result == IQDB_OK ? iq_volume_sync(volume) : result;\n}\n\n/* Everything is loaded",
         "return result;\n}\n\n/* Everything is loaded")]),
    ("META before the snapshot is synced", [
        (D, "return iq_file_try_sync(&directory->making.file, os_code);", "return *os_code = 0, directory ? IQDB_OK : IQDB_ERR_IO;")]),
    ("a new log without a durable header", [
        (W, "    result = iq_wal_sync(wal);\n    if (result == IQDB_OK) result = iq_wal_allocate(wal, start.offset + 1, false);",
         "    if (result == IQDB_OK) result = iq_wal_allocate(wal, start.offset + 1, false);"),
        (W, "    if (result == IQDB_OK) result = iq_wal_sync(wal);\n    if (result == IQDB_OK && iq_volume_sync",
         "    if (result == IQDB_OK && iq_volume_sync")]),
    ("a commit returns before its sync", [
        (C, "result = iq_directory_sync(db->home->directory, &os_code);", "os_code = 0;")]),
    ("a queued write returns with the sync before its own", [
        (C, "result = iq_group_join(db, home->common.changed);",
         "result = iq_group_join(db, home->common.epoch.moment + 1);")]),
    ("a group is written and not synced", [
        (C, "    return iq_group_sync(db, result, lsn);",
         "    iq_common_publish(&db->home->common, lsn);\n    db->home->queued = 0;\n    db->home->syncing = 0;\n"
         "    iq_mutex_wake(&db->home->mutex);\n    return result;")]),
    ("a write is published before its sync", [
        (C, "iq_common_seal(&db->home->common);",
         "iq_common_publish(&db->home->common, lsn);\n        iq_common_seal(&db->home->common);")]),
    ("a group is published with the one before", [(E, "(common->sealed ? 2 : 1)", "1")]),
    ("a failed sync is hidden from who waits", [
        (C, "if (db->home->group_failed) return IQDB_ERR_IO;", "if (db->home->group_failed) return IQDB_OK;")]),
    ("late writes are not synced", [(L, "result = iq_directory_flush(db->home->directory, true);", "{}")]),
    ("the interval begins with the last write", [
        (L, "if (iq_directory_is_durable(db->home->directory)) db->home->durable_at = now;",
            "db->home->durable_at = now;")]),
    ("the interval begins behind the first write", [
        (L, "const bool is_late = iq_limit_is_past(now, db->home->durable_at + db->home->sync_interval_us);",
         "const bool is_late = iq_limit_is_past(now, db->home->durable_at + 2 * db->home->sync_interval_us);")]),
    ("maintenance does not sync what is late", [(O, "result = iq_db_sync_late(db);", "")]),
    ("flush does not sync", [
        (W, "        if (result != IQDB_OK) return result;\n    }\n    return iq_wal_sync(wal);",
         "        if (result != IQDB_OK) return result;\n    }\n    wal->synced = wal->written;\n    return IQDB_OK;")]),
    ("the switch frame is not synced", [
        (W, "    if (result == IQDB_OK) result = iq_wal_sync(wal);\n    if (result != IQDB_OK) {\n        iq_file_close(&next",
         "    wal->synced = wal->written;\n    if (result != IQDB_OK) {\n        iq_file_close(&next")]),
    ("recovery does not sync what it copies", [
        (W, "if (result == IQDB_OK && wal->written.lsn > wal->synced.lsn) result = iq_wal_sync(wal);",
         "wal->synced = wal->written;")]),
    ("files go before META lets them go", [
        (D, "    const iqdb_result result = iq_directory_save(directory, &next);\n    if (result != IQDB_OK) return result;\n"
            "    directory->old_log_bytes = 0;",
         "    for (uint32_t i = 0; i < logs; i++) {\n"
         "        iq_volume_name(name, IQ_LOG_PREFIX, gone[i]);\n"
         "        iq_volume_remove(&directory->volume, name);\n    }\n"
         "    const iqdb_result result = iq_directory_save(directory, &next);\n    if (result != IQDB_OK) return result;\n"
         "    directory->old_log_bytes = 0;")]),
    # -- deltas and slices
    ("old snapshots go before META lets them go", [
        (D, "    const iqdb_result result = iq_directory_save(directory, &next);\n    if (result != IQDB_OK) return result;\n"
            "    directory->old_log_bytes = 0;",
         "    for (uint32_t i = logs; i < count; i++) {\n"
         "        iq_volume_name(name, IQ_SNAPSHOT_PREFIX, gone[i]);\n"
         "        iq_volume_remove(&directory->volume, name);\n    }\n"
         "    const iqdb_result result = iq_directory_save(directory, &next);\n    if (result != IQDB_OK) return result;\n"
         "    directory->old_log_bytes = 0;")]),
    ("deltas do not tell what was deleted", [
        (E, "if (records->keeps_deleted) (void)iq_blob_append(", "if (records == NULL) (void)iq_blob_append(")]),
    ("a base forgets what is deleted while it is written", [(K, "->moment <= held)", "->moment <= IQ_MOMENT_LAST)")]),
    ("a delta begins a moment late", [
        (I, "if (iq_row_birth(slab, index) <= image->since) continue;",
         "if (iq_row_birth(slab, index) <= image->since + (image->since > 0)) continue;")]),
    ("what was loaded is not known to be held", [
        (K, "[db->home->checkpoint.count++] = db->home->common.epoch.moment;",
            "[db->home->checkpoint.count++] = IQ_MOMENT_LAST - 1;")]),
    ("a snapshot is said to hold what was written beside it", [
        (D, "    next.applied_lsn = making->entry.lsn;",
         "    next.applied_lsn = next.snapshots[making->kept].lsn = directory->wal.synced.lsn;")]),
    ("a delta is since another LSN than it says", [
        (D, "entry.since = manifest->snapshots[out_tier->kept - 1].lsn;", "entry.since = manifest->snapshots[0].lsn;")]),
    ("an image of what is written beside it", [
        (I, "iq_snapshot_offset(writer) < stop; image->row++) {\n        const iq_slab *slab = iq_records_next("
            "records, &image->row, end, image->moment,",
         "iq_snapshot_offset(writer) < stop; image->row++) {\n        const iq_slab *slab = iq_records_next("
         "records, &image->row, end, IQ_MOMENT_LAST,")]),
    ("nothing keeps the rows of an image", [
        (K, "    checkpoint->is_pinned = true;\n",
         "    checkpoint->is_pinned = true;\n    iq_epoch_unpin(&db->home->common.epoch, checkpoint->pin.slot);\n")]),
    ("a stalled checkpoint keeps its rows", [
        (C, "if (result == IQDB_ERR_BUSY && iq_checkpoint_abandon(db))", "if (false && iq_checkpoint_abandon(db))")]),
    ("repair reads the base only", [
        (P, "for (uint32_t i = 0; i < count && result == IQDB_OK; i++) result = iq_repair_snapshot(",
         "for (uint32_t i = 0; i < count && i < 1 && result == IQDB_OK; i++) result = iq_repair_snapshot(")]),
    # -- collections
    ("a drop is not logged", [(Q, "result = iq_write_collection(dropped, IQ_RECORD_DROP, nothing, &lsn);", "lsn = home->common.lsn + 1;")]),
    ("a collection is seen that is not logged", [
        (Q, "result = iq_write_collection(*out_made, IQ_RECORD_CREATE, body, &lsn);", "lsn = home->common.lsn + 1;")]),
    ("operations are logged for one collection", [(C, "logged.collection = db->number;", "logged.collection = 0;")]),
    ("snapshots do not tell which collections there are", [
        (I, "iq_image_begin(image, image->db->number + 1);", "image->db = NULL;")]),
    ("a delta does not count what changes beside it", [(I, "image->stage = records->changed <= image->moment &&", "image->stage =")]),
    ("an image knows collections that came later", [
        (I, "image.next_number = home->next_number;", "image.next_number = home->next_number + 1;")]),
    ("a snapshot's drops are not applied", [(I, "        iq_home_bury(db);\n", "        (void)db;\n")]),
    # -- a full disk
    ("no write gets the ballast", [("src/persist/volume.c", "return volume->spends &&", "return false &&")]),
    ("whoever writes gets the ballast", [("src/persist/volume.c", "return volume->spends &&", "return IQ_HAS_WRITES &&")]),
    ("the ballast does not come back", [
        (D, "    iq_volume_make_ballast(&directory->volume);\n    return IQDB_OK;", "    return IQDB_OK;")]),
    # -- META
    ("a torn slot is written over as it is", [(M, "if (!meta->torn) return IQDB_OK;", "if (meta != NULL) return IQDB_OK;")]),
    ("META in both slots with one sync", [
        (M, "if (result == IQDB_OK) result = iq_file_sync(&meta->file);\n        if",
         "if (result == IQDB_OK && pass == 1) result = iq_file_sync(&meta->file);\n        if")]),
    ("META in one slot", [(M, "for (int pass = 0; pass < 2; pass++) {", "for (int pass = 0; pass < 1; pass++) {")]),
    ("META over its newer slot first", [(M, "meta->next_slot = newest ^ 1u;", "meta->next_slot = newest;"),
                                        (M, "meta->next_slot ^= 1u;\n    }\n    meta->settled",
                                         "meta->next_slot ^= 1u;\n    }\n    meta->next_slot ^= 1u;\n    meta->settled")]),
    ("META is not read back", [(M, "memcmp(meta->image, meta->check, IQ_META_SLOT_SIZE) != 0)\n            result",
                                "false)\n            result")]),
    ("the clean mark is not withdrawn", [(D, "if (result != IQDB_OK || !directory->manifest.clean) return result;",
                                          "if (true) return result;")]),
    ("closed as clean without a flush", [(D, "        result = iq_wal_flush(&directory->wal);\n        iq_manifest next",
                                          "        iq_manifest next")]),
    # -- the log
    ("no padding to the sector", [
        (W, "    const size_t left = over == 0 ? 0 : sector - over;", "    const size_t left = over * 0;"),
        (W, "if (end->offset % header->sector_size != 0 || size < end->offset)", "if (size < end->offset)"),
        (W, "    IQ_ASSERT(wal->written.offset % wal->header.sector_size == 0);\n", ""),
        (W, "if (wal->written.offset % wal->header.sector_size != 0) {\n        const", "if (false) {\n        const"),
        (W, "if (result == IQDB_OK && wal->written.offset % wal->header.sector_size != 0)", "if (false)")]),
    ("a CRC without the salt", [(S, "return iq_crc32(0, bytes, sizeof bytes);", "return 0 * bytes[0];")]),
    ("the chain of frames is not followed", [(S, " || out_frame->before_crc != from->crc", "")]),
    ("LSNs may jump", [(S, "if (out_frame->lsn != from->lsn + 1 || ", "if (")]),
    ("durable_lsn is what was written", [(W, "iq_put_u64(frame + IQ_FRAME_DURABLE_AT, wal->synced.lsn);",
                                          "iq_put_u64(frame + IQ_FRAME_DURABLE_AT, wal->written.lsn);")]),
    ("durable_lsn says nothing", [(W, "iq_put_u64(frame + IQ_FRAME_DURABLE_AT, wal->synced.lsn);",
                                   "iq_put_u64(frame + IQ_FRAME_DURABLE_AT, 0);")]),
    ("a failed sync does not poison", [
        (W, "if (iq_file_synced(&wal->file, result, os_code) != IQDB_OK) return iq_wal_poison(wal);",
         "if (iq_file_synced(&wal->file, result, os_code) != IQDB_OK) return IQDB_ERR_IO;")]),
    ("a write without space does not poison", [
        (W, "    wal->batch.size = 0;\n    if (result != IQDB_OK) {",
         "    wal->batch.size = 0;\n    if (result == IQDB_ERR_NOSPACE) return result;\n    if (result != IQDB_OK) {")]),
    # -- recovery
    ("stop at the first bad frame", [
        (R, "    if (result != IQDB_OK || !attests) return result;\n    return iq_scan_corrupt(scan, end->offset, lsn, "
            "\"a frame that had been acknowledged is damaged\");", "    return result;")]),
    ("any later frame attests", [(S, "frame->durable_lsn < durable_lsn ||", "frame->lsn <= durable_lsn ||")]),
    ("half a batch counts", [(S, "out_span->is_whole = (frame.flags & IQ_FRAME_COMMIT) != 0;",
                              "out_span->is_whole = (frame.flags & IQ_FRAME_LAST) != 0;")]),
    ("replay below the snapshot", [(R, "if (span.end.lsn > recovery->manifest->applied_lsn)", "if (true)")]),
    ("append behind the torn tail", [
        (D, "    if (manifest->clean) {\n        result = iq_wal_resume",
         "    if (true) {\n        result = iq_wal_resume"),
        (W, "if (end->offset % header->sector_size != 0 || size < end->offset)", "if (size < end->offset)")]),
    ("the old log keeps an end that nobody attests", [
        (R, "if (i == recovery->attested_log) entry.end = recovery->attested;", "")]),
    ("recovery forgets the unattested tail", [
        (R, "for (uint32_t i = first; i < found->log_count && result == IQDB_OK; i++)",
         "for (uint32_t i = first; i < found->log_count && result == IQDB_OK && false; i++)"),
        (R, "    IQ_ASSERT(result != IQDB_OK || wal->written.lsn >= last->end.lsn);\n", "")]),
    ("switch frames are not followed", [(R, "if (result == IQDB_OK && next.type != 0) {",
                                         "if (result == IQDB_OK && next.type != 0 && false) {")]),
    # -- a reader beside a writer
    ("a reader takes any log of the number for the one it knows", [
        (D, "(log->number != last->number || log->salt != last->salt)", "(log->number != last->number)")]),
    ("a reader takes damage for granted the first time", [
        (D, "sequence == directory->meta.sequence && error.offset == before.offset &&\n"
            "                             strcmp(error.file, before.file) == 0;",
         "sequence == directory->meta.sequence;")]),
    ("a refresh that failed has moved on", [(D, "    directory->manifest = known;\n", "")]),
    ("a refresh forgets what was deleted", [(F, "if (deletes || iq_refresh_is_same(&record, &there, iq_db_vector_bytes(mine, record.dim))) continue;", "continue;"),]),
    ("records that are loaded count nothing", [
        (I, "result = iq_records_count_in(&db->records, id, iq_heap_payload(&db->records.heap, ref).size);",
         "result = IQDB_OK;")]),
    # -- identity, and rot
    ("a log of another database will do", [
        (S, " || (uuid != NULL && memcmp(scan->uuid, uuid, IQ_UUID_SIZE) != 0)", ""),
        (S, "scan->header.salt != entry->salt || scan->header.first_lsn != entry->first_lsn", "false")]),
    ("an older log of that number will do", [
        (S, "scan->header.salt != entry->salt || scan->header.first_lsn != entry->first_lsn", "false")]),
    ("blocks of snapshots are not checked", [(
        N, "return (IQ_SMALL || iq_snapshot_table_is_sound(", "return true || (IQ_SMALL || iq_snapshot_table_is_sound(")]),
    ("the log may go on behind its clean end", [
        (R, "result = iq_recover_is_behind(&scan, &end, recovery->loader != NULL);", "result = IQDB_OK;")]),
    ("a log that was cut short is torn", [
        (R, "if (result == IQDB_OK && !is_blank)", "if (result == IQDB_OK && !is_blank && false)")]),
]


class Workshop:
    """A copy of src/ with its objects, and the test programs of PROGRAMS linked with them."""

    def __init__(self, folder):
        self.folder = folder
        self.cc = os.environ.get("CC", "cc").split()
        self.flags = ["-std=c99", "-O1", "-D_GNU_SOURCE", "-DIQDB_MODULES", "-pthread", "-w"]
        shutil.copytree(os.path.join(ROOT, "src"), os.path.join(folder, "src"))
        os.makedirs(os.path.join(folder, "include"))
        with open(os.path.join(folder, "include", "iqdb.h"), "w") as file:
            file.write('#include "api.h"\n')
        self.objects = {}
        jobs = []
        for parent, _, names in os.walk(os.path.join(folder, "src")):
            for name in sorted(names):
                if name.endswith(".c"):
                    source = os.path.join(parent, name)
                    self.objects[os.path.relpath(source, folder)] = source[:-2] + ".o"
                    jobs.append(self.compile_command(source, source[:-2] + ".o", True))
        for program in PROGRAMS:
            jobs.append(self.compile_command(os.path.join(ROOT, "tests", program + ".c"), self.path(program, ".o"), False))
        self.run_all(jobs)

    def path(self, program, suffix):
        return os.path.join(self.folder, program.replace("/", "_") + suffix)

    def compile_command(self, source, target, is_module):
        command = self.cc + self.flags + ["-I" + os.path.join(self.folder, "src")]
        if is_module:
            command += ["-include", os.path.join(self.folder, "src/base/feature.h")]
        else:
            command += ["-I" + os.path.join(ROOT, "tests"), "-I" + os.path.join(self.folder, "include")]
        return command + ["-c", source, "-o", target]

    def run_all(self, jobs):
        width = os.cpu_count() or 1
        running = []
        for job in jobs:
            if len(running) >= width:
                self.wait(running.pop(0))
            running.append((job, subprocess.Popen(job, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
        for one in running:
            self.wait(one)

    @staticmethod
    def wait(one):
        job, process = one
        output = process.communicate()[0].decode("utf-8", "replace")
        if process.returncode != 0:
            raise RuntimeError("%s\n%s" % (" ".join(job), output))

    def plant(self, edits):
        """Applies the edits; the files' texts before, by name."""
        before = {}
        for name, old, new in edits:
            path = os.path.join(self.folder, name)
            with open(path) as file:
                text = file.read()
            before.setdefault(name, text)
            if text.count(old) != 1:
                self.restore(before)
                raise LookupError("%s has this %d times, not once:\n%s" % (name, text.count(old), old))
            with open(path, "w") as file:
                file.write(text.replace(old, new))
        self.compile(before)
        return before

    def compile(self, names):
        self.run_all([self.compile_command(os.path.join(self.folder, name), self.objects[name], True) for name in names])

    def restore(self, before):
        for name, text in before.items():
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(text)

    def ask(self, program):
        """None where the program is content, else why not."""
        target = self.path(program, "")
        self.run_all([self.cc + [self.path(program, ".o")] + sorted(self.objects.values()) +
                      ["-pthread", "-lm", "-o", target]])
        try:
            done = subprocess.run([target], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
                                  env=dict(os.environ, IQDB_TEST_TIER="quick"))
        except subprocess.TimeoutExpired:
            return "hangs"
        if done.returncode == 0:
            return None
        if done.returncode < 0:
            return "dies of signal %d" % -done.returncode
        for line in done.stdout.decode("utf-8", "replace").split("\n"):
            if "step " in line or "failed:" in line:
                return line.strip().replace(ROOT + os.sep, "")[:150]
        return "fails"


def choose(arguments):
    if arguments:
        return [mutant for mutant in MUTANTS if any(argument in mutant[0] for argument in arguments)]
    if os.environ.get("IQDB_TEST_TIER") == "long":
        return MUTANTS
    seed = int(os.environ.get("IQDB_TEST_SEED", datetime.date.today().toordinal()))
    print("  %d of %d mutants, chosen by seed %d" % (SAMPLE, len(MUTANTS), seed))
    return random.Random(seed).sample(MUTANTS, SAMPLE)


def main():
    if len(MUTANTS) < 20 or len(set(name for name, _ in MUTANTS)) != len(MUTANTS):
        print("  FAIL: there must be twenty mutants of different names")
        return 1
    caught = survived = 0
    folder = tempfile.mkdtemp(prefix="iqdb-mutants-")
    try:
        shop = Workshop(folder)
        chosen = choose(sys.argv[1:])
        for program in PROGRAMS:  # without a bug nobody may complain, or nothing below means anything
            trouble = shop.ask(program)
            if trouble:
                print("  FAIL: %s complains without a planted bug: %s" % (program, trouble))
                print("crash/mutants: 0 passed, 1 failed")
                return 1
        for name, edits in chosen:
            start = time.monotonic()
            before = shop.plant(edits)
            trouble = None
            for program in PROGRAMS:
                trouble = shop.ask(program)
                if trouble:
                    break
            shop.restore(before)
            shop.compile(before)
            if trouble:
                caught += 1
                print("  caught   %-46s %5.1f s  %s: %s" % (name, time.monotonic() - start, program, trouble))
            else:
                survived += 1
                print("  FAIL: nobody noticed: %s" % name)
            sys.stdout.flush()
    except (LookupError, RuntimeError, ValueError) as error:
        print("  FAIL: %s" % error)
        survived += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("crash/mutants: %d passed, %d failed" % (caught, survived))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
