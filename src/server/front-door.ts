/**
 * Turns requests away before the framework makes anything of them. What a refusal costs decides how much is left for
 * what is let in: a request that is routed, hooked and answered as a problem costs about half of one that is stored.
 *
 * It also watches how late the event loop is, ten times a second, by the histogram that Node keeps of it.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Load } from './load.ts'
import { formatProblem, PROBLEM_TYPE, problemOf, retryAfterSeconds } from './problem.ts'
import { classOf } from './work-class.ts'

const SAMPLE_MS = 100
/** Of the histogram, whose figures have it added. */
const RESOLUTION_MS = 10
const NANOSECONDS = 1e6
/** What is read and dropped of the body of a request that was turned away; where there is more, the connection ends. */
const MAX_DROPPED_BYTES = 65_536

type Handle = (request: IncomingMessage, response: ServerResponse) => void

/** Stands in front of the handlers that `server` has now. */
export function guardDoor(server: Server, load: Load): void {
  const inside = server.listeners('request') as Handle[]
  server.removeAllListeners('request')
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    if (!load.isClosed) {
      const workClass = classOf(request.method ?? '', request.url ?? '')
      if (!load.hasRoom(workClass)) return turnAway(request, response, load, load.refuse(workClass))
    }
    for (const handle of inside) handle.call(server, request, response)
  })
}

function turnAway({ headers }: IncomingMessage, response: ServerResponse, load: Load, retryAfterMs: number): void {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  const problem = problemOf(load.overloadedError(retryAfterMs))
  Error.stackTraceLimit = stackTraceLimit
  const body = formatProblem(problem)
  const isShort =
    headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) <= MAX_DROPPED_BYTES
  response.writeHead(problem.status, {
    'content-type': PROBLEM_TYPE,
    'content-length': Buffer.byteLength(body),
    'retry-after': `${retryAfterSeconds(problem)}`,
    'x-content-type-options': 'nosniff',
    ...(isShort ? {} : { connection: 'close' }),
  })
  response.end(body)
}

/** Tells `load` how late the event loop is, until the answer is called. */
export function watchLoop(load: Load): () => void {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  histogram.enable()
  let dueAtMs = performance.now() + SAMPLE_MS
  const timer = setInterval(() => {
    const { mean } = histogram
    histogram.reset()
    const lateMs = performance.now() - dueAtMs
    dueAtMs = performance.now() + SAMPLE_MS
    // A loop that turns once in a sample leaves nothing in the histogram, which counts from its first turn after a reset.
    load.observe(Math.max(0, Number.isFinite(mean) ? mean / NANOSECONDS - RESOLUTION_MS : lateMs))
  }, SAMPLE_MS)
  timer.unref()
  return () => {
    clearInterval(timer)
    histogram.disable()
  }
}
