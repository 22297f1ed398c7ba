"""Real-time scheduling for the few threads that keep time.

vLLM's workers poll shared memory with sched_yield. On a Linux kernel where a yielding task forfeits its virtual
runtime (6.18) the engine's scheduling group, a session or a container, then keeps every core for seconds: measured on
two cores as gaps of 2.5 s, in which a client that is ready to run gets no core, whatever its nice value. A round-robin
thread is outside that competition. It costs the server nothing that measuring would not cost anyway.
"""

from __future__ import annotations

import os


def keep_time() -> bool:
    """Give the calling thread real-time priority, its children and new threads not. False: the system refuses.

    Allowed to root and to holders of CAP_SYS_NICE or an `rtprio` limit. Elsewhere the guard on waiting for a core
    (`ClientCost.wait_share`) keeps starved windows out of the ranking.
    """
    try:
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except (OSError, AttributeError):
        return False
    return True
