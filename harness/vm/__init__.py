"""The microVM: kernel images, initramfs, QEMU, and the choice of the kernel that scenarios run on."""

from __future__ import annotations
