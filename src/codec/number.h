/* Writing text, and numbers as text: int64 exactly, doubles by the shortest decimal that reads as the same bits. */
#ifndef IQ_CODEC_NUMBER_H
#define IQ_CODEC_NUMBER_H

#include "base/bytes.h"

#if !defined(IQDB_NO_TEXT)

/* Where text goes. It is written twice by the same code: first to NULL, which only counts. */
typedef struct iq_text_sink {
    char *text;
    size_t size;
} iq_text_sink;

IQ_FN void iq_text_put(iq_text_sink *sink, const char *text, size_t size);
IQ_FN void iq_text_put_hex(iq_text_sink *sink, const uint8_t *bytes, size_t size); /* in small letters */

#define IQ_NUMBER_SIZE_MAX 32 /* of any number written below */

/* Decimal digits to `out`; how many bytes. */
IQ_FN size_t iq_number_write_int(int64_t value, char *out);

/* A finite double; how many bytes. There is always a point or an exponent, so it reads as a double again: 1.0, -0.0,
 * 0.0001, 1e-5, 123456.75, 1e16, 1.5e300. */
IQ_FN size_t iq_number_write_float(double value, char *out);

/* Reads the number that `text` begins with, in the grammar of JSON (RFC 8259, section 6), and returns its bytes, 0
 * where there is none. What has no point and no exponent is an INT, the rest a FLOAT, rounded once, to nearest, ties to
 * even; *out_value is IQDB_TYPE_ABSENT where int64 or double are too small for it. */
IQ_FN size_t iq_number_read(const char *text, size_t size, iqdb_value *out_value);

/* The value of a hexadecimal digit, or -1. */
IQ_FN int iq_hex_digit(char c);

#endif

#endif
