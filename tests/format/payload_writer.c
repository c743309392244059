/* The C side of test_payload.py.
 *   payload_writer write SEED COUNT   writes COUNT random payloads, each behind its size (u32), to stdout
 *   payload_writer check              reads byte strings in that form from stdin; answers each with two characters:
 *                                     whether it is UTF-8 and whether it is a payload, 1 or 0 */
#include "../codec/tree.h"

static int write_random(uint64_t seed, size_t count) {
    const iqdb_allocator allocator = iq_alloc_default();
    for (size_t i = 0; i < count; i++) {
        tree_pool pool = {NULL, 0, 0};
        iq_blob blob = {&allocator, NULL, 0, 0};
        uint64_t state = seed + i;
        uint8_t size[4];
        const tree *node = tree_random(&pool, &state, IQDB_TYPE_OBJECT, 4);
        if (iq_payload_encode(tree_to_fields(&pool, node, &state), node->count, &blob) != IQDB_OK) return 1;
        tree_put_u32(size, blob.size);
        if (fwrite(size, 1, 4, stdout) != 4 || fwrite(blob.bytes, 1, blob.size, stdout) != blob.size) return 1;
        iq_blob_free(&blob);
        tree_free(&pool);
    }
    return fflush(stdout) != 0;
}

static int check_all(void) {
    uint8_t head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        const size_t size = iq_get_u32(head);
        uint8_t *bytes = (uint8_t *)malloc(size + (size == 0));
        if (bytes == NULL || fread(bytes, 1, size, stdin) != size) return 1;
        putchar(iq_utf8_is_valid(bytes, size) ? '1' : '0');
        putchar(iq_payload_validate(bytes, size) == IQDB_OK ? '1' : '0');
        free(bytes);
    }
    return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "write") == 0)
        return write_random(strtoull(argv[2], NULL, 10), (size_t)strtoull(argv[3], NULL, 10));
    if (argc == 2 && strcmp(argv[1], "check") == 0) return check_all();
    fprintf(stderr, "payload_writer write SEED COUNT | check\n");
    return 2;
}
