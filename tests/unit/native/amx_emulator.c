/* Runs AMX instructions on machines without them. Each one raises SIGILL; the handler carries it out on tile registers
 * in memory, one set a thread, and goes on behind it. What the processor would refuse ends the program with a message:
 * a bad configuration, tiles whose shapes do not fit, a tile in two roles.
 *
 * Semantics: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1 chapter 18 and volume 2. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, MAX_ROWS = 16, MAX_BYTES = 64 };
enum { CONFIGURE, RELEASE, ZERO, LOAD, STORE, MULTIPLY, KINDS };
enum { NO_PREFIX, P66, PF3, PF2 }; /* field pp of a VEX prefix */

typedef struct {
  int rows, bytes; /* as configured; 0 rows: not in use */
  uint8_t data[MAX_ROWS][MAX_BYTES];
} tile;

static _Thread_local tile tiles[TILES];
static uint64_t counts[KINDS];
static struct sigaction previous;

static void count(int kind) { __atomic_fetch_add(&counts[kind], 1, __ATOMIC_RELAXED); }

static _Noreturn void refuse(const char *what) {
  fprintf(stderr, "AMX emulation: %s\n", what);
  abort();
}

static tile *used(int number) {
  if (number >= TILES || tiles[number].rows == 0) refuse("a tile that is not configured");
  return &tiles[number];
}

static void configure(const uint8_t *config) {
  if (config[0] != 1) refuse("palette is not 1");
  if (config[1] != 0) refuse("start row is not 0");
  memset(tiles, 0, sizeof tiles);
  for (int i = 2; i < 64; i++) {
    if (config[i] && (i < 16 || (i >= 32 && i < 48) || i >= 56)) refuse("a reserved byte is set");
  }
  for (int i = 0; i < TILES; i++) {
    const int bytes = config[16 + 2 * i] | config[17 + 2 * i] << 8, rows = config[48 + i];
    if (bytes > MAX_BYTES || rows > MAX_ROWS || !bytes != !rows) refuse("a tile's shape is impossible");
    tiles[i].rows = rows;
    tiles[i].bytes = bytes;
  }
}

static void load(tile *t, const uint8_t *from, int64_t stride) {
  memset(t->data, 0, sizeof t->data);
  for (int r = 0; r < t->rows; r++) memcpy(t->data[r], from + r * stride, (size_t)t->bytes);
}

static void store(const tile *t, uint8_t *to, int64_t stride) {
  for (int r = 0; r < t->rows; r++) memcpy(to + r * stride, t->data[r], (size_t)t->bytes);
}

static void multiply_bytes(tile *c, const tile *a, const tile *b, int a_signed, int b_signed) {
  enum { N = MAX_BYTES / 4 };
  int32_t right[MAX_BYTES][N];
  for (int k = 0; k < a->bytes; k++) {
    for (int n = 0; n < N; n++) {
      const uint8_t byte = b->data[k / 4][4 * n + k % 4];
      right[k][n] = b_signed ? (int8_t)byte : byte;
    }
  }
  for (int m = 0; m < c->rows; m++) {
    uint32_t sums[N]; /* wrap around, as the processor's do */
    memcpy(sums, c->data[m], sizeof sums);
    for (int k = 0; k < a->bytes; k++) {
      const int32_t left = a_signed ? (int8_t)a->data[m][k] : a->data[m][k];
      for (int n = 0; n < N; n++) sums[n] += (uint32_t)(left * right[k][n]);
    }
    memcpy(c->data[m], sums, (size_t)c->bytes);
  }
}

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? x * 0.0f : x; }

static float from_bfloat16(const uint8_t *at) {
  const uint32_t bits = (uint32_t)(at[0] | at[1] << 8) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return flushed(value);
}

/* Products of even and of odd elements are summed apart, then together, then added; subnormals count as zero. */
static void multiply_bfloat16(tile *c, const tile *a, const tile *b) {
  enum { N = MAX_BYTES / 4 };
  float right[2 * MAX_ROWS][N];
  for (int k = 0; k < a->bytes / 2; k++) {
    for (int n = 0; n < N; n++) right[k][n] = from_bfloat16(&b->data[k / 2][4 * n + k % 2 * 2]);
  }
  for (int m = 0; m < c->rows; m++) {
    float sums[2][N] = {{0}}, old[N];
    for (int k = 0; k < a->bytes / 2; k++) {
      const float left = from_bfloat16(&a->data[m][2 * k]);
      float *sum = sums[k % 2];
      for (int n = 0; n < N; n++) sum[n] = flushed(fmaf(left, right[k][n], sum[n]));
    }
    memcpy(old, c->data[m], sizeof old);
    for (int n = 0; n < N; n++) old[n] = flushed(flushed(old[n]) + flushed(sums[0][n] + sums[1][n]));
    memcpy(c->data[m], old, (size_t)c->bytes);
  }
}

static void multiply(int opcode, int prefix, int c_number, int a_number, int b_number) {
  if (c_number == a_number || c_number == b_number || a_number == b_number) refuse("a tile in two roles");
  tile *c = used(c_number), *a = used(a_number), *b = used(b_number);
  if (c->rows != a->rows || c->bytes != b->bytes || a->bytes != 4 * b->rows || c->bytes % 4) {
    refuse("shapes of tiles do not fit");
  }
  if (opcode == 0x5e) {
    multiply_bytes(c, a, b, prefix == PF2 || prefix == PF3, prefix == PF2 || prefix == P66);
  } else if (prefix == PF3) {
    multiply_bfloat16(c, a, b);
  } else {
    refuse("a multiplication that is not emulated");
  }
}

static int64_t *general(ucontext_t *context, int number) {
  static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (int64_t *)&context->uc_mcontext.gregs[order[number]];
}

typedef struct {
  uint8_t *base;
  int64_t stride;
  const uint8_t *end; /* of the instruction */
} operand;

/* Memory operand of the instruction whose ModRM byte is at `at`; `vex` is the first byte after 0xc4. */
static operand decode_memory(ucontext_t *context, const uint8_t *at, uint8_t vex) {
  const int mode = at[0] >> 6, rm = at[0] & 7;
  operand found = {NULL, 0, at + 1};
  int64_t base = 0;
  int has_base = 1, number = rm;
  if (rm == 4) {
    const uint8_t sib = at[1];
    const int index = (sib >> 3 & 7) | (vex & 0x40 ? 0 : 8);
    if (index != 4) found.stride = *general(context, index) * (1 << (sib >> 6));
    number = sib & 7;
    found.end++;
  }
  int32_t displacement = 0;
  if (mode == 0 && number == 5) has_base = 0;
  if (mode == 1) displacement = (int8_t)*found.end;
  if (mode == 2 || !has_base) memcpy(&displacement, found.end, 4);
  found.end += mode == 1 ? 1 : mode == 2 || !has_base ? 4 : 0;
  if (has_base) base = *general(context, number | (vex & 0x20 ? 0 : 8));
  if (!has_base && rm == 5) base = (int64_t)(intptr_t)found.end;
  found.base = (uint8_t *)(intptr_t)(base + displacement);
  return found;
}

/* Carry out the instruction at `at`; the address behind it, or NULL if it is none of AMX. */
static const uint8_t *step(ucontext_t *context, const uint8_t *at) {
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2) return NULL;
  const int prefix = at[2] & 3, other = ~(at[2] >> 3) & 0xf, opcode = at[3], reg = at[4] >> 3 & 7, rm = at[4] & 7;
  const int in_register = at[4] >> 6 == 3;
  if (opcode == 0x49 && in_register && prefix == PF2) {
    count(ZERO);
    tile *t = used(reg);
    memset(t->data, 0, sizeof t->data);
    return at + 5;
  }
  if (opcode == 0x49 && in_register && prefix == NO_PREFIX) {
    count(RELEASE);
    memset(tiles, 0, sizeof tiles);
    return at + 5;
  }
  if ((opcode == 0x5e || opcode == 0x5c) && in_register) {
    count(MULTIPLY);
    multiply(opcode, prefix, reg, rm, other);
    return at + 5;
  }
  if ((opcode != 0x49 && opcode != 0x4b) || in_register) return NULL;
  const operand memory = decode_memory(context, at + 4, at[1]);
  if (opcode == 0x49 && prefix == NO_PREFIX) {
    count(CONFIGURE);
    configure(memory.base);
  } else if (opcode == 0x4b && prefix == PF3) {
    count(STORE);
    store(used(reg), memory.base, memory.stride);
  } else if (opcode == 0x4b && prefix != NO_PREFIX) {
    count(LOAD);
    load(used(reg), memory.base, memory.stride);
  } else {
    return NULL;
  }
  return memory.end;
}

static void on_illegal(int number, siginfo_t *info, void *context_) {
  (void)number, (void)info;
  ucontext_t *context = context_;
  const uint8_t *next = step(context, (const uint8_t *)(intptr_t)context->uc_mcontext.gregs[REG_RIP]);
  if (next) {
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)(intptr_t)next;
  } else {
    sigaction(SIGILL, &previous, NULL); /* the instruction runs again and finds the handler before this one */
  }
}

int amx_emulation_start(void) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  action.sa_sigaction = on_illegal;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGILL, &action, &previous);
}

int amx_emulation_stop(void) { return sigaction(SIGILL, &previous, NULL); }

/* Instructions since the last call: configure, release, zero, load, store, multiply. */
void amx_emulation_counts(uint64_t out[KINDS]) {
  for (int i = 0; i < KINDS; i++) out[i] = __atomic_exchange_n(&counts[i], 0, __ATOMIC_RELAXED);
}
