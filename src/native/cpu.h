/* Which instruction sets the inner loops may use here, found out at run time. */
#ifndef M3_CPU_H
#define M3_CPU_H

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define M3_X86 1
#include <immintrin.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline)) /* into what is compiled for one instruction set */
#else
#define INLINE static inline
#define restrict __restrict
#endif

enum { PORTABLE = 0, AVX2 = 1, AVX512_VNNI = 2, AMX_INT8 = 3 }; /* each has what those before it have */

int best_level(void);

#endif
