/* The checksum that the caller of a directory chose is the one that frames and blocks get, written and read. */
#include "api.h"
#include "fault.h"
#include "persist/diary.h"
#include "support.h"
#include "test.h"

static size_t bytes_seen;

static uint32_t counting(uint32_t crc, const void *bytes, size_t size) {
    bytes_seen += size;
    return iq_crc32(crc, bytes, size);
}

static uint32_t wrong(uint32_t crc, const void *bytes, size_t size) { return ~iq_crc32(crc, bytes, size); }

static size_t seen(void) {
    const size_t size = bytes_seen;
    bytes_seen = 0;
    return size;
}

static void the_chosen_one_does_the_work(void) {
    fault_files *disk = fault_new(NULL);
    diary book = diary_make(fault_table(disk), "db");
    book.crc32 = counting;
    book.large_every = 3;
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK_EQ_U64(seen(), 0); /* no frame and no block yet */
    CHECK_EQ_INT(diary_write(&book, 0, 3000, true), IQDB_OK);
    const size_t log_bytes = seen();
    CHECK(log_bytes > 7000 * 1000);
    diary_crash(&book);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(diary_counts(&book, 0, 3000));
    CHECK(seen() >= 2 * log_bytes); /* read, and written again to a fresh log */
    CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
    const size_t snapshot_bytes = seen();
    CHECK(snapshot_bytes >= 3000 * 8 + 8192);
    CHECK_EQ_INT(diary_close(&book), IQDB_OK);
    CHECK_EQ_INT(diary_open(&book), IQDB_OK);
    CHECK(diary_counts(&book, 0, 3000));
    CHECK(seen() >= 3000 * 8 + 8192);
    CHECK_EQ_INT(iq_directory_verify(book.directory, IQDB_DEPTH_BLOCKS, NULL, NULL), IQDB_OK);
    CHECK(seen() >= 3000 * 8 + 8192);
    diary_free(&book);
    fault_free(disk);
}

/* What one way has written, another one reads. */
static void all_read_the_same(void) {
    const iq_crc32_fn best = iq_crc32_select(iq_cpu_features(), IQDB_SIMD_BEST);
    const iq_crc32_fn ways[] = {best, NULL, best, iq_crc32, best};
    fault_files *disk = fault_new(NULL);
    diary book = diary_make(fault_table(disk), "db");
    book.large_every = 3;
    for (uint64_t i = 0; i < 10; i++) {
        book.crc32 = ways[i / 2];
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK(diary_counts(&book, 0, (size_t)i * 10));
        CHECK_EQ_INT(diary_write(&book, i * 10, 10, true), IQDB_OK);
        if (i % 4 == 1) CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
        diary_crash(&book);
    }
    diary_free(&book);
    fault_free(disk);
}

static void a_wrong_one_reads_nothing(void) {
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        fault_files *disk = fault_new(NULL);
        diary book = diary_make(fault_table(disk), "db");
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK_EQ_INT(diary_write(&book, 0, 10, true), IQDB_OK);
        if (checkpoint) CHECK_EQ_INT(diary_checkpoint(&book), IQDB_OK);
        CHECK_EQ_INT(diary_close(&book), IQDB_OK);
        book.crc32 = wrong;
        CHECK_EQ_INT(diary_open(&book), IQDB_ERR_CORRUPT);
        CHECK_EQ_STR(book.error.file, checkpoint ? "snap-1" : "wal-1");
        book.crc32 = iq_crc32;
        CHECK_EQ_INT(diary_open(&book), IQDB_OK);
        CHECK(diary_counts(&book, 0, 10));
        diary_free(&book);
        fault_free(disk);
    }
}

TEST_MAIN("persist/checksum", TEST(the_chosen_one_does_the_work), TEST(all_read_the_same),
          TEST(a_wrong_one_reads_nothing))
