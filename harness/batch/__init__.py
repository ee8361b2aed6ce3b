"""Many packets in one session, on a kernel chosen as pytest's are.

::

    session (the controller) ── messages ──> measure (on the kernel that measures)
                                                 └──> effects ──> Experiment (functions), or sift (none)
"""
