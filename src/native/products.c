#include "products.h"
#include "amx.h"
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

#define GROUP 64 /* columns worked on together: four registers of sixteen */
#define TILE 6   /* rows worked on together: 6 x 4 accumulators, four query registers and one row fit in 32 */
#define TALL 12  /* the same where there are two query registers or one */

static int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

static void *aligned_zeros(int64_t bytes) {
    void *memory = NULL;
#ifdef _WIN32
    memory = _aligned_malloc((size_t)bytes + 64, 64);
#else
    if (posix_memalign(&memory, 64, (size_t)bytes + 64))
        memory = NULL;
#endif
    if (memory)
        memset(memory, 0, (size_t)bytes + 64);
    return memory;
}

static void aligned_free(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

int pack_query(Query *query, const int8_t *codes, int columns, int64_t dim, int level) {
    memset(query, 0, sizeof *query);
    query->level = level, query->dim = dim, query->columns = columns;
    query->padded = round_up(dim, 64);
    query->padded_columns = (int)round_up(columns, LANES);
    int64_t size = query->padded * query->padded_columns;
    query->sums = aligned_zeros(4 * query->padded_columns);
    query->packed = aligned_zeros(size);
    query->wide = level == AVX2 ? aligned_zeros(2 * size) : NULL;
    if (!query->sums || !query->packed || (level == AVX2 && !query->wide)) {
        free_query(query);
        return 0;
    }
    for (int column = 0; column < columns; column++) {
        int first = column / GROUP * GROUP;
        int width = query->padded_columns - first < GROUP ? query->padded_columns - first : GROUP;
        int8_t *group = query->packed + (int64_t)first * query->padded;
        for (int64_t k = 0; k < dim; k++) {
            int8_t code = codes[column * dim + k];
            query->sums[column] += 128 * code;
            if (level == AMX_INT8)
                query->packed[column / 16 * 16 * query->padded + k / 4 * 64 + column % 16 * 4 + k % 4] = code;
            else if (level == AVX512_VNNI)
                group[k / 4 * 4 * width + 4 * (column - first) + k % 4] = code;
            else if (level == AVX2)
                query->wide[column * query->padded + k] = code;
            else
                query->packed[column * query->padded + k] = code;
        }
    }
    return 1;
}

void free_query(Query *query) {
    aligned_free(query->packed);
    aligned_free(query->wide);
    aligned_free(query->sums);
}

int64_t scratch_bytes(const Query *query) { return TILE_ROWS * query->padded * 2; }

static void multiply_portable(const Query *query, const int8_t *rows, int64_t count, int32_t *products) {
    for (int64_t row = 0; row < count; row++)
        for (int column = 0; column < query->columns; column++) {
            const int8_t *left = rows + row * query->dim, *right = query->packed + column * query->padded;
            int32_t sum = 0;
            for (int64_t k = 0; k < query->dim; k++)
                sum += (int32_t)left[k] * right[k];
            products[row * query->padded_columns + column] = sum;
        }
}

#ifdef M3_X86

#define WITH_AVX2 __attribute__((target("avx2")))
#define WITH_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

WITH_AVX2 static int32_t sum_of_lanes(__m256i values) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

/* Two rows, widened to 16 bits, against four columns at a time: pairs of products are exact in 32 bits. */
WITH_AVX2 static void multiply_avx2(const Query *query, const int8_t *rows, int64_t count, int32_t *products, int16_t *wide) {
    int64_t padded = query->padded, stride = query->padded_columns;
    for (int64_t first = 0; first < count; first += 2) {
        int both = count - first > 1;
        memset(wide, 0, (size_t)(4 * padded));
        for (int64_t k = 0; k < query->dim; k++) {
            wide[k] = rows[first * query->dim + k];
            wide[padded + k] = rows[(first + both) * query->dim + k];
        }
        for (int column = 0; column < query->columns; column += 4) {
            const int16_t *right = query->wide + (int64_t)column * padded;
            __m256i sums[2][4];
            for (int i = 0; i < 4; i++)
                sums[0][i] = sums[1][i] = _mm256_setzero_si256();
            for (int64_t k = 0; k < padded; k += 16) {
                __m256i one = _mm256_loadu_si256((const __m256i *)(wide + k));
                __m256i two = _mm256_loadu_si256((const __m256i *)(wide + padded + k));
                for (int i = 0; i < 4; i++) {
                    __m256i part = _mm256_loadu_si256((const __m256i *)(right + i * padded + k));
                    sums[0][i] = _mm256_add_epi32(sums[0][i], _mm256_madd_epi16(one, part));
                    sums[1][i] = _mm256_add_epi32(sums[1][i], _mm256_madd_epi16(two, part));
                }
            }
            for (int row = 0; row <= both; row++)
                for (int i = 0; i < 4; i++)
                    products[(first + row) * stride + column + i] = sum_of_lanes(sums[row][i]);
        }
    }
}

/* dpbusd multiplies unsigned with signed bytes: the rows are moved up by 128, which `sums` takes back. */
WITH_VNNI INLINE void tile(const int height, const int vectors, const uint8_t *rows, int64_t padded, const int8_t *packed,
                           const int32_t *sums, int count, int32_t *products, int64_t stride, const int8_t *ahead) {
    __m512i totals[TALL][4];
#pragma GCC unroll 12
    for (int row = 0; row < height; row++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            totals[row][v] = _mm512_setzero_si512();
    for (int64_t k = 0; k < padded / 4; k++) {
        __m512i columns[4];
        _mm_prefetch((const char *)ahead + k * 4 * height, _MM_HINT_T0); /* what comes next arrives meanwhile */
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            columns[v] = _mm512_load_si512(packed + (k * vectors + v) * 64);
#pragma GCC unroll 12
        for (int row = 0; row < height; row++) {
            int32_t four;
            memcpy(&four, rows + row * padded + 4 * k, 4);
            __m512i left = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                totals[row][v] = _mm512_dpbusd_epi32(totals[row][v], left, columns[v]);
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < height; row++)
        if (row < count)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                _mm512_storeu_si512(products + row * stride + LANES * v,
                                    _mm512_sub_epi32(totals[row][v], _mm512_load_si512(sums + LANES * v)));
}

WITH_VNNI static void multiply_vnni(const Query *query, const int8_t *rows, int64_t count, int32_t *products, uint8_t *flipped,
                                    const int8_t *ahead) {
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    int64_t padded = query->padded, dim = query->dim, stride = query->padded_columns;
    const int height = stride <= 2 * LANES ? TALL : TILE;
    for (int64_t first = 0; first < count; first += height) {
        int here = count - first < height ? (int)(count - first) : height;
        const int8_t *next = first + height < count ? rows + (first + height) * dim : ahead;
        for (int row = 0; row < here; row++)
            for (int64_t k = 0; k < dim; k += 64) {
                __mmask64 inside = dim - k < 64 ? ((__mmask64)1 << (dim - k)) - 1 : ~(__mmask64)0;
                __m512i part = _mm512_maskz_loadu_epi8(inside, rows + (first + row) * dim + k);
                _mm512_storeu_si512(flipped + row * padded + k, _mm512_xor_si512(part, sign));
            }
        for (int group = 0; group < query->padded_columns; group += GROUP) {
            const int8_t *packed = query->packed + (int64_t)group * padded;
            const int32_t *sums = query->sums + group;
            int32_t *out = products + first * stride + group;
            int vectors = stride - group < GROUP ? (int)(stride - group) / LANES : 4;
            if (height == TALL && vectors == 1)
                tile(TALL, 1, flipped, padded, packed, sums, here, out, stride, next);
            else if (height == TALL)
                tile(TALL, 2, flipped, padded, packed, sums, here, out, stride, next);
            else if (vectors == 1)
                tile(TILE, 1, flipped, padded, packed, sums, here, out, stride, next);
            else if (vectors == 2)
                tile(TILE, 2, flipped, padded, packed, sums, here, out, stride, next);
            else if (vectors == 3)
                tile(TILE, 3, flipped, padded, packed, sums, here, out, stride, next);
            else
                tile(TILE, 4, flipped, padded, packed, sums, here, out, stride, next);
        }
    }
}

WITH_AVX2 static int32_t dot_avx2(const int8_t *row, const int8_t *other, int64_t dim) {
    __m256i sums = _mm256_setzero_si256();
    int32_t rest = 0;
    int64_t k = 0;
    for (; k + 16 <= dim; k += 16) {
        __m256i left = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(row + k)));
        __m256i right = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(other + k)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(left, right));
    }
    for (; k < dim; k++)
        rest += (int32_t)row[k] * other[k];
    return sum_of_lanes(sums) + rest;
}

WITH_VNNI static int32_t dot_vnni(const int8_t *row, const int8_t *other, int64_t dim) {
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512i sums = _mm512_setzero_si512();
    for (int64_t k = 0; k < dim; k += 64) {
        __mmask64 inside = dim - k < 64 ? ((__mmask64)1 << (dim - k)) - 1 : ~(__mmask64)0;
        __m512i left = _mm512_xor_si512(_mm512_maskz_loadu_epi8(inside, row + k), sign);
        sums = _mm512_dpbusd_epi32(sums, left, _mm512_maskz_loadu_epi8(inside, other + k));
    }
    return _mm512_reduce_add_epi32(sums);
}

WITH_VNNI static int32_t squares_vnni(const int8_t *row, int64_t dim) {
    __m512i sums = _mm512_setzero_si512();
    for (int64_t k = 0; k < dim; k += 64) {
        __mmask64 inside = dim - k < 64 ? ((__mmask64)1 << (dim - k)) - 1 : ~(__mmask64)0;
        __m512i sizes = _mm512_abs_epi8(_mm512_maskz_loadu_epi8(inside, row + k));
        sums = _mm512_dpbusd_epi32(sums, sizes, sizes);
    }
    return _mm512_reduce_add_epi32(sums);
}

#endif

int32_t lift_of(const int8_t *row, int64_t dim) {
    int32_t sum = 0;
    for (int64_t k = 0; k < dim; k++)
        sum += row[k];
    return 128 * sum;
}

int32_t dot(const int8_t *row, const int8_t *other, int64_t dim, int32_t lift, int level) {
#ifdef M3_X86
    if (level >= AVX512_VNNI)
        return dot_vnni(row, other, dim) - lift;
    if (level == AVX2)
        return dot_avx2(row, other, dim);
#endif
    int32_t sum = 0;
    (void)lift, (void)level;
    for (int64_t k = 0; k < dim; k++)
        sum += (int32_t)row[k] * other[k];
    return sum;
}

int32_t squares(const int8_t *row, int64_t dim, int level) {
#ifdef M3_X86
    if (level >= AVX512_VNNI)
        return squares_vnni(row, dim);
#endif
    return dot(row, row, dim, 0, level);
}

void multiply(const Query *query, const int8_t *rows, int64_t count, int32_t *products, void *scratch, const int8_t *ahead) {
#ifdef M3_X86
    if (query->level == AMX_INT8) {
        multiply_amx(rows, count, query->dim, query->padded, query->packed, query->padded_columns, products, scratch, ahead);
        return;
    }
    if (query->level == AVX512_VNNI) {
        multiply_vnni(query, rows, count, products, scratch, ahead);
        return;
    }
    if (query->level == AVX2) {
        multiply_avx2(query, rows, count, products, scratch);
        return;
    }
#endif
    (void)scratch, (void)ahead;
    multiply_portable(query, rows, count, products);
}
