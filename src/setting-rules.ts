/** What the settings of queues, topics and groups, and the options of single messages, may be: one table each. */
import { callbackUrl } from './callback-url.ts'
import { schemaOf } from './json-schema.ts'
import { MAX_HEADER_BYTES, MAX_KEY_BYTES, PRIORITIES } from './message-batch.ts'
import {
  abortSignal,
  callback,
  createRules,
  duration,
  finite,
  flag,
  invalidOption,
  MAX_COUNT,
  nullable,
  oneOf,
  parts,
  type Rule,
  rule,
  text,
  whole,
} from './options-check.ts'

const MAX_NAME_BYTES = 1_024
/** Headers under this prefix are Sluice's own. */
const RESERVED_PREFIX = 'sluice-'

const rate = parts(createRules({ messages: whole(1, 1_000_000), perMs: duration(1) }), ['messages'])
const limit = parts(createRules({ messages: whole(0, MAX_COUNT), bytes: whole(0, MAX_COUNT) }))
const retention = parts(createRules({ ms: duration(0), bytes: whole(0, MAX_COUNT) }))
const backoff = parts(createRules({ baseMs: duration(0), factor: finite(1, 100), maxMs: duration(0) }))

const schema: Rule = (value, name) => {
  const standard =
    typeof value === 'object' || typeof value === 'function'
      ? (value as { '~standard'?: unknown } | null)?.['~standard']
      : null
  if (typeof (standard as { validate?: unknown } | null)?.validate === 'function') return
  throw invalidOption(name, value, "a Standard Schema (zod, valibot, arktype: an object with '~standard')")
}

/** Text values under names, in all at most `MAX_HEADER_BYTES` as JSON. */
const headers: Rule = rule({ type: 'object', additionalProperties: { type: 'string' } }, (value, name) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidOption(name, value, 'an object of texts')
  // Whatever else (Headers, a Map, an object with a toJSON of its class) is not what its own members say.
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype)
    throw invalidOption(name, value, 'a plain object of texts, such as Object.fromEntries(headers)')
  let characters = 2
  for (const header of Object.keys(value)) {
    if (header === '__proto__') throw invalidOption(name, header, 'an object of texts without the name __proto__')
    if (header.slice(0, RESERVED_PREFIX.length).toLowerCase() === RESERVED_PREFIX) {
      throw invalidOption(
        `${name}.${header}`,
        (value as Record<string, unknown>)[header],
        `named otherwise: '${RESERVED_PREFIX}' is reserved`,
      )
    }
    const content = (value as Record<string, unknown>)[header]
    if (typeof content !== 'string') throw invalidOption(`${name}.${header}`, content, 'text')
    characters += header.length + content.length + 6
  }
  // A character is at most six bytes of JSON (`\u0000`).
  if (characters * 6 <= MAX_HEADER_BYTES) return
  const bytes = Buffer.byteLength(JSON.stringify(value))
  if (bytes > MAX_HEADER_BYTES)
    throw invalidOption(name, value, `at most ${MAX_HEADER_BYTES} bytes as JSON, not ${bytes}`)
})

const GROUP_SETTINGS = {
  attempts: whole(1, 10_000),
  backoff,
  onExhausted: oneOf(['deadLetter', 'block']),
  deadLetters: whole(0, MAX_COUNT),
  strict: flag,
  rate: nullable(rate),
}
const PRODUCER = { schema, pace: rate, fullWaitMs: duration(0) }
const FROM_NAMES = oneOf(['earliest', 'latest'])
const FROM_OFFSET = whole(0, MAX_COUNT)
const FROM_TIME = parts(createRules({ timeMs: whole(0, MAX_COUNT) }), ['timeMs'])

/** A place to start: see `ReadFrom`. */
export const readFrom: Rule = rule({ anyOf: [FROM_NAMES, FROM_OFFSET, FROM_TIME].map(schemaOf) }, (value, name) => {
  if (typeof value === 'string') FROM_NAMES(value, name)
  else if (typeof value === 'number') FROM_OFFSET(value, name)
  else if (typeof value === 'object' && value !== null) FROM_TIME(value, name)
  else throw invalidOption(name, value, "'earliest', 'latest', an offset or { timeMs }")
})

export const QUEUE_RULES = createRules({
  ...GROUP_SETTINGS,
  limit,
  retention,
  idempotencyMs: duration(0),
  ...PRODUCER,
})

export const TOPIC_RULES = createRules({
  limit,
  retention,
  idempotencyMs: duration(0),
  onSlowGroup: oneOf(['refuse', 'detach']),
  ...PRODUCER,
})

const anything: Rule = () => {}
const MESSAGE = {
  key: text(MAX_KEY_BYTES),
  headers,
  idempotencyKey: text(MAX_NAME_BYTES),
}
const JOB = {
  ...MESSAGE,
  fullWaitMs: duration(0),
  delayMs: duration(0),
  priority: oneOf(PRIORITIES),
  deadlineMs: duration(1),
  callbackUrl,
  onSettled: callback,
}
export const JOB_RULES = createRules(JOB)
/** The same with the payload beside the options, for `addMany`. */
export const JOB_ITEM_RULES = createRules({ ...JOB, payload: anything })
export const CALL_RULES = createRules({
  ...MESSAGE,
  priority: oneOf(PRIORITIES),
  timeoutMs: duration(1),
  signal: abortSignal,
})
export const MESSAGE_RULES = createRules({ ...MESSAGE, fullWaitMs: duration(0) })
export const MESSAGE_ITEM_RULES = createRules({ ...MESSAGE, fullWaitMs: duration(0), payload: anything })
/** What a handler publishes is stored with its settle, so nothing of it can be waited for. */
export const OUTPUT_JOB_RULES = createRules({
  ...MESSAGE,
  delayMs: duration(0),
  priority: oneOf(PRIORITIES),
  deadlineMs: duration(1),
  callbackUrl,
})
export const OUTPUT_MESSAGE_RULES = createRules(MESSAGE)

const ids: Rule = (value, name) => {
  if (!Array.isArray(value)) throw invalidOption(name, value, 'an array of ids')
}
export const REDRIVE_RULES = createRules({ ids, max: whole(1, 1_000_000) })
const CURSOR = /^[0-9a-f]{14}$/
/** Where a page of dead letters ended. */
export const deadCursor: Rule = rule({ type: 'string', pattern: CURSOR.source }, (value, name) => {
  if (typeof value !== 'string' || !CURSOR.test(value))
    throw invalidOption(name, value, 'the `next` of an earlier page')
})
export const DEAD_RULES = createRules({ after: deadCursor, limit: whole(1, 1_000) })

export const WORK_RULES = createRules({
  concurrency: whole(1, 10_000),
  timeoutMs: duration(1),
  leaseMs: duration(1_000, 86_400_000),
})
export const SUBSCRIBE_RULES = createRules({
  ...GROUP_SETTINGS,
  from: readFrom,
  concurrency: whole(1, 10_000),
  timeoutMs: duration(1),
  leaseMs: duration(1_000, 86_400_000),
})
export const READ_RULES = createRules({ from: readFrom, follow: flag, signal: abortSignal, limit: whole(1, MAX_COUNT) })
