/* The payload heap.
 *
 * 1. A block is [u32 payload size][payload][slack]; its extent follows from the payload size alone, so a block from a
 *    snapshot and one made here are freed alike.
 * 2. Block sizes are multiples of 8 up to 1 KiB, then eight steps a doubling; a freed block serves only its own size,
 *    so the heap does not fragment under records of steady sizes.
 * 3. A block lies in one region; the pages of a region are contiguous in memory and in the reference space. The first
 *    regions are smaller than a page, and take the references of one all the same: a small heap is small.
 * 4. A block in use does not change, so whoever was shown its reference reads it without a lock. */
#include "store/heap.h"

#include "kernel/kernel.h"

enum {
    IQ_HEAP_FINE_MAX = 1024,
    IQ_HEAP_FINE_COUNT = 128, /* multiples of 8 up to IQ_HEAP_FINE_MAX */
    IQ_HEAP_REGION_MIN = 1024,
    IQ_HEAP_REGION_MAX = 4 << 20,
    IQ_HEAP_LARGE_SIZE = 256 * 1024 /* from here on a block has a region of its own */
};

IQ_STATIC_ASSERT(IQ_HEAP_FINE_COUNT + 8 * (26 - 10 + 1) <= IQ_HEAP_CLASS_COUNT, every_payload_has_a_class);

IQ_FN void iq_heap_init(iq_heap *heap, const iqdb_allocator *allocator) {
    memset(heap, 0, sizeof *heap);
    heap->allocator = allocator;
}

IQ_FN void iq_heap_free(iq_heap *heap) {
    if (IQ_ONLY_BLOBS) return;
    iq_table_free(heap->allocator, heap->region);
    iq_table_free(heap->allocator, heap->pages);
    iq_free(heap->allocator, heap->free_refs, IQ_HEAP_CLASS_COUNT * sizeof(uint64_t), 16);
    iq_heap_init(heap, heap->allocator);
}

/* The class of a payload size and the bytes of its blocks. */
static unsigned iq_heap_class(size_t size, uint64_t *out_block_size) {
    const iq_place need = ((iq_place)size + 4 + 7) & ~(iq_place)7;
    if (need <= IQ_HEAP_FINE_MAX) {
        *out_block_size = need;
        return (unsigned)(need / 8 - 1);
    }
    unsigned doubling = 0;
    iq_place base = IQ_HEAP_FINE_MAX;
    while (base * 2 < need) {
        base *= 2;
        doubling++;
    }
    const iq_place step = base / 8;
    unsigned steps = 1; /* to 8 */
    while (base + steps * step < need) steps++;
    *out_block_size = base + steps * step;
    return IQ_HEAP_FINE_COUNT + doubling * 8 + steps - 1;
}

IQ_FN uint64_t iq_heap_block_size(size_t size) {
    uint64_t block_size;
    (void)iq_heap_class(size, &block_size);
    return block_size;
}

static uint8_t *iq_heap_at(const iq_heap *heap, uint64_t ref) {
    if (IQ_ONLY_BLOBS) return heap->region + (size_t)ref;
    uint8_t *const *pages = IQ_ATOMIC_LOAD(&heap->pages);
    return pages[ref / IQ_HEAP_PAGE_SIZE] + ref % IQ_HEAP_PAGE_SIZE;
}

/* Room in the table for so many more pages. */
static bool iq_heap_reserve_pages(iq_heap *heap, size_t count) {
    uint8_t **pages =
        (uint8_t **)iq_table_reserve(heap->allocator, heap->pages, sizeof *pages, heap->page_count, count);
    if (pages != NULL) IQ_ATOMIC_STORE(&heap->pages, pages);
    return pages != NULL;
}

IQ_FN iqdb_result iq_heap_borrow(iq_heap *heap, uint8_t *bytes, size_t size) {
    if (IQ_ONLY_BLOBS) {
        heap->region = bytes; /* which nobody frees */
        return IQDB_OK;
    }
    const size_t count = (size - 1) / IQ_HEAP_PAGE_SIZE + 1;
    if (!iq_heap_reserve_pages(heap, count)) return IQDB_ERR_NOMEM;
    for (size_t i = 0; i < count; i++) heap->pages[heap->page_count++] = bytes + i * IQ_HEAP_PAGE_SIZE;
    return IQDB_OK;
}

/* Adds a region at the end of the space, whose first reference that is. */
static iqdb_result iq_heap_add_region(iq_heap *heap, size_t size) {
    if (!iq_heap_reserve_pages(heap, (size - 1) / IQ_HEAP_PAGE_SIZE + 1)) return IQDB_ERR_NOMEM;
    uint8_t *region = (uint8_t *)iq_table_renew(heap->allocator, heap->region, size);
    if (region == NULL) return IQDB_ERR_NOMEM;
    heap->region = region;
    heap->bytes += size;
    return iq_heap_borrow(heap, region, size); /* there is room */
}

static iqdb_result iq_heap_take_fresh(iq_heap *heap, uint64_t block_size, uint64_t *out_ref) {
    const size_t least = (size_t)block_size + IQ_HEAP_FIRST_REF;
    const uint64_t first = (uint64_t)heap->page_count * IQ_HEAP_PAGE_SIZE;
    if (block_size >= IQ_HEAP_LARGE_SIZE) {
        *out_ref = first + IQ_HEAP_FIRST_REF; /* only the first region needs it; always is simpler */
        return iq_heap_add_region(heap, least);
    }
    if (heap->cursor_end - heap->cursor < block_size) {
        /* Grow by a quarter, or, while that is less than a page, to twice the size. */
        uint64_t size = heap->bytes / 4;
        if (size < IQ_HEAP_PAGE_SIZE) size = heap->bytes < IQ_HEAP_PAGE_SIZE ? heap->bytes : IQ_HEAP_PAGE_SIZE;
        if (size < IQ_HEAP_REGION_MIN) size = IQ_HEAP_REGION_MIN;
        if (size > IQ_HEAP_REGION_MAX) size = IQ_HEAP_REGION_MAX;
        if (size < least) size = least;
        size = (size + 7) & ~(uint64_t)7;
        const iqdb_result result = iq_heap_add_region(heap, (size_t)size);
        if (result != IQDB_OK) return result;
        heap->cursor = first + IQ_HEAP_FIRST_REF;
        heap->cursor_end = first + size;
    }
    *out_ref = heap->cursor;
    heap->cursor += block_size;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_heap_take(iq_heap *heap, size_t size, uint64_t *out_ref, uint8_t **out_bytes) {
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(size, &block_size);
    uint64_t ref = heap->free_refs != NULL ? heap->free_refs[class_index] : 0;
    if (heap->arena != NULL) {
        const uint8_t *made = (const uint8_t *)iq_arena_alloc(size + 4, 8, heap->arena);
        if (made == NULL) return IQDB_ERR_NOMEM;
        ref = (uint64_t)(made - heap->arena->begin);
        heap->bytes = (uint64_t)(heap->arena->end - heap->arena->begin);
    } else if (ref != 0) {
        memcpy(&heap->free_refs[class_index], iq_heap_at(heap, ref), sizeof ref);
    } else {
        const iqdb_result result = iq_heap_take_fresh(heap, block_size, &ref);
        if (result != IQDB_OK) return result;
    }
    heap->used += block_size;
    const uint32_t stored_size = (uint32_t)size;
    uint8_t *block = iq_heap_at(heap, ref);
    memcpy(block, &stored_size, sizeof stored_size);
    *out_ref = ref;
    *out_bytes = block + 4;
    return IQDB_OK;
}

IQ_FN void iq_heap_give_back(iq_heap *heap, uint64_t ref) {
    if (ref == 0) return;
    if (heap->arena != NULL) {
        iq_arena_free(iq_heap_at(heap, ref), 0, 0, heap->arena);
        return;
    }
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(iq_heap_payload(heap, ref).size, &block_size);
    heap->used -= block_size;
    if (heap->free_refs == NULL)
        heap->free_refs = (uint64_t *)iq_alloc_zeroed(heap->allocator, IQ_HEAP_CLASS_COUNT * sizeof(uint64_t), 16);
    if (heap->free_refs == NULL) return; /* nobody knows of the block any more, but whoever frees all */
    memcpy(iq_heap_at(heap, ref), &heap->free_refs[class_index], sizeof ref);
    heap->free_refs[class_index] = ref;
}

IQ_FN iqdb_payload iq_heap_payload(const iq_heap *heap, uint64_t ref) {
    iqdb_payload payload;
    payload.bytes = NULL;
    payload.size = 0;
    if (ref != 0) {
        const uint8_t *block = iq_heap_at(heap, ref);
        uint32_t size;
        memcpy(&size, block, sizeof size);
        payload.bytes = block + 4;
        payload.size = size;
    }
    return payload;
}

IQ_FN void iq_heap_prefetch(const iq_heap *heap, uint64_t ref) {
    if (ref == 0) return;
    iq_kernel_prefetch(iq_heap_at(heap, ref), 0);
    iq_kernel_prefetch(iq_heap_at(heap, ref), IQ_CACHE_LINE);
}

IQ_FN iqdb_result iq_heap_adopt(iq_heap *heap, size_t size, uint8_t **out_bytes) {
    const iqdb_result result = iq_heap_add_region(heap, size);
    *out_bytes = heap->region;
    if (result == IQDB_OK) heap->used += size;
    return result;
}

IQ_FN void iq_heap_fix_size(iq_heap *heap, uint64_t ref, uint32_t size) {
    memcpy(iq_heap_at(heap, ref), &size, sizeof size);
}
