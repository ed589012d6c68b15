/** The entry of the heart's thread (heart.ts says why): extends holds of which less than half is left. */
import { parentPort, workerData } from 'node:worker_threads'
import type { ExtendOutcome, ExtendRequest } from '../engine/contract.ts'
import { decodeWire, encodeWire } from '../engine/wire.ts'
import { type HeartData, nowUs, type ToHeart } from './heart-messages.ts'
import { Transport } from './transport.ts'

type Kept = { -readonly [N in keyof Extract<ToHeart, { kind: 'keep' }>]: Extract<ToHeart, { kind: 'keep' }>[N] }

const port = parentPort
if (port === null) throw new Error('This file is the entry of a thread')

/** Looks within the time of the shortest lease. */
const LOOKS_PER_LEASE = 8
const MIN_LOOK_MS = 10
const MAX_LOOK_MS = 1_000
/** Of one call, in holds. */
const MAX_EXTENDS = 1_000

const { url, credential, heldUntilUs } = workerData as HeartData
const transport = new Transport(new URL(url), credential)
const kept = new Map<number, Kept>()
let timer: NodeJS.Timeout | null = null
let isAsking = false

port.on('message', (message: ToHeart) => {
  if (message.kind === 'keep') kept.set(message.slot, { ...message })
  else if (message.kind === 'until') {
    const one = kept.get(message.slot)
    if (one?.use === message.use) one.untilUs = message.untilUs
  } else for (const [slot, use] of message.slots) if (kept.get(slot)?.use === use) kept.delete(slot)
  setLook()
})

function setLook(): void {
  if (timer !== null || kept.size === 0) return
  let leaseMs = Number.POSITIVE_INFINITY
  for (const one of kept.values()) leaseMs = Math.min(leaseMs, one.leaseMs)
  timer = setTimeout(look, Math.min(Math.max(leaseMs / LOOKS_PER_LEASE, MIN_LOOK_MS), MAX_LOOK_MS))
}

function look(): void {
  timer = null
  if (!isAsking) void extend()
  setLook()
}

/** One call at a time; one that fails is made again with the next look, for as long as the holds last. */
async function extend(): Promise<void> {
  const now = nowUs()
  const late: Kept[] = []
  let leaseMs = Number.POSITIVE_INFINITY
  for (const [slot, one] of kept) {
    if (one.untilUs <= now) kept.delete(slot)
    else if (leftOf(one, now) < one.leaseMs / 2 && late.length < MAX_EXTENDS) {
      late.push(one)
      leaseMs = Math.min(leaseMs, one.leaseMs)
    }
  }
  if (late.length === 0) return
  isAsking = true
  try {
    const requests: ExtendRequest[] = late.map(({ hold, leaseMs }) => ({ ...hold, leaseMs }))
    const sent = await transport.call({
      method: 'POST',
      path: '/v1/engine/extend',
      body: encodeWire(requests),
      timeoutMs: Math.max(leaseMs / 4, MIN_LOOK_MS),
    })
    if (sent.status !== 'answered') return
    const outcomes = decodeWire(sent.body) as readonly ExtendOutcome[]
    for (const [i, one] of late.entries()) take(one, outcomes[i], now)
  } finally {
    isAsking = false
  }
}

function take(one: Kept, outcome: ExtendOutcome | undefined, askedUs: bigint): void {
  if (kept.get(one.slot)?.use !== one.use) return
  const isHeld = outcome?.status === 'extended' && outcome.lost.length < one.hold.offsets.length
  // What is lost is found out by the worker itself, which asks before it does anything with it.
  if (!isHeld) kept.delete(one.slot)
  else Atomics.store(heldUntilUs, one.slot, askedUs + BigInt(Math.round(one.leaseMs * 1_000)))
}

function leftOf({ slot }: Kept, now: bigint): number {
  return Number(Atomics.load(heldUntilUs, slot) - now) / 1_000
}
