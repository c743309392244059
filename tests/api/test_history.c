/* Searches, gets and iterators beside a writer, in memory and beside checkpoints: see history.h for what is checked. */
#include <iqdb.h>

#include "test.h"
#include "support.h"
#include "public.h"

#ifndef IQDB_NO_THREADS
#include "history.h"

static void in_memory(void) {
    const size_t answers = support_amount(20000, 150000, 5000000);
    run_history(NULL, answers, (uint32_t)answers, 1);
}

static void on_disk_beside_checkpoints(void) {
    char folder[SUPPORT_PATH_MAX];
    support_directory(folder);
    const size_t answers = support_amount(10000, 50000, 1000000);
    run_history(folder, answers, (uint32_t)(answers / 50), 2);
    support_remove(folder);
}
#else
static void in_memory(void) { TEST_SKIP("built without threads"); }
static void on_disk_beside_checkpoints(void) { TEST_SKIP("built without threads"); }
#endif

TEST_MAIN("api/history", TEST(in_memory), TEST(on_disk_beside_checkpoints))
