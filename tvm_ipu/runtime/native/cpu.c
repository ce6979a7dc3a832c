/* Which CPU features this machine has, in LLVM's spelling. One table an architecture. */
#include <string.h>

#include "internal.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH "x86_64"

enum { EBX, ECX, EDX, EAX };
/* Register state that the operating system must save (bits of XCR0). */
enum { NO_STATE = 0, AVX_STATE = 0x6, AVX512_STATE = 0xe6, AMX_STATE = 0x60000 };
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

static const struct feature {
  const char *name;
  uint32_t leaf, subleaf;
  uint8_t reg, bit;
  uint32_t state;
} features[] = {
    {"cmov", 1, 0, EDX, 15, NO_STATE},
    {"cx8", 1, 0, EDX, 8, NO_STATE},
    {"fxsr", 1, 0, EDX, 24, NO_STATE},
    {"mmx", 1, 0, EDX, 23, NO_STATE},
    {"sse", 1, 0, EDX, 25, NO_STATE},
    {"sse2", 1, 0, EDX, 26, NO_STATE},
    {"sse3", 1, 0, ECX, 0, NO_STATE},
    {"pclmul", 1, 0, ECX, 1, NO_STATE},
    {"ssse3", 1, 0, ECX, 9, NO_STATE},
    {"fma", 1, 0, ECX, 12, AVX_STATE},
    {"cx16", 1, 0, ECX, 13, NO_STATE},
    {"sse4.1", 1, 0, ECX, 19, NO_STATE},
    {"sse4.2", 1, 0, ECX, 20, NO_STATE},
    {"movbe", 1, 0, ECX, 22, NO_STATE},
    {"popcnt", 1, 0, ECX, 23, NO_STATE},
    {"aes", 1, 0, ECX, 25, NO_STATE},
    {"xsave", 1, 0, ECX, 27, NO_STATE},
    {"avx", 1, 0, ECX, 28, AVX_STATE},
    {"f16c", 1, 0, ECX, 29, AVX_STATE},
    {"sahf", 0x80000001, 0, ECX, 0, NO_STATE},
    {"lzcnt", 0x80000001, 0, ECX, 5, NO_STATE},
    {"bmi", 7, 0, EBX, 3, NO_STATE},
    {"avx2", 7, 0, EBX, 5, AVX_STATE},
    {"bmi2", 7, 0, EBX, 8, NO_STATE},
    {"avx512f", 7, 0, EBX, 16, AVX512_STATE},
    {"avx512dq", 7, 0, EBX, 17, AVX512_STATE},
    {"avx512ifma", 7, 0, EBX, 21, AVX512_STATE},
    {"avx512cd", 7, 0, EBX, 28, AVX512_STATE},
    {"avx512bw", 7, 0, EBX, 30, AVX512_STATE},
    {"avx512vl", 7, 0, EBX, 31, AVX512_STATE},
    {"avx512vbmi", 7, 0, ECX, 1, AVX512_STATE},
    {"avx512vbmi2", 7, 0, ECX, 6, AVX512_STATE},
    {"gfni", 7, 0, ECX, 8, NO_STATE},
    {"vaes", 7, 0, ECX, 9, AVX_STATE},
    {"vpclmulqdq", 7, 0, ECX, 10, AVX_STATE},
    {"avx512vnni", 7, 0, ECX, 11, AVX512_STATE},
    {"avx512bitalg", 7, 0, ECX, 12, AVX512_STATE},
    {"avx512vpopcntdq", 7, 0, ECX, 14, AVX512_STATE},
    {"amx-bf16", 7, 0, EDX, 22, AMX_STATE},
    {"avx512fp16", 7, 0, EDX, 23, AVX512_STATE},
    {"amx-tile", 7, 0, EDX, 24, AMX_STATE},
    {"amx-int8", 7, 0, EDX, 25, AMX_STATE},
    {"avxvnni", 7, 1, EAX, 4, AVX_STATE},
    {"avx512bf16", 7, 1, EAX, 5, AVX512_STATE},
    {"amx-fp16", 7, 1, EAX, 21, AMX_STATE},
    {"avxifma", 7, 1, EAX, 23, AVX_STATE},
    {"avxvnniint8", 7, 1, EDX, 4, AVX_STATE},
};

static uint32_t saved_state(void) {
  uint32_t reg[4], low, high;
  if (!__get_cpuid(1, &reg[EAX], &reg[EBX], &reg[ECX], &reg[EDX]) || !(reg[ECX] >> 27 & 1)) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static int has_feature(const char *name) {
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    const struct feature *f = &features[i];
    if (strcmp(f->name, name) != 0) continue;
    uint32_t reg[4];
    if (!__get_cpuid_count(f->leaf, f->subleaf, &reg[EAX], &reg[EBX], &reg[ECX], &reg[EDX])) return 0;
    return (reg[f->reg] >> f->bit & 1) && (f->state == NO_STATE || (saved_state() & f->state) == f->state);
  }
  return -1;
}

/* Linux grants the tile registers to a process on request only. */
static bool enable_feature(const char *name) {
  if (strncmp(name, "amx-", 4) != 0) return true;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

#elif defined(__aarch64__) || defined(__arm__) || defined(__riscv)

#include <sys/auxv.h>

#ifndef AT_HWCAP2
#define AT_HWCAP2 26
#endif

/* Bits of the kernel's hardware capability words; all bits of `mask` must be set. */
static const struct feature {
  const char *name;
  unsigned long word, mask;
} features[] = {
#define CAP(name, bit) {name, AT_HWCAP, 1ul << (bit)}
#define CAP2(name, bit) {name, AT_HWCAP2, 1ul << (bit)}
#if defined(__aarch64__)
#define ARCH "aarch64"
    CAP("fp-armv8", 0),   CAP("neon", 1), CAP("aes", 3),      CAP("sha2", 6),  CAP("crc", 7),
    CAP("lse", 8),        CAP("rdm", 12), CAP("dotprod", 20), CAP("sve", 22),  CAP("fp16fml", 23),
    CAP2("sve2", 1),      CAP2("i8mm", 13), CAP2("bf16", 14), CAP2("sme", 23), {"fullfp16", AT_HWCAP, 3ul << 9},
#elif defined(__arm__)
#define ARCH "arm"
    CAP("edsp", 7),       CAP("neon", 12),  CAP("vfp3", 13),  CAP("vfp4", 16),
    CAP("hwdiv-arm", 17), CAP("hwdiv", 18), CAP("fp16", 22),  CAP("dotprod", 24),
#else
#define ARCH "riscv64"
    CAP("i", 'i' - 'a'),  CAP("m", 'm' - 'a'), CAP("a", 'a' - 'a'), CAP("f", 'f' - 'a'),
    CAP("d", 'd' - 'a'),  CAP("c", 'c' - 'a'), CAP("v", 'v' - 'a'),
#endif
};

static int has_feature(const char *name) {
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    if (strcmp(features[i].name, name) != 0) continue;
    return (getauxval(features[i].word) & features[i].mask) == features[i].mask;
  }
  return -1;
}

static bool enable_feature(const char *name) {
  (void)name;
  return true;
}

#elif defined(__hexagon__)

#define ARCH "hexagon"

#ifndef __HVX_ARCH__
#define __HVX_ARCH__ 0
#define __HVX_LENGTH__ 0
#endif

/* There is no way to ask: the library runs on what it was built for. */
static int has_feature(const char *name) {
  static const struct {
    const char *name;
    bool present;
  } features[] = {
      {"v60", __HEXAGON_ARCH__ >= 60},    {"v62", __HEXAGON_ARCH__ >= 62},    {"v65", __HEXAGON_ARCH__ >= 65},
      {"v66", __HEXAGON_ARCH__ >= 66},    {"v67", __HEXAGON_ARCH__ >= 67},    {"v68", __HEXAGON_ARCH__ >= 68},
      {"v69", __HEXAGON_ARCH__ >= 69},    {"v71", __HEXAGON_ARCH__ >= 71},    {"v73", __HEXAGON_ARCH__ >= 73},
      {"hvx", __HVX_ARCH__ > 0},          {"hvxv60", __HVX_ARCH__ >= 60},     {"hvxv62", __HVX_ARCH__ >= 62},
      {"hvxv65", __HVX_ARCH__ >= 65},     {"hvxv66", __HVX_ARCH__ >= 66},     {"hvxv67", __HVX_ARCH__ >= 67},
      {"hvxv68", __HVX_ARCH__ >= 68},     {"hvxv69", __HVX_ARCH__ >= 69},     {"hvxv71", __HVX_ARCH__ >= 71},
      {"hvxv73", __HVX_ARCH__ >= 73},     {"hvx-length64b", __HVX_LENGTH__ == 64},
      {"hvx-length128b", __HVX_LENGTH__ == 128},
  };
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    if (strcmp(features[i].name, name) == 0) return features[i].present;
  }
  return -1;
}

static bool enable_feature(const char *name) {
  (void)name;
  return true;
}

#else
#error "unknown architecture: add a table of its CPU features"
#endif

const char *tvm_ipu_host_arch(void) { return ARCH; }

int tvm_ipu_host_has_feature(const char *feature) { return has_feature(feature); }

tvm_ipu_status ipu_cpu_check(const char *required, tvm_ipu_error *error) {
  while (*required) {
    char name[32];
    size_t length = strcspn(required, ",");
    size_t kept = length < sizeof name ? length : sizeof name - 1;
    memcpy(name, required, kept);
    name[kept] = 0;
    required += length + (required[length] == ',');
    int present = length < sizeof name ? has_feature(name) : -1;
    if (present < 0) {
      return ipu_fail(error, TVM_IPU_ERROR_CPU_FEATURE, "update tvm_ipu",
                      "needs the CPU feature '%s', which this runtime does not know", name);
    }
    if (!present) {
      return ipu_fail(error, TVM_IPU_ERROR_CPU_FEATURE, "compile the model with --target host on this machine",
                      "needs the CPU feature '%s', which this machine does not have", name);
    }
    if (!enable_feature(name)) {
      return ipu_fail(error, TVM_IPU_ERROR_CPU_FEATURE,
                      "allow arch_prctl(ARCH_REQ_XCOMP_PERM) in this sandbox, on Linux 5.16 or newer",
                      "needs the CPU feature '%s', which the operating system does not let this process use", name);
    }
  }
  return TVM_IPU_OK;
}
