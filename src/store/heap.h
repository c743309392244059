/* The payload heap: a space of 64-bit references over 64 KiB pages, so that a reference means the same in memory and in
 * a snapshot. Blocks never move. */
#ifndef IQ_STORE_HEAP_H
#define IQ_STORE_HEAP_H

#include "base/arena.h"
#include "store/epoch.h"
#include "sys/sys.h"

#define IQ_HEAP_PAGE_SIZE 65536u
#define IQ_HEAP_FIRST_REF 8u /* reference 0 means none */
#define IQ_HEAP_CLASS_COUNT 264u

typedef struct iq_heap {
    const iqdb_allocator *allocator;
    uint8_t **pages; /* atomic: a table; page i of the space: references [i * 64 KiB, (i + 1) * 64 KiB) */
    size_t page_count;
    uint8_t *region;             /* the newest run of pages: a table, behind which are the older ones */
    uint64_t cursor, cursor_end; /* unused rest of the newest small region */
    uint64_t *
        free_refs; /* IQ_HEAP_CLASS_COUNT, once there was one: free blocks by size, chained through their first bytes */
    uint64_t bytes;  /* held by regions */
    uint64_t used;   /* of those, by blocks; not counted in an arena */
    iq_arena *arena; /* NULL, or it has the blocks; the heap has borrowed its memory */
} iq_heap;

IQ_FN void iq_heap_init(iq_heap *heap, const iqdb_allocator *allocator);
IQ_FN void iq_heap_free(iq_heap *heap);

/* What a block of `size` payload bytes takes: 4 bytes of length, the payload, and zeros to the next block size. */
IQ_FN uint64_t iq_heap_block_size(size_t size);

/* A block for `size` bytes (at most IQDB_PAYLOAD_SIZE_MAX); its bytes are to be written by the caller. */
IQ_FN iqdb_result iq_heap_take(iq_heap *heap, size_t size, uint64_t *out_ref, uint8_t **out_bytes);
IQ_FN void iq_heap_give_back(iq_heap *heap, uint64_t ref);

/* The payload of a reference; 0 gives the absent payload. */
IQ_FN iqdb_payload iq_heap_payload(const iq_heap *heap, uint64_t ref);
/* Asks for its first bytes, ahead of that. */
IQ_FN void iq_heap_prefetch(const iq_heap *heap, uint64_t ref);

/* Memory for a stored heap of `size` bytes in an empty heap: to be filled, references are offsets into it. */
IQ_FN iqdb_result iq_heap_adopt(iq_heap *heap, size_t size, uint8_t **out_bytes);
/* The same for a heap that is in memory already, which stays where it is until this one is freed and is only read. */
IQ_FN iqdb_result iq_heap_borrow(iq_heap *heap, uint8_t *bytes, size_t size);
/* Sets the payload size of an adopted block, which files keep little-endian, to the machine's form. */
IQ_FN void iq_heap_fix_size(iq_heap *heap, uint64_t ref, uint32_t size);

#endif
