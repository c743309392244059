/* Memory: the default allocator, growing blobs, and the rules of the caller's buffers.
 *
 * 1. Sizes are checked before they are added; no allocation of a wrapped size is ever asked for.
 * 2. A failed call leaves blob and buffer as they were, but for buffer.needed. */
#include "base/alloc.h"

#if defined(IQDB_NO_MALLOC) && !defined(IQDB_MALLOC) && !defined(IQDB_FREE)
#define IQ_MALLOC(size) NULL
#define IQ_MALLOC_IS_SYSTEM false
#define IQ_RELEASE(memory) ((void)(memory))
#elif !defined(IQDB_NO_MALLOC) && !defined(IQDB_MALLOC) && !defined(IQDB_FREE)
#include <stdlib.h>
#define IQ_MALLOC(size) malloc(size)
#define IQ_MALLOC_IS_SYSTEM true
#define IQ_RELEASE(memory) free(memory)
#elif !defined(IQDB_NO_MALLOC) && defined(IQDB_MALLOC) && defined(IQDB_FREE)
#define IQ_MALLOC(size) IQDB_MALLOC(size)
#define IQ_MALLOC_IS_SYSTEM false
#define IQ_RELEASE(memory) IQDB_FREE(memory)
#else
#error "iqdb: define both IQDB_MALLOC and IQDB_FREE, or neither; and not IQDB_NO_MALLOC with them"
#endif

/* malloc promises 16 bytes at most; a larger alignment is made by hand, with the distance kept in the byte before. */
static void *iq_alloc_default_alloc(size_t size, size_t alignment, void *user) {
    (void)user;
    if (size > (size_t)-1 / 2 - IQ_CACHE_LINE) return NULL; /* no object is larger than PTRDIFF_MAX */
    uint8_t *raw = (uint8_t *)IQ_MALLOC(size + IQ_CACHE_LINE);
    if (raw == NULL) return NULL;
    if (alignment < 16) alignment = 16;
    const size_t shift = alignment - ((uintptr_t)raw & (alignment - 1));
    raw[shift - 1] = (uint8_t)shift;
    return raw + shift;
}

static void iq_alloc_default_free(void *memory, size_t size, size_t alignment, void *user) {
    (void)size;
    (void)alignment;
    (void)user;
    uint8_t *bytes = (uint8_t *)memory;
    IQ_RELEASE(bytes - bytes[-1]);
}

IQ_FN iqdb_allocator iq_alloc_default(void) {
    const iqdb_allocator allocator = {iq_alloc_default_alloc, iq_alloc_default_free, NULL};
    return allocator;
}

IQ_FN bool iq_alloc_is_system(const iqdb_allocator *allocator) {
    return IQ_MALLOC_IS_SYSTEM && allocator->alloc_fn == iq_alloc_default_alloc;
}

IQ_FN void *iq_alloc(const iqdb_allocator *allocator, size_t size, size_t alignment) {
    IQ_ASSERT(size > 0 && alignment <= IQ_CACHE_LINE);
    return allocator->alloc_fn(size, alignment, allocator->user);
}

IQ_FN void *iq_alloc_zeroed(const iqdb_allocator *allocator, size_t size, size_t alignment) {
    void *memory = iq_alloc(allocator, size, alignment);
    if (memory != NULL) memset(memory, 0, size);
    return memory;
}

IQ_FN void iq_free(const iqdb_allocator *allocator, void *memory, size_t size, size_t alignment) {
    if (memory != NULL) allocator->free_fn(memory, size, alignment, allocator->user);
}

IQ_FN iqdb_result iq_blob_reserve(iq_blob *blob, size_t more) {
    if (more <= blob->capacity - blob->size) return IQDB_OK;
    if (more > (size_t)-1 / 4 - blob->size) return IQDB_ERR_NOMEM;
    size_t capacity = blob->capacity + blob->capacity / 2;
    if (capacity < blob->size + more) capacity = blob->size + more;
    capacity = iq_round_up(capacity < IQ_BLOB_BYTES_MIN ? IQ_BLOB_BYTES_MIN : capacity, 64);
    uint8_t *bytes = (uint8_t *)iq_alloc(blob->allocator, capacity, 16);
    if (bytes == NULL) return IQDB_ERR_NOMEM;
    if (blob->size > 0) memcpy(bytes, blob->bytes, blob->size);
    iq_free(blob->allocator, blob->bytes, blob->capacity, 16);
    blob->bytes = bytes;
    blob->capacity = capacity;
    return IQDB_OK;
}

IQ_FN iqdb_result iq_blob_append(iq_blob *blob, const void *bytes, size_t size) {
    if (size == 0) return IQDB_OK;
    iqdb_result result = iq_blob_reserve(blob, size);
    if (result != IQDB_OK) return result;
    memcpy(blob->bytes + blob->size, bytes, size);
    blob->size += size;
    return IQDB_OK;
}

IQ_FN void iq_blob_free(iq_blob *blob) {
    iq_free(blob->allocator, blob->bytes, blob->capacity, 16);
    blob->bytes = NULL;
    blob->size = blob->capacity = 0;
}

static iqdb_allocator iq_buffer_allocator(const iqdb_buffer *buffer) {
    return buffer->allocator != NULL ? *buffer->allocator : iq_alloc_default();
}

static iqdb_result iq_buffer_grow(iqdb_buffer *buffer, size_t size) {
    if (buffer->fixed) return IQDB_ERR_LIMIT;
    const iqdb_allocator allocator = iq_buffer_allocator(buffer);
    const size_t capacity = iq_round_up(size, 64);
    void *bytes = iq_alloc(&allocator, capacity, 16);
    if (bytes == NULL) return IQDB_ERR_NOMEM;
    iq_free(&allocator, buffer->bytes, buffer->capacity, 16);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return IQDB_OK;
}

IQ_HOT iqdb_result iq_buffer_start(iqdb_buffer *buffer, size_t size, uint8_t **out_bytes) {
    size_t skip = size == 0 ? 0 : (size_t)(-(uintptr_t)buffer->bytes & 15u);
    buffer->used = 0;
    if (size > (size_t)-1 - 64) return IQDB_ERR_NOMEM;
    buffer->needed = size + skip;
    if (buffer->capacity < buffer->needed) {
        const iqdb_result result = iq_buffer_grow(buffer, size);
        if (result != IQDB_OK) return result;
        skip = 0;
        buffer->needed = size;
    }
    buffer->used = buffer->needed;
    *out_bytes = (uint8_t *)buffer->bytes;
    if (skip > 0) *out_bytes += skip; /* NULL takes no offset, not even 0 */
    return IQDB_OK;
}

IQ_FN bool iq_buffer_overlaps(const iqdb_buffer *buffer, const void *bytes, size_t size) {
    if (buffer == NULL || buffer->bytes == NULL || bytes == NULL || size == 0) return false;
    const uintptr_t a = (uintptr_t)buffer->bytes, b = (uintptr_t)bytes;
    return a < b ? b - a < buffer->capacity : a - b < size;
}

IQ_DEFINE_DEFAULT(iqdb_buffer)

IQDB_API iqdb_buffer iqdb_buffer_fixed(void *memory, size_t size) {
    iqdb_buffer buffer = iqdb_buffer_default();
    buffer.bytes = memory;
    buffer.capacity = memory == NULL ? 0 : size;
    buffer.fixed = true;
    return buffer;
}

IQDB_API void iqdb_buffer_free(iqdb_buffer *buffer) {
    if (buffer == NULL) return;
    if (!buffer->fixed) {
        const iqdb_allocator allocator = iq_buffer_allocator(buffer);
        iq_free(&allocator, buffer->bytes, buffer->capacity, 16);
        buffer->bytes = NULL;
        buffer->capacity = 0;
    }
    buffer->used = buffer->needed = 0;
}
