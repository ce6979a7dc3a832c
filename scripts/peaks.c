/* What one core of this x86-64 processor can do at most: multiply-adds by type, and reading from a working set.
   Prints JSON: operations in GOP/s (a multiply-add counts two), reading in GB/s. Compile with -O2 -march=native. */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAINS = 16, STEPS = 200000, TRIES = 15 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Independent chains of one instruction; the best of several tries in operations per second. */
#define PEAK(name, type, zero, step, operations)                                        \
    static double name(void) {                                                          \
        double best = 0;                                                                \
        for (int attempt = 0; attempt < TRIES; attempt++) {                             \
            type acc[CHAINS], a = zero, b = zero;                                       \
            for (int i = 0; i < CHAINS; i++) acc[i] = zero;                             \
            __asm__ volatile("" : "+v"(a), "+v"(b));                                    \
            double start = now();                                                       \
            for (int s = 0; s < STEPS; s++)                                             \
                _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++) {             \
                    acc[i] = step;                                                      \
                    __asm__ volatile("" : "+v"(acc[i]));                                \
                }                                                                       \
            double rate = (double)STEPS * CHAINS * (operations) / (now() - start) / 1e9;\
            if (rate > best) best = rate;                                               \
        }                                                                               \
        return best;                                                                    \
    }

#if defined __AVX512F__
PEAK(peak_fp32, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, acc[i]), 32)
#elif defined __FMA__
PEAK(peak_fp32, __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, acc[i]), 16)
#else
PEAK(peak_fp32, __m128, _mm_setzero_ps(), _mm_add_ps(acc[i], _mm_mul_ps(a, b)), 8)
#endif
#if defined __AVX512BF16__
PEAK(peak_bf16, __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)b), 64)
#endif
#if defined __AVX512VNNI__
PEAK(peak_int8, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(acc[i], a, b), 128)
#elif defined __AVX2__
PEAK(peak_int8, __m256i, _mm256_setzero_si256(), _mm256_add_epi32(acc[i], _mm256_madd_epi16(a, b)), 32)
#endif

static double reading(size_t size) {
    uint64_t *data = aligned_alloc(64, size);
    if (!data) return 0;
    memset(data, 1, size);
    double best = 0;
    for (int attempt = 0; attempt < TRIES; attempt++) {
        uint64_t sum[8] = {0};
        double start = now();
        for (size_t i = 0; i < size / 8; i += 8)
            for (int j = 0; j < 8; j++) sum[j] += data[i + (size_t)j];
        double rate = (double)size / (now() - start) / 1e9;
        for (int j = 0; j < 8; j++) __asm__ volatile("" ::"r"(sum[j]));
        if (rate > best) best = rate;
    }
    free(data);
    return best;
}

int main(void) {
    printf("{\"fp32\": %.1f", peak_fp32());
#if defined __AVX512BF16__
    printf(", \"bf16\": %.1f", peak_bf16());
#endif
#if defined __AVX2__
    printf(", \"int8\": %.1f", peak_int8());
#endif
    printf(", \"l2\": %.1f, \"l3\": %.1f, \"memory\": %.1f}\n", reading(512u << 10), reading(8u << 20), reading(256u << 20));
    return 0;
}
