#include "cpu.h"
#include "amx.h"

static int find_level(void) {
#ifdef M3_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
        return amx_works() ? AMX_INT8 : AVX512_VNNI;
    if (__builtin_cpu_supports("avx2"))
        return AVX2;
#endif
    return PORTABLE;
}

int best_level(void) {
    static int level = -1; /* found once, while the module is loaded */
    if (level < 0)
        level = find_level();
    return level;
}
