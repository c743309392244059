/* An index of the caller's, by iqdb_index_ops, as one that keeps the contract of ours. */
#ifndef IQ_INDEX_CUSTOM_H
#define IQ_INDEX_CUSTOM_H

#include "index/index.h"

/* The fields of `base` from `allocator` to `knobs` are copied; `ops` outlives it. NULL without memory, or where open_fn
 * refuses. */
IQ_FN iq_index *iq_custom_make(const iq_index *base, const iqdb_index_ops *ops);
/* NULL, or what is wrong with options.index_ops. */
IQ_FN const char *iq_custom_complaint(const iqdb_index_ops *ops);
/* The name in the head of a section, which may be any bytes: zero-terminated in `out`. */
IQ_FN iqdb_result iq_custom_name(const iq_index_load *load, char out[IQDB_CODEC_NAME_SIZE_MAX + 1]);

#endif
