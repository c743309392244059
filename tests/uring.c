/* The file layer of examples/io_uring.h in the place of the system's: linked with --wrap=iqdb_files_default, so that
 * the whole public suite runs over it. */
#include "iqdb.h"

extern iqdb_files __real_iqdb_files_default(void);
extern iqdb_files __wrap_iqdb_files_default(void);
#define uring_system __real_iqdb_files_default
#include "../examples/io_uring.h"

iqdb_files __wrap_iqdb_files_default(void) {
    return uring_missing() == 0 ? uring_files() : __real_iqdb_files_default();
}
