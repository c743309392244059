/* Filters, compiled to a flat program over encoded payloads. */
#ifndef IQ_STORE_FILTER_H
#define IQ_STORE_FILTER_H

#include "codec/payload.h"
#include "sys/atomic.h"

/* A constant, encoded as a payload has it. */
typedef struct iq_filter_operand {
    const uint8_t *bytes;
    size_t size;
    unsigned kind; /* what it can be compared with; not 0 */
} iq_filter_operand;

/* One test of one key, and where to go on. */
typedef struct iq_filter_step {
    const char *key; /* zero-terminated */
    size_t key_size;
    const iq_filter_operand *operands;
    uint32_t operand_count;
    uint32_t on_true, on_false; /* a step, IQ_FILTER_ACCEPT or IQ_FILTER_REJECT */
    uint32_t index;             /* where the key was found last: a guess, the only thing that evaluation changes */
    uint8_t op;                 /* iqdb_filter_op */
    uint8_t orders;             /* of field and operand, for which a comparison holds; 0: no comparison */
    bool has_dot;               /* the key may reach into objects */
} iq_filter_step;

#define IQ_FILTER_ACCEPT 0xFFFFFFFFu
#define IQ_FILTER_REJECT 0xFFFFFFFEu

typedef struct iq_filter {
    iq_filter_step *steps;
    uint32_t entry;
} iq_filter;

/* What a program takes. */
typedef struct iq_filter_layout {
    size_t step_count;
    size_t operand_count;
    size_t byte_count;
    size_t size_bytes; /* in all, at an alignment of 16 */
} iq_filter_layout;

/* NULL, or in words why the filter is INVALID_FILTER. */
IQ_FN const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout);

/* Compiles what has been measured into `memory`, which lives as long as *out; the caller's filter need not. */
IQ_FN void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory, iq_filter *out);

/* Whether the filter holds; payload.bytes may be NULL, and the bytes need not be a payload. Allocates nothing. Any
 * number of threads may share a program. */
IQ_FN bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload);

#endif
