"""What runs in the guest that becomes a template, and what the host has to know of it beforehand."""
