/* RISC-V, machine mode: from reset to main, and what happens when the processor refuses. */

#if __riscv_xlen == 64
#define WORD 8
#define STORE sd
#else
#define WORD 4
#define STORE sw
#endif

  /* The emulators begin at the bottom of RAM, wherever the entry is. */
  .section .fptt_boot, "ax", @progbits
  .globl _start
_start:
  lla t0, fptt_start
  jr t0

  .section .text.fptt_start, "ax", @progbits
fptt_start:
  .option push
  .option norelax
  lla gp, __global_pointer$
  .option pop
  lla sp, fptt_stack_top
  lla t0, fptt_trap
  csrw mtvec, t0
  /* floating point and vectors on: FS and VS "dirty"; VS stays 0 where there are no vectors */
  li t0, 0x6600
  csrs mstatus, t0
  csrw fcsr, zero
  call fptt_bare_memory
  call main
  call fptt_port_exit

  /* Nobody returns from here, so what the stack held does not matter, and it may have overflowed. */
  .balign 4
fptt_trap:
  lla sp, fptt_stack_top
  addi sp, sp, -4 * WORD
  csrr t0, mcause
  STORE t0, 0(sp)
  csrr t0, mepc
  STORE t0, WORD(sp)
  csrr t0, mtval
  STORE t0, 2 * WORD(sp)
  lla a0, fptt_trap_text
  mv a1, sp
  call fptt_bare_fault

  .section .rodata.fptt_trap_text, "a", @progbits
fptt_trap_text:
  .string "fault: mcause, mepc, mtval"

/* The emulator knows these three by sight: in one page, none of them compressed. */
  .section .text.fptt_semihost, "ax", @progbits
  .option push
  .option norvc
  .globl fptt_semihost
  .balign 16
fptt_semihost:
  slli x0, x0, 0x1f
  ebreak
  srai x0, x0, 7
  ret
  .option pop

/* 1 if anybody listens to semihosting. Where not, its ebreak is an exception, which leads to 1f. */
  .section .text.fptt_probe, "ax", @progbits
  .globl fptt_probe
fptt_probe:
  mv t2, ra
  lla t0, 1f
  csrrw t1, mtvec, t0
  li a0, 0x13 /* SYS_ERRNO: asks nothing of anybody */
  li a1, 0
  call fptt_semihost
  csrw mtvec, t1
  li a0, 1
  jr t2
  .balign 4
1:
  csrw mtvec, t1
  li a0, 0
  jr t2
