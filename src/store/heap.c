/* The payload heap.
 *
 * 1. A block is [u32 payload size][payload][slack]; its extent follows from the payload size alone, so a block from a
 *    snapshot and one made here are freed alike.
 * 2. Block sizes are multiples of 8 up to 1 KiB, then eight steps a doubling; a freed block serves only its own size,
 *    so the heap does not fragment under records of steady sizes.
 * 3. A block lies in one region; the pages of a region are contiguous in memory and in the reference space.
 * 4. A block in use does not change, so whoever was shown its reference reads it without a lock. */
#include "store/heap.h"

#define IQ_HEAP_FINE_MAX 1024u
#define IQ_HEAP_FINE_COUNT 128u           /* multiples of 8 up to IQ_HEAP_FINE_MAX */
#define IQ_HEAP_REGION_PAGES_MAX 64u      /* 4 MiB */
#define IQ_HEAP_LARGE_SIZE (256u * 1024u) /* from here on a block has a region of its own */

IQ_STATIC_ASSERT(IQ_HEAP_FINE_COUNT + 8 * (26 - 10 + 1) <= IQ_HEAP_CLASS_COUNT, every_payload_has_a_class);

IQ_FN void iq_heap_init(iq_heap *heap, const iqdb_allocator *allocator) {
    memset(heap, 0, sizeof *heap);
    heap->allocator = allocator;
}

IQ_FN void iq_heap_free(iq_heap *heap) {
    for (size_t i = 0; i < heap->region_count; i++)
        iq_pages_free(heap->allocator, heap->regions[i].bytes, heap->regions[i].size);
    iq_table_free(heap->allocator, heap->regions);
    iq_table_free(heap->allocator, heap->pages);
    iq_heap_init(heap, heap->allocator);
}

/* The class of a payload size and the bytes of its blocks. */
static unsigned iq_heap_class(size_t size, uint64_t *out_block_size) {
    const uint64_t need = ((uint64_t)size + 4 + 7) & ~(uint64_t)7;
    if (need <= IQ_HEAP_FINE_MAX) {
        *out_block_size = need;
        return (unsigned)(need / 8 - 1);
    }
    unsigned doubling = 0;
    uint64_t base = IQ_HEAP_FINE_MAX;
    while (base * 2 < need) {
        base *= 2;
        doubling++;
    }
    const uint64_t step = base / 8;
    const uint64_t steps = (need - base + step - 1) / step; /* 1 to 8 */
    *out_block_size = base + steps * step;
    return IQ_HEAP_FINE_COUNT + doubling * 8 + (unsigned)steps - 1;
}

IQ_FN uint64_t iq_heap_block_size(size_t size) {
    uint64_t block_size;
    (void)iq_heap_class(size, &block_size);
    return block_size;
}

static uint8_t *iq_heap_at(const iq_heap *heap, uint64_t ref) {
    uint8_t *const *pages = IQ_ATOMIC_LOAD(&heap->pages);
    return pages[ref / IQ_HEAP_PAGE_SIZE] + ref % IQ_HEAP_PAGE_SIZE;
}

/* Adds a region at the end of the space and returns its first reference. */
static iqdb_result iq_heap_add_region(iq_heap *heap, size_t page_count, uint64_t *out_ref) {
    uint8_t **pages = (uint8_t **)iq_table_reserve(heap->allocator, heap->pages, heap->page_count * sizeof(uint8_t *),
                                                   page_count * sizeof(uint8_t *));
    if (pages == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&heap->pages, pages);
    iq_heap_region *regions = (iq_heap_region *)iq_table_reserve(
        heap->allocator, heap->regions, heap->region_count * sizeof(iq_heap_region), sizeof(iq_heap_region));
    if (regions == NULL) return IQDB_ERR_NOMEM;
    heap->regions = regions;
    size_t size;
    if (!iq_mul(page_count, IQ_HEAP_PAGE_SIZE, &size)) return IQDB_ERR_NOMEM;
    uint8_t *bytes = (uint8_t *)iq_pages_alloc(heap->allocator, size);
    if (bytes == NULL) return IQDB_ERR_NOMEM;
    heap->regions[heap->region_count].bytes = bytes;
    heap->regions[heap->region_count].size = size;
    heap->region_count++;
    *out_ref = (uint64_t)heap->page_count * IQ_HEAP_PAGE_SIZE;
    for (size_t i = 0; i < page_count; i++) pages[heap->page_count++] = bytes + i * IQ_HEAP_PAGE_SIZE;
    heap->bytes += size;
    return IQDB_OK;
}

static iqdb_result iq_heap_take_fresh(iq_heap *heap, uint64_t block_size, uint64_t *out_ref) {
    if (block_size >= IQ_HEAP_LARGE_SIZE) {
        const size_t pages = (size_t)((block_size + IQ_HEAP_FIRST_REF + IQ_HEAP_PAGE_SIZE - 1) / IQ_HEAP_PAGE_SIZE);
        const iqdb_result result = iq_heap_add_region(heap, pages, out_ref);
        *out_ref += IQ_HEAP_FIRST_REF; /* only the first region needs it; always is simpler */
        return result;
    }
    if (heap->cursor_end - heap->cursor < block_size) {
        size_t pages = heap->page_count / 4; /* grow by a quarter */
        const size_t least = (size_t)((block_size + IQ_HEAP_FIRST_REF + IQ_HEAP_PAGE_SIZE - 1) / IQ_HEAP_PAGE_SIZE);
        if (pages < least) pages = least;
        if (pages > IQ_HEAP_REGION_PAGES_MAX) pages = IQ_HEAP_REGION_PAGES_MAX;
        uint64_t first;
        const iqdb_result result = iq_heap_add_region(heap, pages, &first);
        if (result != IQDB_OK) return result;
        heap->cursor = first + IQ_HEAP_FIRST_REF;
        heap->cursor_end = first + (uint64_t)pages * IQ_HEAP_PAGE_SIZE;
    }
    *out_ref = heap->cursor;
    heap->cursor += block_size;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_heap_take(iq_heap *heap, size_t size, uint64_t *out_ref, uint8_t **out_bytes) {
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(size, &block_size);
    uint64_t ref = heap->free_refs[class_index];
    if (ref != 0) {
        memcpy(&heap->free_refs[class_index], iq_heap_at(heap, ref), sizeof ref);
    } else {
        const iqdb_result result = iq_heap_take_fresh(heap, block_size, &ref);
        if (result != IQDB_OK) return result;
    }
    const uint32_t stored_size = (uint32_t)size;
    uint8_t *block = iq_heap_at(heap, ref);
    memcpy(block, &stored_size, sizeof stored_size);
    *out_ref = ref;
    *out_bytes = block + 4;
    return IQDB_OK;
}

IQ_FN void iq_heap_give_back(iq_heap *heap, uint64_t ref) {
    if (ref == 0) return;
    uint64_t block_size;
    const unsigned class_index = iq_heap_class(iq_heap_payload(heap, ref).size, &block_size);
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

IQ_FN iqdb_result iq_heap_adopt(iq_heap *heap, size_t size, uint8_t **out_bytes) {
    IQ_ASSERT(heap->page_count == 0);
    uint64_t first;
    const iqdb_result result = iq_heap_add_region(heap, (size - 1) / IQ_HEAP_PAGE_SIZE + 1, &first);
    if (result != IQDB_OK) return result;
    *out_bytes = heap->regions[heap->region_count - 1].bytes;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_heap_borrow(iq_heap *heap, uint8_t *bytes, size_t size) {
    IQ_ASSERT(heap->page_count == 0);
    const size_t count = (size - 1) / IQ_HEAP_PAGE_SIZE + 1;
    uint8_t **pages = (uint8_t **)iq_table_reserve(heap->allocator, heap->pages, 0, count * sizeof(uint8_t *));
    if (pages == NULL) return IQDB_ERR_NOMEM;
    IQ_ATOMIC_STORE(&heap->pages, pages);
    for (size_t i = 0; i < count; i++) pages[heap->page_count++] = bytes + i * IQ_HEAP_PAGE_SIZE;
    return IQDB_OK;
}

IQ_FN void iq_heap_fix_size(iq_heap *heap, uint64_t ref, uint32_t size) {
    memcpy(iq_heap_at(heap, ref), &size, sizeof size);
}
