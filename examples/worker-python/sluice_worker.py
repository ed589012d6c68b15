"""A worker for a queue of Sluice over HTTP. Python 3.9 or newer, standard library only.

    Worker('http://127.0.0.1:8787', 'sums', handle).run()

It leases as many jobs as it has threads free, extends the leases while handlers run, and settles each job as its handler
ends. What it relies on is documented in docs/http.md; the promises are those of docs/promises.md: at least once, one key
at a time.

What ends how:

    the handler returns            done, with what it returned as the result (anything that JSON can express)
    it raises Retry                tried again, after the time it says or the back-off of the queue
    it raises Dead                 a dead letter
    it raises anything else        tried again, with the error
    SIGINT, SIGTERM                nothing new is taken, what runs is finished and settled
    503, or no connection          asked again: when Retry-After says, and with growing pauses
    a lease that is lost           job.lost is set, and whatever the handler does has no effect
"""

import http.client
import json
import os
import random
import select
import signal
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

MAX_PAUSE_S = 10.0
#: Of a settle that finds no server. The lease ends before that, and the job is done again.
SETTLE_TRIES = 8


class Retry(Exception):
    """Try the job again, after delay_ms where it is given."""

    def __init__(self, message, delay_ms=None):
        super().__init__(message)
        self.delay_ms = delay_ms


class Dead(Exception):
    """Never try the job again."""


class Refused(Exception):
    """The server refused a call for good: the call, or what it is asked for, is wrong."""


class Job:
    def __init__(self, lease):
        self.lease = lease['lease']
        self.id = lease.get('id')
        self.attempt = lease['attempt']
        self.key = lease['key']
        self.headers = lease['headers']
        #: The JSON value; None where bytes were sent, which are in base64 in payload_base64.
        self.payload = lease.get('payload')
        self.payload_base64 = lease.get('payloadBase64')
        #: Set once the job is not this worker's any more: it was cancelled, or the lease expired.
        self.lost = threading.Event()


class Worker:
    def __init__(self, url, queue, handle, threads=4, lease_ms=30_000, wait_ms=20_000, credential=None):
        self.url = url.rstrip('/')
        self.queue = queue
        self.handle = handle
        self.threads = threads
        self.lease_ms = lease_ms
        self.wait_ms = wait_ms
        self.credential = credential or os.environ.get('SLUICE_KEY')
        self.stopping = threading.Event()
        self._running = {}
        self._lock = threading.Lock()
        self._free = threading.Semaphore(threads)

    def run(self):
        """Works until SIGINT or SIGTERM. Call it from the main thread."""
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._on_signal)
        ended = threading.Event()
        heart = threading.Thread(target=self._extend_until, args=(ended,), daemon=True)
        heart.start()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                while not self.stopping.is_set():
                    for job in self._take():
                        pool.submit(self._work, job)
            finally:
                self.stopping.set()
        # The pool has ended, so every job is settled.
        ended.set()
        heart.join()

    def _on_signal(self, _number, _frame):
        self.stopping.set()

    # ---- take, work, settle

    def _take(self):
        """Jobs for the threads that are free, once there is one."""
        while not self._free.acquire(timeout=0.2):
            if self.stopping.is_set():
                return []
        count = 1
        while count < self.threads and self._free.acquire(blocking=False):
            count += 1
        jobs = []
        try:
            body = {'max': count, 'leaseMs': self.lease_ms, 'waitMs': self.wait_ms}
            answer = self._call_until_answered(f'/v1/queues/{self.queue}/leases', body, gives_up=True)
            jobs = [Job(lease) for lease in answer['leases']] if answer else []
            with self._lock:
                self._running.update({job.lease: job for job in jobs})
            return jobs
        finally:
            for _ in range(count - len(jobs)):
                self._free.release()

    def _work(self, job):
        try:
            try:
                result = self.handle(job)
                item = {'lease': job.lease, 'outcome': 'done'}
                if result is not None:
                    json.dumps(result, allow_nan=False)
                    item['result'] = result
            except Dead as error:
                item = {'lease': job.lease, 'outcome': 'dead', 'error': str(error)}
            except Retry as error:
                item = {'lease': job.lease, 'outcome': 'retry', 'error': str(error)}
                if error.delay_ms is not None:
                    item['delayMs'] = error.delay_ms
            except Exception as error:  # whatever a handler raises
                item = {'lease': job.lease, 'outcome': 'retry', 'error': f'{type(error).__name__}: {error}'}
            if not job.lost.is_set():
                self._settle(job, item)
        finally:
            with self._lock:
                self._running.pop(job.lease, None)
            self._free.release()

    def _settle(self, job, item):
        try:
            answer = self._call_until_answered('/v1/leases:settle', {'items': [item]}, SETTLE_TRIES)
        except Refused as error:
            self._say(f'job {job.id} was not settled: {error}')
            return
        outcome = answer['outcomes'][0] if answer else {'outcome': 'unknown'}
        # LEASE_LOST after an answer that was lost is what a settle that took effect says, so nothing is to be done.
        if outcome['outcome'] != 'settled':
            self._say(f"job {job.id} was not settled: {outcome.get('problem', {}).get('detail', 'no answer')}")

    def _extend_until(self, ended):
        """Keeps the leases of what runs."""
        while not ended.wait(self.lease_ms / 3_000):
            with self._lock:
                jobs = list(self._running.values())
            if not jobs:
                continue
            items = [{'lease': job.lease, 'leaseMs': self.lease_ms} for job in jobs]
            try:
                answer = self._call('/v1/leases:extend', {'items': items})
            except (OSError, Refused, Busy):
                continue
            for job, outcome in zip(jobs, answer['outcomes']):
                if outcome.get('problem', {}).get('code') == 'LEASE_LOST':
                    job.lost.set()

    # ---- calls

    def _call_until_answered(self, path, body, tries=None, gives_up=False):
        """The answer, or None where the worker stops (or `tries` are over) before there is one."""
        pause_s = 0.2
        while True:
            try:
                return self._call(path, body, gives_up)
            except Busy as busy:
                wait_s = busy.retry_after_s * (1 + random.random() / 4)
            except OSError as error:
                if gives_up and self.stopping.is_set():
                    return None
                self._say(f'{self.url} does not answer ({error})')
                wait_s = pause_s * (1 + random.random())
                pause_s = min(MAX_PAUSE_S, pause_s * 2)
            if tries is None:
                if self.stopping.wait(wait_s):
                    return None
                continue
            tries -= 1
            if tries == 0:
                return None
            time.sleep(wait_s)

    def _call(self, path, body, gives_up=False):
        """The answer. `gives_up`: a call that waits is dropped when the worker stops; the server takes back what it had."""
        headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
        if self.credential:
            headers['Authorization'] = f'Bearer {self.credential}'
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == 'https' else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=self.wait_ms / 1_000 + 30)
        try:
            connection.request('POST', parts.path + path, json.dumps(body), headers)
            while gives_up and not select.select([connection.sock], [], [], 0.2)[0]:
                if self.stopping.is_set():
                    raise OSError('the worker stops')
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                return json.loads(text)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f'an answer that was cut off: {error}') from None
        finally:
            connection.close()
        if answer.status == 503:
            raise Busy(float(answer.headers.get('Retry-After') or 1))
        problem = read_problem(answer, text)
        if answer.status >= 500:
            raise OSError(problem)
        raise Refused(problem)

    @staticmethod
    def _say(text):
        print(text, file=sys.stderr, flush=True)


class Busy(Exception):
    """503: nothing was done, come again later."""

    def __init__(self, retry_after_s):
        super().__init__(f'busy for {retry_after_s} s')
        self.retry_after_s = retry_after_s


def read_problem(answer, text):
    """Every error of Sluice is a problem document; one of a proxy on the way may not be."""
    try:
        problem = json.loads(text)
        return f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f'{answer.status} {answer.reason}'
