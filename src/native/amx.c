#include "amx.h"

#include <string.h>

#if defined(__linux__) && defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ASK_FOR_STATE 0x1023 /* arch_prctl's ARCH_REQ_XCOMP_PERM */
#define TILE_DATA 18         /* the state's number */
#define HAS_TILES (1u << 24) /* of leaf 7's edx */
#define HAS_INT8 (1u << 25)
#define SUMS 4 /* tiles of sums, so many sixteens of columns at a time; one tile holds rows, two hold columns */
#define LINE 64

int amx_works(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (HAS_TILES | HAS_INT8)) != (HAS_TILES | HAS_INT8))
        return 0;
    return syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
}

typedef struct {
    uint8_t palette, start, unused[14]; /* as the processor wants them */
    uint16_t bytes[16];
    uint8_t rows[16];
} Shapes;

#define AMX __attribute__((target("amx-tile,amx-int8")))

/* Tiles have numbers that must be written out: 0 to 3 hold sums, 4 rows, 5 columns. */
AMX static void sixteen_rows(const int8_t *rows, int64_t stride, int64_t padded, const int8_t *packed, int sixteens,
                             int32_t *out, int64_t columns, const int8_t *ahead) {
    const int64_t apart = padded * 16, lines = padded / LINE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < padded; k += TILE_BYTES) {
        const int8_t *columns_of = packed + k * 16;
        if (ahead)
            for (int row = 0; row < TILE_ROWS; row++)
                _mm_prefetch((const char *)ahead + (k / LINE + row * lines) * LINE, _MM_HINT_T0);
        _tile_loadd(4, rows + k, stride);
        _tile_loadd(5, columns_of, 64);
        _tile_dpbssd(0, 4, 5);
        if (sixteens > 1) {
            _tile_loadd(5, columns_of + apart, 64);
            _tile_dpbssd(1, 4, 5);
        }
        if (sixteens > 2) {
            _tile_loadd(5, columns_of + 2 * apart, 64);
            _tile_dpbssd(2, 4, 5);
        }
        if (sixteens > 3) {
            _tile_loadd(5, columns_of + 3 * apart, 64);
            _tile_dpbssd(3, 4, 5);
        }
    }
    _tile_stored(0, out, 4 * columns);
    if (sixteens > 1)
        _tile_stored(1, out + 16, 4 * columns);
    if (sixteens > 2)
        _tile_stored(2, out + 32, 4 * columns);
    if (sixteens > 3)
        _tile_stored(3, out + 48, 4 * columns);
}

AMX void multiply_amx(const int8_t *rows, int64_t count, int64_t dim, int64_t padded, const int8_t *packed, int64_t columns,
                      int32_t *products, int8_t *spare, const int8_t *ahead) {
    static const Shapes shapes = {.palette = 1, .bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shapes);
    for (int64_t first = 0; first < count; first += TILE_ROWS) {
        const int8_t *here = rows + first * dim;
        int64_t stride = dim, left = count - first < TILE_ROWS ? count - first : TILE_ROWS;
        if (left < TILE_ROWS || dim != padded) { /* tiles are whole: the rest is zeros */
            memset(spare, 0, (size_t)(TILE_ROWS * padded));
            for (int64_t row = 0; row < left; row++)
                memcpy(spare + row * padded, here + row * dim, (size_t)dim);
            here = spare, stride = padded;
        }
        __asm__ volatile("" ::: "memory"); /* compilers do not know what the tiles read: what was stored must be there */
        const int8_t *next = first + TILE_ROWS < count ? rows + (first + TILE_ROWS) * dim : ahead;
        for (int64_t column = 0; column < columns; column += 16 * SUMS) {
            int sixteens = columns - column < 16 * SUMS ? (int)(columns - column) / 16 : SUMS;
            sixteen_rows(here, stride, padded, packed + column * padded, sixteens, products + first * columns + column, columns,
                         column ? NULL : next);
        }
    }
    _tile_release();
}

#else

int amx_works(void) { return 0; }

void multiply_amx(const int8_t *rows, int64_t count, int64_t dim, int64_t padded, const int8_t *packed, int64_t columns,
                  int32_t *products, int8_t *spare, const int8_t *ahead) {
    (void)rows, (void)count, (void)dim, (void)padded, (void)packed, (void)columns, (void)products, (void)spare, (void)ahead;
}

#endif
