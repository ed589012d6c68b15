/**
 * What a request is worth when not all can be served. What ends work goes first, since it makes room and what was done
 * would otherwise be done again; then what takes work; then what brings more; and whoever only looks goes last.
 *
 *     health    is answered always: whoever asks decides by it whether the server lives
 *     settle    settle, extend, cancel, delete, and what an operator does to get out of it
 *     lease     take work
 *     publish   bring work, declare
 *     read      the dashboard, lists, pages, streams, jobs
 */
export type WorkClass = 'health' | 'settle' | 'lease' | 'publish' | 'read'

/** The share of the limit that a class may fill, so that the classes above it always find some. */
export const SHARES: Readonly<Record<WorkClass, number>> = {
  health: Number.POSITIVE_INFINITY,
  settle: 1,
  lease: 0.9,
  publish: 0.8,
  read: 0.6,
}

const HEALTH = new Set(['/healthz', '/readyz', '/metrics'])
const ENGINE_PATH = '/v1/engine/'
const ENGINE_CLASSES: Readonly<Record<string, WorkClass>> = {
  settle: 'settle',
  extend: 'settle',
  command: 'settle',
  lease: 'lease',
  append: 'publish',
  declare: 'publish',
}

/** By method and path alone, before anything else is known. */
export function classOf(method: string, url: string): WorkClass {
  if (method === 'POST') {
    const end = url.indexOf('?')
    const path = end < 0 ? url : url.slice(0, end)
    if (path.endsWith('/jobs') || path.endsWith('/messages')) return 'publish'
    if (path.endsWith('/leases')) return 'lease'
    if (path.startsWith(ENGINE_PATH)) {
      const method = path.slice(ENGINE_PATH.length)
      return Object.hasOwn(ENGINE_CLASSES, method) ? (ENGINE_CLASSES[method] as WorkClass) : 'read'
    }
    return 'settle'
  }
  if (method === 'GET' || method === 'HEAD') return HEALTH.has(url) ? 'health' : 'read'
  return method === 'PUT' ? 'publish' : 'settle'
}
