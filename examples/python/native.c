/* What the Python package does in C: the database itself, and what would take a Python loop too long. */
#define IQDB_STATIC
#define IQDB_IMPLEMENTATION
#include "iqdb.h"

#include <string.h>

#if defined(_MSC_VER)
#define IQPY_THREAD_LOCAL __declspec(thread)
#else
#define IQPY_THREAD_LOCAL __thread
#endif

/* The last failure that was reported in this thread. The logger runs in the failing thread, so beside writes of other
 * threads this is the right one, where options.error would hold that of whoever failed last. */
static IQPY_THREAD_LOCAL iqdb_error last_error;

static void keep_error(iqdb_level level, const iqdb_error *message, void *user) {
    (void)user;
    if (level == IQDB_LEVEL_ERROR) last_error = *message;
}

static void iqpy_options(iqdb_options *options) {
    *options = iqdb_options_default();
    options->logger.log_fn = keep_error;
}

/* Moves it to the caller; false where nothing was reported since the last time. */
static bool iqpy_last_error(iqdb_error *out_error) {
    const bool known = last_error.code != IQDB_OK;
    *out_error = last_error;
    memset(&last_error, 0, sizeof last_error);
    return known;
}

/* Records over the caller's arrays, without payloads. */
static void iqpy_records(iqdb_record *records, const uint64_t *ids, const float *vectors, size_t count, uint32_t dim) {
    for (size_t i = 0; i < count; i++) {
        records[i] = iqdb_record_default();
        records[i].id = ids[i];
        records[i].vector = vectors + i * dim;
        records[i].dim = dim;
    }
}
