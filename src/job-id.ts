/**
 * The id of a job, the only name of it that leaves Sluice: `queue:tag:place`.
 *
 * `tag` is drawn when the queue is first declared, so that an id of another data folder is not found rather than
 * mistaken. `place` is the offset, `partition-offset` on a partition other than 0, or for a delayed job, which has no
 * offset until it falls due, `s` + due time + `-` + serial number, both in base 36. Nothing is stored to find an
 * ordinary job: its id says where it is.
 */
export interface JobId {
  readonly queue: string
  readonly tag: string
  readonly place: Place
}

export type Place =
  | { readonly kind: 'offset'; readonly partition: number; readonly offset: number }
  | { readonly kind: 'scheduled'; readonly dueMs: number; readonly serial: number }

const PATTERN =
  /^([A-Za-z0-9][A-Za-z0-9._-]{0,127}):([a-z0-9]{6}):(?:(?:(\d{1,5})-)?(\d{1,16})|s([0-9a-z]{1,11})-([0-9a-z]{1,11}))$/

export function formatJobId(queue: string, tag: string, offset: number, partition = 0): string {
  return partition === 0 ? `${queue}:${tag}:${offset}` : `${queue}:${tag}:${partition}-${offset}`
}

export function formatScheduledJobId(queue: string, tag: string, dueMs: number, serial: number): string {
  return `${queue}:${tag}:s${dueMs.toString(36)}-${serial.toString(36)}`
}

/** The parts of an id, or null where `id` is not of the form of one. */
export function parseJobId(id: string): JobId | null {
  const match = PATTERN.exec(id)
  if (match === null) return null
  const [, queue = '', tag = '', partition, offset, due, serial] = match
  if (offset !== undefined) {
    const parsed = Number(offset)
    if (!Number.isSafeInteger(parsed)) return null
    return { queue, tag, place: { kind: 'offset', partition: Number(partition ?? 0), offset: parsed } }
  }
  const dueMs = Number.parseInt(due ?? '', 36)
  const serialNumber = Number.parseInt(serial ?? '', 36)
  if (!Number.isSafeInteger(dueMs) || !Number.isSafeInteger(serialNumber)) return null
  return { queue, tag, place: { kind: 'scheduled', dueMs, serial: serialNumber } }
}
