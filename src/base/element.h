/* What vectors are made of: how their elements lie in memory and in files, and which metrics answer for them.
 *
 * As the caller has it, a vector is packed: `bytes`. As rows have it, zeros follow up to whole words of 32 bits, of which
 * the stride is a number: for bits up to 64 of them, for all else to 64 bytes. In files numbers are little-endian. */
#ifndef IQ_BASE_ELEMENT_H
#define IQ_BASE_ELEMENT_H

#include "base/bytes.h"

/* Bits of one; 0 where there is no such element. */
IQ_INLINE uint32_t iq_element_bits(uint32_t element) {
    return element == IQDB_ELEMENT_F32    ? 32
           : element <= IQDB_ELEMENT_BF16 ? 16
           : element <= IQDB_ELEMENT_U8   ? 8
                                          : element == IQDB_ELEMENT_BIT;
}
IQ_INLINE size_t iq_element_bytes(iqdb_element element, size_t dim) { return (dim * iq_element_bits(element) + 7) / 8; }
IQ_INLINE size_t iq_element_stride(iqdb_element element, uint32_t dim) {
    return iq_round_up(iq_element_bytes(element, dim), element == IQDB_ELEMENT_BIT ? 8 : 64) / 4;
}

/* Whether distances by the metric (not DEFAULT) are defined for the element, both any number. */
IQ_INLINE bool iq_element_answers(uint32_t element, uint64_t metric) {
    return iq_element_bits(element) != 0 && metric >= IQDB_L2 && metric <= IQDB_HAMMING &&
           (element == IQDB_ELEMENT_BIT) == (metric == IQDB_HAMMING);
}
/* The metric of a collection whose options name none. */
IQ_INLINE iqdb_metric iq_element_metric(iqdb_element element) {
    return element == IQDB_ELEMENT_BIT ? IQDB_HAMMING : IQDB_COSINE;
}

/* Whether so many packed elements, of the machine's byte order or of files', are a vector: nothing but finite numbers, and
 * no bit set behind the last one. */
IQ_FN bool iq_element_is_vector(iqdb_element element, const void *bytes, size_t dim, bool big_endian);
/* So many bytes of elements between memory and a file. */
IQ_FN void iq_element_copy_le(iqdb_element element, void *to, const void *from, size_t size);
/* `count` elements as the f32 that they are: bits as 0 and 1. */
IQ_FN void iq_element_to_f32(iqdb_element element, const void *bytes, size_t count, float *out);

#endif
