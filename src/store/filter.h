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

typedef struct iq_filter_key {
    const char *text; /* zero-terminated */
    size_t size;
    uint32_t index; /* where it was found last: a guess, the only thing that evaluation changes */
    bool has_dot;   /* it may reach into objects */
} iq_filter_key;

/* One test of one key, and where to go on. */
typedef struct iq_filter_step {
    iq_filter_key key;
    const iq_filter_operand *operands;
    uint32_t operand_count;
    uint32_t on_true, on_false; /* a smaller step, IQ_FILTER_ACCEPT or IQ_FILTER_REJECT */
    uint32_t listed, bound; /* of rows, for the plan in keys.c: by the test, and in all that is accepted from here */
    uint8_t op;             /* iqdb_filter_op */
    uint8_t orders;         /* of field and operand, one of which has to be; 0: any, and none */
    bool wanted;            /* by that plan */
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
    size_t size_bytes; /* in all, at an alignment of 16 */
} iq_filter_layout;

#if IQ_HAS_FILTERS

/* NULL, or in words why the filter is INVALID_FILTER. */
IQ_FN const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout);

/* and, or, not. */
IQ_INLINE bool iq_filter_is_branch(const iqdb_filter *filter) {
    return filter->op == IQDB_FILTER_AND || filter->op == IQDB_FILTER_OR || filter->op == IQDB_FILTER_NOT;
}

/* Compiles what has been measured into `memory`, which lives as long as *out; the caller's filter need not. */
IQ_FN void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory, iq_filter *out);

/* Whether the filter holds; payload.bytes may be NULL, and the bytes need not be a payload. Allocates nothing. Any
 * number of threads may share a program. */
IQ_FN bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload);

#else

/* None can be measured, so none is compiled and none asked. */
IQ_INLINE const char *iq_filter_measure(const iqdb_filter *filter, iq_filter_layout *out_layout) {
    (void)filter;
    memset(out_layout, 0, sizeof *out_layout);
    return "this build has no filters";
}
IQ_INLINE void iq_filter_compile(const iqdb_filter *filter, const iq_filter_layout *layout, void *memory,
                                 iq_filter *out) {
    (void)filter;
    (void)layout;
    (void)memory;
    memset(out, 0, sizeof *out);
}
IQ_INLINE bool iq_filter_accepts(const iq_filter *filter, iqdb_payload payload) {
    (void)filter;
    (void)payload;
    return false;
}

#endif

/* The key of so many bytes, which stay where they are. */
IQ_FN iq_filter_key iq_filter_key_make(const char *text, size_t size);
/* The bytes of its value, at least one, by the rule of iqdb_payload_get. */
IQ_FN bool iq_filter_find(iq_filter_key *key, const iq_container *fields, const uint8_t **out_value, size_t *out_size);
/* What an encoded value can be compared with; 0 where the bytes are none that can. */
IQ_FN unsigned iq_filter_kind(const uint8_t *value, size_t size);

/* Whether both can be compared and are equal. */
IQ_FN bool iq_filter_is_equal(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size);

#endif
