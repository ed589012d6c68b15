/**
 * The sockets under the server: how many there may be, how long one may be idle, and how they end.
 *
 * What a client may keep waiting is bounded in each phase: the TLS handshake and the headers (10 s), the body
 * (`requestTimeoutMs`), the time between requests (72 s), and the reading of an answer, where a client that takes nothing
 * for IDLE_MS is gone. One of these ends every connection that a client leaves half open.
 */
import { type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { ConnectionError } from 'fastify'
import { formatProblem, PROBLEM_TYPE, problemOf } from './problem.ts'

/** How long an answer to what is no request may travel, before its connection is cut. */
const LINGER_MS = 2_000
/** Longer than the longest wait of a call, during which nothing need be sent. */
export const IDLE_MS = 180_000

/** Answers of a connection that are not out yet: nearly always one, and a set only where a client sends ahead. */
const underWay = new WeakMap<Socket, ServerResponse | Set<ServerResponse>>()
/** Connections on which something came that is no request. They end with their last answer. */
const broken = new WeakSet<Socket>()

/** Knows a request of its connection until it is answered, which `forget` is to be told. */
export function follow(response: ServerResponse): void {
  const { socket } = response.req
  const others = underWay.get(socket)
  if (others === undefined) underWay.set(socket, response)
  else if (others instanceof Set) others.add(response)
  else underWay.set(socket, new Set([others, response]))
}

export function forget(response: ServerResponse): void {
  const { socket } = response.req
  const open = underWay.get(socket)
  if (open instanceof Set) open.delete(response)
  else if (open === response) underWay.delete(socket)
  if (broken.has(socket) && !hasAnswersToCome(socket)) endSlowly(socket)
}

/** Whether answers to whole requests are still to go out, or one is going out. */
function hasAnswersToCome(socket: Socket): boolean {
  const open = underWay.get(socket) ?? []
  const responses = open instanceof Set || Array.isArray(open) ? [...open] : [open]
  return responses.some(({ req, headersSent }) => req.complete || headersSent)
}

/**
 * Answers what is not even a request: broken syntax, headers that are too large, a body that never came. Where requests
 * before it are not answered yet it says nothing, since its answer would be taken for that of one of them.
 */
export function answerBrokenRequest(error: ConnectionError, socket: Socket): void {
  // What went wrong below HTTP cannot be answered above it: a handshake that never ended could not send it, ever.
  const isBelow = /^(?:ERR_SSL|ERR_TLS|ECONNRESET|EPIPE|EPROTO)/.test(error.code ?? '')
  if (!socket.writable || isBelow) {
    socket.destroy()
    return
  }
  if (broken.has(socket)) return
  broken.add(socket)
  if (hasAnswersToCome(socket)) return
  const problem = problemOf(error)
  const body = formatProblem(problem)
  socket.write(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
  endSlowly(socket)
}

/** A client that does not close its side would keep this one. */
function endSlowly(socket: Socket): void {
  socket.end()
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER_MS).unref()
}

export interface Connections {
  /** Ends those on which no request is under way: idle ones, and those that never said anything. */
  endUnused(): void
  /** Cuts all of them, also those that are no HTTP yet. */
  cutAll(): void
}

/** Bounds the connections of `server`. */
export function boundConnections(server: Server, maxConnections: number, heartbeatMs: number): Connections {
  const open = new Set<Socket>()
  server.maxConnections = maxConnections
  server.setTimeout(Math.max(IDLE_MS, 2 * heartbeatMs))
  function remove(this: Socket): void {
    open.delete(this)
  }
  server.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.on('close', remove)
  })
  return {
    endUnused() {
      server.closeIdleConnections()
      // Node counts one that has not sent a byte as one whose request is coming; clients open some ahead of need.
      for (const socket of open) if (socket.bytesRead === 0) socket.destroy()
    },
    cutAll() {
      for (const socket of open) socket.destroy()
    },
  }
}
