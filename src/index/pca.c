/* Principal directions by orthogonal iteration (Golub and Van Loan, "Matrix Computations", 8.2.4) on the covariance of a
 * sample, then turned at random among themselves, so that no direction has more to say than another.
 *
 * 1. Sums are the canonical kernels'; everything else is rounded step by step (kernel/strict.h), and chance is a hash of
 *    counters: the same bytes everywhere.
 * 2. Directions need not be exact. A poor head leaves more in the tail, which makes searches slower and never wrong;
 *    what is missing to orthonormality is measured in the end, and part of every bound.
 * 3. The first directions come first: each iteration makes them orthonormal in their order. */
#include "index/pca.h"

#include "base/hash.h"
#include "kernel/strict.h"

#define IQ_PCA_ITERATIONS 5
#define IQ_PCA_HEAD_SHARE 0.8 /* of the dimensions: with a larger head the tail is not worth its cost */
#define IQ_PCA_STEP 16u       /* the head is a multiple of it */
#define IQ_PCA_CHUNK 16u

/* Everything that is freed in the end. `wide` is the stride of rows of dim floats, `high` that of columns. */
typedef struct iq_pca_work {
    const iq_kernel *kernel;
    uint32_t dim, head; /* head: of the basis while it is looked for */
    size_t wide, high, count;
    float *columns;    /* dim x high: the sample less its mean, transposed */
    float *covariance; /* dim x wide */
    float *basis;      /* head x wide */
    float *product;    /* head x dim, as the kernels leave it */
} iq_pca_work;

static float *iq_pca_room(const iqdb_allocator *allocator, size_t rows, size_t columns) {
    size_t size;
    if (!iq_mul(rows, columns, &size) || !iq_mul(size, sizeof(float), &size)) return NULL;
    return (float *)iq_alloc_zeroed(allocator, size, IQ_CACHE_LINE);
}
static void iq_pca_give(const iqdb_allocator *allocator, float *room, size_t rows, size_t columns) {
    iq_free(allocator, room, rows * columns * sizeof(float), IQ_CACHE_LINE);
}

/* A number in [-1, 1), a multiple of 2^-15. */
IQ_INLINE float iq_pca_chance(uint64_t counter) {
    return (float)((int32_t)(iq_hash_u64(counter) >> 48) - 32768) / 32768.0f;
}

/* The mean, and columns less it, scaled by a power of two so that no sum of squares overflows or vanishes. Whether the
 * sample is of any use. */
static bool iq_pca_centre(iq_pca_work *work, const float *sample, float *centre) {
    float largest = 0.0f;
    for (uint32_t d = 0; d < work->dim; d++) {
        double sum = 0.0;
        for (size_t i = 0; i < work->count; i++) sum = iq_strict_f64(sum + (double)sample[i * work->wide + d]);
        centre[d] = iq_strict_f32((float)(sum / (double)work->count));
        for (size_t i = 0; i < work->count; i++) {
            const float v = iq_strict_f32(sample[i * work->wide + d] - centre[d]), size = v < 0.0f ? -v : v;
            work->columns[d * work->high + i] = v;
            largest = size > largest ? size : largest;
        }
    }
    if (!(largest > 1e-15f && largest < 1e15f)) return false;
    const float scale = iq_f32_from_bits((254u << 23) - (iq_f32_bits(largest) & 0x7F800000u));
    for (size_t i = 0; i < work->dim * work->high; i++) work->columns[i] *= scale;
    return true;
}

/* to -= factor * from, or to *= factor where from is NULL. */
static void iq_pca_combine(float *to, const float *from, float factor, size_t count) {
    for (size_t i = 0; i < count; i += IQ_PCA_CHUNK) {
        float part[IQ_PCA_CHUNK];
        for (size_t j = 0; j < IQ_PCA_CHUNK; j++) part[j] = (from != NULL ? from[i + j] : to[i + j]) * factor;
        IQ_STRICT_MEMORY(part);
        for (size_t j = 0; j < IQ_PCA_CHUNK; j++) to[i + j] = from != NULL ? to[i + j] - part[j] : part[j];
    }
}

/* Makes the rows orthonormal in their order. A row that vanishes becomes chance, and is tried again. */
static void iq_pca_orthonormalise(const iq_pca_work *work, float *rows, uint32_t count, uint64_t seed) {
    for (uint32_t i = 0; i < count; i++) {
        float *row = rows + i * work->wide;
        for (int attempt = 0; attempt < 3; attempt++) {
            float before = iq_vector_norm_of(work->kernel, row, work->dim);
            float after = 0.0f;
            if (before > 0.0f) {
                iq_pca_combine(row, NULL, iq_strict_f32(1.0f / before), work->wide);
                for (int twice = 0; twice < 2; twice++)
                    for (uint32_t j = 0; j < i; j++)
                        iq_pca_combine(row, rows + j * work->wide,
                                       work->kernel->pair[IQ_SUM_PRODUCTS](row, rows + j * work->wide, work->dim),
                                       work->wide);
                after = iq_vector_norm_of(work->kernel, row, work->dim);
            }
            if (after > 1e-4f) {
                iq_pca_combine(row, NULL, iq_strict_f32(1.0f / after), work->wide);
                break;
            }
            for (uint32_t d = 0; d < work->dim; d++)
                row[d] = iq_pca_chance(seed + ((uint64_t)i * 4 + (uint64_t)attempt) * work->dim + d);
        }
    }
}

/* The product's rows back into the basis. */
static void iq_pca_take(iq_pca_work *work, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        memcpy(work->basis + i * work->wide, work->product + (size_t)i * work->dim, work->dim * sizeof(float));
}

static void iq_pca_iterate(iq_pca_work *work) {
    for (uint32_t i = 0; i < work->head; i++)
        for (uint32_t d = 0; d < work->dim; d++)
            work->basis[i * work->wide + d] = iq_pca_chance((uint64_t)i * work->dim + d);
    for (int round = 0; round < IQ_PCA_ITERATIONS; round++) {
        work->kernel->scan[IQ_SUM_PRODUCTS](work->basis, work->head, work->covariance, work->wide, work->dim,
                                            work->product);
        iq_pca_take(work, work->head);
        iq_pca_orthonormalise(work, work->basis, work->head, (uint64_t)(round + 1) << 40);
    }
}

/* How many directions hold so much of the variance, rounded up; 0 where they are too many. */
static uint32_t iq_pca_head(iq_pca_work *work, double energy) {
    double total = 0.0, held = 0.0;
    for (uint32_t d = 0; d < work->dim; d++)
        total = iq_strict_f64(total + (double)work->covariance[d * work->wide + d]);
    work->kernel->scan[IQ_SUM_PRODUCTS](work->basis, work->head, work->covariance, work->wide, work->dim,
                                        work->product);
    for (uint32_t i = 0; i < work->head; i++) {
        held =
            iq_strict_f64(held + (double)work->kernel->pair[IQ_SUM_PRODUCTS](work->product + (size_t)i * work->dim,
                                                                             work->basis + i * work->wide, work->dim));
        if (held < energy * total) continue;
        const uint32_t head = (uint32_t)iq_round_up(i + 1, IQ_PCA_STEP);
        return head <= work->head ? head : work->head;
    }
    return 0;
}

/* Turns the first `head` directions among themselves: random combinations of them, made orthonormal. */
static bool iq_pca_turn(iq_pca_work *work, const iqdb_allocator *allocator, uint32_t head) {
    const size_t stride = iq_row_stride(head);
    float *columns = iq_pca_room(allocator, work->dim, stride), *chance = iq_pca_room(allocator, head, stride);
    if (columns != NULL && chance != NULL) {
        for (uint32_t i = 0; i < head; i++) {
            for (uint32_t d = 0; d < work->dim; d++) columns[d * stride + i] = work->basis[i * work->wide + d];
            for (uint32_t j = 0; j < head; j++) {
                const uint64_t counter = ((uint64_t)1 << 60) + ((uint64_t)i * head + j) * 4;
                const float two = iq_pca_chance(counter) + iq_pca_chance(counter + 1);
                chance[i * stride + j] = two + (iq_pca_chance(counter + 2) + iq_pca_chance(counter + 3)); /* exact */
            }
        }
        work->kernel->scan[IQ_SUM_PRODUCTS](chance, head, columns, stride, work->dim, work->product);
        iq_pca_take(work, head);
        iq_pca_orthonormalise(work, work->basis, head, (uint64_t)1 << 61);
    }
    const bool done = columns != NULL && chance != NULL;
    if (columns != NULL) iq_pca_give(allocator, columns, work->dim, stride);
    if (chance != NULL) iq_pca_give(allocator, chance, head, stride);
    return done;
}

/* The Frobenius norm of I - M M^T, which the spectral norm does not exceed. Products of f32 are exact in f64. */
static float iq_pca_skew(const iq_pca_work *work, uint32_t head) {
    double missing = 0.0;
    for (uint32_t i = 0; i < head; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            const float *a = work->basis + i * work->wide, *b = work->basis + j * work->wide;
            double sum = i == j ? -1.0 : 0.0;
            for (uint32_t d = 0; d < work->dim; d++) sum = iq_strict_f64(sum + (double)a[d] * (double)b[d]);
            const double square = iq_strict_f64(sum * sum);
            missing = iq_strict_f64(missing + (i == j ? square : 2.0 * square));
        }
    }
    return iq_strict_f32((float)(iq_sqrt_f64(missing) * 1.01 + 1e-9));
}

static void iq_pca_work_free(const iqdb_allocator *allocator, iq_pca_work *work, uint32_t most) {
    if (work->columns != NULL) iq_pca_give(allocator, work->columns, work->dim, work->high);
    if (work->covariance != NULL) iq_pca_give(allocator, work->covariance, work->dim, work->wide);
    if (work->basis != NULL) iq_pca_give(allocator, work->basis, most, work->wide);
    if (work->product != NULL) iq_pca_give(allocator, work->product, work->dim, work->wide);
}

/* covariance = columns columns^T, as the kernels sum it. */
static void iq_pca_covariance(iq_pca_work *work) {
    work->kernel->scan[IQ_SUM_PRODUCTS](work->columns, work->dim, work->columns, work->high, work->dim, work->product);
    for (uint32_t d = 0; d < work->dim; d++)
        memcpy(work->covariance + d * work->wide, work->product + (size_t)d * work->dim, work->dim * sizeof(float));
}

IQ_FN iqdb_result iq_pca_train(iq_pca *pca, const iqdb_allocator *allocator, const iq_kernel *kernel, uint32_t dim,
                               const float *sample, size_t count, double energy, uint32_t head) {
    iq_pca_work work;
    memset(pca, 0, sizeof *pca);
    pca->allocator = allocator;
    pca->dim = dim;
    if (dim < IQ_PCA_DIM_MIN || dim > IQ_PCA_DIM_MAX || count < 2 || head >= dim) return IQDB_OK;
    memset(&work, 0, sizeof work);
    work.kernel = kernel;
    work.dim = dim;
    work.wide = iq_row_stride(dim);
    work.count = count;
    work.high = iq_round_up(count, IQ_ROW_FLOATS);
    const uint32_t most = head != 0 ? head : (uint32_t)(IQ_PCA_HEAD_SHARE * dim) / IQ_PCA_STEP * IQ_PCA_STEP;
    work.head = most;
    work.columns = iq_pca_room(allocator, dim, work.high);
    work.covariance = iq_pca_room(allocator, dim, work.wide);
    work.basis = iq_pca_room(allocator, most, work.wide);
    work.product = iq_pca_room(allocator, dim, work.wide);
    float *centre = iq_pca_room(allocator, 1, work.wide), *matrix = NULL;
    bool enough =
        work.columns != NULL && work.covariance != NULL && work.basis != NULL && work.product != NULL && centre != NULL;
    uint32_t chosen = 0;
    if (enough && iq_pca_centre(&work, sample, centre)) {
        iq_pca_covariance(&work);
        iq_pca_iterate(&work);
        chosen = head != 0 ? head : iq_pca_head(&work, energy);
        if (chosen != 0) {
            enough = iq_pca_turn(&work, allocator, chosen);
            matrix = enough ? iq_pca_room(allocator, chosen, work.wide) : NULL;
            enough = matrix != NULL;
        }
    }
    if (enough && chosen != 0) {
        memcpy(matrix, work.basis, (size_t)chosen * work.wide * sizeof(float));
        pca->skew = iq_pca_skew(&work, chosen);
        if (pca->skew > IQ_QUANT_SKEW_MAX) { /* never seen; then there is no head */
            iq_pca_give(allocator, matrix, chosen, work.wide);
            chosen = 0;
        }
    }
    if (enough && chosen != 0) {
        pca->head = chosen;
        pca->matrix = matrix;
        pca->centre = centre;
    } else if (centre != NULL) {
        iq_pca_give(allocator, centre, 1, work.wide);
    }
    iq_pca_work_free(allocator, &work, most);
    return enough ? IQDB_OK : IQDB_ERR_NOMEM;
}

IQ_FN void iq_pca_free(iq_pca *pca) {
    if (pca->matrix != NULL) {
        iq_pca_give(pca->allocator, pca->matrix, pca->head, iq_row_stride(pca->dim));
        iq_pca_give(pca->allocator, pca->centre, 1, iq_row_stride(pca->dim));
    }
    memset(pca, 0, sizeof *pca);
}
