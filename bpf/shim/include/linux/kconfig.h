/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What BCC's own headers want of a kernel tree, and no more: with BCC_KERNEL_SOURCE pointing
 * here no kernel headers are needed. Kernel structs are read at offsets that come from BTF.
 */
#ifndef NFT_HARNESS_KCONFIG_H
#define NFT_HARNESS_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1
#define PAGE_SIZE 4096

typedef signed char s8, __s8;
typedef unsigned char u8, __u8;
typedef short s16, __s16;
typedef unsigned short u16, __u16, __be16, __sum16;
typedef int s32, __s32;
typedef unsigned int u32, __u32, __be32, __wsum;
typedef long long s64, __s64;
typedef unsigned long long u64, __u64, __be64;
#define __aligned_u64 u64 __attribute__((aligned(8)))
typedef unsigned long size_t, uintptr_t;
typedef _Bool bool;
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))

/* BCC's headers ask only whether the kernel is newer than v4.8. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 8, 0)

/* arch/x86/include/asm/ptrace.h, x86-64 */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};

#endif
