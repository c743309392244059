/* Memory for large blocks, from the system's pages.
 *
 * A scan that streams through small pages misses the address cache with every one of them, and the first touch of each
 * costs a fault: with pages of 2 MiB, where Linux has them for the asking, reading went from 14 to 18 GB/s and filling
 * fresh memory from 1.3 to several GB/s on the machine of the bench. Blocks begin at a multiple of that size, because a
 * large page has to lie in a block whole. */
#include "sys/sys.h"

#if !defined(_WIN32) && !defined(IQDB_NO_OS) && !defined(IQDB_NO_MMAP)
#include <sys/mman.h>
#if defined(MAP_ANONYMOUS)
#define IQ_PAGES_MAP MAP_ANONYMOUS
#elif defined(MAP_ANON)
#define IQ_PAGES_MAP MAP_ANON
#endif
#endif

#define IQ_PAGES_LARGE ((size_t)1 << 21)
#define IQ_PAGES_UNIT ((size_t)1 << 16) /* what every system's page size divides */

/* Only where nobody else wants to be asked for memory. */
static bool iq_pages_apply(const iqdb_allocator *allocator, size_t size) {
#if defined(IQ_PAGES_MAP)
    return size >= IQ_PAGES_LARGE && size < (size_t)-1 / 4 && iq_alloc_is_system(allocator);
#else
    (void)allocator;
    (void)size;
    return false;
#endif
}

IQ_FN void *iq_pages_alloc(const iqdb_allocator *allocator, size_t size) {
    if (!iq_pages_apply(allocator, size)) return iq_alloc(allocator, size, IQ_CACHE_LINE);
#if defined(IQ_PAGES_MAP)
    const size_t whole = iq_round_up(size, IQ_PAGES_UNIT), wide = whole + IQ_PAGES_LARGE;
    void *mapped = mmap(NULL, wide, PROT_READ | PROT_WRITE, MAP_PRIVATE | IQ_PAGES_MAP, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    uint8_t *bytes = (uint8_t *)mapped;
    const size_t before = (size_t)(-(uintptr_t)bytes & (IQ_PAGES_LARGE - 1));
    if (before > 0) (void)munmap(bytes, before);
    if (wide - whole > before) (void)munmap(bytes + before + whole, wide - whole - before);
#if defined(MADV_HUGEPAGE)
    (void)madvise(bytes + before, whole, MADV_HUGEPAGE); /* a wish */
#endif
#if defined(MADV_POPULATE_WRITE)
    /* What is left for small pages: one call costs a fraction of a fault for each. */
    const size_t rest = whole & (IQ_PAGES_LARGE - 1);
    if (rest > 0) (void)madvise(bytes + before + whole - rest, rest, MADV_POPULATE_WRITE);
#endif
    return bytes + before;
#else
    return NULL;
#endif
}

IQ_FN void iq_pages_free(const iqdb_allocator *allocator, void *memory, size_t size) {
    if (memory == NULL) return;
    if (!iq_pages_apply(allocator, size)) {
        iq_free(allocator, memory, size, IQ_CACHE_LINE);
        return;
    }
#if defined(IQ_PAGES_MAP)
    (void)munmap(memory, iq_round_up(size, IQ_PAGES_UNIT));
#endif
}
