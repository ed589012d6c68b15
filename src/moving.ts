/**
 * Moving a queue to another engine: `sluice move`. Whatever is waiting goes, in its order, and whatever runs ends where it is.
 *
 *     refusing (no new jobs; none handed out) ──nothing runs──> copying, a page at a time ──nothing is left──> moved
 *
 * A page is stored there under idempotency keys made of the ids here, and only then each of its jobs is ended here, with no
 * word to whoever wanted a callback: there it is promised again. So a move that dies anywhere is done again, and goes on: what
 * it finds there already it does not store twice (P8), and nothing is lost (P2). Order per key is kept because nothing of the
 * queue is worked on in two places, and nothing new comes in before the old.
 *
 * Attempts begin anew, ids are others, dead letters and results stay where they are.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { AppendOutcome, AppendWish, MessageOutcome, UnsettledJob } from './engine/contract.ts'
import { DEFAULT_QUEUE, type QueueSettings } from './engine/options.ts'
import { SluiceError } from './errors.ts'
import { BatchView, gatherBatch } from './message-batch.ts'
import type { Sluice } from './sluice.ts'

const PAGE = 500
/** How many pages must fit for one to be sent at once. */
const ROOM = 4
const LOOK_MS = 100
/** How long a destination that is full is waited for, at a time. */
const MAX_PAUSE_MS = 5_000

/** Of what there is too much. */
type FullReason = Extract<MessageOutcome, { status: 'full' }>['reason']

export interface MoveOptions {
  readonly queue: string
  /** How long what runs may take to end, in milliseconds. Past it the move ends with `DEADLINE`, and can be done again. @default 60_000 */
  readonly drainMs?: number
  readonly signal?: AbortSignal | undefined
  /** Gives the queue at the new place, from which it was moved away before, the limit of this one and lets it hand out. @default false */
  readonly reopen?: boolean
  /** How long there may be no room at the new place for a single job, in milliseconds; then the move ends with `QUEUE_FULL`. @default 60_000 */
  readonly fullWaitMs?: number
  /** Hears, each time that is looked, that there is no room at the new place, and of which kind. */
  readonly onFull?: (reason: FullReason) => void
  /** Hears after each page how many were moved, and how many are left as far as is known. */
  readonly onProgress?: (moved: number, left: number) => void
}

export interface Moved {
  readonly moved: number
  /** Of them: found there already, from a move that was broken off. */
  readonly doubled: number
  /** Dead letters that stay. */
  readonly dead: number
}

/** Rejects with `QUEUE_NOT_FOUND`, `DEADLINE` (something still runs), `QUEUE_FULL` (no room there), or what either engine says; then nothing is lost. */
export async function moveQueue(from: Sluice, to: Sluice, options: MoveOptions): Promise<Moved> {
  const { queue, drainMs = 60_000, reopen = false, signal, onProgress = () => {} } = options
  const settings = await settingsOf(from, queue)
  if (reopen) await open(to, queue, settings)
  await declareAlike(to, queue, settings)
  await ensureTakes(to, queue)
  await from.engine.declare([{ kind: 'queue', name: queue, settings: { limit: { messages: 0, bytes: 0 } } }])
  try {
    // Again: if it is refused now, it is the same queue, under two names of one place.
    await ensureTakes(to, queue)
  } catch (error) {
    await from.engine.declare([{ kind: 'queue', name: queue, settings }])
    throw error
  }
  await from.engine.command({ kind: 'pause', topic: queue, group: '' })
  await waitForRunning(from, queue, drainMs, signal)
  let moved = 0
  let doubled = 0
  for (;;) {
    // What was moved is settled, so the next page is again the first.
    const page = await from.engine.command({ kind: 'unsettled', topic: queue, max: PAGE })
    if (page.status !== 'unsettled') throw new SluiceError('QUEUE_NOT_FOUND', `Queue '${queue}' is gone.`)
    for (const jobs of await fitting(to, queue, page.jobs)) doubled += await copy(to, jobs, options)
    await Promise.all(page.jobs.map(({ job }) => from.engine.command({ kind: 'cancel', id: job.id, isMoved: true })))
    moved += page.jobs.length
    const { depth } = await statsOf(from, queue)
    onProgress(moved, depth.messages)
    if (page.jobs.length === 0 && page.next === null) break
  }
  const { groups } = await statsOf(from, queue)
  return { moved, doubled, dead: groups[0]?.dead ?? 0 }
}

async function has(sluice: Sluice, queue: string): Promise<boolean> {
  const { topics } = await sluice.stats()
  return topics.some(({ name, kind }) => name === queue && kind === 'queue')
}

async function statsOf(sluice: Sluice, queue: string) {
  const { topics } = await sluice.stats()
  const found = topics.find(({ name, kind }) => name === queue && kind === 'queue')
  if (found === undefined) throw new SluiceError('QUEUE_NOT_FOUND', `There is no queue '${queue}' to move.`, { queue })
  return found
}

/** As they were declared; a move that was broken off has set the limit to 0, which is not taken over. */
async function settingsOf(from: Sluice, queue: string): Promise<Partial<QueueSettings>> {
  await statsOf(from, queue)
  const [declared] = await from.engine.declare([{ kind: 'queue', name: queue, settings: {} }])
  if (declared?.status !== 'declared') throw new SluiceError('QUEUE_NOT_FOUND', `There is no queue '${queue}' to move.`)
  const { limit, ...settings } = declared.settings as QueueSettings
  return limit.messages === 0 ? settings : { ...settings, limit }
}

async function declareAlike(to: Sluice, queue: string, settings: Partial<QueueSettings>): Promise<void> {
  if (await has(to, queue)) return
  const [declared] = await to.engine.declare([{ kind: 'queue', name: queue, settings }])
  if (declared?.status === 'declared') return
  const why = declared !== undefined && 'message' in declared ? declared.message : 'it was refused'
  throw new SluiceError('DECLARED_DIFFERENTLY', `Queue '${queue}' cannot be made there: ${why}`, { queue })
}

/** Opens a queue that was moved away from there, with the limit that it has here. One that is not there is made later. */
async function open(to: Sluice, queue: string, { limit = DEFAULT_QUEUE.limit }: Partial<QueueSettings>): Promise<void> {
  if (!(await has(to, queue))) return
  await to.engine.declare([{ kind: 'queue', name: queue, settings: { limit } }])
  await to.engine.command({ kind: 'resume', topic: queue, group: '' })
}

/** A queue whose limit is 0 would be waited for without end. */
async function ensureTakes(to: Sluice, queue: string): Promise<void> {
  const { limit } = await statsOf(to, queue)
  if (limit.messages > 0 && limit.bytes > 0) return
  throw new SluiceError(
    'DECLARED_DIFFERENTLY',
    `Queue '${queue}' takes nothing at the new place: its limit is ${limit.messages} messages and ${limit.bytes} bytes. Either both places are the same, or it was moved away from there: \`sluice move … --reopen\` opens it again. Nothing was moved.`,
    { queue },
  )
}

async function waitForRunning(
  from: Sluice,
  queue: string,
  drainMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const untilMs = performance.now() + drainMs
  for (;;) {
    const { groups } = await statsOf(from, queue)
    const leased = groups[0]?.leased ?? 0
    if (leased === 0) return
    if (performance.now() > untilMs)
      throw new SluiceError(
        'DEADLINE',
        `${leased} jobs of '${queue}' still run after ${drainMs} ms. The queue is paused and takes nothing new: move it again when they have ended, or resume it and give it its limit back.`,
        { queue, leased },
      )
    await pause(LOOK_MS, signal)
  }
}

/**
 * The page, or each of its jobs alone where there is little room: of a batch that finds too little, a small message behind a
 * large one of its key could be stored before it.
 */
async function fitting(
  to: Sluice,
  queue: string,
  jobs: readonly UnsettledJob[],
): Promise<readonly (readonly UnsettledJob[])[]> {
  if (jobs.length === 0) return []
  const { depth, limit } = await statsOf(to, queue)
  const bytes = jobs.reduce((sum, { batch }) => sum + batch.byteLength, 0)
  const isRoomy = limit.messages - depth.messages > ROOM * jobs.length && limit.bytes - depth.bytes > ROOM * bytes
  return isRoomy ? [jobs] : jobs.map((job) => [job])
}

/** Stores a page there, all of it. Returns how many were there already. */
async function copy(
  to: Sluice,
  jobs: readonly UnsettledJob[],
  { queue, fullWaitMs = 60_000, signal, onFull = () => {} }: MoveOptions,
): Promise<number> {
  let roomAtMs = performance.now()
  let left = jobs
  let doubled = 0
  while (left.length > 0) {
    const [outcome] = await to.engine.append([toAppend(queue, left)])
    const outcomes = outcomesOf(outcome, left.length)
    const refused: UnsettledJob[] = []
    let retryAfterMs = 0
    let reason: FullReason = 'messages'
    for (const [i, one] of outcomes.entries()) {
      const job = left[i] as UnsettledJob
      if (one.status === 'duplicate') doubled++
      else if (one.status === 'full') {
        refused.push(job)
        retryAfterMs = Math.max(retryAfterMs, one.retryAfterMs)
        reason = one.reason
      } else if (one.status === 'mismatch')
        throw new SluiceError(
          'IDEMPOTENCY_MISMATCH',
          `Job ${job.job.id} was moved before with another payload. Nothing more was moved.`,
          { id: job.job.id },
        )
    }
    if (refused.length < left.length) roomAtMs = performance.now()
    left = refused
    if (left.length === 0) break
    onFull(reason)
    if (performance.now() - roomAtMs > fullWaitMs)
      throw new SluiceError(
        'QUEUE_FULL',
        `Queue '${queue}' had no room at the new place for ${fullWaitMs} ms (${reason}). What was moved is there, the rest is where it was: make room, with workers or a higher limit, and move it again.`,
        { queue, reason },
      )
    await pause(Math.min(Math.max(retryAfterMs, LOOK_MS), MAX_PAUSE_MS), signal)
  }
  return doubled
}

function toAppend(queue: string, jobs: readonly UnsettledJob[]) {
  const batch = gatherBatch(jobs.map((one) => ({ batch: new BatchView(one.batch), from: 0, to: 1 })))
  const wishes = jobs.map(
    ({ job, callbackUrl }, index): AppendWish => ({
      index,
      idempotencyKey: `moved ${job.id}`,
      ...(job.status === 'scheduled' && job.dueAtMs !== undefined ? { dueAtMs: job.dueAtMs } : {}),
      ...(callbackUrl === undefined ? {} : { callbackUrl }),
    }),
  )
  return { topic: queue, batch, wishes }
}

function outcomesOf(outcome: AppendOutcome | undefined, count: number): readonly MessageOutcome[] {
  if (outcome === undefined || outcome.status === 'not-found')
    throw new SluiceError('QUEUE_NOT_FOUND', 'The queue is not there any more, where its jobs are moved to.')
  if (outcome.status === 'mixed') return outcome.outcomes
  return Array.from({ length: count }, (_, i) => ({ status: 'stored', offset: outcome.offset + i }))
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return sleep(ms, undefined, signal === undefined ? {} : { signal })
}
