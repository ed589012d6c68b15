/**
 * The sockets under the server: how many there may be, how long one may be idle, and how they end.
 *
 * What a client may keep waiting is bounded in each phase: the TLS handshake and the headers (10 s), the body
 * (`requestTimeoutMs`), the time between requests (72 s), and the reading of an answer, where a client that takes nothing
 * for IDLE_MS is gone. One of these ends every connection that a client leaves half open.
 */
import { type Server, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { formatProblem, PROBLEM_TYPE, problemOf } from './problem.ts'

/** How long an answer to what is no request may travel, before its connection is cut. */
const LINGER_MS = 2_000
/** Longer than the longest wait of a call, during which nothing need be sent. */
export const IDLE_MS = 180_000

/** Answers what is not even a request: broken syntax, headers that are too large, a body that never came. */
export function answerBrokenRequest(error: ConnectionError, socket: Socket): void {
  // What went wrong below HTTP cannot be answered above it: a handshake that never ended could not send it, ever.
  const isBelow = /^(?:ERR_SSL|ERR_TLS|ECONNRESET|EPIPE|EPROTO)/.test(error.code ?? '')
  if (!socket.writable || isBelow) {
    socket.destroy()
    return
  }
  const problem = problemOf(error)
  const body = formatProblem(problem)
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
  // A client that does not close its side would keep this one.
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

/** Bounds the connections of `server`; what is given back cuts all of them, also those that are no HTTP yet. */
export function boundConnections(server: Server, maxConnections: number, heartbeatMs: number): () => void {
  const open = new Set<Socket>()
  server.maxConnections = maxConnections
  server.setTimeout(Math.max(IDLE_MS, 2 * heartbeatMs))
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  return () => {
    for (const socket of open) socket.destroy()
  }
}
