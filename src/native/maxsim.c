#include "maxsim.h"
#include "cpu.h"
#include "parallel.h"
#include "products.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 48     /* token vectors multiplied at a time, a multiple of 16: their products stay in the first cache */
#define DOCUMENTS 4 /* documents in a piece of work */
#define MARGIN 1e-5 /* for float32's rounding of a similarity, relative to the lengths of its vectors: some thirty of its steps */
#define LANES_AT_ONCE 8

/* A query token's similarity to a row is a coarse part, from the query's coarse codes, and a fine part, at most as large as
   the fine part's length times the row's. Every coarse part is computed; the fine one only where the row may be the best,
   which halves the work, but for AMX, whose tiles multiply as fast as memory brings the rows. */
typedef struct {
    const Rows *documents;
    int64_t count;
    const Codes *codes;
    Query coarse;
    float *slack;     /* (tokens,): how much a fine part may add to a row of length 1 */
    int32_t *lifts;   /* (tokens,) of the fine codes */
    float *best;
} Matching;

/* What a thread needs of its own, for ROWS rows and the query's tokens, padded. */
typedef struct {
    int32_t *products;
    float *scales, *lengths, *reached; /* reached: what a row must come up to, by token */
    void *rest;
} Desk;

static float length_of(const int8_t *codes, int64_t dim, float scale, int level) {
    return scale * sqrtf((float)squares(codes, dim, level));
}

/* The similarity in full, to the last bit as NumPy computes it. */
static float similarity(const Matching *all, const int8_t *row, float scale, int token, int32_t coarse) {
    const Codes *codes = all->codes;
    const int8_t *fine = codes->codes + (codes->tokens + token) * codes->dim;
    int32_t rest = dot(row, fine, codes->dim, all->lifts[token], all->coarse.level);
    return ((float)coarse * codes->coarse[token] + (float)rest * codes->fine[token]) * scale;
}

#define RAISE                                                                                                                  \
    for (int64_t row = 0; row < count; row++) {                                                                                \
        const int32_t *products = desk->products + row * all->coarse.padded_columns;                                           \
        const float scale = desk->scales[row], length = desk->lengths[row], *coarse = all->codes->coarse;                      \
        for (int token = 0; token < all->codes->tokens; token++) {                                                             \
            float least = (float)products[token] * coarse[token] * scale - all->slack[token] * length;                         \
            reached[token] = least > reached[token] ? least : reached[token];                                                  \
        }                                                                                                                      \
    }

static void raise_anywhere(const Matching *all, const Desk *desk, int64_t count, float *restrict reached) { RAISE }

/* Bit i: whether token + i may be matched best by this row. */
static unsigned candidates(const Matching *all, const Desk *desk, const int32_t *products, int64_t row, int token) {
    unsigned found = 0;
    for (int i = 0; i < LANES_AT_ONCE && token + i < all->codes->tokens; i++) {
        float most = (float)products[token + i] * all->codes->coarse[token + i] * desk->scales[row] +
                     all->slack[token + i] * desk->lengths[row];
        found |= (unsigned)(most >= desk->reached[token + i]) << i;
    }
    return found;
}

#ifdef M3_X86
__attribute__((target("avx2"))) static void raise_avx2(const Matching *all, const Desk *desk, int64_t count,
                                                       float *restrict reached) {
    RAISE
}

__attribute__((target("avx2"))) static unsigned candidates_avx2(const Matching *all, const Desk *desk, const int32_t *products,
                                                                int64_t row, int token) {
    __m256 coarse = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(products + token))),
                                  _mm256_loadu_ps(all->codes->coarse + token));
    __m256 most = _mm256_add_ps(_mm256_mul_ps(coarse, _mm256_set1_ps(desk->scales[row])),
                                _mm256_mul_ps(_mm256_loadu_ps(all->slack + token), _mm256_set1_ps(desk->lengths[row])));
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(most, _mm256_loadu_ps(desk->reached + token), _CMP_GE_OQ));
}
#endif

static void refine(const Matching *all, const Desk *desk, const int8_t *codes, int64_t row, float *best) {
    const int32_t *products = desk->products + row * all->coarse.padded_columns;
    for (int token = 0; token < all->codes->tokens; token += LANES_AT_ONCE) {
        unsigned found;
#ifdef M3_X86
        if (all->coarse.level >= AVX2 && token + LANES_AT_ONCE <= all->codes->tokens)
            found = candidates_avx2(all, desk, products, row, token);
        else
#endif
            found = candidates(all, desk, products, row, token);
        for (int i = token; found; found >>= 1, i++)
            if (found & 1) {
                float value = similarity(all, codes, desk->scales[row], i, products[i]);
                best[i] = value > best[i] ? value : best[i];
            }
    }
}

#ifdef M3_X86
/* Where the tiles make the fine parts cheap, they are all there, in the columns after the coarse ones. */
__attribute__((target("avx512f"))) static void raise_in_full(const Matching *all, const Desk *desk, int64_t count,
                                                             float *restrict best) {
    const int tokens = all->codes->tokens;
    const float *coarse = all->codes->coarse, *fine = all->codes->fine;
    for (int64_t row = 0; row < count; row++) {
        const int32_t *left = desk->products + row * all->coarse.padded_columns, *right = left + tokens;
        const float scale = desk->scales[row];
        for (int token = 0; token < tokens; token++) {
            float value = ((float)left[token] * coarse[token] + (float)right[token] * fine[token]) * scale;
            best[token] = value > best[token] ? value : best[token];
        }
    }
}
#endif

/* By coarse parts first: what a row must come up to, and then only the rows that may. */
static void raise_by_halves(const Matching *all, const Desk *desk, const int8_t *codes, int64_t count, float *best) {
    const int64_t dim = all->codes->dim;
    for (int64_t row = 0; row < count; row++)
        desk->lengths[row] = length_of(codes + row * dim, dim, desk->scales[row], all->coarse.level);
#ifdef M3_X86
    if (all->coarse.level >= AVX2)
        raise_avx2(all, desk, count, desk->reached);
    else
#endif
        raise_anywhere(all, desk, count, desk->reached);
    for (int64_t row = 0; row < count; row++)
        refine(all, desk, codes + row * dim, row, best);
}

static void matches_of(const Matching *all, const Rows *document, const Desk *desk, float *best, const int8_t *ahead) {
    const int64_t dim = all->codes->dim;
    for (int token = 0; token < all->codes->tokens; token++)
        best[token] = desk->reached[token] = -FLT_MAX;
    for (int64_t first = 0; first < document->count; first += ROWS) {
        int64_t here = document->count - first < ROWS ? document->count - first : ROWS;
        const int8_t *codes = document->codes + first * dim;
        multiply(&all->coarse, codes, here, desk->products, desk->rest, first + here < document->count ? codes + here * dim : ahead);
        memcpy(desk->scales, document->scales + 4 * first, 4 * (size_t)here);
#ifdef M3_X86
        if (all->coarse.level == AMX_INT8) {
            raise_in_full(all, desk, here, best);
            continue;
        }
#endif
        raise_by_halves(all, desk, codes, here, best);
    }
}

static int64_t desk_bytes(const Matching *all) {
    return 4 * (ROWS * (int64_t)all->coarse.padded_columns + 2 * ROWS + all->coarse.padded_columns) + scratch_bytes(&all->coarse);
}

static void match_piece(void *work, int64_t number, void *scratch) {
    const Matching *all = work;
    Desk desk = {scratch, NULL, NULL, NULL, NULL};
    desk.scales = (float *)(desk.products + ROWS * (int64_t)all->coarse.padded_columns);
    desk.lengths = desk.scales + ROWS;
    desk.reached = desk.lengths + ROWS;
    desk.rest = desk.reached + all->coarse.padded_columns;
    int64_t last = (number + 1) * DOCUMENTS < all->count ? (number + 1) * DOCUMENTS : all->count;
    for (int64_t i = number * DOCUMENTS; i < last; i++)
        matches_of(all, all->documents + i, &desk, all->best + i * all->codes->tokens, all->documents[i + 1].codes);
}

static void measure_fine_parts(const Matching *all) {
    const Codes *codes = all->codes;
    for (int token = 0; token < codes->tokens; token++) {
        const int8_t *coarse = codes->codes + token * codes->dim, *fine = coarse + codes->tokens * codes->dim;
        all->lifts[token] = lift_of(fine, codes->dim);
        float most = length_of(fine, codes->dim, codes->fine[token], PORTABLE);
        all->slack[token] = (float)(most * (1 + MARGIN) + MARGIN * length_of(coarse, codes->dim, codes->coarse[token], PORTABLE));
    }
}

int best_matches(const Rows *documents, int64_t count, const Codes *codes, float *best, int threads, int level) {
    Matching all = {documents, count, codes, {0}, NULL, NULL, best};
    double macs = 0;
    int done = 0;
    if (!pack_query(&all.coarse, codes->codes, (level == AMX_INT8 ? 2 : 1) * codes->tokens, codes->dim, level))
        return 0;
    for (int64_t i = 0; i < count; i++)
        macs += (double)documents[i].count * (double)codes->dim * codes->tokens;
    all.slack = malloc(sizeof(float) * (size_t)(codes->tokens + 1));
    all.lifts = malloc(sizeof(int32_t) * (size_t)(codes->tokens + 1));
    if (all.slack && all.lifts) {
        measure_fine_parts(&all);
        Job job = {match_piece, &all, (count + DOCUMENTS - 1) / DOCUMENTS, desk_bytes(&all)};
        done = run_in_parallel(&job, threads_worth(macs, threads));
    }
    free(all.slack);
    free(all.lifts);
    free_query(&all.coarse);
    return done;
}
