/* RISC-V, machine mode: from reset to main, and what happens when the processor refuses. */

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
  /* Memory protection, entry 0: nobody touches the 64 KiB under the stack, from now to the next
   * reset. A processor without protection comes to 1f by an exception. */
  lla t0, 1f
  csrw mtvec, t0
  lla t0, fptt_guard
  srli t0, t0, 2
  li t1, 0x1fff
  or t0, t0, t1
  csrw pmpaddr0, t0
  li t0, 0x98
  csrw pmpcfg0, t0
  .balign 4
1:
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
  csrr a0, mcause
  csrr a1, mepc
  csrr a2, mtval
  call fptt_trap_report

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
