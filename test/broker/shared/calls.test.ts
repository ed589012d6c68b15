import { deepEqual } from 'node:assert/strict'
import { test } from 'node:test'
import { Calls } from '../../../src/broker/shared/calls.ts'
import type { LedgerRequest } from '../../../src/ledger/requests.ts'

const LEASE: LedgerRequest = {
  id: 1,
  kind: 'lease',
  body: {
    ...{ topic: 'q', group: '', max: 1, leaseMs: 1_000, waitMs: 500 },
    holder: { kind: 'token', token: 'of a worker' },
  },
}
const LATE_MS = 60_000

function codesAt(nowMs: number, calls: Calls): unknown[] {
  return calls.takeOverdue(nowMs).map((answer) => ('error' in answer ? answer.error.code : answer))
}

test('a lease that an owner was asked for and never answered is UNKNOWN: it may have been granted', () => {
  const calls = new Calls()
  calls.add([LEASE], 0)
  deepEqual(calls.takeHeld(1), [LEASE])
  deepEqual(codesAt(1_000, calls), [])
  deepEqual(codesAt(LATE_MS, calls), ['UNKNOWN'])
  deepEqual(codesAt(LATE_MS, calls), [])
})

test('a lease that no owner was asked for is UNREACHABLE: nothing was granted', () => {
  const calls = new Calls()
  calls.add([LEASE], 0)
  deepEqual(codesAt(LATE_MS, calls), ['UNREACHABLE'])
})
