/* Indexes of payload keys: which rows may have a value at a key, without a look at their payloads. */
#ifndef IQ_STORE_KEYS_H
#define IQ_STORE_KEYS_H

#include "store/epoch.h"
#include "store/filter.h"

/* A row, under the code of a value that it has. Order is that of the code: `high`, then `low`. */
typedef struct iq_key_entry {
    uint64_t high; /* of the first entry of a table, which is none itself: how many follow; atomic in the log */
    uint32_t low;
    uint32_t row;
} iq_key_entry;

#define IQ_KEY_RUNS 48u       /* each is more than twice as long as the next one */
#define IQ_KEY_LOG_SIZE 1024u /* entries, unless more come at once */

typedef struct iq_key {
    iq_filter_key name;
    iqdb_key_kind kind;
    iq_key_entry *log;               /* atomic: a table; behind it are tables that wait until nobody reads them */
    iq_key_entry *runs[IQ_KEY_RUNS]; /* atomic: tables in order of codes, the oldest first; NULL: none */
    uint32_t run_count;              /* the writer's */
} iq_key;

typedef struct iq_keys {
    const iqdb_allocator *allocator;
    iq_key *keys; /* with their names behind them: what readers use is fixed before there are any */
    size_t count, size_bytes;
    uint32_t row_end; /* the writer's: no row from here on was listed */
} iq_keys;

IQ_FN void iq_keys_init(iq_keys *keys, const iqdb_allocator *allocator);
IQ_FN void iq_keys_free(iq_keys *keys); /* as after init */
/* NULL, or what is wrong with such a set. */
IQ_FN const char *iq_keys_complaint(const iqdb_index_key *set, size_t count);
/* Indexes of these keys, empty, in the place of those that there are; no reader may be at these. */
IQ_FN iqdb_result iq_keys_declare(iq_keys *keys, const iqdb_index_key *set, size_t count);
/* The set as bytes: each 1 + kind, key, NUL; zeros to the end, one at least (what has no complaint fits in 2,048). And
 * back: the keys of out_set lie in `bytes`. False where that makes no sense; there is room for IQDB_INDEX_KEYS_MAX. */
IQ_FN void iq_keys_encode(const iq_keys *keys, uint8_t *bytes, size_t size);
IQ_FN bool iq_keys_decode(const uint8_t *bytes, size_t size, iqdb_index_key *out_set, size_t *out_count);
/* Lists a row under all that its payload (bytes NULL: nothing) has at the keys, before anybody can see it. NOMEM may
 * leave it listed, which is no harm. */
IQ_FN iqdb_result iq_keys_add(iq_keys *keys, uint32_t row, iqdb_payload payload);
/* As iq_table_trim, and whether there is anything to trim. */
IQ_FN void iq_keys_trim(iq_keys *keys, uint64_t oldest, uint64_t now);
IQ_FN bool iq_keys_have_old_tables(const iq_keys *keys);
/* Memory that they hold, for the writer. */
IQ_FN uint64_t iq_keys_bytes(const iq_keys *keys);

/* A hash that encoded values share which are equal for a filter; false where the value is equal to none. */
IQ_FN bool iq_keys_hash(const uint8_t *value, size_t size, uint64_t *out_hash);

/* ---- For readers, under a pin; the program is the caller's own ---- */

/* About how many of the first `row_count` rows the filter accepts at most, as far as indexes tell: row_count where they
 * do not. Leaves its plan in the program. */
IQ_FN uint32_t iq_keys_plan(const iq_keys *keys, const iq_filter *filter, uint32_t row_count);
/* Where rows go that are listed: their bits are set, or they are put one behind the other. */
typedef struct iq_key_rows {
    uint32_t row_count; /* rows below that are listed */
    uint32_t *bits;     /* NULL: into `rows` */
    uint32_t *rows;     /* some of them twice perhaps */
    uint32_t count, most;
    bool lacks_room; /* there were more */
} iq_key_rows;

/* Lists among others all rows that the filter accepts and the pin sees, by the plan made last, whose answer was less than
 * row_count. */
IQ_FN void iq_keys_list(const iq_keys *keys, const iq_filter *filter, iq_key_rows *out);
/* Whether by that plan hardly others are listed than those that the filter accepts. */
IQ_FN bool iq_keys_tell_all(const iq_keys *keys, const iq_filter *filter);

#endif
