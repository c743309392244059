/* Error details. Text is copied with truncation, so no message can overrun the caller's struct. */
#include "base/report.h"

static void iq_report_copy_text(char *to, size_t capacity, const char *from) {
    size_t size = from == NULL ? 0 : strlen(from);
    if (size >= capacity) size = capacity - 1;
    if (size > 0) memcpy(to, from, size);
    to[size] = 0;
}

IQ_FN iqdb_error iq_error_make(iqdb_result code, const char *file, uint64_t offset, const char *text) {
    iqdb_error error;
    memset(&error, 0, sizeof error);
    error.code = code;
    error.offset = offset;
    iq_report_copy_text(error.file, sizeof error.file, file);
    iq_report_copy_text(error.text, sizeof error.text, text);
    return error;
}

IQ_FN iqdb_result iq_report_error(const iq_reporter *reporter, const iqdb_error *error) {
    if (reporter != NULL) {
        if (reporter->told != NULL) *reporter->told = true;
        if (reporter->error != NULL) *reporter->error = *error;
        if (reporter->logger.log_fn != NULL) reporter->logger.log_fn(IQDB_LEVEL_ERROR, error, reporter->logger.user);
    }
    return error->code;
}

IQ_FN iqdb_result iq_report_text(const iq_reporter *reporter, iqdb_result code, const char *file, uint64_t offset,
                                 const char *text) {
    const iqdb_error error = iq_error_make(code, file, offset, text);
    return iq_report_error(reporter, &error);
}

IQ_FN iqdb_result iq_report_code(const iq_reporter *reporter, iqdb_result code) {
    iqdb_error error;
    memset(&error, 0, sizeof error);
    error.code = code;
    return iq_report_error(reporter, &error);
}

IQ_FN iqdb_result iq_report_os(const iq_reporter *reporter, iqdb_result code, const char *file, int os_code,
                               const char *text) {
    iqdb_error error = iq_error_make(code, file, 0, text);
    error.os_code = os_code;
    return iq_report_error(reporter, &error);
}

IQ_FN void iq_log(const iq_reporter *reporter, iqdb_level level, const char *file, uint64_t offset, const char *text) {
    if (reporter == NULL || reporter->logger.log_fn == NULL) return;
    const iqdb_error message = iq_error_make(IQDB_OK, file, offset, text);
    reporter->logger.log_fn(level, &message, reporter->logger.user);
}

IQ_FN iq_findings iq_findings_make(iqdb_report_fn report, void *user) {
    const iq_findings findings = {report, user, IQDB_OK};
    return findings;
}

IQ_FN void iq_findings_add(iq_findings *findings, const iqdb_error *finding) {
    if (findings->first == IQDB_OK) findings->first = finding->code;
    if (findings->report_fn != NULL) findings->report_fn(finding, findings->user);
}

static void iq_findings_log(iqdb_level level, const iqdb_error *message, void *user) {
    if (level == IQDB_LEVEL_ERROR) iq_findings_add((iq_findings *)user, message);
}

IQ_FN iq_reporter iq_findings_reporter(iq_findings *findings) {
    iq_reporter reporter;
    memset(&reporter, 0, sizeof reporter);
    reporter.logger.log_fn = iq_findings_log;
    reporter.logger.user = findings;
    return reporter;
}
