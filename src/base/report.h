/* Where details of an error go: the caller's struct and the logger. */
#ifndef IQ_BASE_REPORT_H
#define IQ_BASE_REPORT_H

#include "base/config.h"

typedef struct iq_reporter {
    iqdb_error *error; /* the caller's, or NULL */
    iqdb_logger logger;
    bool *told; /* NULL, or set by each report, so that nothing fails in silence or is told twice */
} iq_reporter;

/* What went wrong where; file NULL and the numbers 0 where they do not apply. */
IQ_FN iqdb_error iq_error_make(iqdb_result code, const char *file, uint64_t offset, const char *text);

/* Hands `error` to the caller's struct and the logger and returns its code, so that a failing function can end with
 * `return iq_report(...)`. `reporter` may be NULL. */
IQ_FN iqdb_result iq_report_error(const iq_reporter *reporter, const iqdb_error *error);
IQ_FN iqdb_result iq_report_text(const iq_reporter *reporter, iqdb_result code, const char *file, uint64_t offset,
                                 const char *text);
/* A code, and nothing else. */
IQ_FN iqdb_result iq_report_code(const iq_reporter *reporter, iqdb_result code);
/* Inlined, as are those who pass a text on to it, so that small builds are without texts: codes and places are enough. Where
 * all that is read is one blob codes are, and whoever leaves the call reports its own. */
IQ_INLINE iqdb_result iq_report(const iq_reporter *reporter, iqdb_result code, const char *file, uint64_t offset,
                                const char *text) {
    if (IQ_ONLY_BLOBS) return code;
    return iq_report_text(reporter, code, file, offset, IQ_SMALL ? "" : text);
}
IQ_FN iqdb_result iq_report_os(const iq_reporter *reporter, iqdb_result code, const char *file, int os_code,
                               const char *text);
/* To the logger only. */
IQ_FN void iq_log(const iq_reporter *reporter, iqdb_level level, const char *file, uint64_t offset, const char *text);

/* What a check finds: every report becomes a finding. */
typedef struct iq_findings {
    iqdb_report_fn report_fn; /* NULL: nobody wants to hear */
    void *user;
    iqdb_result first; /* code of the first one */
} iq_findings;

IQ_FN iq_findings iq_findings_make(iqdb_report_fn report, void *user);
IQ_FN void iq_findings_add(iq_findings *findings, const iqdb_error *finding);
IQ_FN iq_reporter iq_findings_reporter(iq_findings *findings);

#endif
