/* The C side of test_directory.py.
 *   directory_writer SEED PATH   leads a random life in the directory PATH and prints how it ended: "closed COUNT" or
 *                                "crashed COUNT", where the records 0 .. COUNT - 1 are all durable */
#include "../persist/diary.h"
#include "../support.h"

static iqdb_result no_image(iq_snapshot_writer *writer, void *user) {
    (void)writer;
    (void)user;
    return IQDB_ERR_NOSPACE;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t state = strtoull(argv[1], NULL, 10);
    diary book = diary_make(iqdb_files_default(), argv[2]);
    book.entropy = state + 1;
    book.large_every = support_random_below(&state, 2) == 0 ? 0 : 5;
    bool closed = false; /* and not written to since */
    if (diary_open(&book) != IQDB_OK) return 1;
    for (uint64_t steps = 1 + support_random_below(&state, 40); steps > 0; steps--) {
        const uint64_t what = support_random_below(&state, 20);
        iqdb_result result = IQDB_OK;
        if (what < 12 || what == 14 || what == 15) closed = false;
        if (what < 12) {
            result = diary_write(&book, book.count, 1 + (size_t)support_random_below(&state, 6), what < 5);
        } else if (what < 14) {
            result = iq_directory_flush(book.directory, true);
        } else if (what == 14) {
            result = diary_checkpoint(&book);
        } else if (what == 15) {
            result =
                checkpoint_by(book.directory, no_image, NULL) == IQDB_ERR_NOSPACE ? IQDB_OK : IQDB_ERR_IO;
        } else if (what < 18) {
            result = diary_close(&book);
            if (result == IQDB_OK) result = diary_open(&book);
            closed = true;
        } else {
            diary_crash(&book);
            result = diary_open(&book);
        }
        if (result != IQDB_OK) {
            fprintf(stderr, "step %d: code %d, %s: %s\n", (int)what, (int)result, book.error.file, book.error.text);
            return 1;
        }
    }
    if (!closed && support_random_below(&state, 3) > 0) {
        if (diary_close(&book) != IQDB_OK) return 1;
        closed = true;
    }
    printf("%s %zu\n", closed ? "closed" : "crashed", book.count);
    diary_free(&book);
    return 0;
}
