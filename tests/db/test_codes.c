/* Verification of codes: a damaged one is found, whichever of its bytes it is, and told as that of its row. */
#include "db/db.h"

#include "support.h"
#include "test.h"

enum {
    DIM = 21,
    ROWS = 70
};

static uint64_t told;

static void count_codes(const iqdb_error *finding, void *user) {
    *(uint64_t *)user = finding->offset;
    told += strstr(finding->text, "code") != NULL;
}

static void a_damaged_code_is_found(void) {
    static const iqdb_metric metrics[] = {IQDB_L2, IQDB_COSINE, IQDB_DOT};
    for (size_t m = 0; m < 3; m++) {
        iqdb *db = NULL;
        iqdb_options options = iqdb_options_default();
        uint64_t random = 4, row = 0;
        options.metric = metrics[m];
        CHECK_EQ_INT(iqdb_open_in_memory(&options, &db), IQDB_OK);
        for (uint64_t id = 0; id < ROWS; id++) {
            float vector[DIM];
            iqdb_record record = iqdb_record_default();
            for (int d = 0; d < DIM; d++) vector[d] = support_random_float(&random);
            record.id = id;
            record.vector = vector;
            record.dim = DIM;
            CHECK_EQ_INT(iqdb_upsert(db, &record), IQDB_OK);
        }
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, count_codes, &row), IQDB_OK);
        const iq_rows *rows = &db->records.rows;
        const size_t bytes = iq_quant_block_bytes(&rows->quant);
        CHECK_EQ_U64(bytes, 128 + 64 * 3);
        for (uint32_t damaged = 0; damaged < ROWS; damaged += 13) {
            uint32_t index;
            const iq_slab *slab = iq_rows_slab(rows, damaged, &index);
            for (size_t at = index % 16 * 4; at < bytes; at += at % 4 == 3 ? 61 : 1) {
                uint8_t *byte = slab->blocks + index / 16 * bytes + at;
                told = 0;
                *byte ^= 0x10;
                CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, count_codes, &row), IQDB_ERR_CORRUPT);
                CHECK(told == 1 && row == damaged);
                *byte ^= 0x10;
            }
        }
        CHECK_EQ_INT(iqdb_verify(db, IQDB_DEPTH_RECORDS, count_codes, &row), IQDB_OK);
        CHECK_EQ_INT(iqdb_close(db), IQDB_OK);
    }
}

TEST_MAIN("db/codes", TEST(a_damaged_code_is_found))
