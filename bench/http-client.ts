/**
 * The client of the gateway's benchmarks: as little of one as can be, since it shares the machine with the server that
 * is measured. Connections that stay open, one request at a time on each, written as bytes made beforehand; of an answer
 * it reads the status and the length, and no more.
 */
import { connect, type Socket } from 'node:net'
import { quantile } from './harness.ts'

export interface HttpAnswer {
  readonly status: number
  /** Headers and body as they came, in Latin-1. */
  readonly head: string
  readonly body: string
}

const HEAD_END = '\r\n\r\n'

/** One connection; `send` again only once the answer is there. */
export class Connection {
  readonly #socket: Socket
  #received = ''
  #wanted: { resolve: (answer: HttpAnswer) => void; reject: (error: Error) => void } | null = null

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => this.#take(text))
    const fail = (error?: Error): void => this.#wanted?.reject(error ?? new Error('the connection was closed'))
    socket.on('error', fail)
    socket.on('close', () => fail())
  }

  static open(port: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1')
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(new Connection(socket))
      })
    })
  }

  send(bytes: Buffer): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { resolve, reject }
      this.#socket.write(bytes)
    })
  }

  close(): void {
    this.#wanted = null
    this.#socket.destroy()
  }

  #take(text: string): void {
    this.#received = this.#received === '' ? text : this.#received + text
    const received = this.#received
    const headEnd = received.indexOf(HEAD_END)
    if (headEnd < 0) return
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(received.slice(0, headEnd + 2))?.[1] ?? Number.NaN)
    if (Number.isNaN(length)) throw new Error(`An answer without a length: ${received.slice(0, headEnd)}`)
    const end = headEnd + HEAD_END.length + length
    if (received.length < end) return
    this.#received = received.slice(end)
    const wanted = this.#wanted
    this.#wanted = null
    wanted?.resolve({
      status: Number(received.slice(9, 12)),
      head: received.slice(0, headEnd),
      body: received.slice(headEnd + HEAD_END.length, end),
    })
  }
}

/** A request as bytes. */
export function formatRequest(path: string, type: string, body: string, headers: Record<string, string> = {}): Buffer {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.from(
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${lines.join('')}\r\n${body}`,
  )
}

export interface PostOptions {
  readonly port: number
  readonly path: string
  readonly type: string
  readonly body: string
  readonly connections: number
  /** Timed; a quarter as many go first. */
  readonly requests: number
  /** The status of each answer. */
  readonly status: number
}

export interface PostFigures {
  perSecond: number
  p50Ms: number
  p99Ms: number
}

const warmUpShare = 0.25

/** Keeps `connections` requests in flight. */
export async function post(options: PostOptions): Promise<PostFigures> {
  const { port, path, type, body, connections, requests, status } = options
  const bytes = formatRequest(path, type, body)
  const open = await Promise.all(Array.from({ length: connections }, () => Connection.open(port)))
  const drive = async (count: number): Promise<Float64Array> => {
    const tookMs = new Float64Array(count)
    let next = 0
    await Promise.all(
      open.map(async (connection) => {
        while (next < count) {
          const index = next++
          const startedAt = performance.now()
          const answer = await connection.send(bytes)
          tookMs[index] = performance.now() - startedAt
          if (answer.status !== status) throw new Error(`${answer.status} instead of ${status}: ${answer.body}`)
        }
      }),
    )
    return tookMs
  }
  await drive(Math.ceil(requests * warmUpShare))
  const startedAt = performance.now()
  const tookMs = [...(await drive(requests))]
  const seconds = (performance.now() - startedAt) / 1_000
  for (const connection of open) connection.close()
  return { perSecond: requests / seconds, p50Ms: quantile(tookMs, 0.5), p99Ms: quantile(tookMs, 0.99) }
}
