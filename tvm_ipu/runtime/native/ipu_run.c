/* ipu-run: runs an offline image without Python. `ipu-run` alone prints its usage. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tvm_ipu.h"

static const char USAGE[] =
    "usage: ipu-run IMAGE [options]\n"
    "  --inputs FILE...   raw little-endian bytes of each input, in the image's order\n"
    "  --fill random|zeros  make the inputs instead (default: random)\n"
    "  --output DIR       write output_0.bin, output_1.bin ... into this folder\n"
    "  --plan N           plan of the image (default: 0)\n"
    "  --threads N        threads (default: 1)\n"
    "  --warmup N         runs before the measured ones (default: 0)\n"
    "  --repeat N         measured runs (default: 1)\n"
    "  --print-time       time until ready, times of the runs and peak memory\n"
    "  --profile          time of each layer\n"
    "  --list             print inputs and outputs and stop\n"
    "  --verify           compare the checksum of the weights too\n"
    "  --no-cpu-check     trust that the CPU has the features that the image needs\n";

struct options {
  const char *image;
  char **input_files;
  uint32_t input_count;
  bool zeros;
  const char *output_dir;
  uint32_t plan, threads, warmup, repeat;
  bool print_time, profile, list, verify, no_cpu_check;
};

static int fail(const char *message, const char *detail, const char *hint) {
  fprintf(stderr, "error: %s%s\n", message, detail);
  if (hint[0]) fprintf(stderr, "hint: %s\n", hint);
  return 1;
}

static int fail_with(const tvm_ipu_error *error) { return fail(error->message, "", error->hint); }

/* --- Command line --- */

static bool parse_count(const char *text, uint32_t lowest, uint32_t *value) {
  char *end;
  errno = 0;
  unsigned long number = strtoul(text, &end, 10);
  if (errno || end == text || *end || text[0] == '-' || number < lowest || number > UINT32_MAX) return false;
  *value = (uint32_t)number;
  return true;
}

/* Reads the option at `argv[*at]` and moves `*at` to its last argument. Returns what is wrong with it, or NULL. */
static const char *parse_option(struct options *options, int *at, int argc, char **argv) {
  const char *name = argv[*at];
  const struct {
    const char *name;
    bool *flag;
  } flags[] = {{"--print-time", &options->print_time},
               {"--profile", &options->profile},
               {"--list", &options->list},
               {"--verify", &options->verify},
               {"--no-cpu-check", &options->no_cpu_check}};
  const struct {
    const char *name;
    uint32_t *count, lowest;
  } counts[] = {{"--plan", &options->plan, 0},
                {"--threads", &options->threads, 1},
                {"--warmup", &options->warmup, 0},
                {"--repeat", &options->repeat, 1}};
  static const char wrong_value[] = "wrong value of ";
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    if (strcmp(name, flags[i].name) != 0) continue;
    *flags[i].flag = true;
    return NULL;
  }
  if (!strcmp(name, "--inputs")) {
    options->input_files = argv + *at + 1;
    for (options->input_count = 0; *at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0; ++*at) {
      options->input_count++;
    }
    return options->input_count ? NULL : "no file after ";
  }
  const char *value = *at + 1 < argc ? argv[++*at] : "";
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    if (!strcmp(name, counts[i].name)) {
      return parse_count(value, counts[i].lowest, counts[i].count) ? NULL : wrong_value;
    }
  }
  if (!strcmp(name, "--output")) {
    options->output_dir = value;
    return *value ? NULL : wrong_value;
  }
  if (!strcmp(name, "--fill")) {
    options->zeros = !strcmp(value, "zeros");
    return options->zeros || !strcmp(value, "random") ? NULL : wrong_value;
  }
  return "unknown option ";
}

/* --- Inputs and outputs --- */

static uint32_t next_random(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

/* Bits of the float16 that is `step` / 1024, for 0 <= step < 1024: exact. */
static uint16_t half_bits(uint32_t step) {
  if (step == 0) return 0;
  uint32_t exponent = 14;
  while (step < 512) {
    step <<= 1;
    exponent--;
  }
  return (uint16_t)(exponent << 10 | ((step << 1) & 0x3ff));
}

/* Floats get multiples of 1/1024 in [0, 1), small integers any value, wide integers 0 or 1: those are often indices. */
static void fill_random(const tvm_ipu_tensor *tensor, uint8_t *data, uint32_t *state) {
  size_t item = tvm_ipu_dtype_size(tensor->dtype);
  for (size_t at = 0; at < tensor->nbytes; at += item) {
    uint32_t step = next_random(state) >> 22;
    float single = (float)step / 1024;
    double wide = single;
    uint64_t bits = step & 1;
    uint32_t single_bits;
    memcpy(&single_bits, &single, 4);
    switch (tensor->dtype) {
      case TVM_IPU_FLOAT64: memcpy(&bits, &wide, 8); break;
      case TVM_IPU_FLOAT32: bits = single_bits; break;
      case TVM_IPU_BFLOAT16: bits = single_bits >> 16; break;
      case TVM_IPU_FLOAT16: bits = half_bits(step); break;
      case TVM_IPU_INT8:
      case TVM_IPU_UINT8:
      case TVM_IPU_INT16:
      case TVM_IPU_UINT16: bits = next_random(state); break;
      default: break;
    }
    memcpy(data + at, &bits, item);
  }
}

static int read_input(const char *path, const tvm_ipu_tensor *tensor, void *data) {
  FILE *file = fopen(path, "rb");
  if (!file) return fail("cannot open input file ", path, "");
  size_t got = fread(data, 1, tensor->nbytes, file);
  bool exact = got == tensor->nbytes && fgetc(file) == EOF;
  fclose(file);
  return exact ? 0 : fail("input file has not the bytes that the input needs: ", path, "see ipu-run IMAGE --list");
}

static int set_inputs(const struct options *options, const tvm_ipu_plan *plan, tvm_ipu_session *session) {
  uint32_t state = 2463534242u;
  if (options->input_count && options->input_count != plan->input_count) {
    return fail("--inputs needs one file for each input of the image", "", "see ipu-run IMAGE --list");
  }
  for (uint32_t i = 0; i < plan->input_count; i++) {
    void *data = tvm_ipu_session_input(session, i);
    if (options->input_count) {
      if (read_input(options->input_files[i], &plan->inputs[i], data)) return 1;
    } else if (!options->zeros) {
      fill_random(&plan->inputs[i], data, &state);
    }
  }
  return 0;
}

static int write_outputs(const char *dir, const tvm_ipu_plan *plan, const tvm_ipu_session *session) {
  char path[4096];
  for (uint32_t i = 0; i < plan->output_count; i++) {
    int length = snprintf(path, sizeof path, "%s/output_%u.bin", dir, i);
    if (length < 0 || (size_t)length >= sizeof path) return fail("path is too long: ", dir, "");
    FILE *file = fopen(path, "wb");
    if (!file) return fail("cannot create ", path, "the folder of --output must exist");
    bool ok = fwrite(tvm_ipu_session_output(session, i), 1, plan->outputs[i].nbytes, file) == plan->outputs[i].nbytes;
    ok = fclose(file) == 0 && ok;
    if (!ok) {
      remove(path);
      return fail("cannot write ", path, "is the disk full?");
    }
  }
  return 0;
}

static void print_tensor(const char *kind, uint32_t index, const tvm_ipu_tensor *tensor) {
  printf("%s %u  %s  %s[", kind, index, tensor->name, tvm_ipu_dtype_name(tensor->dtype));
  for (uint32_t i = 0; i < tensor->rank; i++) printf(i ? ",%lld" : "%lld", (long long)tensor->shape[i]);
  printf("]  %llu bytes%s%s", (unsigned long long)tensor->nbytes, tensor->format[0] ? "  " : "", tensor->format);
  if (tensor->scale != 0) printf("  (q - %d) * %.9g", (int)tensor->zero, (double)tensor->scale);
  printf("\n");
}

/* --- Reports --- */

static double clock_ms(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Most memory this process has had, in KiB; 0 if unknown. getrusage would count what its parent had before exec. */
static long peak_kib(void) {
  char line[256];
  long peak = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file) && sscanf(line, "VmHWM: %ld kB", &peak) != 1) {
  }
  if (file) fclose(file);
  return peak;
}

static int compare_times(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return (a > b) - (a < b);
}

static void print_times(uint64_t *run_ns, uint32_t count) {
  double first = (double)run_ns[0] / 1e6, sum = 0, squares = 0;
  qsort(run_ns, count, sizeof *run_ns, compare_times);
  for (uint32_t i = 0; i < count; i++) sum += (double)run_ns[i] / 1e6;
  double mean = sum / count;
  for (uint32_t i = 0; i < count; i++) squares += ((double)run_ns[i] / 1e6 - mean) * ((double)run_ns[i] / 1e6 - mean);
  double median = ((double)run_ns[(count - 1) / 2] + (double)run_ns[count / 2]) / 2e6;
  printf("%12s %12s %12s %12s %12s %12s\n", "mean (ms)", "median (ms)", "max (ms)", "min (ms)", "std (ms)",
         "first (ms)");
  printf("%12.4f %12.4f %12.4f %12.4f %12.4f %12.4f\n", mean, median, (double)run_ns[count - 1] / 1e6,
         (double)run_ns[0] / 1e6, sqrt(squares / count), first);
}

static int print_profile(const tvm_ipu_plan *plan, tvm_ipu_session *session, uint32_t repeat) {
  tvm_ipu_error error;
  uint64_t *once = calloc(plan->call_count + (size_t)1, sizeof *once);
  uint64_t *sum = calloc(plan->call_count + (size_t)1, sizeof *sum);
  uint64_t total = 0;
  int result = once && sum ? 0 : fail("no memory for the profile", "", "");
  for (uint32_t run = 0; result == 0 && run < repeat; run++) {
    if (tvm_ipu_session_profile(session, once, &error)) result = fail_with(&error);
    for (uint32_t i = 0; i < plan->call_count; i++) {
      sum[i] += once[i];
      total += once[i];
    }
  }
  if (result == 0) {
    printf("%10s %7s %9s  %-14s %-18s %s\n", "time (us)", "share", "GFLOP/s", "operator", "template", "layer");
    for (uint32_t i = 0; i < plan->call_count; i++) {
      const tvm_ipu_call *call = &plan->calls[i];
      double ns = (double)sum[i] / repeat;
      printf("%10.2f %6.2f%% %9.2f  %-14s %-18s %s\n", ns / 1e3, total ? 100.0 * (double)sum[i] / (double)total : 0,
             ns > 0 ? (double)call->flops / ns : 0, call->op, call->template_name, call->layer);
    }
  }
  free(once);
  free(sum);
  return result;
}

/* --- The program --- */

static int run(const struct options *options, const tvm_ipu_plan *plan, tvm_ipu_session *session) {
  tvm_ipu_error error;
  if (set_inputs(options, plan, session)) return 1;
  for (uint32_t i = 0; i < options->warmup; i++) {
    if (tvm_ipu_session_run(session, &error)) return fail_with(&error);
  }
  uint64_t *run_ns = calloc(options->repeat, sizeof *run_ns);
  if (!run_ns) return fail("no memory for the times of the runs", "", "ask for fewer with --repeat");
  int result = 0;
  if (tvm_ipu_session_time_runs(session, options->repeat, run_ns, &error)) {
    result = fail_with(&error);
  } else if (options->print_time) {
    print_times(run_ns, options->repeat);
    printf("peak memory: %.2f MB\n", (double)peak_kib() / 1024);
  }
  free(run_ns);
  if (result == 0 && options->output_dir) result = write_outputs(options->output_dir, plan, session);
  if (result == 0 && options->profile) result = print_profile(plan, session, options->repeat);
  return result;
}

int main(int argc, char **argv) {
  double start_ms = clock_ms(CLOCK_MONOTONIC) - clock_ms(CLOCK_PROCESS_CPUTIME_ID); /* exec and linking included */
  struct options options = {.threads = 1, .repeat = 1};
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "--", 2) != 0) {
      if (options.image) return fail("more than one image: ", argv[i], "files of inputs follow --inputs");
      options.image = argv[i];
      continue;
    }
    const char *name = argv[i];
    const char *problem = parse_option(&options, &i, argc, argv);
    if (problem) return fail(problem, name, "ipu-run alone lists the options");
  }
  if (!options.image) return fputs(USAGE, stderr), 1;

  tvm_ipu_error error;
  tvm_ipu_image *image;
  tvm_ipu_session *session;
  uint32_t flags = (options.verify ? TVM_IPU_VERIFY_WEIGHTS : 0) | (options.no_cpu_check ? TVM_IPU_SKIP_CPU_CHECK : 0);
  if (tvm_ipu_image_open_file(options.image, flags, &image, &error)) return fail_with(&error);
  if (tvm_ipu_session_create(image, options.plan, options.threads, &session, &error)) {
    tvm_ipu_image_close(image);
    return fail_with(&error);
  }
  const tvm_ipu_plan *plan = tvm_ipu_session_plan(session);
  int result = 0;
  if (options.list) {
    for (uint32_t i = 0; i < plan->input_count; i++) print_tensor("input", i, &plan->inputs[i]);
    for (uint32_t i = 0; i < plan->output_count; i++) print_tensor("output", i, &plan->outputs[i]);
  } else {
    if (options.print_time) printf("ready after %.3f ms\n", clock_ms(CLOCK_MONOTONIC) - start_ms);
    result = run(&options, plan, session);
  }
  tvm_ipu_session_destroy(session);
  tvm_ipu_image_close(image);
  if (fflush(stdout) != 0 || ferror(stdout)) return fail("cannot write the report", "", "is the disk full?");
  return result;
}
