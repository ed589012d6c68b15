"""Adds up the numbers of each job: {"numbers": [1, 2]} has the result {"sum": 3}.

    python3 main.py http://127.0.0.1:8787 sums
"""

import argparse
import sys

from sluice_worker import Dead, Refused, Retry, Worker


def handle(job):
    print(f'job {job.id}, attempt {job.attempt}', flush=True)
    payload = job.payload if isinstance(job.payload, dict) else {}
    # Work that takes its time goes on for as long as the lease is kept, and no longer.
    if job.lost.wait(payload.get('takeMs', 0) / 1_000):
        return None
    if job.attempt <= payload.get('failures', 0):
        raise Retry(f'attempt {job.attempt} failed, as the job asks for', delay_ms=100)
    numbers = payload.get('numbers')
    if not isinstance(numbers, list) or not all(isinstance(number, (int, float)) for number in numbers):
        raise Dead('numbers must be a list of numbers')
    return {'sum': sum(numbers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('queue')
    parser.add_argument('--threads', type=int, default=4, help='jobs at a time (default: 4)')
    parser.add_argument('--lease-ms', type=int, default=30_000, help='how long a job is held unless extended')
    options = parser.parse_args()
    worker = Worker(options.url, options.queue, handle, options.threads, options.lease_ms)
    print(f'working on {options.queue} at {options.url}; Ctrl-C stops', flush=True)
    try:
        worker.run()
    except Refused as error:
        print(f'refused: {error}', file=sys.stderr)
        return 1
    print('stopped', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
