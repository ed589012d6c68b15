/**
 * Settling: how a lease ends, by its holder, by time, or by a crash, and what becomes of the message (P3, P5, P9, P10).
 */
import type {
  AppendOutcome,
  ExtendOutcome,
  ExtendRequest,
  FullOutcome,
  Hold,
  Settlement,
  SettleOutcome,
  SettleRequest,
} from '../engine/contract.ts'
import { gatherBatch } from '../message-batch.ts'
import { backoffMs } from '../policy/retry.ts'
import { announceEnd } from './callbacks.ts'
import type { Core } from './core.ts'
import type { Group } from './group.ts'
import type { Lease } from './lease.ts'
import { findPromise, offsetPlace } from './promises.ts'
import { encodeText, hex } from './state.ts'
import type { Leaving } from './topic.ts'

/** How a job ended, where it is more than "done at the first attempt without a result". */
export interface OutcomeRow {
  readonly status: 'completed' | 'failed' | 'cancelled' | 'expired'
  readonly attempts: number
  readonly atMs: number
  /** JSON text. */
  readonly result?: string
  readonly error?: string
}

/** What stands before the batch of a dead letter. */
export interface DeadRow {
  readonly attempts: number
  readonly error: string
  readonly diedAtMs: number
  /** Who hears of it when a job that is made of it ends. */
  readonly callbackUrl?: string | undefined
}

const MAX_ERROR_CHARACTERS = 4_000
const MAX_PROGRESS_CHARACTERS = 4_096

/** Finds the lease that a holder shows: fence and token must be its own (P5). */
export function findLease(group: Group, hold: Hold): Lease | undefined {
  const lease = group.leases.get(hold.fence)
  return lease !== undefined && lease.token === (hold.token ?? null) ? lease : undefined
}

/** What a handler publishes with its settle. */
export interface Outputs {
  /** Null if all of it finds room once `leaving` is settled. */
  admit(leaving: Leaving): FullOutcome | null
  store(): readonly AppendOutcome[]
}

/** Ends leases as their holder says. A settle frees its own places first, then its outputs take theirs (P7). */
export function settleHold(core: Core, group: Group, request: SettleRequest, outputs: Outputs): SettleOutcome {
  const lease = findLease(group, request)
  const lost: number[] = []
  const { offsets, outcome } = request
  if (request.outputs === undefined || request.outputs.length === 0) {
    for (const offset of offsets)
      if (lease === undefined || !settleOne(core, group, lease, offset, outcome)) lost.push(offset)
    return { status: 'settled', lost, outputs: [] }
  }
  for (const offset of offsets) if (lease === undefined || !lease.holds(offset)) lost.push(offset)
  if (lease === undefined || lost.length > 0) return { status: 'settled', lost: [...offsets], outputs: [] }
  const refusal = outputs.admit(leavingOf(group, lease, offsets, outcome))
  if (refusal !== null) return refusal
  for (const offset of offsets) settleOne(core, group, lease, offset, outcome)
  return { status: 'settled', lost, outputs: outputs.store() }
}

function leavingOf(group: Group, lease: Lease, offsets: readonly number[], outcome: Settlement): Leaving {
  const leaving = { group, messages: 0, bytes: 0 }
  if (outcome.kind !== 'done') return leaving
  for (const offset of new Set(offsets)) {
    leaving.messages++
    leaving.bytes += lease.sizes[lease.indexOf(offset)] as number
  }
  return leaving
}

export function extendHold(core: Core, group: Group, request: ExtendRequest): ExtendOutcome {
  const lease = findLease(group, request)
  const lost = request.offsets.filter((offset) => lease === undefined || !lease.holds(offset))
  if (lease === undefined || lost.length === request.offsets.length) return { status: 'extended', expiresAtMs: 0, lost }
  if (request.progress !== undefined) {
    const text = request.progress.slice(0, MAX_PROGRESS_CHARACTERS)
    for (const offset of request.offsets) {
      if (!lease.holds(offset)) continue
      lease.setProgress(offset, text)
      group.noteChange(offset)
      core.touched.add(group)
    }
  }
  if (lease.token !== null && core.nowMs + request.leaseMs > lease.expiresAtMs) {
    lease.expiresAtMs = core.nowMs + request.leaseMs
    core.state.putJson(`l/${hex(group.row.id)}/${hex(lease.fence)}`, lease.toRow())
    // Its one timer stays as it is: when it fires, it is set again (expireLease).
  }
  return { status: 'extended', expiresAtMs: lease.expiresAtMs, lost }
}

/** A lease whose time is over: each message that is still held has failed this attempt. */
export function expireLease(core: Core, group: Group, fence: number): void {
  const lease = group.leases.get(fence)
  if (lease === undefined || lease.token === null) return
  if (lease.expiresAtMs > core.nowMs) {
    core.timers.add(lease.expiresAtMs, { kind: 'lease', group, fence })
    return
  }
  for (const index of lease.open()) {
    const attempt = lease.attempts[index] as number
    failAttempt(core, group, lease, index, `The lease of attempt ${attempt} expired`, core.nowMs, false)
  }
}

/** Ends a lease whoever holds it, and however long it was for: its attempts have failed. */
export function endLease(core: Core, group: Group, lease: Lease, error: string): void {
  for (const index of lease.open()) failAttempt(core, group, lease, index, error, core.nowMs, false)
}

/** Gives back what this process holds, at a graceful stop (P12). The attempts count; nobody is a suspect. */
export function releaseProcessLeases(core: Core, group: Group): void {
  for (const lease of [...group.leases.values()]) {
    if (lease.token !== null) continue
    endLease(core, group, lease, 'The worker stopped')
  }
}

/** The process that held these messages died in the attempt: each may be what killed it (P3). */
export function suspectLease(core: Core, group: Group, lease: Lease): void {
  for (const index of lease.open()) {
    const attempt = lease.attempts[index] as number
    failAttempt(core, group, lease, index, `The process died in attempt ${attempt}`, null, true)
  }
}

/** Takes a message out of its lease whatever its holder does: cancel. */
export function revoke(core: Core, group: Group, lease: Lease, index: number): void {
  closeHold(core, group, lease, index)
}

function settleOne(core: Core, group: Group, lease: Lease, offset: number, outcome: Settlement): boolean {
  const index = lease.indexOf(offset)
  if (index < 0) return false
  const attempts = lease.attempts[index] as number
  switch (outcome.kind) {
    case 'done': {
      closeHold(core, group, lease, index)
      group.drain.add(core.nowMs, 1)
      group.figures.done++
      if (outcome.result !== undefined || attempts > 1) {
        const row: OutcomeRow = { status: 'completed', attempts, atMs: core.nowMs }
        saveOutcome(core, group, offset, outcome.result === undefined ? row : { ...row, result: outcome.result })
      }
      announceEnd(core, group.topic, offsetPlace(offset), { status: 'completed', attempts, result: outcome.result })
      group.markSettled(core, offset, lease.lanes[index] as number, lease.sizes[index] as number)
      break
    }
    case 'retry':
      failAttempt(core, group, lease, index, outcome.error, outcome.atMs ?? null, false)
      break
    case 'release': {
      closeHold(core, group, lease, index)
      const before = group.troubles.get(offset)
      group.setTrouble(core, {
        offset,
        lane: lease.lanes[index] as number,
        attempts,
        forgiven: (before?.forgiven ?? 0) + 1,
        dueAtMs: core.nowMs,
        error: before?.error ?? '',
        suspect: before?.suspect ?? false,
        blocked: false,
        fence: lease.fence,
      })
      group.noteChange(offset)
      break
    }
    case 'dead':
      closeHold(core, group, lease, index)
      die(core, group, lease, index, outcome.error)
      break
  }
  core.touched.add(group)
  return true
}

/** Ends an attempt that did not succeed: parked until the next, or out of attempts. `dueAtMs` null: the back-off says. */
function failAttempt(
  core: Core,
  group: Group,
  lease: Lease,
  index: number,
  error: string,
  dueAtMs: number | null,
  suspect: boolean,
): void {
  closeHold(core, group, lease, index)
  core.touched.add(group)
  const offset = lease.offsets[index] as number
  const attempts = lease.attempts[index] as number
  const forgiven = group.troubles.get(offset)?.forgiven ?? 0
  if (attempts - forgiven >= group.maxAttempts) {
    die(core, group, lease, index, error)
    return
  }
  group.figures.failed++
  const wait = (): number => backoffMs(group.row.settings.backoff, attempts - forgiven, core.random())
  group.setTrouble(core, {
    offset,
    lane: lease.lanes[index] as number,
    attempts,
    forgiven,
    dueAtMs: dueAtMs ?? core.nowMs + wait(),
    error: error.slice(0, MAX_ERROR_CHARACTERS),
    suspect,
    blocked: false,
    fence: lease.fence,
  })
  group.noteChange(offset)
}

/** Out of attempts: a dead letter, or where the group blocks or has no room for one more, a blocked lane (P4, P7). */
function die(core: Core, group: Group, lease: Lease, index: number, error: string): void {
  const offset = lease.offsets[index] as number
  const lane = lease.lanes[index] as number
  const attempts = lease.attempts[index] as number
  const text = error.slice(0, MAX_ERROR_CHARACTERS)
  const { settings } = group.row
  group.figures.died++
  if (settings.onExhausted === 'block' || group.deadCount >= settings.deadLetters) {
    const forgiven = group.troubles.get(offset)?.forgiven ?? 0
    group.setTrouble(core, {
      offset,
      lane,
      attempts,
      forgiven,
      dueAtMs: 0,
      error: text,
      suspect: false,
      blocked: true,
      fence: lease.fence,
    })
    group.noteChange(offset)
    return
  }
  const batch = group.topic.window.at(offset)
  if (batch !== null) {
    const at = offset - batch.baseOffset
    const message = gatherBatch([{ batch: batch.view, from: at, to: at + 1 }])
    const callbackUrl = findPromise(core, group.topic, offsetPlace(offset))?.url
    const row: DeadRow = { attempts, error: text, diedAtMs: core.nowMs, callbackUrl }
    const key = `x/${hex(group.row.id)}/${hex(offset)}`
    // A message of a topic can die again, after its group was moved back.
    if (core.state.get(key) === undefined) group.deadCount++
    core.state.put(key, joinDeadLetter(row, message))
  }
  group.drain.add(core.nowMs, 1)
  settleAs(core, group, offset, lane, lease.sizes[index] as number, {
    status: 'failed',
    attempts,
    atMs: core.nowMs,
    error: text,
  })
}

/** Settles a message that is in no lease, with its outcome. */
export function settleAs(core: Core, group: Group, offset: number, lane: number, size: number, row: OutcomeRow): void {
  saveOutcome(core, group, offset, row)
  group.markSettled(core, offset, lane, size)
  core.touched.add(group)
  announceEnd(core, group.topic, offsetPlace(offset), row)
}

/** Kept for jobs: nobody asks how a message of a topic ended. */
function saveOutcome(core: Core, group: Group, offset: number, row: OutcomeRow): void {
  if (group.topic.row.kind !== 'queue') return
  core.state.putJson(`o/${hex(group.row.id)}/${hex(offset)}`, row)
}

function closeHold(core: Core, group: Group, lease: Lease, index: number): void {
  lease.close(index)
  if (lease.sinceMs > 0) group.figures.held.add(Math.max(0, core.nowMs - lease.sinceMs))
  group.leasedCount--
  group.countersChanged = true
  core.touched.add(group)
  if (lease.openCount > 0) return
  group.leases.delete(lease.fence)
  if (lease.hasProgress) core.ended.set(`${group.row.id}/${lease.fence}`, lease)
  if (group.suspectFence === lease.fence) group.suspectFence = 0
  core.state.delete(`l/${hex(group.row.id)}/${hex(lease.fence)}`)
}

/** u32 length of JSON, JSON, batch. */
export function joinDeadLetter(row: DeadRow, batch: Uint8Array): Uint8Array {
  const json = encodeText(JSON.stringify(row))
  const bytes = new Uint8Array(4 + json.byteLength + batch.byteLength)
  new DataView(bytes.buffer).setUint32(0, json.byteLength, true)
  bytes.set(json, 4)
  bytes.set(batch, 4 + json.byteLength)
  return bytes
}

export function splitDeadLetter(bytes: Uint8Array): { readonly row: DeadRow; readonly batch: Uint8Array } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const end = 4 + buffer.readUInt32LE(0)
  return { row: JSON.parse(buffer.toString('utf8', 4, end)) as DeadRow, batch: new Uint8Array(buffer.subarray(end)) }
}
