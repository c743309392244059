/* All memory of a database goes through here. */
#ifndef IQ_BASE_ALLOC_H
#define IQ_BASE_ALLOC_H

#include "base/config.h"

#define IQ_CACHE_LINE 64

/* malloc and free (or IQDB_MALLOC and IQDB_FREE), at any alignment; with IQDB_NO_MALLOC none has any memory. */
IQ_FN iqdb_allocator iq_alloc_default(void);
/* Whether it is malloc and free of the C library that serve it. */
IQ_FN bool iq_alloc_is_system(const iqdb_allocator *allocator);

/* NULL where the allocator has none. alignment: a power of two, at most 64. */
IQ_FN void *iq_alloc(const iqdb_allocator *allocator, size_t size, size_t alignment);
IQ_FN void *iq_alloc_zeroed(const iqdb_allocator *allocator, size_t size, size_t alignment);
/* NULL is fine; size and alignment are those of the allocation. */
IQ_FN void iq_free(const iqdb_allocator *allocator, void *memory, size_t size, size_t alignment);

#define IQ_BLOB_BYTES_MIN 256u

/* A growing run of bytes, 16-byte aligned. Zeroed but for the allocator, it is empty. */
typedef struct iq_blob {
    const iqdb_allocator *allocator;
    uint8_t *bytes;
    size_t size;
    size_t capacity;
} iq_blob;

/* Room for `more` bytes behind size, or NOMEM with nothing changed. */
IQ_FN iqdb_result iq_blob_reserve(iq_blob *blob, size_t more);
IQ_FN iqdb_result iq_blob_append(iq_blob *blob, const void *bytes, size_t size);
IQ_FN void iq_blob_free(iq_blob *blob);

/* The rules of iqdb_buffer: starts it anew with `size` bytes at a multiple of 16, or LIMIT or NOMEM. */
IQ_FN iqdb_result iq_buffer_start(iqdb_buffer *buffer, size_t size, uint8_t **out_bytes);
/* Whether [bytes, bytes + size) touches the buffer's memory. */
IQ_FN bool iq_buffer_overlaps(const iqdb_buffer *buffer, const void *bytes, size_t size);

#endif
