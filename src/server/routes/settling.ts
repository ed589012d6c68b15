/**
 * Extending and settling leases in bulk. Every item has its own outcome, at its own place in the answer. Items of one
 * hold that end alike travel to the engine as one request; what carries a result, an error or outputs goes alone, since
 * it takes effect whole or not at all.
 */

import { SluiceError } from '../../errors.ts'
import {
  type AppendRequest,
  type AppendWish,
  BatchBuilder,
  type ExtendRequest,
  type FullOutcome,
  type Settlement,
  type SettleRequest,
} from '../../index.ts'
import { fullError } from '../../outcomes.ts'
import { checkPayloadBytes } from '../../payload.ts'
import type { Caller } from '../access/scopes.ts'
import { OUTPUT } from '../api/schemas.ts'
import type { Context } from '../context.ts'
import { readMessageObject } from '../incoming.ts'
import { cutElements, cutMember } from '../json-text.ts'
import { bindHolder, type LeaseToken, parseLeaseToken } from '../lease-token.ts'
import {
  about,
  anything,
  list,
  membersSchema,
  oneOf,
  optional,
  readMembers,
  readName,
  text,
  whole,
} from '../members.ts'
import { formatProblem, problemOf } from '../problem.ts'
import { validate } from '../validation.ts'

/** The shortest and the longest hold. */
const MIN_LEASE_MS = 100
const MAX_LEASE_MS = 43_200_000
const MAX_ITEMS = 10_000
const MAX_ERROR_CHARS = 65_536
const MAX_PROGRESS_BYTES = 4_096
const MAX_DELAY_MS = 315_360_000_000
const MAX_OUTPUTS = 1_000

export const leaseMsRule = whole(MIN_LEASE_MS, MAX_LEASE_MS, 30_000)
const EXTEND_ITEM = {
  lease: text(1_000),
  leaseMs: about('From now. What was leased in one call is extended together', leaseMsRule),
  progress: about(`Any JSON of at most ${MAX_PROGRESS_BYTES} bytes, shown with the job`, anything),
}
const SETTLE_ITEM = {
  lease: text(1_000),
  outcome: oneOf(['done', 'retry', 'release', 'dead']),
  result: about('Any JSON. Only with `done`', anything),
  error: about('Only with `retry` and `dead`', optional(text(MAX_ERROR_CHARS))),
  delayMs: about('Only with `retry`; without it the back-off of the queue counts', optional(whole(0, MAX_DELAY_MS))),
  outputs: about('Published with the settle, or not at all', optional(list(MAX_OUTPUTS, OUTPUT))),
}
export const EXTEND_BODY = { items: list(MAX_ITEMS, membersSchema(EXTEND_ITEM)) }
export const SETTLE_BODY = { items: list(MAX_ITEMS, membersSchema(SETTLE_ITEM)) }

interface Control {
  readonly text: string
  readonly value: unknown
}

/** A request to the engine and the items it stands for: `places[i]` is the item that holds `offsets[i]`. */
interface Joined<T> {
  readonly request: T & { readonly offsets: number[] }
  readonly places: number[]
}

/** The answer to an extend, as JSON text. */
export async function extendLeases({ engine }: Context, caller: Caller, body: Control): Promise<string> {
  const items = readMembers(body.value, EXTEND_BODY, 'the body').items
  const sources = cutItems(body.text)
  const answers: string[] = new Array(items.length)
  const joined = new Map<string, Joined<ExtendRequest>>()
  items.forEach((item, i) => {
    try {
      const { lease, leaseMs } = readMembers(item, EXTEND_ITEM, `item ${i + 1}`)
      const progress = sourceOf(sources, i, item, 'progress')
      if (progress !== undefined && Buffer.byteLength(progress) > MAX_PROGRESS_BYTES) {
        throw new SluiceError(
          'PAYLOAD_TOO_LARGE',
          `The progress of item ${i + 1} has more than ${MAX_PROGRESS_BYTES} bytes.`,
        )
      }
      const token = readLease(lease, caller)
      const alone = progress === undefined ? '' : `${i}`
      join(joined, `${holdKey(token)}|${leaseMs}|${alone}`, token, i, (hold) => ({ ...hold, leaseMs, progress }))
    } catch (error) {
      answers[i] = refused(error)
    }
  })
  const groups = [...joined.values()]
  const outcomes = groups.length === 0 ? [] : await engine.extend(groups.map(({ request }) => request))
  groups.forEach(({ request, places }, g) => {
    const outcome = outcomes[g]
    const lost = new Set(outcome?.status === 'extended' ? outcome.lost : request.offsets)
    places.forEach((place, i) => {
      const isLost = outcome?.status !== 'extended' || lost.has(request.offsets[i] as number)
      answers[place] = isLost
        ? refused(leaseLost())
        : JSON.stringify({ outcome: 'extended', expiresAtMs: outcome.expiresAtMs })
    })
  })
  return `{"outcomes":[${answers.join(',')}]}`
}

/** The answer to a settle, as JSON text. */
export async function settleLeases(context: Context, caller: Caller, body: Control): Promise<string> {
  const items = readMembers(body.value, SETTLE_BODY, 'the body').items
  const sources = cutItems(body.text)
  const answers: string[] = new Array(items.length)
  const joined = new Map<string, Joined<SettleRequest>>()
  for (const [i, item] of items.entries()) {
    try {
      const read = readMembers(item, SETTLE_ITEM, `item ${i + 1}`)
      const token = readLease(read.lease, caller)
      const result = sourceOf(sources, i, item, 'result')
      if (result !== undefined)
        checkPayloadBytes(result, context.settings.maxMessageBytes, `The result of item ${i + 1}`, 'maxMessageBytes')
      const outcome = settlementOf(read, result, context.now())
      const outputSource = sourceOf(sources, i, item, 'outputs')
      const outputs =
        outputSource === undefined
          ? undefined
          : await readOutputs(context, caller, outputSource, read.outputs ?? [], `item ${i + 1}`)
      const isPlain =
        outputs === undefined && result === undefined && (outcome.kind === 'done' || outcome.kind === 'release')
      join(joined, isPlain ? `${holdKey(token)}|${outcome.kind}` : `${i}`, token, i, (hold) => ({
        ...hold,
        outcome,
        ...(outputs === undefined ? {} : { outputs }),
      }))
    } catch (error) {
      answers[i] = refused(error)
    }
  }
  const groups = [...joined.values()]
  const outcomes = groups.length === 0 ? [] : await context.engine.settle(groups.map(({ request }) => request))
  groups.forEach(({ request, places }, g) => {
    const outcome = outcomes[g]
    const lost = new Set(outcome?.status === 'settled' ? outcome.lost : [])
    places.forEach((place, i) => {
      if (outcome?.status === 'full') answers[place] = refused(fullOutputs(request, outcome))
      else if (outcome?.status !== 'settled' || lost.has(request.offsets[i] as number))
        answers[place] = refused(leaseLost())
      else answers[place] = '{"outcome":"settled"}'
    })
  })
  return `{"outcomes":[${answers.join(',')}]}`
}

function settlementOf(
  read: { outcome: string; error: string | undefined; delayMs: number | undefined },
  result: string | undefined,
  nowMs: number,
): Settlement {
  const { outcome, error, delayMs } = read
  const isError = outcome === 'retry' || outcome === 'dead'
  const extra =
    result !== undefined && outcome !== 'done'
      ? 'result'
      : error !== undefined && !isError
        ? 'error'
        : delayMs !== undefined && outcome !== 'retry'
          ? 'delayMs'
          : null
  if (extra !== null)
    throw new SluiceError('INVALID_OPTION', `${extra} has no meaning with the outcome '${outcome}'.`, { option: extra })
  if (outcome === 'done') return { kind: 'done', result }
  if (outcome === 'release') return { kind: 'release' }
  const said = error ?? 'The worker gave no error.'
  return outcome === 'dead'
    ? { kind: 'dead', error: said }
    : { kind: 'retry', error: said, atMs: delayMs === undefined ? undefined : nowMs + delayMs }
}

/** P9: what the handler publishes with its settle, one batch for each queue or topic. */
async function readOutputs(
  context: Context,
  caller: Caller,
  source: string,
  values: readonly unknown[],
  where: string,
): Promise<AppendRequest[]> {
  const sources = cutElements(source)
  const batches = new Map<string, { builder: BatchBuilder; wishes: AppendWish[] }>()
  for (const [i, value] of values.entries()) {
    const of = `output ${i + 1} of ${where}`
    const { queue, topic, ...rest } = Object(value) as Record<string, unknown>
    if ((queue === undefined) === (topic === undefined))
      throw new SluiceError('INVALID_OPTION', `${of} needs one of queue and topic.`)
    const kind = queue === undefined ? 'topic' : 'queue'
    const wanted = readName(queue ?? topic, kind)
    caller.require('publish', wanted)
    const { name, noun } = await context.directory.use(kind, wanted)
    const incoming = readMessageObject(
      { source: sources[i] as string, value: rest, kind, where: of },
      context.now(),
      context.settings.maxMessageBytes,
    )
    const { fields, wish } = await validate(noun.schema, incoming, context.settings.maxMessageBytes)
    let batch = batches.get(name)
    if (batch === undefined) {
      batch = { builder: new BatchBuilder(), wishes: [] }
      batches.set(name, batch)
    }
    if (wish !== null) batch.wishes.push({ ...wish, scope: caller.id, index: batch.builder.count })
    batch.builder.add(fields)
  }
  return [...batches].map(([topic, { builder, wishes }]) => ({
    topic,
    batch: builder.finish(),
    wishes: wishes.length === 0 ? undefined : wishes,
  }))
}

type HoldOf = Pick<SettleRequest, 'topic' | 'group' | 'fence' | 'token'> & { offsets: number[] }

/** Adds an item to the request of its key. A lease that is named twice gets a request of its own, and finds itself lost. */
function join<T>(
  joined: Map<string, Joined<T>>,
  key: string,
  token: LeaseToken,
  place: number,
  make: (hold: HoldOf) => T & { offsets: number[] },
): void {
  const known = joined.get(key)
  if (known === undefined || known.request.offsets.includes(token.offset)) {
    const { topic, group, fence, offset, holder } = token
    joined.set(known === undefined ? key : `${key}|${place}`, {
      request: make({ topic, group, fence, token: holder, offsets: [offset] }),
      places: [place],
    })
    return
  }
  known.request.offsets.push(token.offset)
  known.places.push(place)
}

function holdKey({ topic, group, fence, holder }: LeaseToken): string {
  return `${topic}|${group}|${fence}|${holder}`
}

/** The lease, with its holder as the engine knows it. */
function readLease(lease: string, caller: Caller): LeaseToken {
  const token = parseLeaseToken(lease)
  if (token === null)
    throw new SluiceError(
      'BAD_REQUEST',
      'The lease is not one that this server gave: send the member `lease` of a lease as it came.',
    )
  // A lease of what the caller may not consume is not its own: it is answered as any that is not held.
  if (!caller.may('consume', token.topic)) throw leaseLost()
  return { ...token, holder: bindHolder(token.holder, caller.id) }
}

/** Cuts the items out of the text, once the first of them is asked for. */
function cutItems(body: string): () => readonly string[] {
  let cut: readonly string[] | undefined
  return () => (cut ??= cutElements(cutMember(body, 'items') as string))
}

/** The text of a member of item `i`, or undefined where it has none. */
function sourceOf(sources: () => readonly string[], i: number, item: unknown, name: string): string | undefined {
  return Object.hasOwn(item as object, name) ? cutMember(sources()[i] as string, name) : undefined
}

/** Which of the outputs found no room is not said, so all are named. */
function fullOutputs({ outputs = [] }: SettleRequest, full: FullOutcome): SluiceError {
  return fullError('queue', outputs.map(({ topic }) => topic).join("', '"), full)
}

function leaseLost(): SluiceError {
  return new SluiceError(
    'LEASE_LOST',
    'The lease is no longer held: it expired, was settled or cancelled, or the message is with another worker. Nothing was done.',
  )
}

function refused(error: unknown): string {
  return `{"outcome":"refused","problem":${formatProblem(problemOf(error))}}`
}
