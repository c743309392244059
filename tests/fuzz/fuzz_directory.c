/* Any directory. The first byte picks one of four small databases and says how deep to go; what follows are steps of
 * eight bytes that change its files - numbers, bytes, lengths, copies from elsewhere, whole files gone or exchanged -
 * and then all checksums are made right again, unless the first byte says not to. */
#include "fuzz/forge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SAMPLES 4
#define STEP 8
#define LARGEST 65536u

static void require(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

/* Where a step points: any place, but those that hold something twice as often. */
static size_t place(const forge_file *file, const uint8_t *step) {
    size_t at = file->size == 0 ? 0 : iq_get_u16(step + 2) % file->size;
    if ((step[1] & 0x80) == 0) return at;
    while (at < file->size && file->bytes[at] == 0) at++;
    return at;
}

static void number(forge_file *file, const uint8_t *step, unsigned width, bool both_slots) {
    static const uint64_t odd[] = {
        0,     1,     7,    8,    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, UINT64_MAX, UINT64_C(1) << 62,
        65536, 65537, 4096, 8192, 40,         48};
    const size_t at = place(file, step) & ~(size_t)(width == 1 ? 0 : 3);
    const uint64_t value = (step[4] & 0x40) != 0 ? odd[step[5] % 16] : iq_get_u32(step + 4);
    for (size_t slot = 0; slot < (both_slots ? 2u : 1u); slot++)
        for (unsigned i = 0; i < width && at + i + slot * IQ_META_SLOT_SIZE < file->size; i++)
            file->bytes[at + i + slot * IQ_META_SLOT_SIZE] = (uint8_t)(value >> 8 * i);
}

static void change(forge *f, const uint8_t *step) {
    forge_file *file = &f->files[step[0] % f->count], *other = &f->files[step[6] % f->count];
    const size_t at = place(file, step), from = other->size == 0 ? 0 : (step[7] * 512u) % other->size;
    const bool is_meta = strcmp(file->name, "META") == 0;
    size_t length = iq_get_u16(step + 4);
    switch (step[1] & 15) {
    case 8:
        file->size = at;
        break;
    case 9: /* longer, by zeros or by itself */
        length = length < LARGEST - file->size ? length : LARGEST - file->size;
        if (file->size + length > file->capacity) break;
        memset(file->bytes + file->size, 0, length);
        file->size += length;
        break;
    case 10:
        if (length > file->size - at) length = file->size - at;
        if (length > other->size - from) length = other->size - from;
        memmove(file->bytes + at, other->bytes + from, length);
        break;
    case 11:
        if (f->count == 1) break;
        free(file->bytes);
        *file = f->files[--f->count];
        break;
    case 12: { /* names exchanged */
        char name[32];
        memcpy(name, file->name, sizeof name);
        memcpy(file->name, other->name, sizeof name);
        memcpy(other->name, name, sizeof name);
        break;
    }
    case 13:
        if (at < file->size) file->bytes[at] = (uint8_t)(file->bytes[at] ^ step[4]);
        break;
    case 14:
        if (at < file->size) file->bytes[at] = (uint8_t)(file->bytes[at] + step[4]);
        break;
    default:
        number(file, step, (step[1] & 3) == 3 ? 8 : 1u << (step[1] & 3), is_meta && (step[1] & 4) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const scripts[SAMPLES] = {"oubtDuez", "oubtfuf", "obtekuz", "oukuKlu"};
    static forge samples[SAMPLES];
    forge bad;
    forge_verdict verdict;
    if (samples[0].count == 0) {
        for (size_t i = 0; i < SAMPLES; i++) {
            require(forge_sample(scripts[i], &samples[i]), "no sample");
            for (size_t k = 0; k < samples[i].count; k++) {
                forge_file *file = &samples[i].files[k];
                file->bytes = (uint8_t *)fault_grow(file->bytes, LARGEST);
                file->capacity = LARGEST;
            }
        }
    }
    if (size < 1) return 0;
    memset(&bad, 0, sizeof bad);
    forge_copy(&samples[data[0] % SAMPLES], &bad);
    for (size_t at = 1; at + STEP <= size && at < 20 * STEP; at += STEP) change(&bad, data + at);
    if ((data[0] & 4) == 0) forge_seal(&bad, (data[0] & 8) == 0);
    const char *trouble = forge_judge(&bad, (data[0] & 16) != 0, &verdict);
    forge_free(&bad);
    require(trouble == NULL, trouble);
    return 0;
}
