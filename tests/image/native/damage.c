/* damage IMAGE: every flip of a byte that a checksum covers is refused, every other flip is harmless, and so is every
 * truncation. Built with ASan and UBSan, which end the program at the first bad access. */
#include "check.h"
#include "ipu_format.h"

static int is_verified(uint32_t type) {
  for (size_t i = 0; i < sizeof ipu_section_specs / sizeof *ipu_section_specs; i++) {
    if (ipu_section_specs[i].type == type) return ipu_section_specs[i].verified;
  }
  return 0;
}

/* covered[i] = 1 if byte i of the image is part of the header, the table or a section checked at load. */
static uint8_t *find_covered(const uint8_t *image, size_t size) {
  struct ipu_header header;
  memcpy(&header, image, sizeof header);
  uint8_t *covered = calloc(size, 1);
  CHECK(covered);
  memset(covered, 1, sizeof header);
  for (uint32_t i = 0; i < header.section_count; i++) {
    struct ipu_section entry;
    memcpy(&entry, image + header.table_offset + i * sizeof entry, sizeof entry);
    memset(covered + header.table_offset + i * sizeof entry, 1, sizeof entry);
    if (is_verified(entry.type)) memset(covered + entry.offset, 1, entry.size);
  }
  return covered;
}

/* Opens the image and, if that works, runs every plan. Returns the status of opening it. */
static tvm_ipu_status open_and_run(const uint8_t *data, size_t size) {
  tvm_ipu_error error;
  tvm_ipu_image *image;
  tvm_ipu_status status = tvm_ipu_image_open_memory(data, size, 0, &image, &error);
  if (status) {
    CHECK(!image && error.status == status && error.message[0]);
    return status;
  }
  for (uint32_t plan = 0; plan < tvm_ipu_image_plan_count(image); plan++) {
    tvm_ipu_session *session;
    CHECK(!tvm_ipu_session_create(image, plan, 1, &session, &error));
    CHECK(!tvm_ipu_session_run(session, &error));
    tvm_ipu_session_destroy(session);
  }
  tvm_ipu_image_close(image);
  return TVM_IPU_OK;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  size_t size;
  uint8_t *image = read_file(argv[1], &size);
  CHECK(open_and_run(image, size) == TVM_IPU_OK);
  uint8_t *covered = find_covered(image, size);
  size_t refused = 0, harmless = 0;
  static const uint8_t flips[] = {0x01, 0x80, 0xff};
  for (size_t at = 0; at < size; at++) {
    for (size_t flip = 0; flip < sizeof flips; flip++) {
      image[at] ^= flips[flip];
      tvm_ipu_status status = open_and_run(image, size);
      image[at] ^= flips[flip];
      CHECK((status != TVM_IPU_OK) == covered[at]);
      refused += covered[at];
      harmless += !covered[at];
    }
  }
  for (size_t length = 0; length < size; length++) {
    void *part = NULL;
    CHECK(posix_memalign(&part, TVM_IPU_ALIGNMENT, length + !length) == 0);
    memcpy(part, image, length);
    CHECK(open_and_run(part, length) != TVM_IPU_OK);
    free(part);
  }
  printf("%zu flips refused, %zu harmless, %zu truncations refused\n", refused, harmless, size);
  free(covered);
  free(image);
  return 0;
}
