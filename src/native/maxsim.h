/* Late interaction over int8 codes, and the scan of dense codes. All of it is free of Python. */
#ifndef M3_MAXSIM_H
#define M3_MAXSIM_H

#include <stdint.h>

typedef struct {
    const int8_t *codes; /* (count, dim), anywhere in memory */
    const char *scales;  /* count floats, perhaps unaligned */
    int64_t count;
} Rows;

typedef struct {
    const int8_t *codes; /* (2 * tokens, dim): the coarse codes, then the fine ones */
    const float *coarse, *fine; /* their scales, (tokens,) each */
    int tokens;
    int64_t dim;
} Codes;

/* best[document * tokens + token]: the best match of each query token; -FLT_MAX for a document without rows.
   Gives 0 when memory runs out. */
int best_matches(const Rows *documents, int64_t count, const Codes *query, float *best, int threads, int level);

/* out[i] = the query's product with row wanted[i] of its chunk: chunk c has wanted[bounds[c]:bounds[c + 1]].
   Only the query's first token counts. */
int scan_rows(const Rows *chunks, int64_t count, const int64_t *bounds, const int64_t *wanted, const Codes *query, float *out,
              int threads, int level);

/* Codes and scales of float rows, rounded to the nearest, ties to even. Gives 0 when memory runs out. */
int quantize_rows(const float *values, int64_t count, int64_t dim, int8_t *codes, float *scales, int threads);

#endif
