/* Reading a directory that may be damaged: everything that is wrong with it, and everything that is not. */
#ifndef IQ_PERSIST_REPAIR_H
#define IQ_PERSIST_REPAIR_H

#include "persist/recover.h"

/* Reports to volume->reporter what is wrong with the files that `manifest` describes. The logs end where it says, and
 * the last one at `end`; NULL: where META is not clean others may have written behind it. `blocks`: with every block of
 * the snapshots, else with their tables only. NOMEM, or OK, whatever was found. */
IQ_FN iqdb_result iq_repair_check(const iq_volume *volume, const iq_manifest *manifest, const iq_log_position *end,
                                  bool blocks);

/* Reports what is wrong with the directory of `volume`, which is open, and hands the rest to `loader`: snapshots as
 * iq_snapshot_salvage opens them, and records above them of whole batches. META may be lost: then schema_fn is not
 * called, and the files say what they belong to. `meta` is memory, and is closed by the caller. *out_lsn: no higher one
 * was found. NOT_FOUND, LOCKED, VERSION, NOMEM, codes of the loader; or OK, whatever was found. */
IQ_FN iqdb_result iq_repair_read(const iq_volume *volume, iq_meta *meta, const iq_loader *loader, uint64_t *out_lsn);

#endif
