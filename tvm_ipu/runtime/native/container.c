/* Header, section table and checksums of an image. */
#include <string.h>

#include "internal.h"

#define DAMAGED "the file is damaged: compile the model again, or copy the file again"
#define UPDATE "update tvm_ipu"

static const struct ipu_section_spec *find_spec(uint32_t type) {
  for (size_t i = 0; i < sizeof ipu_section_specs / sizeof *ipu_section_specs; i++) {
    if (ipu_section_specs[i].type == type) return &ipu_section_specs[i];
  }
  return NULL;
}

static const char *kind_name(uint32_t kind) {
  switch (kind) {
    case IPU_KIND_FLOAT_STAGE: return "a float stage";
    case IPU_KIND_FIXED_STAGE: return "a fixed stage";
    default: return "something newer";
  }
}

static tvm_ipu_status check_header(const struct ipu_header *header, size_t size, tvm_ipu_error *error) {
  if (header->magic != IPU_MAGIC) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, "make one with 'tvm-ipu compile'", "not an offline image");
  }
  if (header->version_major != IPU_VERSION_MAJOR) {
    return ipu_fail(error, TVM_IPU_ERROR_VERSION, "use the tvm_ipu that made it, or compile the model again",
                    "image format %u.%u, but this runtime reads %u.%u", header->version_major,
                    header->version_minor, IPU_VERSION_MAJOR, IPU_VERSION_MINOR);
  }
  if (header->incompatible_flags & ~IPU_KNOWN_INCOMPATIBLE_FLAGS) {
    return ipu_fail(error, TVM_IPU_ERROR_VERSION, UPDATE, "image format %u.%u uses a feature newer than %u.%u",
                    header->version_major, header->version_minor, IPU_VERSION_MAJOR, IPU_VERSION_MINOR);
  }
  if (header->kind != IPU_KIND_IMAGE) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, "make one with 'tvm-ipu compile'", "is %s, not an offline image",
                    kind_name(header->kind));
  }
  if (header->file_size != size) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "has %llu bytes, but its header says %llu",
                    (unsigned long long)size, (unsigned long long)header->file_size);
  }
  return TVM_IPU_OK;
}

/* Checks one entry of the table; `*end` is where the section before it ended, and then where this one ends. */
static tvm_ipu_status check_entry(const struct ipu_section *entry, const struct ipu_section_spec *spec, size_t size,
                                  uint64_t *end, tvm_ipu_error *error) {
  if (entry->offset < *end || entry->offset > size || entry->size > size - entry->offset) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section %u leaves the file or overlaps another",
                    entry->type);
  }
  *end = entry->offset + entry->size;
  if (!spec) {
    if (!(entry->flags & IPU_SECTION_FLAG_REQUIRED)) return TVM_IPU_OK;
    return ipu_fail(error, TVM_IPU_ERROR_VERSION, UPDATE, "needs section type %u of a newer version", entry->type);
  }
  if (entry->offset % spec->alignment != 0) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section %s is not aligned", spec->name);
  }
  if (spec->record_size != 0 && (entry->record_size < spec->record_size || entry->record_size % 8 != 0 ||
                                 entry->size % entry->record_size != 0 ||
                                 entry->size / entry->record_size > UINT32_MAX)) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section %s has records of %u bytes", spec->name,
                    entry->record_size);
  }
  return TVM_IPU_OK;
}

static bool must_verify(const struct ipu_section_spec *spec, uint32_t flags) {
  return spec->verified || (spec->type == IPU_SECTION_WEIGHTS && (flags & TVM_IPU_VERIFY_WEIGHTS));
}

tvm_ipu_status ipu_container_read(const uint8_t *data, size_t size, uint32_t flags, struct ipu_view *sections,
                                  tvm_ipu_error *error) {
  struct ipu_header header;
  if (size < sizeof header) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, "make one with 'tvm-ipu compile'", "not an offline image");
  }
  memcpy(&header, data, sizeof header);
  tvm_ipu_status status = check_header(&header, size, error);
  if (status) return status;
  uint64_t table_size = (uint64_t)header.section_count * sizeof(struct ipu_section);
  if (header.section_count > IPU_MAX_SECTIONS || header.table_offset % 8 != 0 ||
      header.table_offset < sizeof header || header.table_offset > size ||
      table_size > size - header.table_offset) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section table leaves the file");
  }
  struct ipu_crc_tables crc;
  ipu_crc_init(&crc);
  const uint8_t *table = data + header.table_offset;
  uint32_t found = ipu_crc32(&crc, 0, data, IPU_HEADER_CRC_OFFSET);
  if (ipu_crc32(&crc, found, table, (size_t)table_size) != header.crc32) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "checksum of the header is wrong");
  }
  uint64_t end = header.table_offset + table_size;
  for (uint32_t i = 0; i < header.section_count; i++) {
    struct ipu_section entry;
    memcpy(&entry, table + i * sizeof entry, sizeof entry);
    const struct ipu_section_spec *spec = find_spec(entry.type);
    status = check_entry(&entry, spec, size, &end, error);
    if (status) return status;
    if (!spec) continue;
    struct ipu_view *view = &sections[entry.type];
    if (view->data) return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section %s appears twice", spec->name);
    view->data = data + entry.offset;
    view->size = (size_t)entry.size;
    view->stride = spec->record_size ? entry.record_size : 0;
    view->count = view->stride ? (uint32_t)(entry.size / view->stride) : 0;
    if (must_verify(spec, flags) && ipu_crc32(&crc, 0, view->data, view->size) != entry.crc32) {
      return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "checksum of section %s is wrong", spec->name);
    }
  }
  for (size_t i = 0; i < sizeof ipu_section_specs / sizeof *ipu_section_specs; i++) {
    const struct ipu_section_spec *spec = &ipu_section_specs[i];
    if (spec->required && !sections[spec->type].data) {
      return ipu_fail(error, TVM_IPU_ERROR_FORMAT, DAMAGED, "section %s is missing", spec->name);
    }
  }
  return TVM_IPU_OK;
}
