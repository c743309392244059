/* Coding rows, and proving from codes that rows are beyond a threshold.
 *
 * What is coded. Let z be what stands for a row: the row itself, or for unit codes the row divided by its stored norm;
 * with a matrix M the centre is taken away. x is z as it was computed in f32, q likewise for the query (for DOT: the
 * query itself). With y = fl(Mx), or y = x without a matrix, the code is a vector v with v[i] = mid + h (2 c[i] - 15);
 * mid is 0 with a matrix. h and mid are scaled so that <v, y> = |y|^2, not for the least error: then the rest r = y - v
 * is orthogonal to y, estimates have no bias (Gao and Long, "RaBitQ", SIGMOD 2024, section 3.2), and the bound below
 * needs no term for <r, y>. Codes try several ranges, each narrower than the row's own, and the best one stays.
 *
 * Stored, all relative to n so that no row spoils the precision of another: n <= |x|; step = h / n * 2^19; error >=
 * |r| / n * 2^13; side = mid / n / (8 / 32767 / sqrt(head)), or with a matrix side >= |t| / n * 32000, where t is the
 * tail x - M^T y. A row whose code does not fit (|r| > n / 2, |<r, y>| > 2^-11 n |y|, |x| > 2^60)
 * is loose: always listed. A row shorter than 2^-50 has n = 0.
 *
 * The bound. With p = fl(Mq), the words w with the scale s, and the query's tail u = q - M^T p, all vectors as they are
 * in memory and all sums in real numbers,
 *     <q, x> = s <w, v> + <p - s w, v> + <p, r> + <u, t> + leak
 * is an identity that holds for any M. Here
 *   (a) |<p - s w, v>| <= |p - s w| * 1.13 n', where n' = n (1 + 2^-9) >= |x| and |v|^2 <= |y|^2 + |r|^2 + ...
 *   (b) <u, t> <= |u| |t|; |t|^2 = |x|^2 - |y|^2 up to (2 epsilon + skew) |x|^2, and |u| in the same way.
 *   (c) |leak| <= 2.5 (epsilon + skew) Q n', from |y - Mx| <= epsilon |x|, |p - Mq| <= epsilon |q| and
 *       |I - M M^T| <= skew; epsilon = sqrt(head) gamma.
 *   (d) r is orthogonal to y but for 2^-11 n / |y| of it, so for every number a
 *       |<p, r>| <= |p - a y| |r| + 2^-11 Q n', and |p - a y| <= (1 + skew) |q - a x| + 2 epsilon (Q + |q - a x|).
 * For (d) assume that the row's key is at most the threshold's, which the test is to refute. For L2 and COSINE
 * |q - x| <= R, and |q - a x|^2 = (1 - a) Q^2 + a |q - x|^2 - a (1 - a) |x|^2 with 0 <= a <= 1. For DOT <q, x> >= b, and
 * |q - a x|^2 <= Q^2 - 2 a b + a^2 |x|^2. Both are A + B n^2, and sqrt(Y) <= (Y / m + m) / 2 for any m > 0 makes that
 * linear: a and m are chosen so that equality holds at one length, the typical one. So a scan needs no root.
 * R allows for z - x: |x - z| <= 2^-22 (|x| + 1 for unit codes), and the same for the query.
 * All other rounding, of the scan's own f32 steps too, is below 2^-15 of Q n, R n, n^2, Q^2 or R^2, and is added.
 *
 * From scores to keys. gamma = (dim / 32 + 16) 2^-24 bounds the relative error of a canonical sum against the sum of
 * the sizes of its terms: per term at most three roundings, dim / 32 additions in a lane, five in the tree; products
 * that vanish add at most dim * 2^-149. iq_score_sum_bound says which sums are beyond a score. So a sum of squares is
 * beyond B if |q - x|^2 > (B + 2^-130) / (1 - gamma), and products likewise; quotients by norms see below. */
#include "index/quant.h"

#include "kernel/strict.h"

#define IQ_QUANT_LONGEST 1.152921504606846976e18 /* 2^60 */
#define IQ_QUANT_SHORTEST 8.8817841970012523e-16 /* 2^-50 */
#define IQ_QUANT_STEP 524288.0                   /* 2^19 */
#define IQ_QUANT_ERROR 8192.0                    /* 2^13 */
#define IQ_QUANT_TAIL 32000.0
#define IQ_QUANT_SHIFT 8.0 /* a shift of codes by up to 8 n / sqrt(head) can be told */
#define IQ_QUANT_CHUNK 32u
#define IQ_QUANT_Z 2.0 /* standard deviations that estimates allow for */

static const double iq_quant_tiny = 1.0 / 65536.0; /* 2^-16 */

IQ_INLINE double iq_quant_side_unit(const iq_quant *quant) {
    if (quant->matrix != NULL) return 1.0 / IQ_QUANT_TAIL;
    const double most = IQ_QUANT_SHIFT / iq_sqrt_f64((double)quant->head);
    return (most < 1.3 ? most : 1.3) / 32767.0;
}
IQ_INLINE double iq_quant_gamma(uint32_t dim) {
    return ((double)(dim / 32) + 17.0) / 16777216.0;
}
IQ_INLINE double iq_quant_epsilon(const iq_quant *quant) {
    return quant->matrix == NULL ? 0.0 : 1.02 * iq_sqrt_f64((double)quant->head) * iq_quant_gamma(quant->dim);
}
IQ_INLINE size_t iq_quant_padded(const iq_quant *quant) {
    return iq_round_up(quant->head, IQ_QUANT_CHUNK);
}
IQ_INLINE bool iq_quant_finite(float v) {
    return (iq_f32_bits(v) & 0x7F800000u) != 0x7F800000u;
}

/* ---- what is coded of a vector ---- */

/* out = vector / norm - centre, each step rounded once. Padding becomes zero. */
static void iq_quant_prepare(const iq_quant *quant, bool unit, bool centred, const float *vector, float norm,
                             float *out) {
    const size_t stride = iq_row_stride(quant->dim);
    const bool divide = unit && norm != 0.0f;
    for (size_t i = 0; i < stride; i += IQ_ROW_FLOATS) {
        float part[IQ_ROW_FLOATS];
        for (size_t j = 0; j < IQ_ROW_FLOATS; j++) part[j] = divide ? vector[i + j] / norm : vector[i + j];
        IQ_STRICT_MEMORY(part);
        if (centred && quant->centre != NULL)
            for (size_t j = 0; j < IQ_ROW_FLOATS; j++) part[j] -= quant->centre[i + j];
        memcpy(out + i, part, sizeof part);
    }
}

/* ---- encoding ---- */

/* Sums over y and the levels l = 2 c - 15 of a range. */
typedef struct iq_quant_fit {
    double levels, squares, products;
} iq_quant_fit;

/* Which of the sixteen levels, 2 / scale apart and around mid, is nearest to y. */
IQ_INLINE void iq_quant_codes(const float *y, size_t count, float mid, float scale, int32_t *codes) {
    float part[IQ_QUANT_CHUNK];
    for (size_t j = 0; j < count; j++) part[j] = y[j] - mid;
    IQ_STRICT_MEMORY(part);
    for (size_t j = 0; j < count; j++) part[j] *= scale;
    IQ_STRICT_MEMORY(part);
    for (size_t j = 0; j < count; j++) {
        float moved = part[j] + 8.0f;
        moved = moved > 0.0f ? moved : 0.0f;
        moved = moved < 15.0f ? moved : 15.0f;
        codes[j] = (int32_t)moved;
    }
}

/* Sums in lanes: of levels, of their squares (both are whole numbers below 2^24), and of their products with y. */
typedef struct iq_quant_lanes {
    float levels[IQ_QUANT_CHUNK], squares[IQ_QUANT_CHUNK], products[IQ_QUANT_CHUNK];
} iq_quant_lanes;

IQ_INLINE void iq_quant_add(iq_quant_lanes *lanes, const float *y, size_t count, float mid, float scale) {
    int32_t codes[IQ_QUANT_CHUNK];
    float level[IQ_QUANT_CHUNK], terms[IQ_QUANT_CHUNK];
    memset(terms, 0, sizeof terms);
    iq_quant_codes(y, count, mid, scale, codes);
    for (size_t j = 0; j < count; j++) level[j] = (float)(2 * codes[j] - 15);
    for (size_t j = 0; j < count; j++) terms[j] = y[j] * level[j];
    IQ_STRICT_MEMORY(terms);
    for (size_t j = 0; j < count; j++) lanes->levels[j] += level[j];
    for (size_t j = 0; j < count; j++) lanes->squares[j] += level[j] * level[j];
    for (size_t j = 0; j < count; j++) lanes->products[j] += terms[j];
    IQ_STRICT_MEMORY(lanes->products);
}

static iq_quant_fit iq_quant_try(const float *y, size_t head, float mid, float scale) {
    iq_quant_lanes lanes;
    iq_quant_fit fit;
    size_t i = 0;
    memset(&lanes, 0, sizeof lanes);
    memset(&fit, 0, sizeof fit);
    for (; i + IQ_QUANT_CHUNK <= head; i += IQ_QUANT_CHUNK) iq_quant_add(&lanes, y + i, IQ_QUANT_CHUNK, mid, scale);
    if (i < head) iq_quant_add(&lanes, y + i, head - i, mid, scale);
    for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) {
        fit.levels += (double)lanes.levels[j];
        fit.squares += (double)lanes.squares[j];
        fit.products = iq_strict_f64(fit.products + (double)lanes.products[j]);
    }
    return fit;
}

/* The shift and half step for these levels that come nearest to y, and the square of that nearest vector's length. */
static double iq_quant_solve(const iq_quant_fit *fit, double sum_y, size_t head, bool shifted, double *out_mid,
                             double *out_half) {
    const double count = (double)head;
    if (!shifted) {
        *out_mid = 0.0;
        *out_half = iq_strict_f64(fit->products / fit->squares);
        return iq_strict_f64(fit->products * *out_half);
    }
    const double spread = fit->squares - iq_strict_f64(iq_strict_f64(fit->levels * fit->levels) / count);
    const double mean = iq_strict_f64(sum_y / count);
    const double covariance = fit->products - iq_strict_f64(mean * fit->levels);
    *out_half = spread >= 0.5 ? iq_strict_f64(covariance / spread) : 0.0;
    *out_mid = mean - iq_strict_f64(iq_strict_f64(*out_half * fit->levels) / count);
    return iq_strict_f64(mean * sum_y) + iq_strict_f64(*out_half * covariance);
}

static double iq_quant_sum(const float *y, size_t head) {
    float lanes[IQ_QUANT_CHUNK];
    double sum = 0.0;
    size_t i = 0;
    memset(lanes, 0, sizeof lanes);
    for (; i + IQ_QUANT_CHUNK <= head; i += IQ_QUANT_CHUNK) {
        for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) lanes[j] += y[i + j];
        IQ_STRICT_MEMORY(lanes);
    }
    for (; i < head; i++) sum = iq_strict_f64(sum + (double)y[i]);
    for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) sum = iq_strict_f64(sum + (double)lanes[j]);
    return sum;
}

/* What goes into a block for one row. */
typedef struct iq_quant_words {
    uint32_t a, b;
    float mid, scale; /* the range, for the codes */
} iq_quant_words;

/* Truncates to 12 digits; v is positive and normal. */
IQ_INLINE float iq_quant_floor(float v) {
    return iq_f32_from_bits(iq_f32_bits(v) & IQ_CODES_SIZE_MASK);
}

/* out = y - v, v = mid + h (2 c - 15), in f32: less than 2^-18 n away from what the block's own numbers leave. */
static void iq_quant_rest(const float *y, const int32_t *codes, size_t count, float mid, float half, float *out) {
    float part[IQ_QUANT_CHUNK];
    memset(part, 0, sizeof part);
    for (size_t j = 0; j < count; j++) part[j] = half * (float)(2 * codes[j] - 15);
    IQ_STRICT_MEMORY(part);
    for (size_t j = 0; j < count; j++) part[j] += mid;
    IQ_STRICT_MEMORY(part);
    for (size_t j = 0; j < count; j++) out[j] = y[j] - part[j];
}

/* The best range for y, its sums taken: shrunk until less is gained inside than is lost by clipping. */
static double iq_quant_range(const iq_quant *quant, const float *y, double sum_y, iq_quant_words *words,
                             double *out_mid, double *out_half) {
    static const float shrinks[] = {1.0f, 0.9f, 0.8f, 0.7f, 0.6f};
    const bool shifted = quant->matrix == NULL;
    float low = y[0], high = y[0], best_mid = 0.0f, best_scale = 0.0f;
    double best = -1.0;
    for (size_t i = 1; i < quant->head; i++) {
        low = y[i] < low ? y[i] : low;
        high = y[i] > high ? y[i] : high;
    }
    if (!shifted) {
        high = -low > high ? -low : high;
        low = -high;
    }
    const float mid = iq_strict_f32(low * 0.5f) + iq_strict_f32(high * 0.5f);
    const float radius = iq_strict_f32(high * 0.5f) - iq_strict_f32(low * 0.5f);
    if (!(radius > 0.0f)) { /* one value everywhere */
        words->mid = mid;
        words->scale = 0.0f;
        *out_mid = (double)mid;
        *out_half = 0.0;
        return -1.0;
    }
    for (size_t s = 0; s < IQ_COUNT_OF(shrinks); s++) {
        double middle, half;
        const float scale = iq_strict_f32(7.5f / iq_strict_f32(radius * shrinks[s]));
        if (!iq_quant_finite(scale)) continue;
        const iq_quant_fit fit = iq_quant_try(y, quant->head, mid, scale);
        const double score = iq_quant_solve(&fit, sum_y, quant->head, shifted, &middle, &half);
        if (!(score > best)) {
            if (s > 1) break;
            continue;
        }
        best = score;
        best_mid = mid;
        best_scale = scale;
        *out_mid = middle;
        *out_half = half;
    }
    words->mid = best_mid;
    words->scale = best_scale;
    return best;
}

static uint32_t iq_quant_ceil(double v) {
    const double limit = 1e9;
    if (!(v < limit)) return 1000000000u;
    const uint32_t whole = (uint32_t)v;
    return (double)whole < v ? whole + 1 : whole;
}
static int32_t iq_quant_round(double v) {
    const double limit = 1e9;
    if (!(v < limit && v > -limit)) return 1000000000;
    return v < 0.0 ? -(int32_t)(0.5 - v) : (int32_t)(v + 0.5);
}

/* One row: y is its head, `square` = |x|^2 as the kernel sums it. codes and `rest` are room for head rounded up. */
static iq_quant_words iq_quant_row_words(const iq_quant *quant, const iq_kernel *kernel, const float *y, float square,
                                         uint8_t *codes, float *rest) {
    iq_quant_words words;
    const size_t head = quant->head;
    memset(codes, 0, iq_quant_padded(quant));
    words.a = IQ_CODES_LOOSE;
    words.b = 0;
    words.mid = words.scale = 0.0f;
    if (!iq_quant_finite(square)) return words;
    const double length = iq_sqrt_f64((double)square);
    if (length > IQ_QUANT_LONGEST) return words;
    if (length < IQ_QUANT_SHORTEST) {
        words.a = 0;
        return words;
    }
    const float n = iq_quant_floor((float)iq_strict_f64(length * (1.0 - 1.0 / 4096.0)));
    const double gamma = iq_quant_gamma(quant->dim), epsilon = iq_quant_epsilon(quant);
    const double head_square = (double)kernel->pair[IQ_SUM_PRODUCTS](y, y, head), unit = iq_quant_side_unit(quant);
    double sum_y = 0.0, mid = 0.0, half = 0.0;
    sum_y = iq_quant_sum(y, head);
    const double best = iq_quant_range(quant, y, sum_y, &words, &mid, &half);
    /* Scaled so that <v, y> = |y|^2. */
    const double scaled = best > 0.0 ? iq_strict_f64(head_square / best) : 1.0;
    const int32_t step = iq_quant_round(iq_strict_f64(half * scaled) / (double)n * IQ_QUANT_STEP);
    int32_t side = iq_quant_round(iq_strict_f64(mid * scaled) / (double)n / unit);
    if (step < 0 || step > 65535 || side < -32768 || side > 32767) return words;
    for (size_t i = 0; i < head; i += IQ_QUANT_CHUNK) {
        const size_t count = head - i < IQ_QUANT_CHUNK ? head - i : IQ_QUANT_CHUNK;
        int32_t chosen[IQ_QUANT_CHUNK];
        const float h = iq_strict_f32((float)((double)n * ((double)step / IQ_QUANT_STEP)));
        const float m = quant->matrix != NULL ? 0.0f : iq_strict_f32((float)((double)n * ((double)side * unit)));
        memset(chosen, 0, sizeof chosen);
        if (words.scale > 0.0f) iq_quant_codes(y + i, count, words.mid, words.scale, chosen);
        iq_quant_rest(y + i, chosen, count, m, h, rest + i);
        for (size_t j = 0; j < count; j++) codes[i + j] = (uint8_t)chosen[j];
    }
    /* What the code in memory leaves, whatever has been rounded on the way to it. */
    const double error =
        iq_sqrt_f64((double)kernel->pair[IQ_SUM_PRODUCTS](rest, rest, head)) * (1.0 + gamma) + length / 262144.0;
    const double slant = (double)kernel->pair[IQ_SUM_PRODUCTS](rest, y, head);
    const double slant_most = iq_sqrt_f64(head_square) * ((double)n * (1.0 / 2100.0 - 1.0 / 262144.0) - gamma * error);
    const uint32_t rounded = iq_quant_ceil(error / (double)n * IQ_QUANT_ERROR);
    if (rounded > IQ_CODES_ERROR_MASK || slant > slant_most || slant < -slant_most) return words;
    if (quant->matrix != NULL) {
        const double square_most = (double)square * (1.0 + 4.0 * (gamma + epsilon + (double)quant->skew));
        const double tail = square_most - head_square;
        const uint32_t tail_up = iq_quant_ceil(iq_sqrt_f64(tail > 0.0 ? tail : 0.0) / (double)n * IQ_QUANT_TAIL);
        if (tail_up > 32767) return words;
        side = (int32_t)tail_up;
    }
    words.a = (iq_f32_bits(n) & IQ_CODES_SIZE_MASK) | rounded;
    words.b = (uint32_t)step | (uint32_t)side << 16;
    return words;
}

/* scratch: sixteen prepared rows, sixteen heads, a rest, codes. */
IQ_FN size_t iq_quant_encode_bytes(const iq_quant *quant) {
    const size_t stride = iq_row_stride(quant->dim), padded = iq_quant_padded(quant);
    return (IQ_CODES_ROWS * (stride + (quant->matrix != NULL ? padded : 0)) + padded) * sizeof(float) + padded;
}

IQ_FN void iq_quant_encode(const iq_quant *quant, const iq_kernel *kernel, const float *rows, const float *norms,
                           uint8_t *block, void *scratch) {
    const size_t stride = iq_row_stride(quant->dim), padded = iq_quant_padded(quant);
    float *prepared = (float *)scratch, *heads = prepared + IQ_CODES_ROWS * stride;
    float *rest = heads + (quant->matrix != NULL ? IQ_CODES_ROWS * padded : 0);
    uint8_t *codes = (uint8_t *)(void *)(rest + padded);
    const uint32_t groups = iq_codes_groups(quant->head);
    memset(block, 0, iq_codes_block_bytes(groups));
    for (uint32_t r = 0; r < IQ_CODES_ROWS; r++)
        iq_quant_prepare(quant, quant->unit, true, rows + r * stride, quant->unit ? norms[r] : 1.0f,
                         prepared + r * stride);
    if (quant->matrix != NULL)
        kernel->scan[IQ_SUM_PRODUCTS](prepared, IQ_CODES_ROWS, quant->matrix, stride, quant->head, heads);
    for (uint32_t r = 0; r < IQ_CODES_ROWS; r++) {
        const float *x = prepared + r * stride, *y = quant->matrix != NULL ? heads + r * quant->head : x;
        iq_quant_words words =
            iq_quant_row_words(quant, kernel, y, kernel->pair[IQ_SUM_PRODUCTS](x, x, quant->dim), codes, rest);
        /* Quotients by such norms are not what scores are made of; a zero row's score is 1, and its code, that of a
         * zero, is nearer to any query. */
        if (quant->unit && norms[r] != 0.0f && (!(norms[r] >= IQ_NORM_SURE) || !iq_quant_finite(norms[r])))
            words.a = IQ_CODES_LOOSE;
        iq_put_u32(block + 4 * r, words.a);
        iq_put_u32(block + 64 + 4 * r, words.b);
        for (uint32_t g = 0; g < groups; g++) {
            uint8_t *to = block + IQ_CODES_FACTORS + (size_t)g * 64 + 4 * r;
            const uint8_t *from = codes + (size_t)g * 8;
            for (uint32_t j = 0; j < 4; j++) to[j] = (uint8_t)(from[j] | from[j + 4] << 4);
        }
    }
}

/* ---- probes ---- */

/* The prepared query and its head. */
IQ_FN size_t iq_quant_probe_bytes(const iq_quant *quant) {
    return (iq_row_stride(quant->dim) + iq_quant_padded(quant)) * sizeof(float);
}

static double iq_quant_square(const float *v, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += (double)v[i] * (double)v[i];
    return sum;
}

/* Words of 8 bits for p; |p - s w| goes to word_error, and the sum of the words is returned. */
static int32_t iq_quant_probe_words(iq_quant_probe *probe, const float *p, size_t count, int8_t *words,
                                    double *out_scale) {
    double most = 0.0, missed = 0.0;
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double size = p[i] < 0.0f ? -(double)p[i] : (double)p[i];
        if (size > most) most = size;
    }
    const double scale = most / 127.0, inverse = most > 0.0 ? 127.0 / most : 0.0;
    for (size_t i = 0; i < count; i++) {
        int32_t word = iq_quant_round((double)p[i] * inverse);
        if (word > 127) word = 127;
        if (word < -127) word = -127;
        const double difference = (double)p[i] - scale * (double)word;
        words[i] = (int8_t)word;
        missed += difference * difference;
        sum += word;
    }
    for (size_t i = count; i < iq_round_up(count, 8); i++) words[i] = 0;
    probe->word_error = iq_sqrt_f64(missed) * (1.0 + iq_quant_tiny) + most * iq_quant_tiny / 1024.0;
    *out_scale = scale;
    return sum;
}

IQ_FN void iq_quant_probe_make(iq_quant_probe *probe, const iq_quant *quant, const iq_kernel *kernel,
                               iqdb_metric metric, const float *query, float norm, int8_t *words, void *scratch) {
    const size_t stride = iq_row_stride(quant->dim);
    float *q = (float *)scratch, *p = q;
    double scale;
    memset(probe, 0, sizeof *probe);
    probe->metric = metric;
    probe->norm = norm;
    probe->tail = quant->matrix != NULL;
    probe->sum_error = iq_quant_gamma(quant->dim);
    probe->map_error = iq_quant_epsilon(quant);
    probe->skew = (double)quant->skew;
    probe->codes.words = (const int32_t *)(const void *)words;
    if (!iq_quant_serves(quant, metric)) return;
    if (quant->unit && !(norm >= IQ_NORM_SURE && iq_quant_finite(norm))) return;
    iq_quant_prepare(quant, quant->unit, metric != IQDB_DOT, query, norm, q);
    const double square = iq_quant_square(q, quant->dim);
    probe->length = iq_sqrt_f64(square) * (1.0 + iq_quant_tiny / 1024.0);
    if (!(probe->length >= IQ_QUANT_SHORTEST && probe->length <= IQ_QUANT_LONGEST)) return;
    if (metric != IQDB_DOT) probe->square = square;
    if (quant->matrix != NULL) {
        p = q + stride;
        kernel->scan[IQ_SUM_PRODUCTS](q, 1, quant->matrix, stride, quant->head, p);
        const double tail = square * (1.0 + 4.0 * (probe->map_error + probe->skew)) - iq_quant_square(p, quant->head);
        probe->tail_length = iq_sqrt_f64(tail > 0.0 ? tail : 0.0) * (1.0 + iq_quant_tiny);
        probe->centre = iq_sqrt_f64(iq_quant_square(quant->centre, quant->dim));
        if (metric == IQDB_DOT)
            for (size_t i = 0; i < quant->dim; i++) probe->offset += (double)q[i] * (double)quant->centre[i];
        if (!(probe->centre <= IQ_QUANT_LONGEST)) return;
    }
    const int32_t sum = iq_quant_probe_words(probe, p, quant->head, words, &scale);
    const double unit = iq_quant_side_unit(quant);
    probe->codes.centre = 15 * sum;
    probe->codes.cross_scale = (float)(2.0 * scale / IQ_QUANT_STEP);
    probe->codes.side_scale = (float)(2.0 * unit * (probe->tail ? probe->tail_length : scale * (double)sum));
    probe->codes.square = metric == IQDB_DOT ? 0.0f : (float)(1.0 - iq_quant_tiny / 4.0);
    const double spread = IQ_QUANT_Z / iq_sqrt_f64((double)quant->head);
    probe->spread = spread < 1.0 ? spread : 1.0;
    probe->usable = true;
}

/* COSINE: a row is beyond B = iq_score_sum_bound if its sum is below fl(B * norm), where the norm is at least 2^-50 and
 * differs from the true length by gamma. So it is if the product of the quotients by both norms is below c = (B (1 -+
 * 2^-23) - 1.01 gamma |q| - 2^-83) / norm_q; and their squared distance is then above |.|^2 + |.|^2 - 2 c, where either
 * square is at most 1 + 3 gamma. */
IQ_FN double iq_quant_key_beyond(const iq_quant_probe *probe, float score) {
    const double gamma = probe->sum_error, endless = (double)iq_f32_from_bits(0x7F800000u);
    if (!iq_quant_finite(score)) return endless;
    const float bound = iq_score_sum_bound(probe->metric, score, probe->norm);
    if (!iq_quant_finite(bound)) return endless;
    const double b = (double)bound, size = b < 0.0 ? -b : b;
    if (probe->metric == IQDB_L2) return (b + 1e-38) / (1.0 - 2.0 * gamma) - probe->square;
    if (probe->metric == IQDB_DOT) {
        const double slack = (size + probe->length * probe->centre) * iq_quant_tiny / 16.0;
        return -2.0 * (b - probe->offset - slack - 2.0 * gamma * probe->length * probe->centre - 1e-37);
    }
    const double norm = (double)probe->norm;
    return 2.0 - 2.0 * (b / norm - size / norm * iq_quant_tiny / 64.0) + 12.0 * gamma + 1e-9 - probe->square;
}

IQ_FN double iq_quant_key_of(const iq_quant_probe *probe, float score) {
    const double s = (double)score;
    if (probe->metric == IQDB_L2) return s * s - probe->square;
    if (probe->metric == IQDB_DOT) return 2.0 * (s + probe->offset);
    return 2.0 * s - probe->square;
}

/* |q - a x|^2 <= constant + factor n^2 for rows that are wanted, a being best for `size`: (d) above. */
static void iq_quant_aim_at(const iq_quant_probe *probe, double key, double root, double size, double *out_constant,
                            double *out_factor) {
    const double q = probe->length, rounding = 1.0 / 4194304.0;
    double a = 0.0;
    if (probe->metric == IQDB_DOT) {
        const double least = -0.5 * key; /* of products with rows that are wanted: those are least / q long */
        if (least > 0.0 && size < least / q) size = least / q;
        if (least > 0.0 && size > 0.0) a = least / (size * size);
        *out_constant = q * q * (1.0 + 2.0 * (probe->sum_error + rounding) + iq_quant_tiny) - 2.0 * a * least;
        *out_factor = a * a * (1.0 + 1.0 / 128.0);
        return;
    }
    if (size > 0.0) a = (q * q + size * size - root * root) / (2.0 * size * size);
    a = size <= 0.0 || a > 1.0 ? 1.0 : a < 0.0 ? 0.0 : a;
    *out_constant = ((1.0 - a) * q * q + a * root * root) * (1.0 + iq_quant_tiny);
    *out_factor = a * rounding * 4.0 - a * (1.0 - a) * (1.0 - 1.0 / 128.0);
}

IQ_FN void iq_quant_aim(iq_quant_probe *probe, double key, double size) {
    const double q = probe->length, rounding = 1.0 / 4194304.0, unit = probe->metric == IQDB_COSINE ? 1.0 : 0.0;
    const double map_error = probe->map_error + probe->skew, most = 3.0e38, large = 1e30;
    double root = 0.0, constant, factor, limit = key + (key < 0.0 ? -key : key) * iq_quant_tiny / 16.0;
    iq_codes_probe *codes = &probe->codes;
    codes->limit = (float)most;
    codes->error_scale = (float)(2.0 * q / IQ_QUANT_ERROR); /* for estimates */
    codes->error_square = codes->linear = 0.0f;
    if (!(key < most)) return;
    if (probe->metric != IQDB_DOT) {
        const double square = key + probe->square;
        root = iq_sqrt_f64(square > 0.0 ? square : 0.0) + rounding * (q + 2.0 * unit);
        limit = root * root - probe->square + (root * root + probe->square) * iq_quant_tiny / 16.0;
    }
    iq_quant_aim_at(probe, key, root, size, &constant, &factor);
    /* The length for which the error is counted, where size is right; not so small that the numbers cancel. */
    const double at_size = constant + factor * size * size, least_length = (q + root) / 64.0;
    double length = iq_sqrt_f64(at_size > 0.0 ? at_size : 0.0);
    if (length < least_length) length = least_length;
    const double size_of_factor = (factor < 0.0 ? -factor : factor) / length;
    if (!(size_of_factor < large && size_of_factor > 1.0 / large)) { /* no f32 for it; a = 0 is always right */
        constant = q * q * (1.0 + iq_quant_tiny);
        factor = 0.0;
        length = q;
    }
    const double more = 1.0 + 1.0 / 1024.0 + 4.0 * map_error;
    codes->error_scale = (float)((constant / length + length) * more / IQ_QUANT_ERROR);
    codes->error_square = (float)(factor / length * more / IQ_QUANT_ERROR);
    const double linear = 2.1 * q / 2048.0 + 2.3 * probe->word_error + 8.0 * map_error * q +
                          2.1 * (root + q) * rounding + 2.1 * probe->sum_error * q +
                          2.0 * iq_quant_tiny * (q + root + probe->tail_length);
    codes->linear = (float)(linear * (1.0 + 1.0 / 256.0));
    limit += q * 4.0 * IQ_QUANT_SHORTEST + 1e-30;
    limit += (limit < 0.0 ? -limit : limit) * iq_quant_tiny / 64.0;
    if (limit < most) codes->limit = (float)limit;
}

/* ---- rows that a scan has listed ---- */

IQ_FN iq_quant_row iq_quant_look(const iq_quant_probe *probe, const uint8_t *block, uint32_t row, int32_t sum) {
    const uint32_t a = iq_get_u32(block + 4 * (size_t)row), b = iq_get_u32(block + 64 + 4 * (size_t)row);
    iq_quant_row out;
    out.size = (a & IQ_CODES_LOOSE) != 0 ? -1.0f : iq_f32_from_bits(a & IQ_CODES_SIZE_MASK);
    out.error = (float)(int32_t)(a & IQ_CODES_ERROR_MASK);
    out.side = (float)((int32_t)(b >> 16 ^ 0x8000u) - 0x8000) * probe->codes.side_scale;
    out.cross = (float)(int32_t)(b & 0xFFFFu) * (float)sum * probe->codes.cross_scale;
    if (!probe->tail) {
        out.cross += out.side;
        out.side = 0.0f;
    }
    return out;
}

IQ_FN bool iq_quant_is_beyond(const iq_quant_probe *probe, const iq_quant_row *row) {
    const iq_codes_probe *codes = &probe->codes;
    const float n = row->size, margin = row->error * (codes->error_scale + codes->error_square * (n * n));
    if (n < 0.0f) return false;
    return n * (codes->square * n - (row->cross + row->side + margin + codes->linear)) > codes->limit;
}

/* Tails of near rows point the same way as often as not, so that no more than a tenth of the bound is added. */
IQ_FN double iq_quant_estimate(const iq_quant_probe *probe, const iq_quant_row *row, double *out_high) {
    const iq_codes_probe *codes = &probe->codes;
    const double n = (double)row->size;
    const double margin = (double)row->error * ((double)codes->error_scale + (double)codes->error_square * n * n);
    const double middle = n * ((codes->square != 0.0f ? n : 0.0) - (double)row->cross);
    *out_high = middle + n * ((margin > 0.0 ? margin : 0.0) * probe->spread + 0.1 * (double)row->side);
    return middle;
}
