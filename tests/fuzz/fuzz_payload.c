/* Any bytes as payloads. Readers and writers must survive them; what passes the check must come back the same from
 * the model's encoder and from ours; and merging two of them must give what the fields of both give.
 *
 * The first byte splits the rest: a payload, then one whose fields are the changes to it. */
#include "../codec/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

static iqdb_value view_of(const uint8_t *bytes, size_t size) {
    iqdb_value value = iqdb_object(NULL, 0);
    value.as.object.encoded = bytes;
    value.as.object.size = size;
    return value;
}

/* Reads what the readers offer, at most *steps values: extents of malformed containers may overlap. */
static size_t touch(iqdb_value value, size_t *steps) {
    size_t sum = 0;
    if (*steps == 0) return 0;
    --*steps;
    if (value.type == IQDB_TYPE_TEXT) require(value.as.text.data[value.as.text.size] == 0);
    if (value.type == IQDB_TYPE_BYTES && value.as.bytes.size > 0)
        sum += ((const uint8_t *)value.as.bytes.data)[value.as.bytes.size - 1];
    const size_t count = iqdb_value_count(value);
    for (size_t i = 0; i < count && i < 40; i++) {
        iqdb_field field;
        sum += touch(iqdb_value_at(value, i), steps);
        if (!iqdb_value_field(value, i, &field)) continue;
        sum += strlen(field.key) + (size_t)iqdb_value_get(value, field.key).type;
    }
    return sum;
}

static iq_blob encode(const iqdb_allocator *allocator, const iqdb_field *fields, size_t count) {
    iq_blob blob;
    memset(&blob, 0, sizeof blob);
    blob.allocator = allocator;
    require(iq_payload_encode(fields, count, &blob) == IQDB_OK);
    return blob;
}

static void check_accepted(const uint8_t *bytes, size_t size, const iqdb_allocator *allocator) {
    tree_pool pool = {NULL, 0, 0};
    const tree *node = tree_from_value(&pool, view_of(bytes, size));
    require(node != NULL);
    require(tree_matches(node, view_of(bytes, size)));
    const tree_bytes again = tree_encode(&pool, node, false);
    require(again.size == size && memcmp(again.bytes, bytes, size) == 0);
    iqdb_field *fields = tree_to_fields(&pool, node, NULL);
    for (size_t i = 0; i < node->count / 2; i++) { /* from back to front, so that there is something to sort */
        const iqdb_field swap = fields[i];
        fields[i] = fields[node->count - 1 - i];
        fields[node->count - 1 - i] = swap;
    }
    iq_blob ours = encode(allocator, fields, node->count);
    require(ours.size == size && memcmp(ours.bytes, bytes, size) == 0);
    iq_blob_free(&ours);
    tree_free(&pool);
}

static void check_merged(iqdb_payload base, iqdb_payload added, const iqdb_allocator *allocator) {
    tree_pool pool = {NULL, 0, 0};
    iqdb_buffer buffer = iqdb_buffer_default();
    iqdb_payload out = {NULL, 0};
    const size_t base_count = iqdb_payload_count(base), count = iqdb_payload_count(added);
    iqdb_field *changes = (iqdb_field *)tree_alloc(&pool, count * sizeof *changes);
    iqdb_field *all = (iqdb_field *)tree_alloc(&pool, (base_count + count) * sizeof *all);
    size_t all_count = 0;
    for (size_t i = 0; i < count; i++) {
        require(iqdb_payload_at(added, i, &changes[count - 1 - i]));
        if (changes[count - 1 - i].value.type == IQDB_TYPE_NULL)
            changes[count - 1 - i].value.type = IQDB_TYPE_ABSENT;
        else
            all[all_count++] = changes[count - 1 - i];
    }
    for (size_t i = 0; i < base_count; i++) {
        require(iqdb_payload_at(base, i, &all[all_count]));
        size_t at = 0;
        while (at < count && strcmp(changes[at].key, all[all_count].key) != 0) at++;
        all_count += at == count;
    }
    require(iqdb_payload_with(base, changes, count, &buffer, &out) == IQDB_OK);
    iq_blob expected = encode(allocator, all, all_count);
    require(out.size == expected.size && memcmp(out.bytes, expected.bytes, out.size) == 0);
    iq_blob_free(&expected);
    iqdb_buffer_free(&buffer);
    tree_free(&pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const iqdb_allocator allocator = iq_alloc_default();
    const size_t split = data[0] < size ? size - 1 - data[0] : size - 1;
    const iqdb_payload parts[2] = {{data + 1, split}, {data + 1 + split, size - 1 - split}};
    bool accepted[2];
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = (const uint8_t *)parts[i].bytes;
        size_t steps = 1000;
        touch(view_of(bytes, parts[i].size), &steps);
        accepted[i] = iq_payload_validate(bytes, parts[i].size) == IQDB_OK;
        if (accepted[i]) check_accepted(bytes, parts[i].size, &allocator);
    }
    /* The second as the path to look up in the first. */
    char path[64];
    const size_t length = parts[1].size < sizeof path ? parts[1].size : sizeof path - 1;
    memcpy(path, parts[1].bytes, length);
    path[length] = 0;
    size_t text_size;
    const char *text = iqdb_payload_text(parts[0], path, &text_size);
    if (text != NULL) require(text[text_size] == 0);
    if (accepted[0] && accepted[1]) check_merged(parts[0], parts[1], &allocator);
    return 0;
}
