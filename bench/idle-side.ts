/** Many connections on which nothing happens: the servers that have them, and the process that holds them. */
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { open } from '../src/index.ts'
import { createServer } from '../src/server/server.ts'
import { tellReady } from './child.ts'
import { QUEUE, serveUntilKilled } from './gateway-side.ts'
import { AMPLE_LIMIT } from './sluice-side.ts'

export interface IdleServeOptions {
  readonly folder: string
  readonly port: number
  /** Where the memory of the process is told. */
  readonly controlPort: number
}

const TOPIC = 'idle'
const IDLE_QUEUE = 'idle-jobs'
const SETTLE_MS = 500
const COLLECTIONS = 3

/** Sluice with its defaults: streams of a topic and long polls of a queue to which nothing comes. */
export async function serveSluiceIdle({ folder, port, controlPort }: IdleServeOptions): Promise<never> {
  const sluice = await open(join(folder, 'sluice'))
  await sluice.queue(QUEUE, { limit: AMPLE_LIMIT }).declare()
  await sluice.queue(IDLE_QUEUE).declare()
  await sluice.topic(TOPIC).declare()
  await createServer(sluice, { port }).listen()
  await tellMemory(controlPort)
  return await serveUntilKilled()
}

/** The least that such a stream is: a response of `node:http` that stays open. */
export async function serveBareIdle({ port, controlPort }: IdleServeOptions): Promise<never> {
  const server = createHttpServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    response.flushHeaders()
  })
  server.listen({ port, host: '127.0.0.1', backlog: 1_024 })
  await once(server, 'listening')
  await tellMemory(controlPort)
  return await serveUntilKilled()
}

/**
 * Resident bytes of the whole process, all threads, after garbage was collected and empty pages were given back. Without
 * that it would be told how large the heap grew while the connections were made, which says little of what they hold.
 */
async function tellMemory(port: number): Promise<void> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (how: object) => void
  const server = createHttpServer(async (_request, response) => {
    for (let i = 0; i < COLLECTIONS; i++) {
      collect({ execution: 'sync', type: 'major', flavor: 'last-resort' })
      await sleep(SETTLE_MS)
    }
    const { rss, heapUsed, external } = process.memoryUsage()
    response.end(JSON.stringify({ rss, heapUsed, external }))
  }).listen(port, '127.0.0.1')
  await once(server, 'listening')
}

export interface HoldOptions {
  readonly port: number
  readonly streams: number
  readonly polls: number
}

const STREAM = Buffer.from(
  `GET /v1/topics/${TOPIC}/messages?from=latest HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n`,
)
const POLL_BODY = '{"waitMs":60000}'
const POLL = Buffer.from(
  `POST /v1/queues/${IDLE_QUEUE}/leases HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${POLL_BODY.length}\r\n\r\n${POLL_BODY}`,
)
/** Connections that are being made at one time. */
const AT_ONCE = 64

/** Holds connections until it is killed. Ready once each stream has its headers and each poll is sent. */
export async function holdIdle({ port, streams, polls }: HoldOptions): Promise<never> {
  let next = 0
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (;;) {
        const index = next++
        if (index >= streams + polls) return
        await holdOne(port, index < streams)
      }
    }),
  )
  tellReady()
  await once(process, 'never')
  throw new Error('it is to be killed')
}

async function holdOne(port: number, isStream: boolean): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.on('error', (error) => {
    throw error
  })
  if (isStream) {
    socket.write(STREAM)
    const [head] = (await once(socket, 'data')) as [Buffer]
    if (!head.toString('latin1').startsWith('HTTP/1.1 200')) throw new Error(`${head}`)
    socket.resume()
    return
  }
  socket.write(POLL)
  // One that is answered asks again.
  socket.on('data', (answer: Buffer) => {
    if (!answer.toString('latin1').startsWith('HTTP/1.1 200')) throw new Error(`${answer}`)
    socket.write(POLL)
  })
}
