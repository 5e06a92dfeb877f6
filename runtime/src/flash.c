/* Two-slot snapshots in flash: see fptt_flash.h for the layout and what is promised. */
#include "fptt_flash.h"

#include <string.h>

#define MAGIC 0x54545046u /* "FPTT" */
#define MARK 0x5450454Bu  /* "KEPT" */
#define VERSION 1u
#define CHUNK 256u /* a page of serial flash and the largest write unit */

/* A function with a chunk on its stack; inside its caller it would hold it during other calls. */
#define NOINLINE __attribute__((noinline))

enum { AT_MAGIC, AT_VERSION, AT_IDENTITY, AT_KIND, AT_SEQUENCE, AT_BYTES, AT_SUM, AT_CHECK, WORDS };

typedef struct {
  uint32_t head[WORDS]; /* all 0 where it is not whole */
  fptt_slot_state state;
} slot;

/* zlib's CRC-32, half a byte at a time: 64 bytes of table. Begin with sum 0. */
static uint32_t crc32(uint32_t sum, const void *data, uint32_t bytes) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u,
      0x4DB26158u, 0x5005713Cu, 0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
      0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
  const uint8_t *from = data, *end = from + bytes;
  sum = ~sum;
  while (from < end) {
    sum ^= *from++;
    sum = sum >> 4 ^ table[sum & 15u];
    sum = sum >> 4 ^ table[sum & 15u];
  }
  return ~sum;
}

static uint32_t up(const fptt_flash *flash, uint32_t bytes) {
  return (bytes + flash->write_bytes - 1) & ~(flash->write_bytes - 1);
}

static uint32_t header_bytes(const fptt_flash *flash) {
  return up(flash, 4 * WORDS) + up(flash, 4);
}

static int is_newer(uint32_t a, uint32_t b) {
  return a != b && a - b < 0x80000000u;
}

fptt_status fptt_flash_check(const fptt_flash *flash) {
  const uint32_t w = flash->write_bytes, e = flash->erase_bytes, half = flash->bytes / 2;
  if (!flash->read || !flash->write || !flash->erase) return FPTT_FLASH_GEOMETRY;
  if (w == 0 || w > CHUNK || (w & (w - 1))) return FPTT_FLASH_GEOMETRY;
  /* with other blocks a header could lie across a page of serial flash */
  if (e == 0 || e % 32 || e % w) return FPTT_FLASH_GEOMETRY;
  if (flash->bytes % 2 || half % e || half < header_bytes(flash)) return FPTT_FLASH_GEOMETRY;
  return FPTT_OK;
}

/* -- reading ---------- */

/* What the header says; the payload is not looked at. */
static void read_header(const fptt_flash *flash, uint32_t base, uint32_t identity, slot *s) {
  uint32_t mark, blank = 0xFFFFFFFFu;
  /* a mark that cannot be read was cut; the header before it is whole */
  if (flash->read(flash->context, base + up(flash, 4 * WORDS), &mark, 4)) mark = 0;
  s->state = FPTT_SLOT_DAMAGED;
  if (flash->read(flash->context, base, s->head, 4 * WORDS) == 0) {
    for (int i = 0; i < WORDS; i++) blank &= s->head[i];
    if (blank == 0xFFFFFFFFu) s->state = FPTT_SLOT_EMPTY;
    if (s->head[AT_MAGIC] == MAGIC && s->head[AT_CHECK] == crc32(0, s->head, 4 * AT_CHECK)) {
      s->state = mark == MARK ? FPTT_SLOT_COMPLETE : FPTT_SLOT_UNFINISHED;
      if (s->head[AT_VERSION] != VERSION || s->head[AT_IDENTITY] != identity)
        s->state = FPTT_SLOT_OTHER_PROGRAM;
      return;
    }
  }
  memset(s->head, 0, sizeof s->head);
}

/* Whether the payload in the flash has a length that is possible, and its checksum. */
static NOINLINE int payload_fits(const fptt_flash *flash, uint32_t base, const uint32_t *head) {
  uint8_t chunk[CHUNK];
  uint32_t sum = 0, left = head[AT_BYTES], at = header_bytes(flash);
  if (left > flash->bytes / 2 - at) return 0;
  for (at += base; left;) {
    uint32_t n = left < CHUNK ? left : CHUNK;
    if (flash->read(flash->context, at, chunk, n)) return 0;
    sum = crc32(sum, chunk, n);
    at += n, left -= n;
  }
  return sum == head[AT_SUM];
}

/* The slot to be preferred: the better state, then the later number. */
static int better(const slot s[2]) {
  if (s[0].state != s[1].state) return s[1].state > s[0].state;
  return is_newer(s[1].head[AT_SEQUENCE], s[0].head[AT_SEQUENCE]);
}

/* The better slot, with its payload checked; slots that turn out to be damaged become so in s. */
static int choose(const fptt_flash *flash, slot s[2]) {
  for (;;) {
    int i = better(s);
    if (s[i].state < FPTT_SLOT_UNFINISHED) return i;
    if (payload_fits(flash, i ? flash->bytes / 2 : 0, s[i].head)) return i;
    s[i].state = FPTT_SLOT_DAMAGED;
  }
}

static void read_headers(const fptt_flash *flash, uint32_t identity, slot s[2]) {
  read_header(flash, 0, identity, &s[0]);
  read_header(flash, flash->bytes / 2, identity, &s[1]);
}

/* What to say of slot i, which `choose` has found. */
static fptt_status answer(const slot s[2], int i) {
  const slot *other = &s[1 - i];
  if (s[i].state == FPTT_SLOT_OTHER_PROGRAM) return FPTT_OTHER_PROGRAM;
  if (s[i].state < FPTT_SLOT_UNFINISHED) return FPTT_NOTHING_SAVED;
  if (other->state == FPTT_SLOT_EMPTY || other->state == FPTT_SLOT_OTHER_PROGRAM) return FPTT_OK;
  if (other->head[AT_MAGIC] && !is_newer(other->head[AT_SEQUENCE], s[i].head[AT_SEQUENCE]))
    return FPTT_OK;
  return FPTT_OLDER_STATE;
}

static int sum_bytes(const fptt_piece *pieces, size_t count, uint32_t *bytes) {
  *bytes = 0;
  for (size_t i = 0; i < count; i++) {
    if (pieces[i].bytes > 0xFFFFFFFFu - *bytes) return 0;
    *bytes += pieces[i].bytes;
  }
  return 1;
}

/* Whether what was copied has the checksum. */
static int copy(const fptt_flash *flash, uint32_t at, const uint32_t *head,
                const fptt_piece *pieces, size_t count) {
  uint32_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t n = pieces[i].bytes;
    if (n && flash->read(flash->context, at, pieces[i].data, n)) return 0;
    at += n;
  }
  for (size_t i = 0; i < count; i++) sum = crc32(sum, pieces[i].data, pieces[i].bytes);
  return sum == head[AT_SUM];
}

fptt_status fptt_flash_restore(const fptt_flash *flash, uint32_t identity, uint32_t kind,
                               const fptt_piece *pieces, size_t count) {
  slot s[2];
  uint32_t bytes;
  if (fptt_flash_check(flash) != FPTT_OK) return FPTT_FLASH_GEOMETRY;
  int known = sum_bytes(pieces, count, &bytes), touched = 0;
  read_headers(flash, identity, s);
  for (;;) {
    int i = choose(flash, s);
    fptt_status status = answer(s, i);
    if (status == FPTT_OK || status == FPTT_OLDER_STATE) {
      if (s[i].head[AT_KIND] != kind)
        status = FPTT_OTHER_KIND;
      else if (!known || s[i].head[AT_BYTES] != bytes)
        status = FPTT_OTHER_PROGRAM;
      else if (copy(flash, (i ? flash->bytes / 2 : 0) + header_bytes(flash), s[i].head, pieces,
                    count))
        return status;
      else {
        /* it read otherwise than a moment ago; perhaps there is an older one */
        s[i].state = FPTT_SLOT_DAMAGED;
        touched = 1;
        continue;
      }
    }
    return touched ? FPTT_FLASH_READ_FAILED : status;
  }
}

fptt_status fptt_flash_look(const fptt_flash *flash, uint32_t identity, fptt_flash_found *found) {
  slot s[2];
  if (fptt_flash_check(flash) != FPTT_OK) return FPTT_FLASH_GEOMETRY;
  read_headers(flash, identity, s);
  const int i = choose(flash, s), other = 1 - i;
  const fptt_status status = answer(s, i);
  if (found) {
    if (s[other].state >= FPTT_SLOT_UNFINISHED &&
        !payload_fits(flash, other ? flash->bytes / 2 : 0, s[other].head))
      s[other].state = FPTT_SLOT_DAMAGED;
    memset(found, 0, sizeof *found);
    found->slot[0] = s[0].state;
    found->slot[1] = s[1].state;
    found->newest = -1;
    if (s[i].state >= FPTT_SLOT_UNFINISHED) {
      found->newest = i;
      found->kind = s[i].head[AT_KIND];
      found->sequence = s[i].head[AT_SEQUENCE];
      found->bytes = s[i].head[AT_BYTES];
    }
  }
  return status;
}

/* -- writing ---------- */

/* Writes the pieces from `at` on, in whole units that end at multiples of CHUNK. */
static NOINLINE int write_payload(const fptt_flash *flash, uint32_t at, const fptt_piece *pieces,
                                  size_t count, uint32_t *sum) {
  _Alignas(8) uint8_t chunk[CHUNK];
  uint32_t filled = 0, room = CHUNK - at % CHUNK;
  *sum = 0;
  for (size_t i = 0; i < count; i++) {
    const uint8_t *from = pieces[i].data;
    for (uint32_t left = pieces[i].bytes; left;) {
      uint32_t n = left < room - filled ? left : room - filled;
      memcpy(chunk + filled, from, n);
      *sum = crc32(*sum, chunk + filled, n);
      from += n, left -= n, filled += n;
      if (filled == room) {
        if (flash->write(flash->context, at, chunk, filled)) return 0;
        at += filled;
        filled = 0, room = CHUNK;
      }
    }
  }
  const uint32_t units = up(flash, filled);
  memset(chunk + filled, 0xFF, units - filled);
  return units == 0 || flash->write(flash->context, at, chunk, units) == 0;
}

/* Writes at most a header, in units of its own, and reads it back. */
static NOINLINE int write_words(const fptt_flash *flash, uint32_t at, const uint32_t *words,
                                uint32_t bytes) {
  _Alignas(8) uint8_t chunk[CHUNK];
  memset(chunk, 0xFF, sizeof chunk);
  memcpy(chunk, words, bytes);
  if (flash->write(flash->context, at, chunk, up(flash, bytes))) return 0;
  return flash->read(flash->context, at, chunk, bytes) == 0 && memcmp(chunk, words, bytes) == 0;
}

fptt_status fptt_flash_save(const fptt_flash *flash, uint32_t identity, uint32_t kind,
                            const fptt_piece *pieces, size_t count) {
  static const uint32_t mark = MARK;
  slot s[2];
  uint32_t bytes;
  if (fptt_flash_check(flash) != FPTT_OK) return FPTT_FLASH_GEOMETRY;
  const uint32_t half = flash->bytes / 2, begin = header_bytes(flash);
  if (!sum_bytes(pieces, count, &bytes) || bytes > half - begin) return FPTT_FLASH_TOO_SMALL;

  read_headers(flash, identity, s);
  const int kept = choose(flash, s);
  const uint32_t base = kept ? 0 : half;
  uint32_t *head = s[kept].head;
  const uint32_t *other = s[1 - kept].head;
  /* later than everything that can be read, of whatever program and however damaged */
  uint32_t last = head[AT_SEQUENCE];
  if (other[AT_MAGIC] && (!head[AT_MAGIC] || is_newer(other[AT_SEQUENCE], last)))
    last = other[AT_SEQUENCE];

  /* the block of the header first: what is half erased has none */
  for (uint32_t at = 0; at < begin + bytes; at += flash->erase_bytes)
    if (flash->erase(flash->context, base + at)) return FPTT_FLASH_WRITE_FAILED;

  head[AT_MAGIC] = MAGIC;
  head[AT_VERSION] = VERSION;
  head[AT_IDENTITY] = identity;
  head[AT_KIND] = kind;
  head[AT_SEQUENCE] = last + 1;
  head[AT_BYTES] = bytes;
  if (!write_payload(flash, base + begin, pieces, count, &head[AT_SUM]) ||
      !payload_fits(flash, base, head))
    return FPTT_FLASH_WRITE_FAILED;
  head[AT_CHECK] = crc32(0, head, 4 * AT_CHECK);
  if (!write_words(flash, base, head, 4 * WORDS) ||
      !write_words(flash, base + up(flash, 4 * WORDS), &mark, 4))
    return FPTT_FLASH_WRITE_FAILED;
  return FPTT_OK;
}

fptt_status fptt_flash_forget(const fptt_flash *flash, uint32_t identity) {
  slot s[2];
  if (fptt_flash_check(flash) != FPTT_OK) return FPTT_FLASH_GEOMETRY;
  read_headers(flash, identity, s);
  const uint32_t half = flash->bytes / 2, newest = choose(flash, s) ? half : 0;
  if (flash->erase(flash->context, half - newest) || flash->erase(flash->context, newest))
    return FPTT_FLASH_WRITE_FAILED;
  read_headers(flash, identity, s);
  if (s[better(s)].state > FPTT_SLOT_EMPTY) return FPTT_FLASH_WRITE_FAILED;
  return FPTT_OK;
}
