import { equal, ok } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { RetryBudget } from '../../src/policy/retry-budget.ts'

/** Every request is refused, and its client would try again three times. */
function retriesOf(requests: number, everyMs: number): number {
  const budget = new RetryBudget(0)
  let retries = 0
  for (let i = 0; i < requests; i++) {
    budget.deposit()
    for (let again = 0; again < 3; again++) if (budget.withdraw(i * everyMs)) retries++
  }
  return retries
}

describe('a retry budget', () => {
  test('keeps retries at a tenth of the requests over time, however many are refused', () => {
    const requests = 100_000
    const retries = retriesOf(requests, 1)
    // A token a second trickles in besides, for a hundred seconds, and ten were there at the start.
    ok(retries >= requests * 0.1 && retries <= requests * 0.1 + 100 + 10, `${retries}`)
  })

  test('lets a client that asks once in ten seconds try again each time', () => {
    equal(retriesOf(50, 10_000), 150)
  })

  test('saves up no more than a hundred', () => {
    const budget = new RetryBudget(0)
    for (let i = 0; i < 1_000_000; i++) budget.deposit()
    let retries = 0
    while (budget.withdraw(0)) retries++
    ok(retries >= 99 && retries <= 100, `${retries}`)
  })
})
