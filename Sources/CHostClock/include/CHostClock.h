/* Loaded into a dispatcher by LD_PRELOAD: see host_clock.c. Nothing to call. */
