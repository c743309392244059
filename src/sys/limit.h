/* How long a call may work: until a time, or until somebody asks it to stop. */
#ifndef IQ_SYS_LIMIT_H
#define IQ_SYS_LIMIT_H

#include "sys/atomic.h"

typedef struct iq_limit {
    iqdb_clock clock;          /* now_fn NULL: time is the number of units that were done */
    const iqdb_cancel *cancel; /* or NULL */
    uint64_t units;
    uint64_t end;
    bool ends; /* there is an end */
} iq_limit;

IQ_INLINE uint64_t iq_limit_now(const iq_limit *limit) {
    return limit->clock.now_fn != NULL ? limit->clock.now_fn(limit->clock.user) : limit->units;
}

/* Without an end, until it is told how long from now. */
IQ_INLINE iq_limit iq_limit_make(iqdb_clock clock, const iqdb_cancel *cancel) {
    iq_limit limit = {clock, cancel, 0, 0, false};
    return limit;
}
IQ_INLINE void iq_limit_end_in(iq_limit *limit, uint32_t budget_us) {
    limit->end = iq_limit_now(limit) + budget_us;
    limit->ends = true;
}

/* Whether a comes no earlier than b, on a clock that may turn over. */
IQ_INLINE bool iq_limit_is_past(uint64_t a, uint64_t b) { return (a - b) >> 63 == 0; }

IQ_INLINE bool iq_limit_is_cancelled(const iq_limit *limit) {
    return limit->cancel != NULL && IQ_ATOMIC_LOAD(&limit->cancel->requested) != 0;
}

/* Asked behind each unit of work, so that every call does one; NULL is no limit. */
IQ_INLINE bool iq_limit_reached(iq_limit *limit) {
    if (limit == NULL) return false;
    limit->units++;
    return iq_limit_is_cancelled(limit) || (limit->ends && iq_limit_is_past(iq_limit_now(limit), limit->end));
}

#endif
