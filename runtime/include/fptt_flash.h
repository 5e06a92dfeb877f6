/* Two-slot snapshots in flash: a save never touches the newest complete state, so a cut of power at
 * any moment leaves either that one or the new one.
 *
 * The area is cut into two equal slots that take turns. All numbers are little endian where the
 * processor is (all targets are). W is write_bytes, up(n) is n rounded up to a multiple of W:
 *
 *     bytes of a slot                   content
 *     0 .. 31                           header; FF up to up(32)
 *        0  4   "FPTT"                  16  4   sequence number: saves so far, counted modulo 2^32
 *        4  4   version, 1              20  4   bytes of the payload
 *        8  4   identity of the program 24  4   CRC-32 of the payload
 *       12  4   kind                    28  4   CRC-32 of bytes 0 to 27
 *     up(32) .. up(32) + 3              mark "KEPT"; FF up to up(32) + up(4)
 *     up(32) + up(4) ..                 payload: the pieces one after the other; FF up to a
 *                                       multiple of W
 *
 * CRC-32 is that of zlib. A save: erase the slot's blocks, that of the header first; write the
 * payload and check it as it is read back; header, read back; mark, read back.
 *
 * The header comes after the payload and alone in its write units: where it is whole, the payload
 * was complete. The mark comes after the header because a write that was cut may leave bits that
 * read so now and otherwise later. A header with its mark is not such a one, and is preferred; a
 * header without it counts only where there is nothing better. No write unit is written twice
 * between two erases.
 *
 * No function keeps a state of its own, allocates, or takes more than FPTT_FLASH_STACK bytes of
 * stack beside what the port's functions take. None may be called while another one works on the
 * same flash, and the pieces must not change meanwhile.
 */
#ifndef FPTT_FLASH_H
#define FPTT_FLASH_H

#include "fptt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The flash as the part has it: an erase sets all bits of a block, a write clears some of them.
 *
 * Addresses count from 0 at the begin of the area; the functions add where it lies. They answer 0
 * when all was done and anything else when not, and return only then: a write or erase that is
 * still going on in the chip is not done.
 *
 *   read   any address and any number of bytes, at least 1. Bytes that were erased and not written
 *          read as FF. A part that reports uncorrectable errors (ECC) answers not 0 and does not
 *          trap: after a power cut such cells are to be expected.
 *   write  address and number of bytes are multiples of write_bytes, at most 256 bytes, and never
 *          across a multiple of 256 (a page of serial flash, if the area begins at one); `from`
 *          lies at a multiple of 8. Only bytes that were erased before are written.
 *   erase  the block that begins at `at`. */
typedef struct {
  void *context;        /* handed to the functions */
  uint32_t bytes;       /* of the area: two slots, a multiple of 2 * erase_bytes */
  uint32_t erase_bytes; /* of a block, a multiple of write_bytes and of 32 */
  uint32_t write_bytes; /* smallest write and its alignment: 1, 2, 4, ..., 256 */
  int (*read)(void *context, uint32_t at, void *to, uint32_t bytes);
  int (*write)(void *context, uint32_t at, const void *from, uint32_t bytes);
  int (*erase)(void *context, uint32_t at);
} fptt_flash;

/* Memory that is saved and restored: any length, any alignment. */
typedef struct {
  void *data;
  uint32_t bytes;
} fptt_piece;

/* Worst first: what a save overwrites before what follows. */
typedef enum {
  FPTT_SLOT_DAMAGED,       /* header or payload do not fit their checksums */
  FPTT_SLOT_EMPTY,         /* erased: never used, or a save was cut before its header */
  FPTT_SLOT_OTHER_PROGRAM, /* whole, of another program or of a later version; payload not read */
  FPTT_SLOT_UNFINISHED,    /* complete, but the save was cut before or in its last write */
  FPTT_SLOT_COMPLETE
} fptt_slot_state;

/* What fptt_flash_look finds. */
typedef struct {
  fptt_slot_state slot[2];
  int newest;        /* the slot that would be restored; -1: none, and the rest is 0 */
  uint32_t kind;     /* as given when it was saved */
  uint32_t sequence; /* number of saves until then, modulo 2^32: for the wear of the flash */
  uint32_t bytes;    /* of its payload */
} fptt_flash_found;

/* Most bytes of stack of any function here, without those of the port, as gcc 12 and clang make
 * them: a chunk of 256 and what goes with it. */
#define FPTT_FLASH_STACK (sizeof(void *) > 4 ? 704 : 512)

/* Bytes before the payload; write_bytes W is a power of two. Constant expressions, as the next. */
#define FPTT_FLASH_UP(bytes, unit) (((bytes) + ((unit)-1u)) / (unit) * (unit))
#define FPTT_FLASH_HEADER_BYTES(W) (FPTT_FLASH_UP(32u, W) + FPTT_FLASH_UP(4u, W))
/* Blocks of a slot for a payload, which is how many erases a save takes. A block is erased every
 * second save: a part rated for N erases bears 2 * N saves. */
#define FPTT_FLASH_SLOT_BLOCKS(payload, erase_bytes, W) \
  ((FPTT_FLASH_HEADER_BYTES(W) + (payload) + ((erase_bytes)-1u)) / (erase_bytes))
/* What `bytes` of an area must be at least. */
#define FPTT_FLASH_AREA_BYTES(payload, erase_bytes, W) \
  (2u * FPTT_FLASH_SLOT_BLOCKS(payload, erase_bytes, W) * (erase_bytes))

/* FPTT_OK, or FPTT_FLASH_GEOMETRY. All other functions ask this first. Nothing is read. */
fptt_status fptt_flash_check(const fptt_flash *flash);

/* Saves the pieces, one after the other, into the slot without the newest complete state.
 *
 * identity: of the program, such as a hash of its text; only the same one restores it.
 * kind: a number that says what the pieces are, such as 0 for weights and 1 for everything.
 *
 * FPTT_OK                  saved, and read back as it was given
 * FPTT_FLASH_WRITE_FAILED  an erase or a write failed, or reads back otherwise: worn or protected.
 *                          The newest state is as it was, and the next save tries the same slot.
 * FPTT_FLASH_TOO_SMALL, FPTT_FLASH_GEOMETRY   nothing was written */
fptt_status fptt_flash_save(const fptt_flash *flash, uint32_t identity, uint32_t kind,
                            const fptt_piece *pieces, size_t count);

/* Restores the newest complete state of the program into the pieces, which must be those it was
 * saved from: as many bytes in all. Checksums are checked in the flash before the memory is
 * touched, and in the memory afterwards.
 *
 * FPTT_OK                 the newest that was saved
 * FPTT_OLDER_STATE        restored, but something newer is damaged or was not finished (a header
 *                         that cannot be read is taken for newer)
 * FPTT_NOTHING_SAVED      no complete state; the memory is as it was
 * FPTT_OTHER_PROGRAM      nothing but states of another identity or length; the memory is as it was
 * FPTT_OTHER_KIND         the newest is of another kind; the memory is as it was
 * FPTT_FLASH_READ_FAILED  what was whole read otherwise when it was copied, and there is no other:
 *                         the memory holds rubbish, load other weights
 * FPTT_FLASH_GEOMETRY     nothing was read */
fptt_status fptt_flash_restore(const fptt_flash *flash, uint32_t identity, uint32_t kind,
                               const fptt_piece *pieces, size_t count);

/* What fptt_flash_restore would find; FPTT_OK, FPTT_OLDER_STATE, FPTT_NOTHING_SAVED,
 * FPTT_OTHER_PROGRAM or FPTT_FLASH_GEOMETRY. `found` may be NULL. */
fptt_status fptt_flash_look(const fptt_flash *flash, uint32_t identity, fptt_flash_found *found);

/* Erases the headers of both slots, that of the newest state last: one that is older never comes
 * back. FPTT_OK, FPTT_FLASH_WRITE_FAILED (something is left) or FPTT_FLASH_GEOMETRY. */
fptt_status fptt_flash_forget(const fptt_flash *flash, uint32_t identity);

#ifdef __cplusplus
}
#endif
#endif
