/**
 * A proxy between a client and a server on loopback that does to connections what networks do. A fault is for the next
 * connection, or the next request on one that is open.
 */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export type Fault =
  /** Nothing. */
  | 'none'
  /** The request never arrives, and the connection breaks. */
  | 'cut-request'
  /** The request arrives and is carried out; the connection breaks before the answer. */
  | 'cut-answer'
  /** A part of the answer arrives. */
  | 'cut-within-answer'
  /** The request is swallowed, and the connection stays open. */
  | 'swallow'
  /** The answer is, and the connection stays open. */
  | 'swallow-answer'

export interface Proxy {
  readonly url: string
  /** What happens to the next request. `then` is called as it happens. */
  next(fault: Fault, then?: () => void): void
  /** Connections that are made from now on go there. */
  moveTo(target: URL): void
  /** How long each piece is held up. */
  delay(ms: number): void
  /** Nothing passes either way, on old and new connections, and none breaks: as if one end had been stopped. */
  hold(): void
  /** What was held up passes, and what comes after. */
  release(): void
  /** Nothing passes any more on the connections that are open, and none breaks; new ones are well. */
  freeze(): void
  /** Breaks every connection that is open. */
  cutAll(): void
  close(): Promise<void>
}

export async function openProxy(target: URL): Promise<Proxy> {
  let fault: Fault = 'none'
  let onFault = () => {}
  let upstreamUrl = target
  let delayMs = 0
  let isHeld = false
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(Number(upstreamUrl.port), upstreamUrl.hostname)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      if (isHeld) socket.pause()
      socket.on('error', () => {})
      socket.once('close', () => sockets.delete(socket))
    }
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    client.once('close', cut)
    upstream.once('close', cut)
    let answerFault: Fault = 'none'
    client.on('data', (piece: Buffer) => {
      const now = fault
      fault = 'none'
      if (now === 'cut-request') return cut()
      if (now === 'swallow') return
      if (now !== 'none') answerFault = now
      later(delayMs, () => upstream.write(piece))
    })
    upstream.on('data', (piece: Buffer) => {
      if (answerFault === 'cut-answer') {
        onFault()
        return cut()
      }
      if (answerFault === 'swallow-answer') return
      if (answerFault === 'cut-within-answer') {
        client.write(piece.subarray(0, piece.byteLength >>> 1), cut)
        return
      }
      later(delayMs, () => client.write(piece))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const freeze = () => {
    for (const socket of sockets) socket.pause()
  }
  const cutAll = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: `http://127.0.0.1:${port}`,
    next(one, then = () => {}) {
      fault = one
      onFault = then
    },
    moveTo: (url) => (upstreamUrl = url),
    delay: (ms) => (delayMs = ms),
    hold() {
      isHeld = true
      freeze()
    },
    release() {
      isHeld = false
      for (const socket of sockets) socket.resume()
    },
    freeze,
    cutAll,
    async close() {
      cutAll()
      server.close()
      await once(server, 'close')
    },
  }
}

function later(ms: number, then: () => void): void {
  if (ms === 0) then()
  else setTimeout(then, ms)
}
