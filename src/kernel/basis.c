/* Making a basis, by orthogonal iteration (F. Bauer, 1957): vectors are multiplied by the matrix of second moments and made
 * orthonormal in their order, again and again; the first few span what the longest axes span.
 *
 * 1. Products are those of the canonical kernels, and what is added up here passes through IQ_STRICT_MEMORY: the bits are
 *    the same everywhere.
 * 2. A few rows that lie apart are no reason to serve the others badly: the centre is made of medians, all rows count as if
 *    they were of one length, and there is no basis where it leaves too much of more than a few (N. Locantore and others,
 *    "Robust principal component analysis for functional data", 1999: spherical components).
 * 3. In the end the vectors are mixed at random, so that no few of them hold what matters: codes have one step for all.
 *
 * The slack. With the matrix P of the vectors, e >= |P P^T - 1|; and gamma = (dim / 32 + 17) 2^-24 for what a canonical
 * product is rounded by, relative to the lengths. A head p differs from P y by at most d |y|, d = gamma sqrt(dims) (1 + e).
 * With the projector Pi = P^T (P P^T)^-1 P of the span,
 *     |<Pi x, Pi y> - <p(x), p(y)>| <= (1.1 e + 2.1 d) |x| |y|    and    |y - Pi y|^2 <= |y|^2 - |p|^2 + the same |y|^2
 * for small e and d, where e is what products of the vectors, as computed, differ by, and gamma dims for their own rounding. What moving y by the centre rounds is 2^-24 of |y|, and the square of a length, by the kernel,
 * gamma of it. All of this is within 1.1 e + 2.2 d + 4 gamma. */
#include "kernel/basis.h"

#include "base/hash.h"
#include "kernel/strict.h"

#define IQ_BASIS_ENERGY 0.955 /* of all, that heads hold at least: of .93 to .98 the fastest, text and photographs */
#define IQ_BASIS_PASSES 8u
#define IQ_BASIS_LEAST 0.8f         /* of a row's square, that its head is to have; a code needs .75 */
#define IQ_BASIS_OFF (1.0 / 1024.0) /* e; what is made here has a thousandth of it */
#define IQ_BASIS_CHUNK 32u          /* factors at a time */
/* The part of all rows that heads may leave open, if they saved all codes; less, where they save less. Codes are off by
 * about such a part of a product. Of the sample whole ones leave open .20 % of texts, .43 % of photographs, and .50 % of
 * texts that lie side by side; heads .31, .85 and 1.30 %, and the last are slower for it. */
#define IQ_BASIS_OPEN (1.0 / 40.0)
#define IQ_BASIS_MARGIN 0.1

/* Phases. */
enum {
    IQ_BASIS_CENTRE,
    IQ_BASIS_SCALE,
    IQ_BASIS_MOMENTS,
    IQ_BASIS_TURN,
    IQ_BASIS_MEASURE,
    IQ_BASIS_TRY,
    IQ_BASIS_WEIGH,
    IQ_BASIS_MIX,
    IQ_BASIS_DONE
};

/* ---- use ---- */

static double iq_basis_product(const float *a, const float *b, size_t dim) {
    double sum = 0.0;
    for (size_t i = 0; i < dim; i++) sum = iq_strict_f64(sum + (double)a[i] * (double)b[i]); /* which are exact */
    return sum;
}

IQ_FN bool iq_basis_set(iq_basis *basis, const iq_kernel *kernel, uint32_t dim, uint32_t dims, const float *memory) {
    double off = 0.0;
    if (dim < IQ_BASIS_DIM_MIN || dim > IQ_BASIS_DIM_MAX || dims == 0 || dims > dim || dims % IQ_BASIS_STEP != 0)
        return false;
    basis->kernel = kernel;
    basis->dim = dim;
    basis->dims = dims;
    basis->stride = iq_row_stride(dim);
    basis->centre = memory;
    basis->vectors = memory + basis->stride;
    for (size_t i = 0; i <= dims; i++)
        for (size_t j = dim; j < basis->stride; j++)
            if (memory[i * basis->stride + j] != 0.0f) return false;
    const double length = iq_sqrt_f64(iq_basis_product(memory, memory, dim));
    if (!(length < 1e15)) return false;
    basis->length = length * (1.0 + 1e-6);
    for (uint32_t i = 0; i < dims; i++)
        for (uint32_t from = 0; from < dims; from += IQ_BASIS_STEP) {
            float products[IQ_BASIS_STEP];
            kernel->scan(basis->vectors + i * basis->stride, 1, basis->vectors + from * basis->stride, basis->stride,
                         IQ_BASIS_STEP, products, IQ_SUM_PRODUCTS);
            if (i - from < IQ_BASIS_STEP) products[i - from] -= 1.0f;
            for (size_t j = 0; j < IQ_BASIS_STEP; j++)
                off = iq_strict_f64(off + (double)products[j] * (double)products[j]);
        }
    off = iq_sqrt_f64(off);
    if (!(off < IQ_BASIS_OFF)) return false;
    const double gamma = ((double)(dim / 32) + 17.0) / 16777216.0;
    off += iq_strict_f64(gamma * (double)dims) * (1.0 + 1.0 / 64.0);
    const double rounding = iq_strict_f64(gamma * iq_sqrt_f64((double)dims)) * (1.0 + 1.0 / 64.0);
    basis->slack = iq_strict_f64(iq_strict_f64(1.1 * off) + iq_strict_f64(2.2 * rounding)) + iq_strict_f64(4.0 * gamma);
    return true;
}

IQ_FN void iq_basis_move(const iq_basis *basis, float *y) {
    for (size_t i = 0; i < basis->stride; i++) y[i] -= basis->centre[i];
}

IQ_FN void iq_basis_project(const iq_basis *basis, const float *y, float *out) {
    basis->kernel->scan(y, 1, basis->vectors, basis->stride, basis->dims, out, IQ_SUM_PRODUCTS);
}

/* ---- making ---- */

/* The most that is tried: beyond it a basis would save too little. */
static uint32_t iq_basis_limit(uint32_t dim) {
    return (uint32_t)((uint64_t)dim * 3 / 4 / IQ_BASIS_STEP * IQ_BASIS_STEP);
}

IQ_FN size_t iq_basis_maker_bytes(uint32_t dim) {
    const size_t stride = iq_row_stride(dim), dims = iq_basis_limit(dim);
    return ((size_t)dim * IQ_BASIS_SAMPLE + dim * stride + (2 * dims + 2) * stride +
            (2 + IQ_BASIS_QUERIES) * IQ_BASIS_SAMPLE) *
           sizeof(float);
}

IQ_FN void iq_basis_maker_start(iq_basis_maker *maker, const iq_kernel *kernel, uint32_t dim, void *memory) {
    memset(maker, 0, sizeof *maker);
    maker->kernel = kernel;
    maker->dim = dim;
    maker->dims = iq_basis_limit(dim);
    maker->stride = iq_row_stride(dim);
    maker->samples = (float *)memory;
    maker->moments = maker->samples + (size_t)dim * IQ_BASIS_SAMPLE;
    maker->sums = maker->moments + dim * maker->stride;
    maker->vectors = maker->sums + maker->stride;
    maker->centre = maker->vectors + maker->dims * maker->stride;
    maker->mixed = maker->centre + maker->stride;
    maker->lengths = maker->mixed + maker->dims * maker->stride;
    maker->products = maker->lengths + IQ_BASIS_SAMPLE;
    maker->shared = maker->products + IQ_BASIS_SAMPLE;
    for (size_t i = 0; i < maker->dims; i++)
        for (size_t j = 0; j < dim; j++)
            maker->vectors[i * maker->stride + j] =
                (float)((int32_t)(iq_hash_u64((uint64_t)i * dim + j) & 0xFFFFu) - 32768) / 32768.0f;
}

IQ_FN void iq_basis_maker_add(iq_basis_maker *maker, const float *row, float norm) {
    if (maker->count == IQ_BASIS_SAMPLE || norm == 0.0f) return;
    for (size_t i = 0; i < maker->dim; i++) maker->samples[i * IQ_BASIS_SAMPLE + maker->count] = row[i] / norm;
    maker->count++;
}

/* A value such that half of them are below it: the bits of floats, signs aside, are in the order of these. */
static float iq_basis_median(const float *values, uint32_t count) {
    uint32_t low = 0;
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
        uint32_t below = 0;
        for (uint32_t j = 0; j < count; j++) {
            const uint32_t bits = iq_f32_bits(values[j]);
            below += (bits >> 31 != 0 ? ~bits : bits | 0x80000000u) < (low | bit);
        }
        if (below <= count / 2) low |= bit;
    }
    return iq_f32_from_bits(low >> 31 != 0 ? low & 0x7FFFFFFFu : ~low);
}

/* The middle of an element goes to the centre, and is taken from the sample. */
static void iq_basis_centre(iq_basis_maker *maker, size_t i) {
    float *own = maker->samples + i * IQ_BASIS_SAMPLE;
    maker->centre[i] = iq_basis_median(own, maker->count);
    for (uint32_t j = 0; j < maker->count; j++) {
        own[j] = iq_strict_f32(own[j] - maker->centre[i]);
        maker->lengths[j] = iq_strict_f32(maker->lengths[j] + iq_strict_f32(own[j] * own[j]));
    }
}

static void iq_basis_scale(iq_basis_maker *maker, size_t i) {
    float *own = maker->samples + i * IQ_BASIS_SAMPLE;
    for (uint32_t j = 0; i == 0 && j < maker->count; j++) {
        const double length = iq_sqrt_f64((double)maker->lengths[j]);
        maker->lengths[j] = length > 1e-15 && length < 1e18 ? (float)iq_strict_f64(1.0 / length) : 0.0f;
    }
    for (uint32_t j = 0; j < maker->count; j++) own[j] = iq_strict_f32(own[j] * maker->lengths[j]);
}

/* out += sign * the sum of factors[j] times row j of `rows`. */
static void iq_basis_combine(const float *rows, size_t stride, size_t count, const float *factors, float sign,
                             float *out) {
    for (size_t from = 0; from < stride; from += IQ_ROW_FLOATS) {
        float sum[IQ_ROW_FLOATS], term[IQ_ROW_FLOATS];
        memcpy(sum, out + from, sizeof sum);
        for (size_t j = 0; j < count; j++) {
            const float *row = rows + j * stride + from, factor = sign * factors[j];
            for (size_t i = 0; i < IQ_ROW_FLOATS; i++) term[i] = row[i] * factor;
            IQ_STRICT_MEMORY(term);
            for (size_t i = 0; i < IQ_ROW_FLOATS; i++) sum[i] += term[i];
            IQ_STRICT_MEMORY(sum);
        }
        memcpy(out + from, sum, sizeof sum);
    }
}

/* Vector `at` orthogonal to those before it, and of length 1. Twice is enough. */
static void iq_basis_straighten(const iq_basis_maker *maker, float *vectors, size_t at) {
    float *own = vectors + at * maker->stride;
    for (int time = 0; time < 2; time++) {
        maker->kernel->scan(own, 1, vectors, maker->stride, at, maker->sums, IQ_SUM_PRODUCTS);
        iq_basis_combine(vectors, maker->stride, at, maker->sums, -1.0f, own);
        const double length = iq_sqrt_f64((double)maker->kernel->pair(own, own, maker->stride, IQ_SUM_PRODUCTS));
        for (size_t i = 0; length > 0.0 && i < maker->stride; i++)
            own[i] = (float)iq_strict_f64((double)own[i] / length);
    }
}

/* Vector `at` times the matrix. */
static void iq_basis_multiply(const iq_basis_maker *maker, size_t at, float *out) {
    maker->kernel->scan(maker->vectors + at * maker->stride, 1, maker->moments, maker->stride, maker->dim, out,
                        IQ_SUM_PRODUCTS);
}

static void iq_basis_turn(const iq_basis_maker *maker, size_t at) {
    iq_basis_multiply(maker, at, maker->sums);
    memcpy(maker->vectors + at * maker->stride, maker->sums, maker->dim * sizeof(float));
    iq_basis_straighten(maker, maker->vectors, at);
}

/* Whether it is settled how many dimensions hold enough: that is none of those that are tried, or all up to `at`. */
static bool iq_basis_measure(iq_basis_maker *maker, uint32_t at) {
    double all = 0.0;
    for (size_t i = 0; i < maker->dim; i++) all = iq_strict_f64(all + (double)maker->moments[i * maker->stride + i]);
    iq_basis_multiply(maker, at, maker->sums);
    const double own = iq_basis_product(maker->sums, maker->vectors + at * maker->stride, maker->dim);
    maker->held = iq_strict_f64(maker->held + own);
    const bool is_enough = all > 0.0 && maker->held >= iq_strict_f64(all * IQ_BASIS_ENERGY);
    if (is_enough && (at + 1) % IQ_BASIS_STEP == 0) {
        maker->dims = at + 1;
        return true;
    }
    if (at + 1 < maker->dims) return false;
    maker->dims = 0;
    return true;
}

static uint32_t iq_basis_query(const iq_basis_maker *maker, uint32_t number) {
    return (uint32_t)((uint64_t)maker->count * number / IQ_BASIS_QUERIES);
}

/* What the heads of the sample have of its rows is added up; behind the last vector: whether it is enough of nearly all. */
static bool iq_basis_try(iq_basis_maker *maker, uint32_t at) {
    float *heads = maker->lengths, *products = maker->products;
    uint32_t bad = 0;
    if (at == 0) memset(heads, 0, IQ_BASIS_SAMPLE * sizeof(float));
    memset(products, 0, IQ_BASIS_SAMPLE * sizeof(float));
    iq_basis_combine(maker->samples, IQ_BASIS_SAMPLE, maker->dim, maker->vectors + at * maker->stride, 1.0f, products);
    for (uint32_t j = 0; j < maker->count; j++) {
        heads[j] = iq_strict_f32(heads[j] + iq_strict_f32(products[j] * products[j]));
        bad += !(heads[j] >= IQ_BASIS_LEAST);
    }
    for (uint32_t q = 0; q < IQ_BASIS_QUERIES; q++) {
        float *shared = maker->shared + (size_t)q * IQ_BASIS_SAMPLE;
        iq_basis_combine(products, IQ_BASIS_SAMPLE, 1, products + iq_basis_query(maker, q), 1.0f, shared);
    }
    return at + 1 < maker->dims || bad <= maker->count / 64;
}

/* A query among the sample. All that its bound knows of a row is the product of heads, and that of tails at most that of
 * their lengths: so a search looks at each whose sum of these is no less than the nearest one's product. Whether that is,
 * for all queries, few enough rows for what heads save. */
static bool iq_basis_weigh(iq_basis_maker *maker, uint32_t at) {
    const uint32_t own = iq_basis_query(maker, at);
    const float *heads = maker->lengths, *shared = maker->shared + (size_t)at * IQ_BASIS_SAMPLE;
    float *products = maker->products, best = -2.0f;
    const double tail = 1.0 - (double)heads[own];
    for (size_t i = 0; i < maker->dim; i++) maker->sums[i] = maker->samples[i * IQ_BASIS_SAMPLE + own];
    memset(products, 0, IQ_BASIS_SAMPLE * sizeof(float));
    iq_basis_combine(maker->samples, IQ_BASIS_SAMPLE, maker->dim, maker->sums, 1.0f, products);
    for (uint32_t j = 0; j < maker->count; j++)
        if (j != own && products[j] > best) best = products[j];
    for (uint32_t j = 0; j < maker->count; j++) {
        const double tails = iq_strict_f64(tail * (1.0 - (double)heads[j]));
        maker->open += (double)shared[j] + (tails > 0.0 ? iq_sqrt_f64(tails) : 0.0) + IQ_BASIS_MARGIN >= (double)best;
    }
    const double saved = 1.0 - (double)maker->dims / (double)maker->dim;
    const double all = (double)maker->count * (double)IQ_BASIS_QUERIES;
    return at + 1 < IQ_BASIS_QUERIES ||
           (double)maker->open <= iq_strict_f64(iq_strict_f64(IQ_BASIS_OPEN * saved) * all);
}

static void iq_basis_mix(iq_basis_maker *maker, size_t at) {
    float factors[IQ_BASIS_CHUNK];
    for (size_t from = 0; from < maker->dims; from += IQ_BASIS_CHUNK) {
        const size_t count = maker->dims - from < IQ_BASIS_CHUNK ? maker->dims - from : IQ_BASIS_CHUNK;
        for (size_t j = 0; j < count; j++)
            factors[j] = (float)((int32_t)(iq_hash_u64(((uint64_t)at << 32) + from + j) & 0xFFFFu) - 32768) / 32768.0f;
        iq_basis_combine(maker->vectors + from * maker->stride, maker->stride, count, factors, 1.0f,
                         maker->mixed + at * maker->stride);
    }
    iq_basis_straighten(maker, maker->mixed, at);
}

IQ_FN bool iq_basis_maker_step(iq_basis_maker *maker) {
    const uint32_t at = maker->at++;
    uint32_t end = maker->dims;
    switch (maker->phase) {
    case IQ_BASIS_CENTRE:
        iq_basis_centre(maker, at), end = maker->dim;
        break;
    case IQ_BASIS_SCALE:
        iq_basis_scale(maker, at), end = maker->dim;
        break;
    case IQ_BASIS_MOMENTS:
        maker->kernel->scan(maker->samples + (size_t)at * IQ_BASIS_SAMPLE, 1, maker->samples, IQ_BASIS_SAMPLE,
                            maker->dim, maker->moments + at * maker->stride, IQ_SUM_PRODUCTS);
        end = maker->dim;
        break;
    case IQ_BASIS_TURN:
        iq_basis_turn(maker, at % maker->dims), end = maker->dims * IQ_BASIS_PASSES;
        break;
    case IQ_BASIS_MEASURE:
        end = iq_basis_measure(maker, at) ? 0 : UINT32_MAX;
        break;
    case IQ_BASIS_TRY:
        if (!iq_basis_try(maker, at)) maker->dims = end = 0;
        break;
    case IQ_BASIS_WEIGH:
        end = IQ_BASIS_QUERIES;
        if (!iq_basis_weigh(maker, at)) maker->dims = end = 0;
        break;
    case IQ_BASIS_MIX:
        iq_basis_mix(maker, at);
        break;
    default:
        return true;
    }
    if (maker->at < end) return false;
    maker->at = 0;
    maker->phase++;
    if (maker->dims == 0) maker->phase = IQ_BASIS_DONE;
    return maker->phase == IQ_BASIS_DONE;
}
