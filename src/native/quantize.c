#include "cpu.h"
#include "maxsim.h"
#include "parallel.h"

#include <math.h>

#define ROWS 64 /* in a piece of work */

static float largest_of(const float *values, int64_t from, int64_t to, float largest) {
    for (int64_t k = from; k < to; k++)
        largest = fabsf(values[k]) > largest ? fabsf(values[k]) : largest;
    return largest;
}

static void round_values(const float *values, int64_t from, int64_t to, float divisor, int8_t *codes) {
    for (int64_t k = from; k < to; k++) {
        float rounded = rintf(values[k] / divisor);
        codes[k] = (int8_t)(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded);
    }
}

static void quantize_portable(const float *values, int64_t dim, int8_t *codes, float *scale) {
    *scale = largest_of(values, 0, dim, 0) / 127.0f;
    round_values(values, 0, dim, *scale > 0 ? *scale : 1.0f, codes);
}

#ifdef M3_X86
#define EIGHT(place) _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(values + (place)), divisors)) /* to nearest, ties to even */

__attribute__((target("avx2"))) static void quantize_avx2(const float *values, int64_t dim, int8_t *codes, float *scale) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 largest = _mm256_setzero_ps();
    int64_t whole = dim / 32 * 32;
    float lanes[8];
    for (int64_t k = 0; k < whole; k += 8)
        largest = _mm256_max_ps(largest, _mm256_and_ps(_mm256_loadu_ps(values + k), magnitude));
    _mm256_storeu_ps(lanes, largest);
    *scale = largest_of(values, whole, dim, largest_of(lanes, 0, 8, 0)) / 127.0f;
    const float divisor = *scale > 0 ? *scale : 1.0f;
    const __m256 divisors = _mm256_set1_ps(divisor);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works on halves: put them right again */
    for (int64_t k = 0; k < whole; k += 32) {
        __m256i left = _mm256_packs_epi32(EIGHT(k), EIGHT(k + 8)), right = _mm256_packs_epi32(EIGHT(k + 16), EIGHT(k + 24));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(left, right), order);
        _mm256_storeu_si256((__m256i *)(codes + k), _mm256_max_epi8(bytes, _mm256_set1_epi8(-127)));
    }
    round_values(values, whole, dim, divisor, codes);
}
#endif

typedef struct {
    const float *values;
    int64_t count, dim;
    int8_t *codes;
    float *scales;
    int level;
} Rounding;

static void round_piece(void *work, int64_t number, void *scratch) {
    const Rounding *all = work;
    int64_t last = (number + 1) * ROWS < all->count ? (number + 1) * ROWS : all->count;
    (void)scratch;
    for (int64_t row = number * ROWS; row < last; row++) {
        const float *from = all->values + row * all->dim;
        int8_t *to = all->codes + row * all->dim;
#ifdef M3_X86
        if (all->level >= AVX2) {
            quantize_avx2(from, all->dim, to, all->scales + row);
            continue;
        }
#endif
        quantize_portable(from, all->dim, to, all->scales + row);
    }
}

int quantize_rows(const float *values, int64_t count, int64_t dim, int8_t *codes, float *scales, int threads) {
    Rounding all = {values, count, dim, codes, scales, best_level()};
    Job job = {round_piece, &all, (count + ROWS - 1) / ROWS, 0};
    return run_in_parallel(&job, threads_worth((double)count * (double)dim, threads));
}
