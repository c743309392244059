/* What the implementation asks of the C library. These macros work only before the first system header of a
 * translation unit, so the amalgamator puts this file at the very top of iqdb.h, and the module build includes it
 * first by a compiler flag. No other file includes it; it has no guard because it may be read twice. */
#if defined(IQDB_NO_LIBC) || defined(IQDB_NO_OS) || defined(IQDB_NO_FILES)
/* Nothing is asked of it. */
#elif defined(_FEATURES_H)
/* glibc or musl has been read already and has made its choice; only its strict ISO C face is not enough. */
#if !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE) && !defined(_BSD_SOURCE) && \
    (!defined(_POSIX_C_SOURCE) || _POSIX_C_SOURCE < 200809L) && (!defined(_XOPEN_SOURCE) || _XOPEN_SOURCE < 700)
#error "iqdb: include iqdb.h with IQDB_IMPLEMENTATION before all other headers, or compile with -D_GNU_SOURCE"
#endif
#else
#if (defined(__linux__) || defined(__GLIBC__)) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE 1
#endif
#if defined(_WIN32) && !defined(WIN32_LEAN_AND_MEAN)
#define WIN32_LEAN_AND_MEAN 1
#endif
#if defined(_WIN32) && !defined(NOMINMAX)
#define NOMINMAX 1
#endif
#if !defined(_WIN32) && !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64
#endif
#endif
