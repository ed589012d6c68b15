import { deepEqual, equal, ok, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isSluiceError, type SluiceError } from '../src/errors.ts'
import { checkName, checkOptions, findNearest, type Rules } from '../src/options-check.ts'
import {
  CALL_RULES,
  JOB_RULES,
  MESSAGE_RULES,
  QUEUE_RULES,
  SUBSCRIBE_RULES,
  TOPIC_RULES,
  WORK_RULES,
} from '../src/setting-rules.ts'

function refusal(rules: Rules, options: unknown): SluiceError {
  try {
    checkOptions(options, rules, 'the call')
  } catch (error) {
    ok(isSluiceError(error, 'INVALID_OPTION'))
    return error
  }
  throw new Error('it was accepted')
}

describe('an unknown option', () => {
  test('is refused by its name, with the nearest one that exists', () => {
    const error = refusal(JOB_RULES, { dealyMs: 5 })
    equal(error.details.option, 'dealyMs')
    equal(error.details.nearest, 'delayMs')
    ok(error.message.includes("'dealyMs'") && error.message.includes("Did you mean 'delayMs'?"))
  })

  test('is refused inside an option with its whole name', () => {
    const error = refusal(QUEUE_RULES, { limit: { mesages: 5 } })
    equal(error.details.option, 'limit.mesages')
    equal(error.details.nearest, 'limit.messages')
  })

  for (const [wrong, nearest] of [
    ['delay', 'delayMs'],
    ['prioritY', 'priority'],
    ['idempotency_key', 'idempotencyKey'],
    ['zzzzzzzzzz', null],
  ] as const) {
    test(`'${wrong}' is nearest to ${nearest}`, () => equal(findNearest(wrong, Object.keys(JOB_RULES)), nearest))
  }

  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    test(`named ${name} is refused like any other, and changes no prototype`, () => {
      const options = JSON.parse(`{"${name}":{"delayMs":1}}`)
      equal(refusal(JOB_RULES, options).details.option, name)
      equal(refusal(QUEUE_RULES, { limit: JSON.parse(`{"${name}":1}`) }).details.option, `limit.${name}`)
      equal(({} as { delayMs?: number }).delayMs, undefined)
    })
  }

  test('of great length is not shown whole', () => {
    const error = refusal(JOB_RULES, { ['x'.repeat(100_000)]: 1 })
    ok(error.message.length < 500)
  })
})

describe('a value out of range is named with what is allowed', () => {
  const cases: readonly (readonly [rules: Rules, options: Record<string, unknown>, option: string])[] = [
    [JOB_RULES, { delayMs: -1 }, 'delayMs'],
    [JOB_RULES, { delayMs: Number.NaN }, 'delayMs'],
    [JOB_RULES, { delayMs: Number.POSITIVE_INFINITY }, 'delayMs'],
    [JOB_RULES, { delayMs: 1.5 }, 'delayMs'],
    [JOB_RULES, { delayMs: '5' }, 'delayMs'],
    [JOB_RULES, { delayMs: 5n }, 'delayMs'],
    [JOB_RULES, { delayMs: 315_360_000_001 }, 'delayMs'],
    [JOB_RULES, { deadlineMs: 0 }, 'deadlineMs'],
    [JOB_RULES, { deadlineMs: Date.now() }, 'deadlineMs'],
    [JOB_RULES, { priority: 'urgent' }, 'priority'],
    [JOB_RULES, { priority: 1 }, 'priority'],
    [JOB_RULES, { key: '' }, 'key'],
    [JOB_RULES, { key: 7 }, 'key'],
    [JOB_RULES, { key: 'é'.repeat(513) }, 'key'],
    [JOB_RULES, { key: '\ud800' }, 'key'],
    [JOB_RULES, { idempotencyKey: '' }, 'idempotencyKey'],
    [JOB_RULES, { headers: 'text' }, 'headers'],
    [JOB_RULES, { headers: [] }, 'headers'],
    [JOB_RULES, { headers: { a: 1 } }, 'headers.a'],
    [JOB_RULES, { headers: JSON.parse('{"__proto__":"x"}') }, 'headers'],
    [JOB_RULES, { headers: { 'Sluice-Redrive-Of': 'x' } }, 'headers.Sluice-Redrive-Of'],
    [JOB_RULES, { headers: { a: 'x'.repeat(32_768) } }, 'headers'],
    [JOB_RULES, { onSettled: {} }, 'onSettled'],
    [MESSAGE_RULES, { delayMs: 5 }, 'delayMs'],
    [CALL_RULES, { timeoutMs: 0 }, 'timeoutMs'],
    [CALL_RULES, { signal: {} }, 'signal'],
    [WORK_RULES, { concurrency: 0 }, 'concurrency'],
    [WORK_RULES, { concurrency: 10_001 }, 'concurrency'],
    [WORK_RULES, { leaseMs: 999 }, 'leaseMs'],
    [QUEUE_RULES, { attempts: 0 }, 'attempts'],
    [QUEUE_RULES, { limit: null }, 'limit'],
    [QUEUE_RULES, { limit: { messages: -1 } }, 'limit.messages'],
    [QUEUE_RULES, { limit: { bytes: 2 ** 53 } }, 'limit.bytes'],
    [QUEUE_RULES, { retention: { ms: -5 } }, 'retention.ms'],
    [QUEUE_RULES, { backoff: { factor: 0.5 } }, 'backoff.factor'],
    [QUEUE_RULES, { backoff: { factor: Number.NaN } }, 'backoff.factor'],
    [QUEUE_RULES, { rate: { perMs: 5 } }, 'rate.messages'],
    [QUEUE_RULES, { rate: { messages: 0 } }, 'rate.messages'],
    [QUEUE_RULES, { strict: 'yes' }, 'strict'],
    [QUEUE_RULES, { onExhausted: 'drop' }, 'onExhausted'],
    [QUEUE_RULES, { schema: { parse() {} } }, 'schema'],
    [QUEUE_RULES, { pace: null }, 'pace'],
    [TOPIC_RULES, { onSlowGroup: 'wait' }, 'onSlowGroup'],
    [TOPIC_RULES, { attempts: 3 }, 'attempts'],
    [SUBSCRIBE_RULES, { from: 'beginning' }, 'from'],
    [SUBSCRIBE_RULES, { from: -1 }, 'from'],
    [SUBSCRIBE_RULES, { from: {} }, 'from.timeMs'],
  ]
  for (const [index, [rules, options, option]] of cases.entries()) {
    test(`${index + 1}: ${option}`, () => {
      const error = refusal(rules, options)
      equal(error.details.option, option)
      ok(error.message.includes(option))
    })
  }

  test('and options that are no object are refused', () => {
    for (const options of [null, 5, 'text', []]) refusal(JOB_RULES, options)
  })
})

test('what is allowed passes, at both ends', () => {
  checkOptions(undefined, JOB_RULES, 'it')
  checkOptions({}, JOB_RULES, 'it')
  checkOptions({ key: undefined, delayMs: undefined }, JOB_RULES, 'it')
  checkOptions({ key: 'é'.repeat(512), delayMs: 0, deadlineMs: 315_360_000_000, priority: 'low' }, JOB_RULES, 'it')
  checkOptions({ headers: { a: 'x'.repeat(32_760) } }, JOB_RULES, 'it')
  checkOptions({ headers: { constructor: 'a', toString: 'b' } }, JOB_RULES, 'it')
  checkOptions({ rate: null, limit: { messages: 0, bytes: Number.MAX_SAFE_INTEGER } }, QUEUE_RULES, 'it')
  checkOptions({ rate: { messages: 1 }, backoff: { baseMs: 0, factor: 1, maxMs: 0 } }, QUEUE_RULES, 'it')
  checkOptions({ from: { timeMs: 0 } }, SUBSCRIBE_RULES, 'it')
})

describe('a name', () => {
  test('of 1 to 128 letters, digits, dots, dashes and underscores is accepted', () => {
    for (const name of ['a', '0', 'A.b-c_d', 'x'.repeat(128)]) checkName(name, 'queue')
  })

  for (const name of [
    '',
    '.a',
    '-a',
    '_a',
    'a b',
    'a/b',
    'é',
    'a:b',
    '../x',
    'a\0',
    'x'.repeat(129),
    '__proto__',
    7,
    null,
  ]) {
    test(`${JSON.stringify(name)?.slice(0, 20)} is refused with INVALID_NAME`, () => {
      throws(
        () => checkName(name, 'topic'),
        (error) => isSluiceError(error, 'INVALID_NAME') && error.message.length < 300,
      )
    })
  }
})

test('the tables have no prototype that an option could reach', () => {
  for (const rules of [JOB_RULES, QUEUE_RULES, TOPIC_RULES, WORK_RULES]) deepEqual(Object.getPrototypeOf(rules), null)
})
