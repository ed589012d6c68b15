/** What the server shows of jobs, messages and leases, as JSON text. Payloads and results stand in it as they were sent. */
import { type BatchView, type DeadLetter, describeWaits, type JobView, type WaitReason } from '../index.ts'
import { jsonTextOf } from './json-text.ts'

/** `waits` where it was asked for: why a job that has not begun has not. */
export function formatJob(job: JobView, waits: readonly WaitReason[] = [], nowMs = 0): string {
  const { result, progress, ...rest } = job
  const why = waits.length === 0 ? {} : { waits, why: describeWaits(job.status, waits, nowMs) }
  return joinMembers(
    JSON.stringify({ ...rest, ...why }),
    result === undefined ? '' : `"result":${result}`,
    progress === undefined ? '' : `"progress":${progress}`,
  )
}

export function formatMessage(batch: BatchView, index: number, place: object): string {
  return joinMembers(JSON.stringify({ ...place, ...headOf(batch, index) }), payloadMember(batch, index))
}

export function formatDeadLetter(letter: DeadLetter, batch: BatchView): string {
  const { id, offset, attempts, error, diedAtMs } = letter
  return formatMessage(batch, 0, { id, offset, attempts, error, diedAtMs })
}

function headOf(batch: BatchView, index: number): object {
  return { key: batch.key(index) ?? null, headers: batch.headers(index) ?? {} }
}

/** `payload` where it was sent as JSON and is JSON, else `payloadBase64`. */
function payloadMember(batch: BatchView, index: number): string {
  const bytes = batch.payload(index)
  const text = batch.isBytes(index) ? null : jsonTextOf(bytes)
  if (text !== null) return `"payload":${text}`
  return `"payloadBase64":"${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')}"`
}

/** Adds members, given as text, to an object, given as text. */
function joinMembers(object: string, ...members: string[]): string {
  const inner = [object.slice(1, -1), ...members].filter((member) => member !== '')
  return `{${inner.join(',')}}`
}
