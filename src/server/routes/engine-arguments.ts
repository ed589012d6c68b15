/**
 * What each method of the engine may be asked over HTTP, as tables: a client that is broken or hostile gets an error that
 * names what is wrong, and the engine never sees it.
 */
import { callbackUrl, normalizeCallbackUrl } from '../../callback-url.ts'
import { MAX_SCHEDULED_JOB_BYTES, MAX_TIMING_BYTES } from '../../engine/schedules.ts'
import { SluiceError } from '../../errors.ts'
import { BatchView, checkStoredSchedule } from '../../index.ts'
import { findBatchDamage, laneOfKey, MAX_BATCH_MESSAGES, MAX_KEY_BYTES } from '../../message-batch.ts'
import { checkOptions, invalidOption } from '../../options-check.ts'
import { deadCursor } from '../../setting-rules.ts'
import { MAX_WAIT_MS } from '../context.ts'
import { readName } from '../members.ts'
import { GROUP_SETTINGS, QUEUE_SETTINGS, TOPIC_SETTINGS } from './declare.ts'

export type EngineMethod =
  | 'declare'
  | 'append'
  | 'read'
  | 'lease'
  | 'extend'
  | 'settle'
  | 'find'
  | 'watch'
  | 'command'
  | 'stats'

/** Throws what is wrong with a value; `name` is its place in the argument. */
type Check = (value: unknown, name: string) => void

const MAX_OFFSETS = 10_000
const MAX_ITEMS = 10_000
const MAX_ID_BYTES = 512
const MAX_LEASE_MS = 86_400_000
/** Of a `Date`. */
const MAX_TIME_MS = 8.64e15
const MAX_AHEAD_MS = 86_400_000

const METHODS: Readonly<Record<EngineMethod, Check>> = {
  declare: list(declaration),
  append: list(appendRequest),
  read: object({ topic: topicName, from: readFrom, max: whole(1, 10_000), waitMs: whole(0, MAX_WAIT_MS) }),
  lease: object({
    topic: topicName,
    group: groupName,
    max: whole(1, 10_000),
    leaseMs: whole(1, MAX_LEASE_MS),
    waitMs: whole(0, MAX_WAIT_MS),
    holder: object({ kind: exactly('token'), token: text(128) }),
  }),
  extend: list(object({ ...hold(), leaseMs: whole(0, MAX_LEASE_MS), progress: optional(json(4_096)) })),
  settle: list(object({ ...hold(), outcome: settlement, outputs: optional(list(appendRequest)) })),
  find: list(text(MAX_ID_BYTES)),
  watch: object({ id: text(MAX_ID_BYTES), version: number, untilTerminal: flag, waitMs: whole(0, MAX_WAIT_MS) }),
  command,
  stats: exactly(null),
}

let maxTextBytes = 0

export function isEngineMethod(method: string): method is EngineMethod {
  return Object.hasOwn(METHODS, method)
}

/** Throws INVALID_OPTION, INVALID_NAME, PAYLOAD_TOO_LARGE or BAD_REQUEST. `maxBytes`: of one payload, result or kept value. */
export function checkArgument(method: EngineMethod, argument: unknown, maxBytes: number): void {
  maxTextBytes = maxBytes
  METHODS[method](argument, method)
}

// ---- the arguments

function declaration(value: unknown, name: string): void {
  const { kind, settings } = (value ?? {}) as Record<string, unknown>
  if (kind === 'group') {
    object({ kind: exactly('group'), topic: topicName, name: anyName('group'), settings: anything, from: readFrom })(
      value,
      name,
    )
    checkOptions(settings, GROUP_SETTINGS, name)
  } else {
    object({ kind: oneOf('queue', 'topic'), name: anyName(kind === 'queue' ? 'queue' : 'topic'), settings: anything })(
      value,
      name,
    )
    checkOptions(settings, kind === 'queue' ? QUEUE_SETTINGS : TOPIC_SETTINGS, name)
  }
}

function appendRequest(value: unknown, name: string): void {
  object({ topic: topicName, batch, wishes: optional(list(wish)) })(value, name)
  const { wishes = [], batch: bytes } = value as { wishes?: readonly { index: number }[]; batch: Uint8Array }
  const count = new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true)
  let last = -1
  for (const [i, { index }] of wishes.entries()) {
    if (index <= last || index >= count)
      throw invalidOption(`${name}.wishes[${i}].index`, index, 'ascending, below the count of messages')
    last = index
  }
}

const wish = object({
  index: whole(0, MAX_BATCH_MESSAGES - 1),
  idempotencyKey: optional(text(1_024)),
  scope: optional(text(256)),
  dueAtMs: optional(moment),
  inTime: optional(flag),
  callbackUrl: optional(normalUrl),
})

/** A client sends it in its normal form, which is what is bounded. */
function normalUrl(value: unknown, name: string): void {
  callbackUrl(value, name)
  if (normalizeCallbackUrl(value as string) !== value) throw invalidOption(name, '(not shown)', 'in its normal form')
}

function batch(value: unknown, name: string): void {
  if (!(value instanceof Uint8Array)) throw invalidOption(name, value, 'the bytes of a batch')
  const damage = findBatchDamage(value)
  if (damage !== null) throw new SluiceError('BAD_REQUEST', `${name} is not a batch: ${damage}. Nothing was stored.`)
  const view = new BatchView(value)
  for (let i = 0; i < view.count; i++) {
    const bytes = view.payload(i).byteLength
    if (bytes > maxTextBytes) {
      throw new SluiceError(
        'PAYLOAD_TOO_LARGE',
        `Message ${i} of ${name} has a payload of ${bytes} bytes; a message has at most ${maxTextBytes}.`,
        { limit: maxTextBytes },
      )
    }
    const problem = headProblem(view, i)
    if (problem !== null)
      throw new SluiceError('BAD_REQUEST', `Message ${i} of ${name} ${problem}. Nothing was stored.`)
  }
}

/** What the engine and every reader of the message would stumble over, long after the call. */
function headProblem(view: BatchView, i: number): string | null {
  const deadlineMs = view.deadlineMs(i)
  if (!(deadlineMs >= 0 && deadlineMs <= MAX_TIME_MS)) return 'has a deadline that is no time'
  const key = view.key(i)
  // Another lane than that of its key would take it out of the order of that key.
  if (key !== undefined && (Buffer.byteLength(key) > MAX_KEY_BYTES || laneOfKey(key) !== view.lane(i)))
    return 'has a key that is too long, or not that of its lane'
  let headers: unknown
  try {
    headers = view.headers(i)
  } catch {
    return 'has headers that are not JSON'
  }
  if (headers === undefined) return null
  const isPlain = typeof headers === 'object' && headers !== null && !Array.isArray(headers)
  if (!isPlain || Object.values(headers as object).some((one) => typeof one !== 'string'))
    return 'has headers that are not an object of texts'
  return Object.hasOwn(headers as object, '__proto__') ? 'has a header __proto__' : null
}

function hold(): Record<string, Check> {
  return {
    topic: topicName,
    group: groupName,
    fence: whole(0, Number.MAX_SAFE_INTEGER),
    offsets: list(whole(0, Number.MAX_SAFE_INTEGER), MAX_OFFSETS),
    token: optional(text(128)),
  }
}

function settlement(value: unknown, name: string): void {
  const kinds: Record<string, Check> = {
    done: object({ kind: exactly('done'), result: optional(json()) }),
    retry: object({ kind: exactly('retry'), error: text(1_048_576), atMs: optional(moment) }),
    release: object({ kind: exactly('release') }),
    dead: object({ kind: exactly('dead'), error: text(1_048_576) }),
  }
  byKind(value, name, kinds)
}

function command(value: unknown, name: string): void {
  const group = { topic: topicName, group: groupName }
  const letters = { ...group, ids: optional(list(text(MAX_ID_BYTES))), max: whole(1, 1_000_000) }
  const holding = object({ ...hold() })
  const kept = { hold: holding, name: text(256) }
  const schedule = { queue: anyName('queue'), name: anyName('schedule') }
  const kinds: Record<string, Check> = {
    cancel: object({ kind: anything, id: text(MAX_ID_BYTES), isMoved: optional(flag) }),
    unsettled: object({ kind: anything, topic: topicName, after: optional(text(64)), max: whole(1, 1_000) }),
    explain: object({ kind: anything, id: text(MAX_ID_BYTES) }),
    pause: object({ kind: anything, ...group }),
    resume: object({ kind: anything, ...group }),
    redrive: object({ kind: anything, ...letters }),
    discard: object({ kind: anything, ...letters }),
    forget: object({ kind: anything, ...group }),
    dead: object({ kind: anything, ...group, after: optional(deadCursor), max: whole(1, 1_000) }),
    seek: object({ kind: anything, ...group, from: readFrom }),
    remember: object({ kind: anything, ...kept, value: json() }),
    recall: object({ kind: anything, ...kept }),
    schedule: (value, name) => {
      object({ kind: anything, ...schedule, timing: json(MAX_TIMING_BYTES), job: json(MAX_SCHEDULED_JOB_BYTES) })(
        value,
        name,
      )
      checkStoredSchedule(value as { timing: string; job: string })
    },
    unschedule: object({ kind: anything, ...schedule }),
    schedules: object({
      kind: anything,
      queue: optional(anyName('queue')),
      knownVersion: optional(whole(0, Number.MAX_SAFE_INTEGER)),
    }),
    fire: object({
      kind: anything,
      ...schedule,
      revision: whole(0, Number.MAX_SAFE_INTEGER),
      fromMs: moment,
      toMs: dueTick,
      append: (value, name) => {
        if (value !== null) appendRequest(value, name)
      },
    }),
  }
  byKind(value, name, kinds)
}

// ---- values

function byKind(value: unknown, name: string, kinds: Readonly<Record<string, Check>>): void {
  const kind = (value as { kind?: unknown } | null)?.kind
  const check = typeof kind === 'string' && Object.hasOwn(kinds, kind) ? kinds[kind] : undefined
  if (check === undefined) throw invalidOption(`${name}.kind`, kind, Object.keys(kinds).join(', '))
  check(value, name)
}

function object(members: Readonly<Record<string, Check>>): Check {
  return (value, name) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array)
      throw invalidOption(name, value, 'an object')
    for (const member of Object.keys(value))
      if (!Object.hasOwn(members, member)) throw invalidOption(`${name}.${member}`, undefined, 'not there')
    for (const [member, check] of Object.entries(members))
      check((value as Record<string, unknown>)[member], `${name}.${member}`)
  }
}

function list(check: Check, most = MAX_ITEMS): Check {
  return (value, name) => {
    if (!Array.isArray(value) || value.length > most) throw invalidOption(name, value, `a list of at most ${most}`)
    for (const [i, one] of value.entries()) check(one, `${name}[${i}]`)
  }
}

function optional(check: Check): Check {
  return (value, name) => {
    if (value !== undefined) check(value, name)
  }
}

function whole(min: number, max: number): Check {
  return (value, name) => {
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max)
      throw invalidOption(name, value, `a whole number from ${min} to ${max}`)
  }
}

function number(value: unknown, name: string): void {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw invalidOption(name, value, 'a number')
}

/** A time that there is: what is no `Date` cannot be shown, nor waited for. */
function moment(value: unknown, name: string): void {
  number(value, name)
  if (Math.abs(value as number) > MAX_TIME_MS) throw invalidOption(name, value, 'a time, in ms since 1970')
}

/** A tick that is due, by a clock that may be wrong by a day: one far ahead would keep the schedule from firing ever again. */
function dueTick(value: unknown, name: string): void {
  moment(value, name)
  if ((value as number) > Date.now() + MAX_AHEAD_MS) throw invalidOption(name, value, 'a tick that is due')
}

function flag(value: unknown, name: string): void {
  if (typeof value !== 'boolean') throw invalidOption(name, value, 'true or false')
}

function text(maxBytes: number): Check {
  return (value, name) => {
    if (typeof value !== 'string' || Buffer.byteLength(value) > maxBytes)
      throw invalidOption(name, value, `text of at most ${maxBytes} bytes`)
  }
}

/** JSON text, of at most the bytes that a message may have unless given. */
function json(maxBytes?: number): Check {
  return (value, name) => {
    text(maxBytes ?? maxTextBytes)(value, name)
    try {
      JSON.parse(value as string)
    } catch {
      throw invalidOption(name, value, 'JSON text')
    }
  }
}

function exactly(wanted: unknown): Check {
  return (value, name) => {
    if (value !== wanted) throw invalidOption(name, value, JSON.stringify(wanted))
  }
}

function oneOf(...wanted: readonly string[]): Check {
  return (value, name) => {
    if (!wanted.includes(value as string)) throw invalidOption(name, value, wanted.join(' or '))
  }
}

function anything(): void {}

function anyName(what: 'queue' | 'topic' | 'group' | 'schedule'): Check {
  return (value) => {
    readName(value, what)
  }
}

function topicName(value: unknown): void {
  readName(value, 'topic')
}

function groupName(value: unknown): void {
  if (value !== '') readName(value, 'group')
}

function readFrom(value: unknown, name: string): void {
  if (value === 'earliest' || value === 'latest') return
  if (typeof value === 'number') return whole(0, Number.MAX_SAFE_INTEGER)(value, name)
  object({ timeMs: moment })(value, name)
}
