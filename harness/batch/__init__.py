"""Many packets in one session, each on its own, on a kernel chosen as pytest's are."""
