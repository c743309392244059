/* codec.h: what the examples of codecs have in common: a database whose payloads are packed by one of them, as a blob, and,
 * where a path is given, as a directory. */
#ifndef CODEC_H
#define CODEC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NOTES = 2000,
    DIM = 8
};

static iqdb_error detail;

static void check(bool right, const char *what) {
    if (right) return;
    fprintf(stderr, "failed: %s: %s\n", what, detail.text);
    exit(1);
}

static iqdb_options codec_options(const iqdb_codec *codec) {
    iqdb_options options = iqdb_options_default();
    options.codecs = codec;
    options.codec_count = codec != NULL ? 1 : 0;
    options.error = &detail;
    return options;
}

/* Notes as many programs keep them: much of each is in all of them. */
static size_t note_text(unsigned id, char text[400]) {
    static const char *const places[] = {"the harbour", "the old mill", "a field behind the station", "the library"};
    const int size = snprintf(text, 400,
                              "Note %u. Seen at %s, in the year %u, by observer number %u; the sky was %s, and nothing "
                              "else was written down on that day.",
                              id, places[id % 4], 1900 + id % 120, id * 7 % 31, id % 3 == 0 ? "grey" : "clear");
    return (size_t)size;
}

static void write_notes(iqdb *db) {
    for (unsigned id = 0; id < NOTES; id++) {
        float vector[DIM];
        char text[400];
        iqdb_field field;
        iqdb_record record = iqdb_record_default();
        for (unsigned i = 0; i < DIM; i++) vector[i] = (float)((id * 31 + i * 17) % 101) / 101.0f;
        field.key = "text";
        field.value = iqdb_text_n(text, note_text(id, text));
        record.id = id;
        record.vector = vector;
        record.dim = DIM;
        record.fields = &field;
        record.field_count = 1;
        check(iqdb_upsert(db, &record) == IQDB_OK, "upsert");
    }
}

static void check_notes(iqdb *db) {
    iqdb_buffer memory = iqdb_buffer_default();
    for (unsigned id = 0; id < NOTES; id++) {
        char text[400];
        iqdb_record record;
        const size_t size = note_text(id, text);
        check(iqdb_get(db, id, &memory, &record) == IQDB_OK, "get");
        size_t found_size = 0;
        const char *found = iqdb_payload_text(record.payload, "text", &found_size);
        check(found != NULL && found_size == size && memcmp(found, text, size) == 0, "a note is another one");
    }
    iqdb_buffer_free(&memory);
}

/* A blob in memory. */
typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

static bool append(const void *data, size_t size, void *user) {
    bytes *out = (bytes *)user;
    unsigned char *grown = (unsigned char *)realloc(out->data, out->size + size);
    if (grown == NULL) return false;
    memcpy(grown + out->size, data, size);
    out->data = grown;
    out->size += size;
    return true;
}

static bytes export_notes(const iqdb_codec *codec) {
    const iqdb_options options = codec_options(codec);
    bytes blob = {NULL, 0};
    iqdb *db = NULL;
    check(iqdb_open_in_memory(&options, &db) == IQDB_OK, "open");
    write_notes(db);
    check(iqdb_export_blob(db, append, &blob) == IQDB_OK, "export");
    check(iqdb_close(db) == IQDB_OK, "close");
    return blob;
}

static int codec_demo(const iqdb_codec *codec, const char *path) {
    const iqdb_options options = codec_options(codec), none = codec_options(NULL);
    bytes plain = export_notes(NULL), packed = export_notes(codec);
    iqdb *db = NULL;
    check(packed.size < plain.size - plain.size / 4, "it does not pack");
    printf("%d notes: %lu KiB, and packed by %s %lu KiB\n", NOTES, (unsigned long)plain.size / 1024, codec->name,
           (unsigned long)packed.size / 1024);
    check(iqdb_load_blob(packed.data, packed.size, &none, &db) == IQDB_ERR_INVALID_CONFIG, "a load without the codec");
    printf("without it: %s\n", detail.text);
    check(iqdb_load_blob(packed.data, packed.size, &options, &db) == IQDB_OK, "load");
    check_notes(db);
    check(iqdb_close(db) == IQDB_OK, "close");
    if (path != NULL) { /* of a directory, the snapshots are packed: those that checkpoints write */
        check(iqdb_open(path, &options, &db) == IQDB_OK, "open");
        write_notes(db);
        check(iqdb_checkpoint(db) == IQDB_OK, "checkpoint");
        check(iqdb_close(db) == IQDB_OK, "close");
        check(iqdb_open(path, &options, &db) == IQDB_OK, "open again");
        check_notes(db);
        check(iqdb_close(db) == IQDB_OK, "close");
    }
    free(plain.data);
    free(packed.data);
    printf("with it: all of them again\n");
    return 0;
}

#endif
