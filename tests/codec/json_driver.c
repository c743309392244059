/* The C side of test_json.py.
 *   json_driver read     reads texts, each behind its size (u32), from stdin. Answers each with u8 result (0 or 1), and
 *                        for a payload: u32 size, its bytes, u32 size, the text that it becomes.
 *   json_driver write    the same for payloads: the text that each becomes, and the payload that becomes of that. */
#include "codec/payload.h"

#include <stdio.h>
#include <stdlib.h>

static void put(const void *bytes, size_t size) {
    uint8_t head[4];
    iq_put_u32(head, (uint32_t)size);
    fwrite(head, 1, 4, stdout);
    if (size > 0) fwrite(bytes, 1, size, stdout);
}

/* Both buffers fixed and of exactly the size that is asked for, so that the sanitizers see what `needed` is worth. */
static iqdb_buffer exact(iqdb_buffer *tried) {
    void *memory = malloc(tried->needed);
    return iqdb_buffer_fixed(memory, tried->needed);
}

static int answer(const uint8_t *bytes, size_t size, int is_text) {
    iqdb_buffer none = iqdb_buffer_fixed(NULL, 0), first, second;
    iqdb_payload payload = {bytes, size};
    const char *json = (const char *)bytes;
    size_t json_size = size;
    for (int round = 0; round < 2; round++, is_text = !is_text) {
        iqdb_buffer *buffer = round == 0 ? &first : &second;
        iqdb_result result = is_text ? iqdb_payload_from_json(json, json_size, &none, &payload)
                                     : iqdb_payload_to_json(payload, &none, &json, &json_size);
        if (result == IQDB_OK && !(is_text && payload.bytes == NULL)) return 3; /* without a byte of memory? */
        *buffer = exact(&none);
        if (result == IQDB_ERR_LIMIT)
            result = is_text ? iqdb_payload_from_json(json, json_size, buffer, &payload)
                             : iqdb_payload_to_json(payload, buffer, &json, &json_size);
        if (round == 0) putchar(result == IQDB_OK);
        if (result != IQDB_OK && round == 1) return 4;
        if (result != IQDB_OK) {
            free(first.bytes);
            return 0;
        }
        if (is_text)
            put(payload.bytes, payload.size);
        else
            put(json, json_size);
        if (!is_text && json[json_size] != 0) return 5;
    }
    free(first.bytes);
    free(second.bytes);
    return 0;
}

int main(int argc, char **argv) {
    uint8_t head[4];
    if (argc != 2) return 2;
    while (fread(head, 1, 4, stdin) == 4) {
        const size_t size = iq_get_u32(head);
        uint8_t *bytes = (uint8_t *)malloc(size + (size == 0));
        if (bytes == NULL || fread(bytes, 1, size, stdin) != size) return 1;
        const int status = answer(bytes, size, strcmp(argv[1], "read") == 0);
        if (status != 0) return status;
        free(bytes);
    }
    return fflush(stdout) != 0;
}
