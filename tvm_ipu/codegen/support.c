/* What compiled kernels may call: functions that LLVM emits for operations that an instruction set lacks. They take the
 * place of the C library and of the compiler's own support library, which an image does not have. Hidden, so that calls
 * are direct; the linker drops what is not called. Names and calling conventions are LLVM's. */
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns") /* or memcpy would call itself */
#endif
#pragma GCC visibility push(hidden)

/* --- memory --- */

#if defined(__x86_64__) || defined(__aarch64__) || defined(__ARM_FEATURE_UNALIGNED)
enum { ALIGNED = 1 };
#else
enum { ALIGNED = 8 };
#endif
typedef uint8_t block __attribute__((vector_size(64), aligned(ALIGNED), may_alias));
typedef uint64_t word __attribute__((aligned(ALIGNED), may_alias));

static int words_allowed(uintptr_t a, uintptr_t b) { return ((a | b) & (ALIGNED - 1)) == 0; }

static void *copy_up(uint8_t *to, const uint8_t *from, size_t size) {
  uint8_t *start = to;
  if (words_allowed((uintptr_t)to, (uintptr_t)from)) {
    for (; size >= sizeof(block); size -= sizeof(block), to += sizeof(block), from += sizeof(block)) {
      *(block *)to = *(const block *)from;
    }
    for (; size >= sizeof(word); size -= sizeof(word), to += sizeof(word), from += sizeof(word)) {
      *(word *)to = *(const word *)from;
    }
  }
  while (size--) *to++ = *from++;
  return start;
}

static void *copy_down(uint8_t *to, const uint8_t *from, size_t size) {
  if (words_allowed((uintptr_t)to + size, (uintptr_t)from + size)) {
    for (; size >= sizeof(word); size -= sizeof(word)) {
      *(word *)(to + size - sizeof(word)) = *(const word *)(from + size - sizeof(word));
    }
  }
  while (size--) to[size] = from[size];
  return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) { return copy_up(to, from, size); }

void *memmove(void *to, const void *from, size_t size) {
  return (uintptr_t)to - (uintptr_t)from >= size ? copy_up(to, from, size) : copy_down(to, from, size);
}

void *memset(void *to, int value, size_t size) {
  uint8_t *next = to;
  if (words_allowed((uintptr_t)to, 0)) {
    const word pattern = (uint8_t)value * UINT64_C(0x0101010101010101);
    const block wide = (block)(uint64_t __attribute__((vector_size(64)))){pattern, pattern, pattern, pattern,
                                                                         pattern, pattern, pattern, pattern};
    for (; size >= sizeof(block); size -= sizeof(block), next += sizeof(block)) *(block *)next = wide;
    for (; size >= sizeof(word); size -= sizeof(word), next += sizeof(word)) *(word *)next = pattern;
  }
  while (size--) *next++ = (uint8_t)value;
  return to;
}

int memcmp(const void *a, const void *b, size_t size) {
  const uint8_t *left = a, *right = b;
  for (; size; size--, left++, right++) {
    if (*left != *right) return *left < *right ? -1 : 1;
  }
  return 0;
}

int bcmp(const void *a, const void *b, size_t size) { return memcmp(a, b, size); }

/* --- half precision --- */

#if !defined(__aarch64__)

/* Nearest half of a double, ties to even. */
static uint16_t half_bits(double value) {
  union {
    double value;
    uint64_t bits;
  } input = {value};
  const uint64_t size = input.bits & INT64_MAX;
  const uint16_t sign = (uint16_t)(input.bits >> 48 & 0x8000);
  const unsigned exponent = (unsigned)(size >> 52);
  if (size > UINT64_C(0x7ff0000000000000)) return sign | 0x7e00 | (uint16_t)(size >> 42 & 0x1ff); /* NaN */
  if (size >= UINT64_C(0x40effe0000000000)) return sign | 0x7c00;                                 /* 65520 */
  uint64_t digits = size - (UINT64_C(1008) << 52);
  unsigned shift = 42;
  if (exponent < 1009) { /* below 2^-14: units of 2^-24 */
    digits = (size & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    shift = 1051 - exponent;
    if (shift > 54) return sign;
  }
  const uint64_t half = UINT64_C(1) << (shift - 1);
  return sign | (uint16_t)((digits + half - 1 + (digits >> shift & 1)) >> shift);
}

union single {
  uint32_t bits;
  float value;
};

static float half_value(uint16_t bits) {
  const uint32_t size = bits & 0x7fff;
  union single result;
  if (size >= 0x7c00) {
    result.bits = 0x7f800000 | size << 13 | (size > 0x7c00) << 22;
  } else if (size >= 0x400) {
    result.bits = (size << 13) + (112u << 23);
  } else {
    result.value = (float)size * 0x1p-24f;
  }
  result.bits |= (bits & 0x8000u) << 16;
  return result.value;
}

#if defined(__arm__)

/* The Arm run-time ABI passes floats in integer registers, whatever the platform's convention. */
#define RTABI __attribute__((pcs("aapcs")))

RTABI float __gnu_h2f_ieee(uint16_t bits) { return half_value(bits); }
RTABI uint16_t __gnu_f2h_ieee(float value) { return half_bits(value); }
RTABI uint16_t __aeabi_d2h(double value) { return half_bits(value); }

#elif defined(__hexagon__)

float __extendhfsf2(uint16_t bits) { return half_value(bits); }
uint16_t __truncsfhf2(float value) { return half_bits(value); }
uint16_t __truncdfhf2(double value) { return half_bits(value); }

#else /* a half travels in the low bits of a float register, the others set */

static float boxed(uint16_t bits) {
  const union single result = {0xffff0000u | bits};
  return result.value;
}

float __extendhfsf2(float half) {
  union single input;
  input.value = half;
  return half_value((uint16_t)input.bits);
}
float __truncsfhf2(float value) { return boxed(half_bits(value)); }
float __truncdfhf2(double value) { return boxed(half_bits(value)); }

#endif
#endif

/* --- integer division --- */

#if defined(__arm__) || defined(__hexagon__)

static uint32_t divide32(uint32_t number, uint32_t by, uint32_t *rest) {
  uint32_t quotient = 0;
  if (by != 0 && number >= by) {
    for (int i = __builtin_clz(by) - __builtin_clz(number); i >= 0; i--) {
      if (number >= by << i) {
        number -= by << i;
        quotient |= UINT32_C(1) << i;
      }
    }
  }
  *rest = number;
  return quotient;
}

static uint64_t divide64(uint64_t number, uint64_t by, uint64_t *rest) {
  if ((number | by) <= UINT32_MAX) {
    uint32_t rest32;
    const uint32_t quotient32 = divide32((uint32_t)number, (uint32_t)by, &rest32);
    *rest = rest32;
    return quotient32;
  }
  uint64_t quotient = 0;
  if (by != 0 && number >= by) {
    for (int i = __builtin_clzll(by) - __builtin_clzll(number); i >= 0; i--) {
      if (number >= by << i) {
        number -= by << i;
        quotient |= UINT64_C(1) << i;
      }
    }
  }
  *rest = number;
  return quotient;
}

static uint32_t size32(int32_t value) { return value < 0 ? -(uint32_t)value : (uint32_t)value; }
static uint64_t size64(int64_t value) { return value < 0 ? -(uint64_t)value : (uint64_t)value; }

static int32_t signed_divide32(int32_t number, int32_t by, int32_t *rest) {
  uint32_t rest_size;
  const uint32_t quotient = divide32(size32(number), size32(by), &rest_size);
  *rest = (int32_t)(number < 0 ? -rest_size : rest_size);
  return (int32_t)((number ^ by) < 0 ? -quotient : quotient);
}

static int64_t signed_divide64(int64_t number, int64_t by, int64_t *rest) {
  uint64_t rest_size;
  const uint64_t quotient = divide64(size64(number), size64(by), &rest_size);
  *rest = (int64_t)(number < 0 ? -rest_size : rest_size);
  return (int64_t)((number ^ by) < 0 ? -quotient : quotient);
}

#endif

#if defined(__arm__)

uint32_t __aeabi_uidiv(uint32_t number, uint32_t by) {
  uint32_t rest;
  return divide32(number, by, &rest);
}

int32_t __aeabi_idiv(int32_t number, int32_t by) {
  int32_t rest;
  return signed_divide32(number, by, &rest);
}

/* Quotient in r0, remainder in r1. */
uint64_t __aeabi_uidivmod(uint32_t number, uint32_t by) {
  uint32_t rest;
  const uint32_t quotient = divide32(number, by, &rest);
  return quotient | (uint64_t)rest << 32;
}

uint64_t __aeabi_idivmod(int32_t number, int32_t by) {
  int32_t rest;
  const int32_t quotient = signed_divide32(number, by, &rest);
  return (uint32_t)quotient | (uint64_t)(uint32_t)rest << 32;
}

/* Quotient in r0:r1, remainder in r2:r3, which C cannot return. */
__attribute__((used)) static uint64_t divmod64(uint64_t number, uint64_t by, uint64_t *rest) {
  return divide64(number, by, rest);
}

__attribute__((used)) static int64_t signed_divmod64(int64_t number, int64_t by, int64_t *rest) {
  return signed_divide64(number, by, rest);
}

#define DIVMOD64(name, function)                                                                        \
  __attribute__((naked)) void name(void) {                                                              \
    __asm__("push {r4, lr}\n sub sp, #16\n add r4, sp, #8\n str r4, [sp]\n bl " #function               \
            "\n ldrd r2, r3, [sp, #8]\n add sp, #16\n pop {r4, pc}");                                   \
  }
DIVMOD64(__aeabi_uldivmod, divmod64)
DIVMOD64(__aeabi_ldivmod, signed_divmod64)

/* --- 64-bit integers and floats --- */

/* Both halves are exact, so the sum is the only rounding. */
static double to_double(uint64_t value) { return (double)(uint32_t)(value >> 32) * 0x1p32 + (double)(uint32_t)value; }

/* Folds the bits that a double cannot hold into one that still decides how a float is rounded. */
static double to_double_sticky(uint64_t value) {
  if (value >> 53) value = (value & ~UINT64_C(0x7ff)) | (value & 0x7ff ? 0x800 : 0);
  return to_double(value);
}

static uint64_t from_double(double value) {
  const uint32_t high = (uint32_t)(value * 0x1p-32);
  return (uint64_t)high << 32 | (uint32_t)(value - (double)high * 0x1p32);
}

RTABI double __aeabi_ul2d(uint64_t value) { return to_double(value); }
RTABI double __aeabi_l2d(int64_t value) { return value < 0 ? -to_double(size64(value)) : to_double(size64(value)); }
RTABI float __aeabi_ul2f(uint64_t value) { return (float)to_double_sticky(value); }
RTABI float __aeabi_l2f(int64_t value) {
  const float size = (float)to_double_sticky(size64(value));
  return value < 0 ? -size : size;
}
RTABI uint64_t __aeabi_d2ulz(double value) { return from_double(value); }
RTABI int64_t __aeabi_d2lz(double value) {
  return (int64_t)(value < 0 ? -from_double(-value) : from_double(value));
}
RTABI uint64_t __aeabi_f2ulz(float value) { return from_double(value); }
RTABI int64_t __aeabi_f2lz(float value) { return __aeabi_d2lz(value); }

#elif defined(__hexagon__)

uint32_t __hexagon_udivsi3(uint32_t number, uint32_t by) {
  uint32_t rest;
  return divide32(number, by, &rest);
}

uint32_t __hexagon_umodsi3(uint32_t number, uint32_t by) {
  uint32_t rest;
  divide32(number, by, &rest);
  return rest;
}

int32_t __hexagon_divsi3(int32_t number, int32_t by) {
  int32_t rest;
  return signed_divide32(number, by, &rest);
}

int32_t __hexagon_modsi3(int32_t number, int32_t by) {
  int32_t rest;
  signed_divide32(number, by, &rest);
  return rest;
}

uint64_t __hexagon_udivdi3(uint64_t number, uint64_t by) {
  uint64_t rest;
  return divide64(number, by, &rest);
}

uint64_t __hexagon_umoddi3(uint64_t number, uint64_t by) {
  uint64_t rest;
  divide64(number, by, &rest);
  return rest;
}

int64_t __hexagon_divdi3(int64_t number, int64_t by) {
  int64_t rest;
  return signed_divide64(number, by, &rest);
}

int64_t __hexagon_moddi3(int64_t number, int64_t by) {
  int64_t rest;
  signed_divide64(number, by, &rest);
  return rest;
}

void *__hexagon_memcpy_likely_aligned_min32bytes_mult8bytes(void *restrict to, const void *restrict from, size_t size) {
  return copy_up(to, from, size);
}

/* --- double division --- */

union number {
  double value;
  uint64_t bits;
};
enum { FRACTION = 52, BIAS = 1023 };
static const uint64_t INFINITE = UINT64_C(0x7ff) << FRACTION;

/* Significand of a finite number other than 0, its top bit set, and the exponent that belongs to it. */
static uint64_t significand(uint64_t size, int *exponent) {
  *exponent = (int)(size >> FRACTION);
  if (*exponent) return (size & (INFINITE ^ INT64_MAX)) | UINT64_C(1) << FRACTION;
  const int shift = __builtin_clzll(size) - (63 - FRACTION);
  *exponent = 1 - shift;
  return size << shift;
}

double __hexagon_divdf3(double number, double by) {
  union number a = {number}, b = {by}, result;
  const uint64_t sign = (a.bits ^ b.bits) & ~(uint64_t)INT64_MAX;
  a.bits &= INT64_MAX;
  b.bits &= INT64_MAX;
  if (a.bits > INFINITE || b.bits > INFINITE) return number + by;
  if (a.bits == b.bits && (a.bits == 0 || a.bits == INFINITE)) {
    result.bits = INFINITE | UINT64_C(1) << (FRACTION - 1);
    return result.value;
  }
  if (a.bits == 0 || b.bits == INFINITE || a.bits == INFINITE || b.bits == 0) {
    result.bits = sign | (a.bits == 0 || b.bits == INFINITE ? 0 : INFINITE);
    return result.value;
  }

  int exponent, exponent_b;
  uint64_t rest = significand(a.bits, &exponent);
  const uint64_t divisor = significand(b.bits, &exponent_b);
  exponent += BIAS - exponent_b;
  if (rest < divisor) {
    rest <<= 1;
    exponent--;
  }
  uint64_t quotient = 0; /* the significand and two more digits, which decide the rounding */
  for (int i = 0; i < FRACTION + 3; i++, rest <<= 1) {
    quotient <<= 1;
    if (rest >= divisor) {
      rest -= divisor;
      quotient |= 1;
    }
  }
  quotient |= rest != 0;
  if (exponent < 1) { /* subnormal */
    const int shift = 1 - exponent < FRACTION + 4 ? 1 - exponent : FRACTION + 4;
    quotient = quotient >> shift | ((quotient & ((UINT64_C(1) << shift) - 1)) != 0);
    exponent = 1;
  }
  const uint64_t rounded = (quotient + 1 + (quotient >> 2 & 1)) >> 2;
  result.bits = exponent > 2 * BIAS ? INFINITE : ((uint64_t)(exponent - 1) << FRACTION) + rounded;
  result.bits |= sign;
  return result.value;
}

#endif

#pragma GCC visibility pop
