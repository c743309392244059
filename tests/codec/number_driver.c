/* The C side of test_number.py. Streams of little-endian words, from stdin to stdout.
 *   number_driver write-float     doubles as u64 bits; answers with a line of text each
 *   number_driver write-int       int64; the same
 *   number_driver read            u32 size and text; answers with 13 bytes each: type, the value's 8 bytes, u32 bytes read */
#include "codec/number.h"

#include <stdio.h>
#include <stdlib.h>

static int write_all(int is_float) {
    uint8_t word[8];
    while (fread(word, 1, 8, stdin) == 8) {
        char *text = (char *)malloc(IQ_NUMBER_SIZE_MAX + 1); /* so that the sanitizers see its end */
        const uint64_t bits = iq_get_u64(word);
        int64_t integer;
        memcpy(&integer, &bits, 8);
        if (text == NULL) return 1;
        size_t size =
            is_float ? iq_number_write_float(iq_f64_from_bits(bits), text) : iq_number_write_int(integer, text);
        text[size++] = '\n';
        fwrite(text, 1, size, stdout);
        free(text);
    }
    return fflush(stdout) != 0;
}

static int read_all(void) {
    uint8_t head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        const size_t size = iq_get_u32(head);
        char *text = (char *)malloc(size + (size == 0));
        iqdb_value value;
        uint8_t answer[13];
        uint64_t bits = 0;
        if (text == NULL || fread(text, 1, size, stdin) != size) return 1;
        const size_t used = iq_number_read(text, size, &value);
        if (value.type == IQDB_TYPE_INT) memcpy(&bits, &value.as.integer, 8);
        if (value.type == IQDB_TYPE_FLOAT) memcpy(&bits, &value.as.real, 8);
        answer[0] = (uint8_t)value.type;
        iq_put_u64(answer + 1, bits);
        iq_put_u32(answer + 9, (uint32_t)used);
        fwrite(answer, 1, sizeof answer, stdout);
        free(text);
    }
    return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "write-float") == 0) return write_all(1);
    if (argc == 2 && strcmp(argv[1], "write-int") == 0) return write_all(0);
    if (argc == 2 && strcmp(argv[1], "read") == 0) return read_all();
    fprintf(stderr, "number_driver write-float | write-int | read\n");
    return 2;
}
