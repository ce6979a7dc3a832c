/* Kernels that call the memory functions of support.c with sizes and overlaps known only at run time. Arguments: bytes,
 * and [to, from, size] as 32-bit words, once per unit; the third one of compare receives the results. */
#include <stdint.h>
#include <string.h>

struct range {
  uint32_t to, from, size;
};

int32_t copy(const uintptr_t *args, void *scratch, int32_t begin, int32_t end) {
  (void)scratch;
  uint8_t *to = (uint8_t *)args[0];
  const uint8_t *from = (const uint8_t *)args[1];
  const struct range *ranges = (const struct range *)args[2];
  for (int32_t i = begin; i < end; i++) memcpy(to + ranges[i].to, from + ranges[i].from, ranges[i].size);
  return 0;
}

int32_t move(const uintptr_t *args, void *scratch, int32_t begin, int32_t end) {
  (void)scratch;
  uint8_t *bytes = (uint8_t *)args[0];
  const struct range *ranges = (const struct range *)args[1];
  for (int32_t i = begin; i < end; i++) memmove(bytes + ranges[i].to, bytes + ranges[i].from, ranges[i].size);
  return 0;
}

int32_t fill(const uintptr_t *args, void *scratch, int32_t begin, int32_t end) {
  (void)scratch;
  uint8_t *bytes = (uint8_t *)args[0];
  const struct range *ranges = (const struct range *)args[1];
  for (int32_t i = begin; i < end; i++) memset(bytes + ranges[i].to, (int)ranges[i].from, ranges[i].size);
  return 0;
}

int32_t compare(const uintptr_t *args, void *scratch, int32_t begin, int32_t end) {
  (void)scratch;
  const uint8_t *bytes = (const uint8_t *)args[0];
  const struct range *ranges = (const struct range *)args[1];
  int32_t *result = (int32_t *)args[2];
  for (int32_t i = begin; i < end; i++) result[i] = memcmp(bytes + ranges[i].to, bytes + ranges[i].from, ranges[i].size);
  return 0;
}
