/* Weights in bf16 and int8, 16 of them as float32. The generic conversions are what compilers know
 * least well, so the processors that most have say how. */
#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef uint16_t halves_anywhere __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t bytes_anywhere __attribute__((vector_size(16), aligned(1), may_alias));

/* bf16 is the upper half of a float32. */
INLINE vec load_bf16(const uint16_t *p) {
#ifdef __AVX512F__
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (vec)_mm512_slli_epi32(wide, 16);
#else
    return (vec)(__builtin_convertvector(*(const halves_anywhere *)p, bits_vec) << 16);
#endif
}

INLINE vec load_int8(const int8_t *p) {
#ifdef __AVX512F__
    const __m128i bytes = _mm_loadu_si128((const __m128i *)p);
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(__AVX2__)
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    const __m128i rest = _mm_loadl_epi64((const __m128i *)(p + 8));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(rest));
    vec v;
    memcpy(&v, &low, 32);
    memcpy((char *)&v + 32, &high, 32);
    return v;
#else
    return __builtin_convertvector(*(const bytes_anywhere *)p, vec);
#endif
}
