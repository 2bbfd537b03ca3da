/* Exact products of int8 codes: rows against the columns of a query that was packed once. */
#ifndef M3_PRODUCTS_H
#define M3_PRODUCTS_H

#include <stdint.h>

#define LANES 16 /* columns are padded to a multiple of this */

typedef struct {
    int level;      /* of cpu.h */
    int64_t dim;    /* values in a row */
    int64_t padded; /* the same, rounded up to 64 */
    int columns, padded_columns;
    int8_t *packed;  /* AVX512: [groups of 64 columns][padded / 4][columns of the group][4]; AMX: groups of 16 */
    int16_t *wide;   /* AVX2: [padded_columns][padded] */
    int32_t *sums;   /* AVX512: 128 times the sum of each column, which turning the rows unsigned adds */
} Query;

/* 0 when memory runs out. `codes` is (columns, dim), row after row. */
int pack_query(Query *query, const int8_t *codes, int columns, int64_t dim, int level);
void free_query(Query *query);

/* Bytes of scratch memory that one thread needs for `multiply`. */
int64_t scratch_bytes(const Query *query);

/* products[row * padded_columns + column], exact in int32 as long as dim * 127 * 127 fits. There must
   be room for a number of rows that is a multiple of 16. `ahead` is what will be read next: a hint, never read here. */
void multiply(const Query *query, const int8_t *rows, int64_t count, int32_t *products, void *scratch, const int8_t *ahead);

/* One row's product with another, exact in the same sense; `lift` is 128 times the sum of the second. */
int32_t dot(const int8_t *row, const int8_t *other, int64_t dim, int32_t lift, int level);
int32_t squares(const int8_t *row, int64_t dim, int level);
int32_t lift_of(const int8_t *row, int64_t dim);

#endif
