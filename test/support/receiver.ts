/** A receiver of callbacks on a real socket of loopback, which keeps what came and answers as it is told. */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { TestContext } from 'node:test'

export interface Delivery {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look at bodies of many shapes
  readonly json: any
}

/** Answers one delivery; `count` is how many came before it. */
export type Behave = (reply: ServerResponse, delivery: Delivery, count: number) => void

export interface Receiver {
  readonly url: string
  readonly port: number
  readonly deliveries: readonly Delivery[]
  /** Connections that are open now. */
  readonly open: number
  /** Resolves once `count` deliveries have come. */
  waitFor(count: number): Promise<readonly Delivery[]>
  /** Resolves once no connection is open. */
  waitForQuiet(): Promise<void>
  behave: Behave
}

export const taken: Behave = (reply) => {
  reply.writeHead(204).end()
}

export async function openReceiver(t: TestContext, behave: Behave = taken, address = '127.0.0.1'): Promise<Receiver> {
  const deliveries: Delivery[] = []
  const sockets = new Set<Socket>()
  let changed = Promise.withResolvers<void>()
  const change = (): void => {
    changed.resolve()
    changed = Promise.withResolvers()
  }
  const receiver = {
    url: '',
    port: 0,
    deliveries,
    behave,
    get open() {
      return sockets.size
    },
    async waitFor(count: number) {
      while (deliveries.length < count) await changed.promise
      return deliveries
    },
    async waitForQuiet() {
      while (sockets.size > 0) await changed.promise
    },
  }
  const server = createServer(async (request: IncomingMessage, reply: ServerResponse) => {
    const body = (await buffer(request)).toString('utf8')
    const delivery = {
      path: request.url ?? '',
      headers: request.headers,
      body,
      get json() {
        return JSON.parse(body)
      },
    }
    deliveries.push(delivery)
    reply.on('error', () => {})
    receiver.behave(reply, delivery, deliveries.length - 1)
    change()
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      change()
    })
  })
  server.listen(0, address)
  await once(server, 'listening')
  receiver.port = (server.address() as AddressInfo).port
  receiver.url = `http://${address}:${receiver.port}`
  t.after(() => {
    server.closeAllConnections()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  return receiver
}
