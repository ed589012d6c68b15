/** A proxy before a Kafka that reads enough of the protocol to hit a particular request, and that can freeze. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export type KafkaFault =
  /** The request never arrives, and the connection breaks. */
  | 'cut-request'
  /** The request is carried out, and the connection breaks with the answer. */
  | 'cut-answer'

export interface KafkaProxy {
  readonly port: number
  /** What happens to the next `count` requests to write to a topic whose name ends so. */
  hit(topicEnd: string, fault: KafkaFault, count?: number): void
  /** Connections of clients that are open. */
  readonly connections: number
  /** How many requests were hit. */
  readonly hits: number
  /** Nothing goes through any more; connections stay open. So is a process that does not run seen from outside. */
  freeze(): void
  /** What was held up goes through. */
  thaw(): void
  close(): Promise<void>
}

const PRODUCE = 0

export async function openKafkaProxy(targetPort: number): Promise<KafkaProxy> {
  const sockets = new Set<Socket>()
  let fault: { topicEnd: string; kind: KafkaFault; count: number } | null = null
  let hits = 0
  let isFrozen = false
  const server = createServer((client) => {
    const upstream = connect(targetPort, '127.0.0.1')
    let isAnswerCut = false
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.once('close', () => {
        sockets.delete(socket)
        cut()
      })
      if (isFrozen) socket.pause()
    }
    let rest = Buffer.alloc(0)
    client.on('data', (piece: Buffer) => {
      rest = Buffer.concat([rest, piece])
      while (rest.byteLength >= 4 && rest.byteLength >= 4 + rest.readInt32BE(0)) {
        const frame = rest.subarray(0, 4 + rest.readInt32BE(0))
        rest = rest.subarray(frame.byteLength)
        const isHit = fault !== null && frame.readInt16BE(4) === PRODUCE && frame.includes(fault.topicEnd)
        if (isHit && fault !== null) {
          hits++
          const { kind } = fault
          if (--fault.count === 0) fault = null
          if (kind === 'cut-request') return cut()
          isAnswerCut = true
        }
        upstream.write(frame)
      }
    })
    upstream.on('data', (piece: Buffer) => {
      if (isAnswerCut) cut()
      else client.write(piece)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return {
    port,
    hit: (topicEnd, kind, count = 1) => (fault = { topicEnd, kind, count }),
    get connections() {
      // Each has one side here and one to Kafka.
      return sockets.size / 2
    },
    get hits() {
      return hits
    },
    freeze() {
      isFrozen = true
      for (const socket of sockets) socket.pause()
    },
    thaw() {
      isFrozen = false
      for (const socket of sockets) socket.resume()
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
