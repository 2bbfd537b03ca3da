/* Products of int8 codes in the matrix tiles that server processors have since 2023, eight times the work of AVX512-VNNI. */
#ifndef M3_AMX_H
#define M3_AMX_H

#include <stdint.h>

#define TILE_ROWS 16
#define TILE_BYTES 64 /* of a row: codes multiplied at a time */

/* Whether this processor has them and this process may use them. */
int amx_works(void);

/* products[row * columns + column] of `count` rows of `dim` codes, `stride` columns, a multiple of 16; `packed` holds the columns in
   sixteens, [columns / 16][padded / 4][16][4]. `spare` takes 16 rows of `padded` bytes. `ahead` is a hint of what is read next. */
void multiply_amx(const int8_t *rows, int64_t count, int64_t dim, int64_t padded, const int8_t *packed, int64_t columns,
                  int32_t *products, int8_t *spare, const int8_t *ahead);

#endif
