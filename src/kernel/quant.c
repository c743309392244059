/* Coding rows, and proving from codes that rows are beyond a threshold.
 *
 * What is coded. Let y be what stands for a row: the row itself, or for unit codes the row divided by its stored norm, as
 * computed in f32; likewise q for the query. The code is a vector v with v[i] = mid + h (2 c[i] - 15). h and mid are
 * scaled so that <v, y> = |y|^2, not for the least error: then the rest r = y - v is orthogonal to y, estimates have no
 * bias (Gao and Long, "RaBitQ", SIGMOD 2024, section 3.2), and the bound below needs no term for <r, y>. Codes try
 * several ranges, each narrower than the row's own, and the best one stays.
 *
 * Stored, all relative to n so that no row spoils the precision of another: n <= |y|; step = h / n * 2^19; error >=
 * |r| / n * 2^13; side = mid / n / (8 / 32767 / sqrt(dim)). A row whose code does not fit (|r| > n / 2, |<r, y>| > 2^-11
 * n |y|, |y| > 2^60) is loose: always listed. A row shorter than 2^-50 has n = 0.
 *
 * The bound. With the words w of q and their scale s, all vectors as they are in memory and all sums in real numbers,
 *     <q, y> = s <w, v> + <q - s w, v> + <q, r>
 * is an identity. Here
 *   (a) |<q - s w, v>| <= |q - s w| * 1.13 n', where n' = n (1 + 2^-9) >= |y| and |v|^2 <= |y|^2 + |r|^2 + ...
 *   (b) r is orthogonal to y but for 2^-11 n / |y| of it, so for every number a
 *       |<q, r>| <= |q - a y| |r| + 2^-11 Q n'.
 * For (b) assume that the row's key is at most the threshold's, which the test is to refute. For L2 and COSINE
 * |q - y| <= R, and |q - a y|^2 = (1 - a) Q^2 + a |q - y|^2 - a (1 - a) |y|^2 with 0 <= a <= 1. For DOT <q, y> >= b, and
 * |q - a y|^2 <= Q^2 - 2 a b + a^2 |y|^2. Both are A + B n^2, and sqrt(Y) <= (Y / m + m) / 2 for any m > 0 makes that
 * linear: a and m are chosen so that equality holds at one length, the typical one. So a scan needs no root.
 * R allows for what the division by norms has rounded, 2^-22 (|y| + 1) for unit codes, and the same for the query.
 * All other rounding, of the scan's own f32 steps too, is below 2^-15 of Q n, R n, n^2, Q^2 or R^2, and is added.
 *
 * In a basis. P are its vectors, nearly orthonormal; y has been moved by its centre c, y = row - c, which changes no
 * distance and the product <q, row> by <q, c>. What is coded is the head p, P y as computed; by a code without a mid, for
 * there mid / n is replaced by t / n, rounded up, where t is what is left of y: t^2 = |y|^2 - |p|^2 + slack |y|^2. With
 * Pi the projector onto the span of P,
 *     <q, y> = <Pi q, Pi y> + <q - Pi q, y - Pi y> <= <p(q), p> + t(q) t + slack Q |y|,
 * where slack bounds what P lacks of being orthonormal, and what p has been rounded by (basis.c). So a term 2 t(q) t / n,
 * for which a scan takes that of the mid, and slack make up for all that is not coded, and the rest of the bound is that
 * of p and p(q): in (a) as it is; in (b) |p(q) - p| <= R + slack (2 Q + R), for no projection is longer than what it is of,
 * and rows with t > n sqrt(tail) are loose, so that |p|^2 >= n^2 (1 - tail). For DOT a is 0. Keys count from another
 * offset; the rounding of c is within slack, and gamma |q| |row| is at most gamma Q (|y| + |c|).
 *
 * From scores to keys. gamma = (dim / 32 + 16) 2^-24 bounds the relative error of a canonical sum against the sum of
 * the sizes of its terms: per term at most three roundings, dim / 32 additions in a lane, five in the tree; products
 * that vanish add at most dim * 2^-149. (Sums of whole numbers, of bytes, are rounded once.) iq_score_sum_bound says which sums are beyond a score. So a sum of squares is
 * beyond B if |q - y|^2 > (B + 2^-130) / (1 - gamma), and products likewise; quotients by norms see below. */
#include "kernel/quant.h"

#include "kernel/strict.h"

#define IQ_QUANT_LONGEST 1.152921504606846976e18 /* 2^60 */
#define IQ_QUANT_SHORTEST 8.8817841970012523e-16 /* 2^-50 */
#define IQ_QUANT_STEP 524288.0                   /* 2^19 */
#define IQ_QUANT_ERROR 8192.0                    /* 2^13 */
#define IQ_QUANT_SHIFT 8.0                       /* a shift of codes by up to 8 n / sqrt(dim) can be told */
#define IQ_QUANT_CHUNK 32u
#define IQ_QUANT_Z 2.0     /* standard deviations that estimates allow for */
#define IQ_QUANT_TAIL 0.25 /* of |y|^2, more than which no row may have beside its head */
#define IQ_QUANT_TAIL_UNIT (1.0 / 32767.0)
#define IQ_QUANT_TINY (1.0 / 65536.0)            /* 2^-16 */
#define IQ_QUANT_ROUNDING (IQ_QUANT_TINY / 64.0) /* 2^-22 */

IQ_INLINE double iq_quant_side_unit(const iq_quant *quant) {
    const double most = IQ_QUANT_SHIFT / iq_sqrt_f64((double)quant->dim);
    return (most < 1.3 ? most : 1.3) / 32767.0;
}
IQ_INLINE double iq_quant_gamma(uint32_t dim) { return ((double)(dim / 32) + 17.0) / 16777216.0; }
/* Floats of one of the vectors that are worked on. */
IQ_INLINE size_t iq_quant_padded(const iq_quant *quant) { return iq_round_up(quant->dim, IQ_QUANT_CHUNK); }
IQ_INLINE bool iq_quant_finite(float v) { return (iq_f32_bits(v) & 0x7F800000u) != 0x7F800000u; }
IQ_INLINE double iq_quant_size(double v) { return v < 0.0 ? -v : v; }

/* out = vector / norm for unit codes, each element rounded once, with zeros up to whole chunks. In a basis moved by its
 * centre, where it `moves`; and then the head, likewise, to `head`. */
static void iq_quant_prepare(const iq_quant *quant, const float *vector, float norm, bool moves, float *out,
                             float *head) {
    const size_t stride = iq_row_stride(quant->dim);
    memset(out + stride, 0, (iq_quant_padded(quant) - stride) * sizeof(float));
    memcpy(out, vector, stride * sizeof(float));
    for (size_t i = 0; quant->unit && norm != 0.0f && i < stride; i++) out[i] /= norm;
    if (quant->basis == NULL) return;
    if (moves) iq_basis_move(quant->basis, out);
    memset(head, 0, iq_quant_padded(quant) * sizeof(float));
    iq_basis_project(quant->basis, out, head);
}

/* ---- encoding: what passes over a whole row, by chunks of IQ_QUANT_CHUNK lanes, alike in every set of vectors ---- */

/* Sums over a row with the levels l = 2 c - 15 of a range: of l and l^2, which are exact, and of l y. */
typedef struct iq_quant_sums {
    double levels, squares, products;
} iq_quant_sums;

/* Rows are whole chunks, with zeros from dim on. Sums that round are f32 in IQ_QUANT_CHUNK lanes, which are added to their
 * upper halves until there are four, and these in f64. The codes c of a range are the sixteen levels, 2 / scale apart and
 * around mid, that are nearest to each element; `words` get them as blocks have them, eight in one. `rest` is y - (shift +
 * half (2 c - 15)). Codes and rest are 0 from dim on. */
typedef struct iq_quant_set {
    double (*range)(const float *y, size_t dim, float *out_low, float *out_high); /* the sum of y */
    void (*sum)(const float *y, size_t dim, float mid, float scale, iq_quant_sums *out);
    void (*rest)(const float *y, size_t dim, float mid, float scale, float shift, float half, uint32_t *words,
                 float *rest);
} iq_quant_set;

IQ_INLINE int32_t iq_quant_code(float y, float mid, float scale) {
    const float moved = iq_strict_f32(iq_strict_f32(y - mid) * scale) + 8.0f;
    return (int32_t)(moved > 0.0f ? moved < 15.0f ? moved : 15.0f : 0.0f);
}

IQ_INLINE double iq_quant_four(const float *lanes) {
    const double first = iq_strict_f64((double)lanes[0] + (double)lanes[1]);
    return first + iq_strict_f64((double)lanes[2] + (double)lanes[3]);
}

static double iq_quant_scalar_fold(float *lanes) {
    for (size_t half = IQ_QUANT_CHUNK / 2; half >= 4; half /= 2)
        for (size_t j = 0; j < half; j++) lanes[j] = iq_strict_f32(lanes[j] + lanes[j + half]);
    return iq_quant_four(lanes);
}

static double iq_quant_scalar_range(const float *y, size_t dim, float *out_low, float *out_high) {
    float sums[IQ_QUANT_CHUNK] = {0};
    *out_low = *out_high = y[0];
    for (size_t i = 0; i < dim; i++) {
        *out_low = y[i] < *out_low ? y[i] : *out_low;
        *out_high = y[i] > *out_high ? y[i] : *out_high;
        sums[i % IQ_QUANT_CHUNK] = iq_strict_f32(sums[i % IQ_QUANT_CHUNK] + y[i]);
    }
    return iq_quant_scalar_fold(sums);
}

static void iq_quant_scalar_sum(const float *y, size_t dim, float mid, float scale, iq_quant_sums *out) {
    float products[IQ_QUANT_CHUNK] = {0};
    int32_t levels = 0, squares = 0;
    for (size_t i = 0; i < dim; i++) {
        const int32_t level = 2 * iq_quant_code(y[i], mid, scale) - 15;
        float *lane = &products[i % IQ_QUANT_CHUNK];
        levels += level;
        squares += level * level;
        *lane = iq_strict_f32(*lane + iq_strict_f32(y[i] * (float)level));
    }
    out->levels = (double)levels;
    out->squares = (double)squares;
    out->products = iq_quant_scalar_fold(products);
}

static void iq_quant_scalar_rest(const float *y, size_t dim, float mid, float scale, float shift, float half,
                                 uint32_t *words, float *rest) {
    for (size_t i = 0; i < iq_round_up(dim, IQ_QUANT_CHUNK); i++) {
        const int32_t code = i < dim ? iq_quant_code(y[i], mid, scale) : 0;
        const float part = iq_strict_f32(half * (float)(2 * code - 15)) + shift;
        words[i / 8] = (i % 8 == 0 ? 0 : words[i / 8]) | (uint32_t)code << (i % 4 * 8 + i % 8 / 4 * 4);
        rest[i] = i < dim ? y[i] - iq_strict_f32(part) : 0.0f;
    }
}

static const iq_quant_set iq_quant_scalar = {iq_quant_scalar_range, iq_quant_scalar_sum, iq_quant_scalar_rest};

/* gcc before 9 cannot convert vectors. */
#if (IQ_X86 || IQ_NEON || IQ_WASM) && (defined(__clang__) || __GNUC__ >= 9)
#define IQ_QUANT_VECTORS 1

#define IQ_QUANT_UNROLL _Pragma("GCC unroll 8")

/* Registers of `size` bytes; `parts` of them are a chunk. In the last chunk, lanes of set_in that are within dim are all
 * ones, the others 0. */
#define IQ_DEFINE_QUANT(set, target, size) \
    typedef float set##_floats __attribute__((vector_size(size))); \
    typedef int32_t set##_ints __attribute__((vector_size(size))); \
    typedef uint32_t set##_uints __attribute__((vector_size(size))); \
    enum { \
        set##_lanes = (size) / 4, \
        set##_parts = IQ_QUANT_CHUNK / set##_lanes \
    }; \
    IQ_INLINE target set##_ints set##_in(size_t dim, size_t i) { \
        static const int32_t in[2 * IQ_QUANT_CHUNK] = { \
            -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, \
            -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}; \
        set##_ints lanes; \
        memcpy(&lanes, in + IQ_QUANT_CHUNK - (i < dim ? dim - i : 0), sizeof lanes); \
        return lanes; \
    } \
    IQ_INLINE target set##_floats set##_either(set##_ints which, set##_floats a, set##_floats b) { \
        return (set##_floats)(((set##_ints)a & which) | ((set##_ints)b & ~which)); \
    } \
    IQ_INLINE target double set##_fold(set##_floats *parts) { \
        IQ_STRICT_BODY \
        float lanes[set##_lanes]; \
        IQ_QUANT_UNROLL for (size_t half = set##_parts / 2; half > 0; half /= 2) { \
            IQ_QUANT_UNROLL for (size_t p = 0; p < half; p++) { \
                parts[p] = parts[p] + parts[p + half]; \
                IQ_STRICT_VECTOR(parts[p]); \
            } \
        } \
        memcpy(lanes, parts, sizeof lanes); \
        for (size_t j = 4; j < set##_lanes; j++) lanes[j - 4] = iq_strict_f32(lanes[j - 4] + lanes[j]); \
        return iq_quant_four(lanes); \
    } \
    IQ_INLINE target set##_ints set##_codes(set##_floats y, float mid, float scale) { \
        IQ_STRICT_BODY \
        const set##_floats zero = {0}, most = zero + 15.0f; \
        set##_floats moved = y - mid; \
        IQ_STRICT_VECTOR(moved); \
        moved = moved * scale; \
        IQ_STRICT_VECTOR(moved); \
        moved = moved + 8.0f; \
        moved = (set##_floats)((set##_ints)moved & (set##_ints)(moved > zero)); \
        moved = set##_either((set##_ints)(moved < most), moved, most); \
        return __builtin_convertvector(moved, set##_ints); \
    } \
    static target double set##_range(const float *y, size_t dim, float *out_low, float *out_high) { \
        IQ_STRICT_BODY \
        const set##_floats zero = {0}, first = zero + y[0]; \
        set##_floats sums[set##_parts], v, low = first, high = first; \
        IQ_QUANT_UNROLL for (size_t p = 0; p < set##_parts; p++) sums[p] = zero; \
        for (size_t i = 0; i < dim; i += IQ_QUANT_CHUNK) { \
            IQ_QUANT_UNROLL for (size_t p = 0; p < set##_parts; p++) { \
                memcpy(&v, y + i + p * set##_lanes, sizeof v); \
                sums[p] = sums[p] + v; \
                IQ_STRICT_VECTOR(sums[p]); \
                if (IQ_UNLIKELY(dim - i < IQ_QUANT_CHUNK)) \
                    v = set##_either(set##_in(dim, i + p * set##_lanes), v, first); \
                low = set##_either((set##_ints)(v < low), v, low); \
                high = set##_either((set##_ints)(v > high), v, high); \
            } \
        } \
        *out_low = *out_high = y[0]; \
        for (size_t j = 0; j < set##_lanes; j++) { \
            *out_low = low[j] < *out_low ? low[j] : *out_low; \
            *out_high = high[j] > *out_high ? high[j] : *out_high; \
        } \
        return set##_fold(sums); \
    } \
    static target void set##_sum(const float *y, size_t dim, float mid, float scale, iq_quant_sums *out) { \
        IQ_STRICT_BODY \
        const set##_floats zero = {0}; \
        set##_floats products[set##_parts], v; \
        set##_ints levels = {0}, squares = {0}; \
        IQ_QUANT_UNROLL for (size_t p = 0; p < set##_parts; p++) products[p] = zero; \
        for (size_t i = 0; i < dim; i += IQ_QUANT_CHUNK) { \
            IQ_QUANT_UNROLL for (size_t p = 0; p < set##_parts; p++) { \
                memcpy(&v, y + i + p * set##_lanes, sizeof v); \
                const set##_ints codes = set##_codes(v, mid, scale); \
                set##_ints level = codes + codes - 15; \
                if (IQ_UNLIKELY(dim - i < IQ_QUANT_CHUNK)) level &= set##_in(dim, i + p * set##_lanes); \
                const set##_floats of = __builtin_convertvector(level, set##_floats); \
                set##_floats term = v * of; \
                IQ_STRICT_VECTOR(term); \
                products[p] = products[p] + term; \
                IQ_STRICT_VECTOR(products[p]); \
                levels += level; \
                squares += __builtin_convertvector(of * of, set##_ints); \
            } \
        } \
        int32_t level = 0, square = 0; \
        for (size_t j = 0; j < set##_lanes; j++) level += levels[j]; \
        for (size_t j = 0; j < set##_lanes; j++) square += squares[j]; \
        out->levels = (double)level; \
        out->squares = (double)square; \
        out->products = set##_fold(products); \
    } \
    static target void set##_rest(const float *y, size_t dim, float mid, float scale, float shift, float half, \
                                  uint32_t *words, float *rest) { \
        IQ_STRICT_BODY \
        static const uint32_t places[8] = {1u, 1u << 8, 1u << 16, 1u << 24, 1u << 4, 1u << 12, 1u << 20, 1u << 28}; \
        set##_floats v; \
        set##_uints weights; \
        uint64_t nibbles[IQ_QUANT_CHUNK / 2]; \
        for (size_t i = 0; i < dim; i += IQ_QUANT_CHUNK) { \
            IQ_QUANT_UNROLL for (size_t p = 0; p < set##_parts; p++) { \
                const size_t at = i + p * set##_lanes; \
                const set##_ints in = dim - i < IQ_QUANT_CHUNK ? set##_in(dim, at) : set##_in(IQ_QUANT_CHUNK, 0); \
                memcpy(&v, y + at, sizeof v); \
                memcpy(&weights, places + p * set##_lanes % 8, sizeof weights); \
                const set##_ints chosen = set##_codes(v, mid, scale) & in; \
                set##_floats part = __builtin_convertvector(chosen + chosen - 15, set##_floats) * half; \
                IQ_STRICT_VECTOR(part); \
                part = part + shift; \
                IQ_STRICT_VECTOR(part); \
                part = (set##_floats)((set##_ints)(v - part) & in); \
                weights *= (set##_uints)chosen; \
                memcpy(rest + at, &part, sizeof part); \
                memcpy(nibbles + p * set##_lanes / 2, &weights, sizeof weights); \
            } \
            for (size_t g = 0; g < IQ_QUANT_CHUNK / 8; g++) { \
                const uint64_t *four = nibbles + 4 * g, both = four[0] | four[1] | four[2] | four[3]; \
                words[i / 8 + g] = (uint32_t)(both | both >> 32); \
            } \
        } \
    } \
    static const iq_quant_set set = {set##_range, set##_sum, set##_rest};

#if IQ_X86
IQ_DEFINE_QUANT(iq_quant_quads, IQ_TARGET("sse2"), 16)
IQ_DEFINE_QUANT(iq_quant_avx2, IQ_TARGET("avx2"), 32)
#else
IQ_DEFINE_QUANT(iq_quant_quads, , 16)
#endif
#else
#define IQ_QUANT_VECTORS 0
#endif

/* The set that goes with a kernel. */
static const iq_quant_set *iq_quant_set_of(const iq_kernel *kernel) {
#if IQ_QUANT_VECTORS && IQ_X86
    if (kernel->simd >= IQDB_SIMD_AVX2) return &iq_quant_avx2;
    if (kernel->simd == IQDB_SIMD_SSE2) return &iq_quant_quads;
#elif IQ_QUANT_VECTORS
    if (kernel->simd >= IQDB_SIMD_NEON) return &iq_quant_quads;
#endif
    (void)kernel;
    return &iq_quant_scalar;
}

/* With the levels of a range: the shift, where there is one, and half step that come nearest to y, whose elements' sum is
 * given, and the square of that nearest vector's length. */
static double iq_quant_try(const iq_quant_set *set, const float *y, size_t dim, double sum, bool shifts, float mid,
                           float scale, double *out_mid, double *out_half) {
    iq_quant_sums sums;
    set->sum(y, dim, mid, scale, &sums);
    *out_mid = 0.0;
    if (!shifts) {
        *out_half = iq_strict_f64(sums.products / sums.squares); /* no level is 0 */
        return iq_strict_f64(*out_half * sums.products);
    }
    const double count = (double)dim, mean = iq_strict_f64(sum / count);
    const double spread = sums.squares - iq_strict_f64(iq_strict_f64(sums.levels * sums.levels) / count);
    const double covariance = sums.products - iq_strict_f64(mean * sums.levels);
    *out_half = spread >= 0.5 ? iq_strict_f64(covariance / spread) : 0.0;
    *out_mid = mean - iq_strict_f64(iq_strict_f64(*out_half * sums.levels) / count);
    return iq_strict_f64(mean * sum) + iq_strict_f64(*out_half * covariance);
}

/* What goes into a block for one row. */
typedef struct iq_quant_words {
    uint32_t a, b;
    float mid, scale; /* the range, for the codes */
} iq_quant_words;

/* The best range for y: shrunk until less is gained inside than is lost by clipping. Steps of a tenth make hardly a
 * difference. */
static double iq_quant_range(const iq_quant_set *set, const float *y, size_t dim, bool shifts, iq_quant_words *words,
                             double *out_mid, double *out_half) {
    static const float shrinks[] = {1.0f, 0.85f, 0.7f, 0.55f};
    float low, high;
    double best = -1.0;
    const double sum = set->range(y, dim, &low, &high);
    if (!shifts) high = high > -low ? high : -low;
    if (!shifts) low = -high;
    words->mid = iq_strict_f32(low * 0.5f) + iq_strict_f32(high * 0.5f);
    const float radius = iq_strict_f32(high * 0.5f) - iq_strict_f32(low * 0.5f);
    *out_mid = (double)words->mid;
    *out_half = 0.0;
    if (!(radius > 0.0f)) return best; /* one value everywhere */
    for (size_t s = 0; s < IQ_COUNT_OF(shrinks); s++) {
        double middle, half;
        const float scale = iq_strict_f32(7.5f / iq_strict_f32(radius * shrinks[s]));
        if (!iq_quant_finite(scale)) continue;
        const double score = iq_quant_try(set, y, dim, sum, shifts, words->mid, scale, &middle, &half);
        if (!(score > best)) break;
        best = score;
        words->scale = scale;
        *out_mid = middle;
        *out_half = half;
    }
    return best;
}

static uint32_t iq_quant_ceil(double v) {
    if (!(v < 1e9)) return 1000000000u;
    const uint32_t whole = (uint32_t)v;
    return (double)whole < v ? whole + 1 : whole;
}
static int32_t iq_quant_round(double v) {
    if (!(v < 1e9 && v > -1e9)) return 1000000000;
    return v < 0.0 ? -(int32_t)(0.5 - v) : (int32_t)(v + 0.5);
}

/* How long the rest of a vector is that a basis leaves, at most: t. */
static double iq_quant_rest(const iq_basis *basis, double length, double head) {
    const double square = iq_strict_f64(iq_strict_f64(length * length) * (1.0 + basis->slack));
    const double rest = square - iq_strict_f64(head * head);
    return rest > 0.0 ? iq_sqrt_f64(rest) : 0.0;
}

/* One row, prepared: y, and p of it, which is y without a basis. Its codes are 0 where nothing is said of it; they and
 * `rest` are whole chunks. */
static iq_quant_words iq_quant_row_words(const iq_quant *quant, const iq_kernel *kernel, const float *y, const float *p,
                                         uint32_t *codes, float *rest) {
    const iq_basis *basis = quant->basis;
    const size_t dims = iq_quant_dims(quant);
    iq_quant_words words = {IQ_CODES_LOOSE, 0, 0.0f, 0.0f};
    memset(codes, 0, iq_quant_padded(quant) / 2);
    const float whole = kernel->pair(y, y, quant->dim, IQ_SUM_PRODUCTS);
    const float square = basis != NULL ? kernel->pair(p, p, dims, IQ_SUM_PRODUCTS) : whole;
    if (!iq_quant_finite(whole) || !iq_quant_finite(square)) return words;
    const double length = iq_sqrt_f64((double)whole), head = iq_sqrt_f64((double)square);
    if (length > IQ_QUANT_LONGEST) return words;
    if (length < IQ_QUANT_SHORTEST) {
        words.a = 0;
        return words;
    }
    const uint32_t size = iq_f32_bits((float)iq_strict_f64(length * (1.0 - 1.0 / 4096.0))) & IQ_CODES_SIZE_MASK;
    const double n = (double)iq_f32_from_bits(size), gamma = iq_quant_gamma(quant->dim);
    const double unit = basis != NULL ? IQ_QUANT_TAIL_UNIT : iq_quant_side_unit(quant);
    double mid, half;
    const iq_quant_set *set = iq_quant_set_of(kernel);
    const double best = iq_quant_range(set, p, dims, basis == NULL, &words, &mid, &half);
    /* Scaled so that <v, p> = |p|^2. */
    const double scaled = best > 0.0 ? iq_strict_f64((double)square / best) : 1.0;
    const int32_t step = iq_quant_round(iq_strict_f64(half * scaled) / n * IQ_QUANT_STEP);
    int32_t side = 0;
    if (basis == NULL) side = iq_quant_round(iq_strict_f64(mid * scaled) / n / unit);
    if (step < 0 || step > 65535 || side < -32768 || side > 32767) return words;
    /* What the code in memory leaves, whatever has been rounded on the way to it, but for less than 2^-18 n. */
    set->rest(p, dims, words.mid, words.scale, iq_strict_f32((float)(n * ((double)side * unit))),
              iq_strict_f32((float)(n * ((double)step / IQ_QUANT_STEP))), codes, rest);
    const double error =
        iq_sqrt_f64((double)kernel->pair(rest, rest, dims, IQ_SUM_PRODUCTS)) * (1.0 + gamma) + length / 262144.0;
    const double slant = (double)kernel->pair(rest, p, dims, IQ_SUM_PRODUCTS);
    const double slant_most = head * (n * (1.0 / 2100.0 - 1.0 / 262144.0) - gamma * error);
    const uint32_t rounded = iq_quant_ceil(error / n * IQ_QUANT_ERROR);
    if (rounded > IQ_CODES_ERROR_MASK || slant > slant_most || slant < -slant_most) return words;
    if (basis != NULL) {
        const double left = iq_quant_rest(basis, length, head) / n;
        if (iq_strict_f64(left * left) > IQ_QUANT_TAIL) return words;
        side = (int32_t)iq_quant_ceil(left / unit * (1.0 + IQ_QUANT_TINY));
    }
    words.a = size | rounded;
    words.b = (uint32_t)step | (uint32_t)side << 16;
    return words;
}

/* scratch: a prepared row, its head, a rest, codes. */
IQ_FN size_t iq_quant_encode_bytes(const iq_quant *quant) {
    return iq_quant_padded(quant) * 3 * sizeof(float) + iq_quant_padded(quant) / 2;
}

IQ_FN void iq_quant_encode(const iq_quant *quant, const iq_kernel *kernel, const float *row, float norm, uint8_t *block,
                           uint32_t index, void *scratch) {
    const size_t padded = iq_quant_padded(quant);
    float *y = (float *)scratch, *head = y + padded, *rest = head + padded;
    uint32_t *codes = (uint32_t *)(void *)(rest + padded);
    iq_quant_prepare(quant, row, norm, true, y, head);
    iq_quant_words words = iq_quant_row_words(quant, kernel, y, quant->basis != NULL ? head : y, codes, rest);
    /* Quotients by such norms are not what scores are made of; a zero row's score is 1, and its code, that of a zero, is
     * nearer to any query. */
    if (quant->unit && norm != 0.0f && (!(norm >= IQ_NORM_SURE) || !iq_quant_finite(norm))) words.a = IQ_CODES_LOOSE;
    iq_put_u32(block + 4 * index, words.a);
    iq_put_u32(block + 64 + 4 * index, words.b);
    for (uint32_t g = 0; g < iq_codes_groups(iq_quant_dims(quant)); g++)
        iq_put_u32(block + IQ_CODES_FACTORS + (size_t)g * 64 + 4 * index, codes[g]);
}

IQ_FN void iq_quant_copy(const iq_quant *quant, const uint8_t *from, uint32_t from_row, uint8_t *to, uint32_t to_row) {
    const size_t bytes = iq_quant_block_bytes(quant);
    from += from_row / IQ_CODES_ROWS * bytes + from_row % IQ_CODES_ROWS * 4;
    to += to_row / IQ_CODES_ROWS * bytes + to_row % IQ_CODES_ROWS * 4;
    for (size_t at = 0; at < bytes; at += 64) memcpy(to + at, from + at, 4);
}

/* ---- probes ---- */

/* The prepared query, and its head. */
IQ_FN size_t iq_quant_probe_bytes(const iq_quant *quant) { return iq_quant_padded(quant) * 2 * sizeof(float); }

/* Words of 8 bits for q, padded with zeros to whole chunks; |q - s w| goes to word_error, and the sum of the words is
 * returned. In f32, a chunk at a time: what that rounds, 2^-23 of the largest element for each, is in word_error. The
 * words are alike on every machine, for lists go by them. */
static int32_t iq_quant_probe_words(iq_quant_probe *probe, const float *q, size_t count, int8_t *words,
                                    double *out_scale) {
    float sizes[IQ_QUANT_CHUNK] = {0}, missed[IQ_QUANT_CHUNK] = {0}, most = 0.0f;
    double sum_missed = 0.0;
    int32_t sum = 0;
    for (size_t i = 0; i < count; i += IQ_QUANT_CHUNK)
        for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) {
            const float size = q[i + j] < 0.0f ? -q[i + j] : q[i + j];
            sizes[j] = size > sizes[j] ? size : sizes[j];
        }
    for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) most = sizes[j] > most ? sizes[j] : most;
    const float inverse = most > 0.0f ? iq_strict_f32(127.0f / most) : 0.0f, scale = iq_strict_f32(most / 127.0f);
    for (size_t i = 0; i < count; i += IQ_QUANT_CHUNK) {
        float scaled[IQ_QUANT_CHUNK];
        int32_t chosen[IQ_QUANT_CHUNK];
        for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) scaled[j] = q[i + j] * inverse;
        IQ_STRICT_MEMORY(scaled);
        for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) {
            const float moved = scaled[j] + 128.5f; /* positive, so that truncation rounds */
            chosen[j] = (int32_t)moved - 128;
            chosen[j] = chosen[j] > 127 ? 127 : chosen[j] < -127 ? -127 : chosen[j];
            const float difference = q[i + j] - scale * (float)chosen[j];
            missed[j] += difference * difference;
        }
        const size_t left = iq_round_up(count, 8) - i;
        for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) sum += chosen[j];
        for (size_t j = 0; j < IQ_QUANT_CHUNK && j < left; j++) words[i + j] = (int8_t)chosen[j];
    }
    for (size_t j = 0; j < IQ_QUANT_CHUNK; j++) sum_missed += (double)missed[j];
    probe->word_error = iq_sqrt_f64(sum_missed) * (1.0 + IQ_QUANT_TINY) +
                        (double)most * iq_sqrt_f64((double)count) / 4194304.0; /* 2^-22 */
    *out_scale = (double)scale;
    return sum;
}

/* In a basis, from y and |p|: what a scan needs more. */
static void iq_quant_probe_narrow(iq_quant_probe *probe, const iq_basis *basis, const float *y, double square) {
    const double rest = iq_quant_rest(basis, probe->length, probe->head_length);
    double product = 0.0;
    for (size_t i = 0; probe->metric == IQDB_DOT && i < basis->dim; i++)
        product += (double)y[i] * (double)basis->centre[i];
    if (probe->metric == IQDB_DOT) probe->offset = -2.0 * product;
    probe->slack = basis->slack;
    probe->tail = IQ_QUANT_TAIL;
    probe->dot_slack = 2.1 * probe->sum_error * iq_sqrt_f64(square) * basis->length;
    probe->codes.side_scale = (float)(2.0 * rest * IQ_QUANT_TAIL_UNIT * (1.0 + IQ_QUANT_TINY));
}

IQ_FN void iq_quant_probe_make(iq_quant_probe *probe, const iq_quant *quant, iqdb_metric metric, const float *query,
                               float norm, int8_t *words, void *scratch) {
    float *y = (float *)scratch, *q = y;
    const uint32_t dims = iq_quant_dims(quant);
    double scale, square = 0.0, head = 0.0;
    memset(probe, 0, sizeof *probe);
    probe->metric = metric;
    probe->norm = norm;
    probe->sum_error = iq_quant_gamma(quant->dim);
    probe->codes.words = (const int32_t *)(const void *)words;
    if (!iq_quant_serves(quant, metric)) return;
    if (quant->unit && !(norm >= IQ_NORM_SURE && iq_quant_finite(norm))) return;
    if (quant->basis != NULL) q = y + iq_quant_padded(quant);
    iq_quant_prepare(quant, query, norm, metric != IQDB_DOT, y, q);
    for (size_t i = 0; i < quant->dim; i++) square += (double)y[i] * (double)y[i];
    for (size_t i = 0; quant->basis != NULL && i < dims; i++) head += (double)q[i] * (double)q[i];
    probe->length = iq_sqrt_f64(square) * (1.0 + IQ_QUANT_TINY / 1024.0);
    if (!(probe->length >= IQ_QUANT_SHORTEST && probe->length <= IQ_QUANT_LONGEST)) return;
    probe->head_length = quant->basis == NULL ? probe->length : iq_sqrt_f64(head);
    if (metric != IQDB_DOT) probe->offset = square;
    const int32_t sum = iq_quant_probe_words(probe, q, dims, words, &scale);
    const double spread = IQ_QUANT_Z / iq_sqrt_f64((double)dims);
    probe->codes.centre = 15 * sum;
    probe->codes.cross_scale = (float)(2.0 * scale / IQ_QUANT_STEP);
    probe->codes.side_scale = (float)(2.0 * iq_quant_side_unit(quant) * scale * (double)sum);
    if (quant->basis != NULL) iq_quant_probe_narrow(probe, quant->basis, y, square);
    probe->codes.square = metric == IQDB_DOT ? 0.0f : (float)(1.0 - IQ_QUANT_TINY / 4.0);
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
    const double b = (double)bound, size = iq_quant_size(b), norm = (double)probe->norm;
    if (probe->metric == IQDB_L2) return (b + 1e-38) / (1.0 - 2.0 * gamma);
    if (probe->metric == IQDB_DOT) return -2.0 * (b - size * IQ_QUANT_TINY / 16.0 - 1e-37);
    return 2.0 - 2.0 * (b / norm - size / norm * IQ_QUANT_TINY / 64.0) + 12.0 * gamma + 1e-9;
}

/* |q - a y|^2 <= constant + factor n^2 for rows that are wanted, of what is coded of both, a being best for `size`: (b)
 * above. */
static void iq_quant_aim_at(const iq_quant_probe *probe, double key, double root, double size, double *out_constant,
                            double *out_factor) {
    const double q = probe->head_length, part = 1.0 - probe->tail;
    double a = 0.0;
    if (probe->metric == IQDB_DOT) {
        const double least = -0.5 * key; /* of products with rows that are wanted: those are least / q long */
        if (least > 0.0 && q > 0.0 && size < least / q) size = least / q;
        if (least > 0.0 && size > 0.0 && probe->tail <= 0.0) a = least / (size * size);
        *out_constant = q * q * (1.0 + 2.0 * (probe->sum_error + IQ_QUANT_ROUNDING) + IQ_QUANT_TINY) - 2.0 * a * least;
        *out_factor = a * a * (1.0 + 1.0 / 128.0);
        return;
    }
    root += probe->slack * (2.0 * probe->length + root);
    if (size > 0.0) a = (q * q + size * size * part - root * root) / (2.0 * size * size * part);
    a = size <= 0.0 || a > 1.0 ? 1.0 : a < 0.0 ? 0.0 : a;
    *out_constant = ((1.0 - a) * q * q + a * root * root) * (1.0 + IQ_QUANT_TINY);
    *out_factor = a * IQ_QUANT_ROUNDING * 4.0 - a * (1.0 - a) * (1.0 - 1.0 / 128.0) * part;
}

IQ_FN void iq_quant_aim(iq_quant_probe *probe, double key, double size) {
    const double q = probe->length, unit = probe->metric == IQDB_COSINE ? 1.0 : 0.0, most = 3.0e38, large = 1e30;
    double root = 0.0, constant, factor, limit = key - probe->offset;
    iq_codes_probe *codes = &probe->codes;
    limit += (iq_quant_size(key) + iq_quant_size(probe->offset)) * IQ_QUANT_TINY / 16.0 + probe->dot_slack;
    codes->limit = (float)most;
    codes->error_scale = (float)(2.0 * q / IQ_QUANT_ERROR); /* for estimates */
    codes->error_square = codes->linear = 0.0f;
    if (!(key < most)) return;
    if (probe->metric != IQDB_DOT) {
        root = iq_sqrt_f64(key > 0.0 ? key : 0.0) + IQ_QUANT_ROUNDING * (q + 2.0 * unit);
        limit = root * root - probe->offset + (root * root + probe->offset) * IQ_QUANT_TINY / 16.0;
    }
    iq_quant_aim_at(probe, key, root, size, &constant, &factor);
    /* The length for which the error is counted, where size is right; not so small that the numbers cancel. */
    const double at_size = constant + factor * size * size, least_length = (q + root) / 64.0;
    double length = iq_sqrt_f64(at_size > 0.0 ? at_size : 0.0);
    if (length < least_length) length = least_length;
    const double size_of_factor = iq_quant_size(factor) / length;
    if (!(size_of_factor < large && size_of_factor > 1.0 / large)) { /* no f32 for it; a = 0 is always right */
        constant = q * q * (1.0 + IQ_QUANT_TINY);
        factor = 0.0;
        length = q;
    }
    const double more = 1.0 + 1.0 / 1024.0;
    codes->error_scale = (float)((constant / length + length) * more / IQ_QUANT_ERROR);
    codes->error_square = (float)(factor / length * more / IQ_QUANT_ERROR);
    const double linear = 2.1 * q / 2048.0 + 2.3 * probe->word_error + 2.1 * (root + q) * IQ_QUANT_ROUNDING +
                          2.1 * probe->sum_error * q + 2.0 * IQ_QUANT_TINY * (q + root) + 2.1 * probe->slack * q;
    codes->linear = (float)(linear * (1.0 + 1.0 / 256.0));
    limit += q * 4.0 * IQ_QUANT_SHORTEST + 1e-30;
    limit += iq_quant_size(limit) * IQ_QUANT_TINY / 64.0;
    if (limit < most) codes->limit = (float)limit;
}

/* ---- rows that a scan has listed ---- */

IQ_FN iq_quant_row iq_quant_look(const iq_quant_probe *probe, const uint8_t *block, uint32_t row, int32_t sum) {
    const uint32_t a = iq_get_u32(block + 4 * (size_t)row), b = iq_get_u32(block + 64 + 4 * (size_t)row);
    const float side = iq_strict_f32((float)((int32_t)(b >> 16 ^ 0x8000u) - 0x8000) * probe->codes.side_scale);
    iq_quant_row out;
    out.size = (a & IQ_CODES_LOOSE) != 0 ? -1.0f : iq_f32_from_bits(a & IQ_CODES_SIZE_MASK);
    out.error = (float)(int32_t)(a & IQ_CODES_ERROR_MASK);
    out.side = probe->tail > 0.0 ? side : 0.0f;
    out.cross = iq_strict_f32((float)(int32_t)(b & 0xFFFFu) * (float)sum * probe->codes.cross_scale) + side;
    return out;
}

IQ_FN bool iq_quant_is_beyond(const iq_quant_probe *probe, const iq_quant_row *row) {
    const iq_codes_probe *codes = &probe->codes;
    const float n = row->size, margin = row->error * (codes->error_scale + codes->error_square * (n * n));
    return n >= 0.0f && n * (codes->square * n - (row->cross + margin + codes->linear)) > codes->limit;
}

IQ_FN double iq_quant_estimate(const iq_quant_probe *probe, const iq_quant_row *row, double *out_high) {
    const iq_codes_probe *codes = &probe->codes;
    const double n = (double)row->size;
    const double margin = (double)row->error * ((double)codes->error_scale + (double)codes->error_square * n * n);
    const double cross = (double)row->cross - (double)row->side, less = codes->square != 0.0f ? n : 0.0;
    const double middle = n * (less - cross) + probe->offset;
    *out_high = middle + n * (margin > 0.0 ? margin : 0.0) * probe->spread;
    return middle;
}
