/* Files in memory, for tests. A set has directories by path, so that a database can be closed and opened again; it lives
 * until iq_memory_files_free. iqdb.h goes without this chapter. */
#ifndef IQ_SYS_MEMORY_H
#define IQ_SYS_MEMORY_H

#include "base/alloc.h"

typedef struct iq_memory_files iq_memory_files;
IQ_FN iq_memory_files *iq_memory_files_new(const iqdb_allocator *allocator); /* NULL where memory is out */
IQ_FN void iq_memory_files_free(iq_memory_files *set); /* NULL is fine; what is still open dies with it */
IQ_FN iqdb_files iq_memory_files_table(iq_memory_files *set);

#endif
