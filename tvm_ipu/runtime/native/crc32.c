/* CRC-32 (reflected polynomial 0xEDB88320), eight bytes a step. */
#include <string.h>

#include "internal.h"

void ipu_crc_init(struct ipu_crc_tables *tables) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
    tables->row[0][byte] = crc;
  }
  for (int row = 1; row < 8; row++) {
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t crc = tables->row[row - 1][byte];
      tables->row[row][byte] = (crc >> 8) ^ tables->row[0][crc & 0xff];
    }
  }
}

uint32_t ipu_crc32(const struct ipu_crc_tables *tables, uint32_t crc, const void *data, size_t size) {
  const uint8_t *bytes = data;
  const uint32_t(*row)[256] = tables->row;
  crc = ~crc;
  for (; size >= 8; size -= 8, bytes += 8) {
    uint32_t low, high;
    memcpy(&low, bytes, 4);
    memcpy(&high, bytes + 4, 4);
    low ^= crc;
    crc = row[7][low & 0xff] ^ row[6][low >> 8 & 0xff] ^ row[5][low >> 16 & 0xff] ^ row[4][low >> 24] ^
          row[3][high & 0xff] ^ row[2][high >> 8 & 0xff] ^ row[1][high >> 16 & 0xff] ^ row[0][high >> 24];
  }
  for (; size; size--, bytes++) crc = (crc >> 8) ^ row[0][(crc ^ *bytes) & 0xff];
  return ~crc;
}
