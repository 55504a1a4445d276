"""Times of work on a device, and what they are beside copying memory."""
import statistics
import time

import torch


def seconds(device, work):
    """Of one call: CUDA events on a GPU, the clock elsewhere."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def copy_gb_per_second(device, runs=20):
    """Bytes read and written a second by the copy of a buffer that is in no cache; the median."""
    size = 2**31 if device.type == "cuda" else 2**27
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [seconds(device, lambda: target.copy_(source)) for _ in range(runs + 2)]
    return 2 * size / statistics.median(times[2:]) / 1e9
