/* k-means (S. Lloyd, "Least squares quantization in PCM", 1982) over a sample.
 *
 * 1. Centres have codes of their own, like rows; a vector meets all of them there, and the nearest few in f32. From the
 *    second round on it meets only those near its last one (Wang and others, "Fast approximate k-means via cluster
 *    closures", CVPR 2012), for centres hardly move past others: a round costs a tenth.
 * 2. Every sum that decides anything is a canonical one, or made of steps that are rounded one by one in a fixed order.
 * 3. A centre that nothing is nearest to is put beside the one with the most, as faiss does: they part in the next round.
 * 4. Equal distances go to the lower number. */
#include "index/kmeans.h"

#include "base/hash.h"
#include "kernel/strict.h"

#define IQ_KMEANS_APART (1.0f / 1024.0f)
#define IQ_KEY_FIRST (-3.0e38f)
#define IQ_KMEANS_NEAREST 4u /* of the codes, that are compared in f32 */

static uint32_t iq_centres_padded(uint32_t count) { return (uint32_t)iq_round_up(count, IQ_CODES_ROWS); }

static size_t iq_centres_vector_bytes(uint32_t count, uint32_t dim) {
    return (size_t)iq_centres_padded(count) * iq_row_stride(dim) * sizeof(float);
}

IQ_FN size_t iq_centres_bytes(uint32_t count, uint32_t dim, bool coded) {
    const size_t blocks = iq_centres_padded(count) / IQ_CODES_ROWS;
    return iq_centres_vector_bytes(count, dim) + (coded ? blocks * iq_codes_block_bytes(iq_codes_groups(dim)) : 0);
}

IQ_FN void iq_centres_start(iq_centres *centres, uint32_t count, uint32_t dim, bool coded, void *memory) {
    centres->count = count;
    centres->dim = dim;
    centres->stride = iq_row_stride(dim);
    centres->quant.dim = coded ? dim : 0;
    centres->quant.unit = false;
    centres->quant.basis = NULL;
    centres->vectors = (float *)memory;
    centres->blocks = (uint8_t *)memory + iq_centres_vector_bytes(count, dim);
}

static bool iq_centre_is_loose(const iq_centres *centres, uint32_t i) {
    const uint8_t *block = centres->blocks + i / IQ_CODES_ROWS * iq_quant_block_bytes(&centres->quant);
    return (block[4 * (i % IQ_CODES_ROWS) + 3] & 0x80u) != 0;
}

IQ_FN void iq_centres_note_loose(iq_centres *centres) {
    centres->loose = false;
    for (uint32_t i = 0; i < centres->count && centres->quant.dim != 0 && !centres->loose; i++)
        centres->loose = iq_centre_is_loose(centres, i);
}

/* To encode a centre, or for the words of a query and what they are made of. */
IQ_FN size_t iq_centres_scratch_bytes(const iq_centres *centres) {
    if (centres->quant.dim == 0) return IQ_CACHE_LINE;
    const size_t encode = iq_quant_encode_bytes(&centres->quant), probe = iq_quant_probe_bytes(&centres->quant);
    return iq_round_up(iq_round_up(centres->dim, 64) + (encode > probe ? encode : probe), IQ_CACHE_LINE);
}

IQ_FN void iq_centres_probe(const iq_centres *centres, iqdb_metric metric, const float *vector, iq_quant_probe *probe,
                            void *scratch) {
    int8_t *words = (int8_t *)scratch;
    iq_quant_probe_make(probe, &centres->quant, metric, vector, 1.0f, words, words + iq_round_up(centres->dim, 64));
    if (metric == IQDB_L2) probe->codes.square = 1.0f;
}

IQ_FN void iq_centres_rank(const iq_centres *centres, const iq_kernel *kernel, const iq_codes *codes,
                           iqdb_metric metric, const float *vector, const iq_quant_probe *probe, float *keys) {
    if (!probe->usable) {
        kernel->scan(vector, 1, centres->vectors, centres->stride, centres->count, keys, iq_score_sum_kind(metric));
        for (uint32_t i = 0; i < centres->count; i++) {
            if (metric == IQDB_DOT) keys[i] = -keys[i];
            /* Sums of infinities, and infinite products: before all others, but finite, as who ranks begins below. */
            if (iq_f32_is_nan(keys[i]) || keys[i] < IQ_KEY_FIRST) keys[i] = IQ_KEY_FIRST;
        }
        return;
    }
    codes->keys(&probe->codes, centres->blocks, iq_centres_padded(centres->count) / IQ_CODES_ROWS,
                iq_codes_groups(centres->dim), keys);
    /* Nothing is known of loose ones: they come first, and are looked at. */
    for (uint32_t i = 0; i < centres->count && centres->loose; i++)
        if (iq_centre_is_loose(centres, i)) keys[i] = IQ_KEY_FIRST;
}

/* Keeps `count` of `most` in order. */
static uint32_t iq_nearest_put(iq_nearest *out, uint32_t count, uint32_t most, uint32_t centre, float square) {
    if (count == most && !(square < out[count - 1].square)) return count;
    uint32_t at = count < most ? count : most - 1;
    for (; at > 0 && square < out[at - 1].square; at--) out[at] = out[at - 1];
    out[at].centre = centre;
    out[at].square = square;
    return count < most ? count + 1 : count;
}

IQ_FN uint32_t iq_centres_nearest(const iq_centres *centres, const iq_kernel *kernel, const iq_codes *codes,
                                  const float *vector, uint32_t want, iq_nearest *out, float *keys, void *scratch) {
    iq_nearest about[IQ_NEAREST_MAX];
    iq_quant_probe probe;
    uint32_t found = 0, count = 0;
    iq_centres_probe(centres, IQDB_L2, vector, &probe, scratch);
    iq_centres_rank(centres, kernel, codes, IQDB_L2, vector, &probe, keys);
    for (uint32_t i = 0; i < centres->count; i++)
        if (found < want || keys[i] < about[found - 1].square) found = iq_nearest_put(about, found, want, i, keys[i]);
    for (uint32_t i = 0; i < found; i++) {
        const float *centre = centres->vectors + about[i].centre * centres->stride;
        const float square = kernel->pair(vector, centre, centres->stride, IQ_SUM_SQUARES);
        /* Equal ones by number, whatever the codes say. */
        uint32_t at = count;
        for (; at > 0 && (square < out[at - 1].square ||
                          (!(square > out[at - 1].square) && about[i].centre < out[at - 1].centre));
             at--)
            out[at] = out[at - 1];
        out[at].centre = about[i].centre;
        out[at].square = square;
        count++;
    }
    return count;
}

enum {
    IQ_SELECT_SAMPLE = 256, /* keys at least, of which so many are put in order: */
    IQ_SELECT_SORTED = 128,
    IQ_SELECT_SLACK = 8,    /* of the sample: what is wanted is hardly further from where that says */
    IQ_KEYS_CHUNK = 64      /* keys: a loop that compilers turn into vectors */
};

/* The `most` smallest of every step-th key in order, or all of these; their number. */
static uint32_t iq_keys_sort(const float *keys, uint32_t count, uint32_t step, uint32_t most, float *out) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i += step) {
        const float key = keys[i];
        if (found == most && !(key < out[most - 1])) continue;
        uint32_t at = found < most ? found++ : most - 1;
        for (; at > 0 && key < out[at - 1]; at--) out[at] = out[at - 1];
        out[at] = key;
    }
    return found;
}

IQ_FN uint32_t iq_keys_below(const float *keys, uint32_t count, float limit) {
    uint32_t below = 0, i = 0;
    for (; i + IQ_KEYS_CHUNK <= count; i += IQ_KEYS_CHUNK) {
        const float *chunk = keys + i;
        for (int j = 0; j < (int)IQ_KEYS_CHUNK; j++) below += chunk[j] <= limit;
    }
    for (; i < count; i++) below += keys[i] <= limit;
    return below;
}

/* Between which two the wanted one is: where a sample says so, which is right mostly. */
static void iq_keys_near(const float *keys, uint32_t count, uint32_t want, float *low, float *high) {
    float sample[IQ_SELECT_SORTED];
    const uint32_t step = count / IQ_SELECT_SAMPLE, sampled = step < 2 ? 0 : (count + step - 1) / step;
    const uint32_t rank = (uint32_t)((uint64_t)want * sampled / count), most = rank + IQ_SELECT_SLACK + 1;
    if (most > IQ_SELECT_SORTED || most > sampled) return;
    (void)iq_keys_sort(keys, count, step, most, sample);
    const float first = rank < IQ_SELECT_SLACK ? *low : sample[rank - IQ_SELECT_SLACK], last = sample[most - 1];
    if (iq_keys_below(keys, count, first) < want) *low = first;
    if (iq_keys_below(keys, count, last) >= want) *high = last;
}

IQ_FN float iq_keys_select(const float *keys, uint32_t count, uint32_t want) {
    float first = -iq_f32_from_bits(0x7F800000u), last = first;
    const uint32_t slack = want / 16;
    for (uint32_t i = 0; want >= count && i < count; i++) last = keys[i] > last ? keys[i] : last;
    if (want >= count) return last;
    last = -first;
    iq_keys_near(keys, count, want, &first, &last);
    /* Half of what is between them, by the bits: 32 steps, whatever the numbers are. */
    uint32_t low = iq_score_key(first), high = iq_score_key(last);
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const float key = iq_f32_from_bits((middle & 0x80000000u) != 0 ? middle ^ 0x80000000u : ~middle);
        const uint32_t below = iq_keys_below(keys, count, key);
        if (below >= want) last = key;
        if (below >= want) high = middle;
        if (below < want) low = middle + 1;
        if (below >= want && below - want <= slack) break;
    }
    return last;
}

/* ---- training ---- */

static size_t iq_kmeans_part(size_t count, size_t size) { return iq_round_up(count * size, IQ_CACHE_LINE); }

IQ_FN size_t iq_kmeans_bytes(const iq_centres *centres, uint32_t sample_count) {
    return iq_kmeans_part((size_t)centres->count * centres->dim, sizeof(double)) +
           iq_kmeans_part(centres->count, sizeof(uint32_t)) + iq_kmeans_part(sample_count, sizeof(uint32_t)) +
           iq_kmeans_part((size_t)centres->count * IQ_NEAREST_MAX, sizeof(uint32_t)) +
           iq_kmeans_part(centres->stride, sizeof(float)) +
           iq_kmeans_part(iq_centres_padded(centres->count), sizeof(float)) + iq_centres_scratch_bytes(centres);
}

static void iq_kmeans_encode(iq_kmeans *kmeans, uint32_t i) {
    iq_centres *centres = kmeans->centres;
    uint8_t *block = centres->blocks + i / IQ_CODES_ROWS * iq_quant_block_bytes(&centres->quant);
    if (centres->quant.dim == 0) return;
    iq_quant_encode(&centres->quant, kmeans->kernel, centres->vectors + i * centres->stride, 1.0f, block,
                    i % IQ_CODES_ROWS, kmeans->scratch);
    centres->loose = centres->loose || iq_centre_is_loose(centres, i);
}

IQ_FN void iq_kmeans_start(iq_kmeans *kmeans, void *memory) {
    const iq_centres *centres = kmeans->centres;
    uint8_t *at = (uint8_t *)memory;
    const uint32_t count = centres->count, samples = kmeans->sample_count;
    kmeans->sums = (double *)(void *)at;
    at += iq_kmeans_part((size_t)count * centres->dim, sizeof(double));
    kmeans->counts = (uint32_t *)(void *)at;
    at += iq_kmeans_part(count, sizeof(uint32_t));
    kmeans->last = (uint32_t *)(void *)at;
    at += iq_kmeans_part(samples, sizeof(uint32_t));
    kmeans->neighbours = (uint32_t *)(void *)at;
    at += iq_kmeans_part((size_t)count * IQ_NEAREST_MAX, sizeof(uint32_t));
    kmeans->room = (float *)(void *)at;
    at += iq_kmeans_part(centres->stride, sizeof(float));
    kmeans->keys = (float *)(void *)at;
    kmeans->scratch = at + iq_kmeans_part(iq_centres_padded(count), sizeof(float));
    kmeans->round = 0;
    kmeans->at = samples; /* it begins with the end of a round that had no vectors */
    kmeans->sum = kmeans->inertia = 0.0;
    /* One of each of as many parts of the sample. */
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t from = (uint64_t)samples * i / count, to = (uint64_t)samples * (i + 1) / count;
        const uint64_t pick = from + (to > from ? iq_hash_u64(kmeans->seed ^ iq_hash_u64(i)) % (to - from) : 0);
        const float *vector = samples == 0 ? NULL : kmeans->vector_fn(kmeans->user, (uint32_t)pick, kmeans->room);
        float *centre = centres->vectors + i * centres->stride;
        memset(centre, 0, centres->stride * sizeof(float));
        if (vector != NULL) memcpy(centre, vector, centres->stride * sizeof(float));
    }
    for (uint32_t i = count; i < iq_centres_padded(count) && centres->quant.dim != 0; i++)
        iq_put_u32(centres->blocks + i / IQ_CODES_ROWS * iq_quant_block_bytes(&centres->quant) +
                       4 * (i % IQ_CODES_ROWS),
                   IQ_CODES_LOOSE);
}

/* Half of the largest set for a centre that has none; false where no set can be parted. */
static bool iq_kmeans_part_largest(iq_kmeans *kmeans, uint32_t empty) {
    const iq_centres *centres = kmeans->centres;
    uint32_t largest = 0;
    for (uint32_t i = 1; i < centres->count; i++)
        if (kmeans->counts[i] > kmeans->counts[largest]) largest = i;
    if (kmeans->counts[largest] < 2) return false;
    float *from = centres->vectors + largest * centres->stride, *to = centres->vectors + empty * centres->stride;
    for (size_t j = 0; j < centres->dim; j++) {
        const float apart = iq_strict_f32(from[j] * IQ_KMEANS_APART) * (j % 2 == 0 ? 1.0f : -1.0f);
        to[j] = from[j] + apart;
        from[j] -= apart;
    }
    kmeans->counts[empty] = kmeans->counts[largest] / 2;
    kmeans->counts[largest] -= kmeans->counts[empty];
    return true;
}

static void iq_kmeans_move(iq_kmeans *kmeans) {
    iq_centres *centres = kmeans->centres;
    for (uint32_t i = 0; i < centres->count; i++) {
        const double *sum = kmeans->sums + (size_t)i * centres->dim;
        float *centre = centres->vectors + i * centres->stride;
        for (size_t j = 0; j < centres->dim && kmeans->counts[i] > 0; j++)
            centre[j] = iq_strict_f32((float)(sum[j] / (double)kmeans->counts[i]));
    }
    for (uint32_t i = 0; i < centres->count && kmeans->round > 0; i++)
        if (kmeans->counts[i] == 0 && !iq_kmeans_part_largest(kmeans, i)) break;
    memset(kmeans->sums, 0, (size_t)centres->count * centres->dim * sizeof(double));
    memset(kmeans->counts, 0, centres->count * sizeof(uint32_t));
    kmeans->inertia = kmeans->sum;
    kmeans->sum = 0.0;
    centres->loose = false;
}

static void iq_kmeans_find_near(iq_kmeans *kmeans, uint32_t i) {
    const iq_centres *centres = kmeans->centres;
    iq_nearest nearest[IQ_NEAREST_MAX];
    const uint32_t found =
        iq_centres_nearest(centres, kmeans->kernel, kmeans->codes, centres->vectors + i * centres->stride,
                           IQ_NEAREST_MAX, nearest, kmeans->keys, kmeans->scratch);
    for (uint32_t j = 0; j < found; j++) kmeans->neighbours[(size_t)i * IQ_NEAREST_MAX + j] = nearest[j].centre;
}

/* The centre of vector i. */
static iq_nearest iq_kmeans_assign(iq_kmeans *kmeans, uint32_t i, const float *vector) {
    const iq_centres *centres = kmeans->centres;
    const uint32_t count = centres->count < IQ_NEAREST_MAX ? centres->count : IQ_NEAREST_MAX;
    const uint32_t *neighbours = kmeans->neighbours + (size_t)kmeans->last[i] * IQ_NEAREST_MAX;
    iq_nearest nearest[IQ_KMEANS_NEAREST];
    if (kmeans->round == 1) {
        (void)iq_centres_nearest(centres, kmeans->kernel, kmeans->codes, vector, IQ_KMEANS_NEAREST, nearest,
                                 kmeans->keys, kmeans->scratch);
        return nearest[0];
    }
    for (uint32_t j = 0; j < count; j++) {
        const float square = kmeans->kernel->pair(vector, centres->vectors + neighbours[j] * centres->stride,
                                                  centres->stride, IQ_SUM_SQUARES);
        if (j > 0 && !(square < nearest[0].square)) continue;
        nearest[0].centre = neighbours[j];
        nearest[0].square = square;
    }
    return nearest[0];
}

static void iq_kmeans_add(iq_kmeans *kmeans, uint32_t i) {
    const size_t dim = kmeans->centres->dim;
    const float *vector = kmeans->vector_fn(kmeans->user, i, kmeans->room);
    if (vector == NULL) return;
    const iq_nearest nearest = iq_kmeans_assign(kmeans, i, vector);
    double *sum = kmeans->sums + (size_t)nearest.centre * dim;
    for (size_t j = 0; j < dim; j++) sum[j] += (double)vector[j];
    kmeans->counts[nearest.centre]++;
    kmeans->last[i] = nearest.centre;
    kmeans->sum = iq_strict_f64(kmeans->sum + (double)nearest.square);
}

/* A round adds all vectors up, moves the centres, encodes them, and finds those that are near each other. */
IQ_FN bool iq_kmeans_step(iq_kmeans *kmeans) {
    const uint32_t count = kmeans->centres->count, moved = kmeans->sample_count, encoded = moved + count;
    for (uint32_t i = 0; i < IQ_KMEANS_UNIT; i++, kmeans->at++) {
        if (kmeans->at == moved) iq_kmeans_move(kmeans);
        if (kmeans->at < moved) {
            iq_kmeans_add(kmeans, kmeans->at);
        } else if (kmeans->at < encoded) {
            iq_kmeans_encode(kmeans, kmeans->at - moved);
        } else if (kmeans->at < encoded + count && kmeans->round > 0 && kmeans->round < IQ_KMEANS_ROUNDS) {
            iq_kmeans_find_near(kmeans, kmeans->at - encoded);
        } else if (kmeans->round++ == IQ_KMEANS_ROUNDS) {
            return true;
        } else {
            kmeans->at = 0;
            return false;
        }
    }
    return false;
}
