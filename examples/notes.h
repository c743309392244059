/* notes.h: the data of the demo, from files into memory. Nothing here concerns the database but iqdb_value, which the
 * lines of the .jsonl files become. Words in the binary files are 32 bits, little-endian:
 *
 *   *.fbin      rows, dim, then rows * dim of f32; row i belongs to line i of the .jsonl file of the same name
 *   *.gt.ibin   questions, k, then questions * k ids, nearest first, then as many f32 distances
 */
#ifndef NOTES_H
#define NOTES_H

#include "jsonl.h"

#include <stdio.h>

#define K 10 /* neighbours in the ground truth, and so in each answer */

static void fail(const char *what, const char *why) {
    fprintf(stderr, "demo: %s: %s\n", what, why);
    exit(1);
}

typedef struct data {
    jsonl notes, questions;
    float *note_vectors, *question_vectors; /* rows of dim */
    uint32_t dim;
    uint32_t *truth;        /* K note ids for each question, nearest first */
    float *truth_distances; /* and how far they are: cosine */
} data;

static char *read_file(const char *folder, const char *name, size_t *out_size) {
    char path[1024];
    const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "rb") : NULL;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(name, "cannot be opened");
    const long size = ftell(file);
    char *bytes = size >= 0 ? (char *)malloc((size_t)size + 1) : NULL;
    if (bytes == NULL || fseek(file, 0, SEEK_SET) != 0) fail(name, "cannot be read");
    if (fread(bytes, 1, (size_t)size, file) != (size_t)size) fail(name, "cannot be read");
    fclose(file);
    bytes[size] = 0;
    *out_size = (size_t)size;
    return bytes;
}

static jsonl read_objects(const char *folder, const char *name) {
    size_t size = 0;
    char *text = read_file(folder, name, &size), why[64];
    jsonl objects;
    if (!jsonl_parse(text, size, &objects)) {
        snprintf(why, sizeof why, "line %lu is not a JSON object", (unsigned long)objects.count + 1);
        fail(name, why);
    }
    free(text);
    return objects;
}

static uint32_t word_at(const char *bytes, size_t index) {
    const unsigned char *b = (const unsigned char *)bytes + 4 * index;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static float *floats_at(const char *bytes, size_t index, size_t count) {
    float *floats = (float *)malloc(count * sizeof(float));
    if (floats == NULL) fail("data", "no memory");
    for (size_t i = 0; i < count; i++) {
        const uint32_t word = word_at(bytes, index + i);
        memcpy(&floats[i], &word, sizeof word);
    }
    return floats;
}

static float *read_vectors(const char *folder, const char *name, size_t rows, uint32_t *dim) {
    size_t size = 0;
    char *bytes = read_file(folder, name, &size);
    if (size < 8 || word_at(bytes, 0) != rows) fail(name, "has not one row for each line of its .jsonl");
    if (*dim == 0) *dim = word_at(bytes, 1);
    if (word_at(bytes, 1) != *dim || *dim == 0 || *dim > IQDB_DIM_MAX || size != 8 + 4 * rows * *dim)
        fail(name, "has another size than it should have");
    float *vectors = floats_at(bytes, 2, rows * *dim);
    free(bytes);
    return vectors;
}

static data read_data(const char *folder) {
    data in;
    in.notes = read_objects(folder, "notes.jsonl");
    in.questions = read_objects(folder, "questions.jsonl");
    in.dim = 0;
    in.note_vectors = read_vectors(folder, "notes.fbin", in.notes.count, &in.dim);
    in.question_vectors = read_vectors(folder, "questions.fbin", in.questions.count, &in.dim);

    size_t size = 0;
    const size_t answers = in.questions.count * K;
    char *bytes = read_file(folder, "questions.gt.ibin", &size);
    if (size != 8 + 8 * answers || word_at(bytes, 0) != in.questions.count || word_at(bytes, 1) != K)
        fail("questions.gt.ibin", "does not fit the questions");
    in.truth = (uint32_t *)malloc(answers * sizeof(uint32_t));
    if (in.truth == NULL) fail("data", "no memory");
    for (size_t i = 0; i < answers; i++) in.truth[i] = word_at(bytes, 2 + i);
    in.truth_distances = floats_at(bytes, 2 + answers, answers);
    free(bytes);
    return in;
}

static void free_data(data *in) {
    jsonl_free(&in->notes);
    jsonl_free(&in->questions);
    free(in->note_vectors);
    free(in->question_vectors);
    free(in->truth);
    free(in->truth_distances);
}

static const char *question_text(const data *in, size_t question) {
    const iqdb_value text = iqdb_value_get(in->questions.objects[question], "text");
    return text.type == IQDB_TYPE_TEXT ? text.as.text.data : "(no text)";
}

#endif
