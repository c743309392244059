/* META: encoding, the choice between slots, and what a save leaves behind when it fails at any point. */
#include "api.h"
#include "base/bytes.h"
#include "fault_cut.h"
#include "kernel/crc32.h"
#include "persist/meta.h"
#include "support.h"
#include "test.h"

static iq_volume volume;
static fault_files *disk;
static iq_meta meta; /* too large for some stacks */

static void start(void) {
    int os_code;
    disk = fault_new(NULL);
    memset(&volume, 0, sizeof volume);
    volume.allocator = iq_alloc_default();
    volume.files = fault_table(disk);
    CHECK_EQ_INT(volume.files.dir_open_fn("db", true, &volume.dir, &os_code, volume.files.user), IQDB_OK);
}

static void finish(void) {
    iq_file_close(&meta.file);
    iq_volume_close(&volume);
    CHECK_EQ_U64(disk->open_files + disk->open_dirs, 0);
    fault_free(disk);
}

/* A manifest with everything in it: two snapshots, three logs. */
static iq_manifest sample(uint64_t base) {
    iq_manifest m;
    memset(&m, 0, sizeof m);
    for (int i = 0; i < IQ_UUID_SIZE; i++) m.uuid[i] = (uint8_t)(i * 17 + 1);
    m.schema.dim = 384;
    m.schema.metric = 2;
    m.schema.element = 0;
    m.snapshot_count = 2;
    m.snapshots[0].number = 3;
    m.snapshots[0].size_bytes = base * 10;
    m.snapshots[0].lsn = base;
    m.snapshots[0].root = 0xDEADBEEF;
    m.snapshots[1].number = 5;
    m.snapshots[1].size_bytes = 8192;
    m.snapshots[1].lsn = base + 5;
    m.snapshots[1].since = base; /* which no slot says: it follows from the order */
    m.snapshots[1].root = 1;
    m.applied_lsn = base + 5;
    m.log_count = 3;
    for (uint32_t i = 0; i < 3; i++) {
        m.logs[i].number = 7 + i * 2;
        m.logs[i].salt = UINT64_C(0x0123456789ABCDEF) + i;
        m.logs[i].first_lsn = base + 1 + i * 10;
        m.logs[i].has_end = true;
        m.logs[i].end.lsn = base + 10 + i * 10;
        m.logs[i].end.offset = 8192 + i * 4096;
        m.logs[i].end.crc = 0x11111111u * (i + 1);
    }
    return m;
}

static bool same(const iq_manifest *a, const iq_manifest *b) {
    return memcmp(a, b, sizeof *a) == 0; /* both were zeroed before they were filled */
}

static void reseal(uint8_t *slot) {
    iq_put_u32(slot + IQ_PAGE_CRC_AT, iq_crc32(iq_crc32(0, slot, 8), slot + 12, IQ_META_SLOT_SIZE - 12));
}

static void what_is_encoded_comes_back(void) {
    uint8_t slot[IQ_META_SLOT_SIZE];
    iq_manifest back;
    uint64_t sequence = 0;
    for (int i = 0; i < 4; i++) {
        iq_manifest m = sample(1000);
        m.clean = i == 1;
        if (i == 2) memset(&m.logs[2].end, 0, sizeof m.logs[2].end);
        if (i == 2) m.logs[2].has_end = false;
        if (i == 3) {
            m.snapshot_count = 0;
            memset(m.snapshots, 0, sizeof m.snapshots);
            m.applied_lsn = 0;
            m.logs[0].first_lsn = 1;
        }
        iq_meta_encode(&m, 77, slot);
        CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), IQDB_OK);
        CHECK_EQ_U64(sequence, 77);
        CHECK_EQ_INT(back.clean, i == 1);
        CHECK(back.log_count == m.log_count && back.snapshot_count == m.snapshot_count);
        CHECK_MEM(back.uuid, m.uuid, IQ_UUID_SIZE);
        CHECK_EQ_U64(back.logs[1].end.offset, 8192 + 4096);
        uint8_t again[IQ_META_SLOT_SIZE];
        iq_meta_encode(&back, 77, again);
        CHECK_MEM(again, slot, sizeof slot);
        CHECK_EQ_U64(iq_get_u32(slot + 8), iq_crc32(iq_crc32(0, slot, 8), slot + 12, sizeof slot - 12));
    }
}

static void every_flipped_bit_is_noticed(void) {
    uint8_t slot[IQ_META_SLOT_SIZE];
    iq_manifest back, m = sample(1000);
    uint64_t sequence;
    iq_meta_encode(&m, 77, slot);
    for (size_t i = 0; i < sizeof slot * 8; i++) {
        slot[i / 8] = (uint8_t)(slot[i / 8] ^ 1u << i % 8);
        if (iq_meta_decode(slot, &back, &sequence) != IQDB_ERR_CORRUPT) CHECK_EQ_U64(i, UINT64_MAX);
        slot[i / 8] = (uint8_t)(slot[i / 8] ^ 1u << i % 8);
    }
    CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), IQDB_OK);
}

typedef struct lie {
    const char *what;
    size_t at, size;
    uint64_t value;
    iqdb_result code;
} lie;

static void lies_with_a_valid_checksum(void) {
    const size_t log0 = IQ_META_LOG_AT, log1 = log0 + IQ_META_LOG_SIZE, log2 = log1 + IQ_META_LOG_SIZE;
    const size_t snap0 = IQ_META_SNAPSHOT_AT, snap1 = snap0 + IQ_META_SNAPSHOT_SIZE;
    const lie lies[] = {
        {"a newer version", IQ_PAGE_VERSION_AT, 4, 2, IQDB_ERR_VERSION},
        {"version 0", IQ_PAGE_VERSION_AT, 4, 0, IQDB_ERR_VERSION},
        {"a required feature", IQ_META_REQUIRED_AT, 4, 0x80000000u, IQDB_ERR_VERSION},
        {"an ignorable feature", IQ_META_IGNORABLE_AT, 4, 1, IQDB_OK},
        {"a sequence without end", IQ_META_SEQUENCE_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"the last sequence", IQ_META_SEQUENCE_AT, 8, IQ_LSN_MAX, IQDB_OK},
        {"one behind it", IQ_META_SEQUENCE_AT, 8, IQ_LSN_MAX + 1, IQDB_ERR_CORRUPT},
        {"no log", IQ_META_LOGS_AT, 4, 0, IQDB_ERR_CORRUPT},
        {"nine logs", IQ_META_LOGS_AT, 4, 9, IQDB_ERR_CORRUPT},
        {"33 snapshots", IQ_META_SNAPSHOTS_AT, 4, 33, IQDB_ERR_CORRUPT},
        {"one snapshot less", IQ_META_SNAPSHOTS_AT, 4, 1, IQDB_ERR_CORRUPT},
        {"applied of no snapshot", IQ_META_APPLIED_AT, 8, 1004, IQDB_ERR_CORRUPT},
        {"snapshot 0", snap0 + IQ_META_SNAPSHOT_NUMBER_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"snapshots out of order", snap1 + IQ_META_SNAPSHOT_NUMBER_AT, 8, 3, IQDB_ERR_CORRUPT},
        {"a snapshot number too large", snap1 + IQ_META_SNAPSHOT_NUMBER_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"LSNs of snapshots out of order", snap0 + IQ_META_SNAPSHOT_LSN_AT, 8, 1006, IQDB_ERR_CORRUPT},
        {"log 0", log0 + IQ_META_LOG_NUMBER_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"logs out of order", log1 + IQ_META_LOG_NUMBER_AT, 8, 7, IQDB_ERR_CORRUPT},
        {"a log number too large", log2 + IQ_META_LOG_NUMBER_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"a gap behind the snapshot", log0 + IQ_META_LOG_FIRST_AT, 8, 1007, IQDB_ERR_CORRUPT},
        {"right behind the snapshot", log0 + IQ_META_LOG_FIRST_AT, 8, 1006, IQDB_OK},
        {"first LSN 0", log0 + IQ_META_LOG_FIRST_AT, 8, 0, IQDB_ERR_CORRUPT},
        {"a gap between logs", log1 + IQ_META_LOG_FIRST_AT, 8, 1012, IQDB_ERR_CORRUPT},
        {"an overlap of logs", log1 + IQ_META_LOG_FIRST_AT, 8, 1010, IQDB_ERR_CORRUPT},
        {"an end before the start", log0 + IQ_META_LOG_END_LSN_AT, 8, 999, IQDB_ERR_CORRUPT},
        {"an end too large", log2 + IQ_META_LOG_END_LSN_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"the last LSN", log2 + IQ_META_LOG_END_LSN_AT, 8, IQ_LSN_MAX, IQDB_OK},
        {"one behind it", log2 + IQ_META_LOG_END_LSN_AT, 8, IQ_LSN_MAX + 1, IQDB_ERR_CORRUPT},
        {"an end in the header", log2 + IQ_META_LOG_END_AT, 8, 511, IQDB_ERR_CORRUPT},
        {"an end beyond files", log2 + IQ_META_LOG_END_AT, 8, UINT64_MAX, IQDB_ERR_CORRUPT},
        {"an open end in the middle", log1 + IQ_META_LOG_STATE_AT, 4, 0, IQDB_ERR_CORRUPT},
        {"an open end", log2 + IQ_META_LOG_STATE_AT, 4, 0, IQDB_OK},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        uint8_t slot[IQ_META_SLOT_SIZE];
        iq_manifest back, m = sample(1000);
        uint64_t sequence;
        iq_meta_encode(&m, 77, slot);
        if (lies[i].size == 4)
            iq_put_u32(slot + lies[i].at, (uint32_t)lies[i].value);
        else
            iq_put_u64(slot + lies[i].at, lies[i].value);
        reseal(slot);
        const iqdb_result code = iq_meta_decode(slot, &back, &sequence);
        if (!EXPECT(code == lies[i].code)) printf("\n      ... %s: %d", lies[i].what, (int)code);
    }
    /* A clean META knows the end of every log, and no log ends before the snapshot. */
    uint8_t slot[IQ_META_SLOT_SIZE];
    iq_manifest back, m = sample(1000);
    uint64_t sequence;
    m.clean = true;
    m.logs[2].has_end = false;
    iq_meta_encode(&m, 77, slot);
    CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), IQDB_ERR_CORRUPT);
    m = sample(1000);
    m.log_count = 1;
    m.logs[0].end.lsn = 1004;
    iq_meta_encode(&m, 77, slot);
    CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), IQDB_ERR_CORRUPT);
    m.logs[0].end.lsn = 1005;
    iq_meta_encode(&m, 77, slot);
    CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), IQDB_OK);
}

/* The field of the tag: what an older writer has left zero, and any text of UTF-8 with zeros behind it. */
static void tags_of_models(void) {
    const struct {
        const char *bytes;
        size_t size;
        iqdb_result code;
    } tags[] = {{"", 0, IQDB_OK},
                {"minilm", 6, IQDB_OK},
                {"caf\xC3\xA9", 5, IQDB_OK},
                {"123456789012345678901234567890123456789012345678901234567890123", 63, IQDB_OK},
                {"1234567890123456789012345678901234567890123456789012345678901234", 64, IQDB_ERR_CORRUPT},
                {"caf\xC3", 4, IQDB_ERR_CORRUPT},
                {"mini\0lm", 7, IQDB_ERR_CORRUPT},
                {"\0x", 2, IQDB_ERR_CORRUPT}};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        uint8_t slot[IQ_META_SLOT_SIZE], again[IQ_META_SLOT_SIZE];
        iq_manifest back, m = sample(1000);
        uint64_t sequence;
        iq_meta_encode(&m, 77, slot);
        memcpy(slot + IQ_META_MODEL_AT, tags[i].bytes, tags[i].size);
        reseal(slot);
        CHECK_EQ_INT(iq_meta_decode(slot, &back, &sequence), tags[i].code);
        if (tags[i].code != IQDB_OK) continue;
        CHECK(strcmp(back.model, tags[i].bytes) == 0);
        iq_meta_encode(&back, 77, again);
        CHECK_MEM(again, slot, sizeof slot);
    }
}

static void states_of_a_file(void) {
    iq_meta_state state;
    iq_manifest back;
    static uint8_t bytes[2 * IQ_META_SLOT_SIZE];
    start();
    CHECK_EQ_INT(iq_meta_load(&meta, &volume, false, &state, &back), IQDB_OK);
    CHECK_EQ_INT(state, IQ_META_IS_MISSING);
    CHECK_EQ_INT(iq_meta_verify(&volume, meta.check), IQDB_ERR_CORRUPT);
    const size_t sizes[] = {0, 1, 4096, 8191, 8192};
    for (size_t i = 0; i < 5; i++) {
        memset(bytes, 0, sizeof bytes);
        CHECK(fault_store(disk, "db", "META", bytes, sizes[i]));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, i % 2 == 0, &state, &back), IQDB_OK);
        CHECK_EQ_INT(state, IQ_META_IS_BLANK);
        iq_file_close(&meta.file);
        if (sizes[i] == 0) continue;
        bytes[sizes[i] - 1] = 1;
        CHECK(fault_store(disk, "db", "META", bytes, sizes[i]));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, i % 2 == 0, &state, &back), IQDB_OK);
        CHECK_EQ_INT(state, IQ_META_IS_DAMAGED);
        iq_file_close(&meta.file);
    }
    finish();
}

static void the_newer_slot_counts(void) {
    static uint8_t bytes[2 * IQ_META_SLOT_SIZE];
    iq_meta_state state;
    iq_manifest back;
    const iq_manifest old = sample(1000), young = sample(2000);
    start();
    for (int first = 0; first < 2; first++) {
        uint8_t *older = bytes + (first ? IQ_META_SLOT_SIZE : 0), *newer = bytes + (first ? 0 : IQ_META_SLOT_SIZE);
        iq_meta_encode(&old, 8, older);
        iq_meta_encode(&young, 9, newer);
        CHECK(fault_store(disk, "db", "META", bytes, sizeof bytes));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &back), IQDB_OK);
        CHECK_EQ_INT(state, IQ_META_IS_GOOD);
        CHECK(same(&back, &young) && !meta.settled);
        CHECK_EQ_U64(meta.sequence, 9);
        CHECK_EQ_U64(meta.next_slot, first ? 1 : 0); /* the older one */
        iq_file_close(&meta.file);
        /* A newer one of a newer version is not passed over. */
        iq_put_u32(newer + IQ_PAGE_VERSION_AT, 2);
        reseal(newer);
        CHECK(fault_store(disk, "db", "META", bytes, sizeof bytes));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &back), IQDB_ERR_VERSION);
        iq_file_close(&meta.file);
        newer[99] = 1; /* damaged: the other one counts */
        CHECK(fault_store(disk, "db", "META", bytes, sizeof bytes));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &back), IQDB_OK);
        CHECK(same(&back, &old));
        CHECK_EQ_U64(meta.next_slot, first ? 0 : 1); /* the invalid one */
        CHECK_EQ_INT(iq_meta_verify(&volume, meta.check), IQDB_ERR_CORRUPT);
        iq_file_close(&meta.file);
        /* A slot that was made by hand may say 0. */
        iq_meta_encode(&young, 0, newer);
        memset(older, 7, 100);
        CHECK(fault_store(disk, "db", "META", bytes, sizeof bytes));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &back), IQDB_OK);
        CHECK(state == IQ_META_IS_GOOD && same(&back, &young) && meta.torn);
        CHECK_EQ_U64(meta.next_slot, first ? 1 : 0);
        iq_file_close(&meta.file);
        iq_meta_encode(&old, 8, older);
        /* A required feature of the older one does not matter. */
        iq_meta_encode(&young, 9, newer);
        iq_put_u32(older + IQ_META_REQUIRED_AT, 4);
        reseal(older);
        CHECK(fault_store(disk, "db", "META", bytes, sizeof bytes));
        CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &back), IQDB_OK);
        CHECK(same(&back, &young));
        iq_file_close(&meta.file);
    }
    finish();
}

static const iq_manifest *saves[3]; /* before, failing, after */

static bool check_saved(fault_files *state, const char *what, void *user) {
    iq_volume there = volume;
    iq_meta_state found;
    iq_manifest back;
    int os_code;
    static iq_meta other;
    const int *allowed = (const int *)user; /* bits of saves */
    there.files = fault_table(state);
    if (there.files.dir_open_fn("db", false, &there.dir, &os_code, there.files.user) != IQDB_OK) return EXPECT(false);
    bool ok = iq_meta_load(&other, &there, false, &found, &back) == IQDB_OK && found == IQ_META_IS_GOOD;
    bool known = false;
    for (int i = 0; i < 3; i++) known = known || ((*allowed >> i & 1) != 0 && same(&back, saves[i]));
    if (!EXPECT(ok && known)) printf("\n      ... %s: state %d", what, (int)found);
    iq_file_close(&other.file);
    iq_volume_close(&there);
    return ok && known;
}

static void a_save_may_fail_and_be_cut_anywhere(void) {
    const iq_manifest first = sample(1000), second = sample(2000), third = sample(3000);
    size_t states = 0;
    saves[0] = &first;
    saves[1] = &second;
    saves[2] = &third;
    for (size_t n = 1; n <= 8; n++) {
        for (int drop = 0; drop < 2; drop++) {
            int allowed = 1;
            start();
            CHECK_EQ_INT(iq_meta_create(&meta, &volume), IQDB_OK);
            CHECK_EQ_INT(iq_meta_save(&meta, &first), IQDB_OK);
            CHECK_EQ_INT(iq_volume_sync(&volume), IQDB_OK);
            CHECK(meta.settled);
            CHECK_EQ_INT(iq_meta_verify(&volume, meta.check), IQDB_OK);
            states += fault_crashes(disk, 0, 0, 1, check_saved, &allowed);
            disk->partial = n % 2 == 0 ? 1000 : 0;
            disk->drop_on_sync_failure = drop != 0;
            fault_fail_nth(disk, FAULT_WRITE | FAULT_SYNC | FAULT_READ, n, IQDB_ERR_NOSPACE, false);
            const iqdb_result result = iq_meta_save(&meta, &second);
            const bool struck = disk->failed > 0;
            CHECK(struck == (n <= 6));
            CHECK(struck ? result != IQDB_OK && !meta.settled : result == IQDB_OK);
            allowed = struck ? 3 : 2;
            states += fault_crashes(disk, FAULT_TEAR | FAULT_GARBAGE | FAULT_ZEROS, 10, n, check_saved, &allowed);
            fault_fail_nth(disk, 0, 0, IQDB_OK, false);
            if (drop == 0) { /* calling again is safe */
                CHECK_EQ_INT(iq_meta_save(&meta, &third), IQDB_OK);
                allowed = 4;
                states += fault_crashes(disk, FAULT_TEAR | FAULT_GARBAGE, 10, n, check_saved, &allowed);
                CHECK_EQ_INT(iq_meta_verify(&volume, meta.check), IQDB_OK);
            }
            finish();
        }
    }
    CHECK(states > 50);
}

static void cut_within(fault_files *changed, void *user) {
    int allowed = 7;
    (void)user;
    fault_crashes(changed, FAULT_TEAR | FAULT_GARBAGE | FAULT_ZEROS, 5, 3, check_saved, &allowed);
}

static void cut_strictly(fault_files *changed, void *user) {
    fault_crashes(changed, FAULT_TEAR, 5, 3, check_saved, user);
}

static void one_slot_is_valid_at_each_moment(void) {
    const iq_manifest first = sample(1000), second = sample(2000);
    saves[0] = &first;
    saves[1] = saves[2] = &second;
    start();
    CHECK_EQ_INT(iq_meta_create(&meta, &volume), IQDB_OK);
    CHECK_EQ_INT(iq_meta_save(&meta, &first), IQDB_OK);
    CHECK_EQ_INT(iq_volume_sync(&volume), IQDB_OK);
    disk->after_fn = cut_within;
    for (int i = 0; i < 6; i++) CHECK_EQ_INT(iq_meta_save(&meta, saves[i % 2]), IQDB_OK);
    disk->after_fn = NULL;
    finish();
}

/* A save that a crash tore, and another one that is cut: what gets through of the second may be just what the first one
 * lacked, for most sectors say the same, and yet the first must not come into being. */
static void a_torn_save_is_never_completed(void) {
    uint8_t file[2 * IQ_META_SLOT_SIZE], torn[IQ_META_SLOT_SIZE];
    const iq_manifest first = sample(1000), lost = sample(2000);
    iq_manifest next = lost; /* differs from it in the first sector only */
    iq_meta_state state;
    iq_manifest found;
    size_t size, states = 0;
    int allowed = 5;
    next.schema.dim = 385;
    saves[0] = &first;
    saves[1] = &lost;
    saves[2] = &next;
    for (size_t sector = 0; sector < IQ_META_SLOT_SIZE / 512; sector++) {
        for (uint32_t slot = 0; slot < 2; slot++) {
            start();
            disk->sector_size = 512;
            CHECK_EQ_INT(iq_meta_create(&meta, &volume), IQDB_OK);
            CHECK_EQ_INT(iq_meta_save(&meta, &first), IQDB_OK);
            CHECK_EQ_INT(iq_volume_sync(&volume), IQDB_OK);
            iq_file_close(&meta.file);
            uint8_t *bytes = fault_load(disk, "db", "META", &size);
            CHECK_EQ_U64(size, sizeof file);
            memcpy(file, bytes, sizeof file);
            free(bytes);
            iq_meta_encode(&lost, meta.sequence + 1, torn);
            memcpy(torn + sector * 512, file + slot * IQ_META_SLOT_SIZE + sector * 512, 512);
            memcpy(file + slot * IQ_META_SLOT_SIZE, torn, sizeof torn);
            CHECK(fault_store(disk, "db", "META", file, sizeof file));
            CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &found), IQDB_OK);
            /* Sectors in which the two do not differ were not torn away. */
            if (meta.sequence == 1 && same(&found, &first)) {
                disk->after_fn = cut_strictly;
                disk->after_user = &allowed;
                CHECK_EQ_INT(iq_meta_save(&meta, &next), IQDB_OK);
                disk->after_fn = NULL;
                allowed = 4;
                states += fault_crashes(disk, FAULT_TEAR, 10, 1, check_saved, &allowed);
                allowed = 5;
            }
            finish();
        }
    }
    CHECK(states > 0);
}

/* A save that could not be read again is none: what was there stays. */
static void sequences_come_to_an_end(void) {
    const iq_manifest last = sample(1000), more = sample(2000);
    iq_meta_state state;
    iq_manifest found;
    start();
    CHECK_EQ_INT(iq_meta_create(&meta, &volume), IQDB_OK);
    meta.sequence = IQ_LSN_MAX - 1;
    CHECK_EQ_INT(iq_meta_save(&meta, &last), IQDB_OK);
    CHECK_EQ_INT(iq_meta_save(&meta, &more), IQDB_ERR_LIMIT);
    iq_file_close(&meta.file);
    CHECK_EQ_INT(iq_meta_load(&meta, &volume, true, &state, &found), IQDB_OK);
    CHECK(state == IQ_META_IS_GOOD && meta.sequence == IQ_LSN_MAX && same(&found, &last));
    finish();
}

/* A disk that says yes and writes something else. */
static iqdb_result (*honest_write)(void *, uint64_t, const void *, size_t, int *, void *);
static iqdb_result lying_write(void *file, uint64_t offset, const void *bytes, size_t size, int *os_code, void *user) {
    uint8_t other[IQ_META_SLOT_SIZE];
    memcpy(other, bytes, size < sizeof other ? size : sizeof other);
    other[200] ^= 1;
    return honest_write(file, offset, other, size, os_code, user);
}

/* A file that is there already, or a directory that is not: neither is where a new one goes. */
static void a_file_that_cannot_be_made(void) {
    static const iqdb_result codes[] = {IQDB_ERR_INVALID_CONFIG, IQDB_ERR_NOT_FOUND, IQDB_ERR_NOSPACE, IQDB_OK};
    static const iqdb_result wants[] = {IQDB_ERR_IO, IQDB_ERR_IO, IQDB_ERR_NOSPACE, IQDB_OK};
    start();
    for (size_t i = 0; i < 4; i++) {
        fault_fail_nth(disk, FAULT_OPEN, i < 3 ? 1 : 0, codes[i], false);
        CHECK_EQ_INT(iq_meta_create(&meta, &volume), wants[i]);
    }
    finish();
}

static void schemas(void) {
    iq_schema schema;
    memset(&schema, 0, sizeof schema);
    schema.metric = 1;
    schema.dim = IQDB_DIM_MAX;
    CHECK(iq_schema_is_valid(&schema));
    schema.dim++;
    CHECK(!iq_schema_is_valid(&schema));
    schema.dim = 1;
    schema.metric = 99;
    CHECK(!iq_schema_is_valid(&schema));
}

static void what_is_written_is_read_back(void) {
    const iq_manifest first = sample(1000);
    start();
    honest_write = volume.files.write_fn;
    volume.files.write_fn = lying_write;
    CHECK_EQ_INT(iq_meta_create(&meta, &volume), IQDB_OK);
    CHECK_EQ_INT(iq_meta_save(&meta, &first), IQDB_ERR_IO);
    static iq_meta second;
    CHECK_EQ_INT(iq_meta_create(&second, &volume), IQDB_ERR_IO); /* it exists */
    finish();
}

TEST_MAIN("persist/meta", TEST(what_is_encoded_comes_back), TEST(every_flipped_bit_is_noticed),
          TEST(lies_with_a_valid_checksum), TEST(tags_of_models), TEST(states_of_a_file), TEST(the_newer_slot_counts),
          TEST(a_save_may_fail_and_be_cut_anywhere), TEST(one_slot_is_valid_at_each_moment),
          TEST(a_torn_save_is_never_completed), TEST(sequences_come_to_an_end), TEST(a_file_that_cannot_be_made),
          TEST(schemas), TEST(what_is_written_is_read_back))
