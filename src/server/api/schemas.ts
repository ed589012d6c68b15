/**
 * What answers look like, as JSON Schema: the components of the OpenAPI document. The tests check every answer that they
 * get against them, and a member that does not stand here fails.
 */
import type { JsonSchema } from '../../json-schema.ts'
import { MAX_COUNT } from '../../options-check.ts'
import { OUTPUT_JOB_RULES, OUTPUT_MESSAGE_RULES } from '../../setting-rules.ts'

export const text: JsonSchema = { type: 'string' }
export const flag: JsonSchema = { type: 'boolean' }
export const count: JsonSchema = { type: 'integer', minimum: 0, maximum: MAX_COUNT }
export const atMs: JsonSchema = { type: 'number', minimum: 0, description: 'Milliseconds since 1970' }
const number: JsonSchema = { type: 'number', minimum: 0 }
const anyJson: JsonSchema = { description: 'Any JSON, as it was sent' }
const base64: JsonSchema = { type: 'string', contentEncoding: 'base64' }
const headers: JsonSchema = { type: 'object', additionalProperties: text }
export const nameText: JsonSchema = text

/** An object with these members; those in `optional` may be missing. */
export function shape(
  properties: Readonly<Record<string, JsonSchema>>,
  optional: Readonly<Record<string, JsonSchema>> = {},
): JsonSchema {
  return {
    type: 'object',
    properties: { ...properties, ...optional },
    required: Object.keys(properties),
    additionalProperties: false,
  }
}

export function listOf(items: JsonSchema): JsonSchema {
  return { type: 'array', items }
}

export function ref(name: keyof typeof SCHEMAS | 'Problem'): JsonSchema {
  return { $ref: `#/components/schemas/${name}` }
}

const STATUSES = ['queued', 'scheduled', 'active', 'retrying', 'blocked', 'completed', 'failed', 'cancelled', 'expired']
const WAITS = [
  'delayed',
  'retrying',
  'exhausted',
  'key',
  'suspect',
  'paused',
  'no-worker',
  'workers-busy',
  'rate',
  'line',
]
const durability: JsonSchema = { enum: ['memory', 'os', 'disk'] }
const depth = shape({ messages: count, bytes: count })

/** A payload stands under one of two names; so does what is sent. */
const PAYLOAD = { payload: anyJson, payloadBase64: base64 }

function outgoing(rules: { readonly [option: string]: { readonly schema?: JsonSchema } | undefined }): JsonSchema {
  const options = Object.entries(rules).map(([name, rule]) => [name, rule?.schema ?? {}])
  return {
    type: 'object',
    properties: { ...Object.fromEntries(options), ...PAYLOAD },
    oneOf: [{ required: ['payload'] }, { required: ['payloadBase64'] }],
  }
}

const JOB_LINE = outgoing(OUTPUT_JOB_RULES)
const MESSAGE_LINE = outgoing(OUTPUT_MESSAGE_RULES)

/** What a worker publishes with its settle: a line of a batch that says where it goes. */
export const OUTPUT: JsonSchema = {
  anyOf: [
    { ...JOB_LINE, properties: { ...(JOB_LINE.properties as object), queue: nameText }, required: ['queue'] },
    { ...MESSAGE_LINE, properties: { ...(MESSAGE_LINE.properties as object), topic: nameText }, required: ['topic'] },
  ],
}

const ACCEPTED = {
  id: text,
  status: { enum: STATUSES },
  queue: nameText,
  duplicate: flag,
  createdAtMs: atMs,
  durability,
  copies: count,
}
const RECEIPT = {
  topic: nameText,
  partition: count,
  offset: count,
  timestampMs: atMs,
  duplicate: flag,
  durability,
  copies: count,
}
const LEASE = {
  lease: { ...text, description: 'Secret and opaque: what the message is extended and settled with' },
  offset: count,
  attempt: { type: 'integer', minimum: 1 },
  fence: count,
  expiresAtMs: atMs,
  timestampMs: atMs,
  key: { type: ['string', 'null'] },
  headers,
}
const COMMON_FIGURES = {
  name: nameText,
  earliest: count,
  head: count,
  depth,
  limit: depth,
  scheduled: count,
  appended: count,
  refused: count,
}
const GROUP_FIGURES = {
  floor: count,
  leased: count,
  retrying: count,
  blocked: count,
  dead: count,
  paused: flag,
  drainPerSecond: number,
  asking: { ...count, description: 'Calls of workers that wait for messages' },
  done: { ...count, description: 'Since the engine was opened, as are the next three' },
  failed: { ...count, description: 'Attempts that are tried again' },
  died: { ...count, description: 'Dead letters made, and messages that hold up their key' },
  expired: count,
}
const REFUSED = shape({ outcome: { const: 'refused' }, problem: { $ref: '#/components/schemas/Problem' } })

export const SCHEMAS = {
  JobAccepted: shape(ACCEPTED, { dueAtMs: atMs }),
  Job: shape(
    {
      id: text,
      queue: nameText,
      status: { enum: STATUSES },
      attempts: count,
      version: { ...number, description: 'Opaque; it only rises' },
      createdAtMs: atMs,
    },
    {
      dueAtMs: atMs,
      result: anyJson,
      error: text,
      progress: anyJson,
      redriveOf: text,
      why: { ...text, description: 'Of a job that has not begun: why it waits, in a sentence' },
      waits: {
        type: 'array',
        description: 'Why it waits, for programs',
        items: { type: 'object', properties: { kind: { enum: WAITS } }, required: ['kind'] },
      },
    },
  ),
  JobLine: JOB_LINE,
  JobOutcome: {
    anyOf: [
      shape({ outcome: { enum: ['stored', 'scheduled', 'duplicate'] }, ...ACCEPTED }, { dueAtMs: atMs }),
      REFUSED,
    ],
  },
  MessageLine: MESSAGE_LINE,
  MessageOutcome: { anyOf: [shape({ outcome: { enum: ['stored', 'duplicate'] }, ...RECEIPT }), REFUSED] },
  Receipt: shape(RECEIPT),
  Message: {
    ...shape(
      { partition: count, offset: count, timestampMs: atMs, key: { type: ['string', 'null'] }, headers },
      PAYLOAD,
    ),
    oneOf: [{ required: ['payload'] }, { required: ['payloadBase64'] }],
  },
  Lease: shape(LEASE, { id: text, queue: nameText, topic: nameText, group: nameText, ...PAYLOAD }),
  LeaseOutcome: {
    anyOf: [
      shape({ outcome: { const: 'extended' }, expiresAtMs: atMs }),
      shape({ outcome: { const: 'settled' } }),
      REFUSED,
    ],
  },
  DeadLetter: shape(
    {
      id: text,
      offset: count,
      attempts: count,
      error: text,
      diedAtMs: atMs,
      key: { type: ['string', 'null'] },
      headers,
    },
    PAYLOAD,
  ),
  Queue: shape({ ...COMMON_FIGURES, ...GROUP_FIGURES }, { oldestAtMs: atMs }),
  Group: shape({ name: nameText, depth: count, ...GROUP_FIGURES }, { oldestAtMs: atMs }),
  Topic: shape({ ...COMMON_FIGURES, groups: listOf({ $ref: '#/components/schemas/Group' }) }),
} as const satisfies Readonly<Record<string, JsonSchema>>
