/* Makes the two databases that golden.h describes, in the directories named: write_golden LOG SNAPSHOT. Needed only
 * when a new version of the format adds new ones beside those that are there:
 *   cc -DIQDB_MODULES -Isrc tests/format/write_golden.c build/libiqdb_modules.a -lm -pthread -o build/write_golden */
#include "golden.h"

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: write_golden LOG SNAPSHOT\n");
        return 2;
    }
    for (int which = 0; which < 2; which++) {
        const iqdb_result result = golden_write(argv[1 + which], NULL, which == 1);
        if (result != IQDB_OK) {
            fprintf(stderr, "%s: %s\n", argv[1 + which], iqdb_strerror(result));
            return 1;
        }
    }
    return 0;
}
