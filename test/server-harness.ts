/** A server over real sockets for the tests: opened on a free port of loopback, closed with everything when the test ends. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { open, type Sluice } from '../src/index.ts'
import { createServer, type Server } from '../src/server/server.ts'
import type { ServerOptions } from '../src/server/settings.ts'
import { answerChecks } from './support/answer-checks.ts'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body, parsed. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look at answers of many shapes
  readonly json: any
}

export interface CallOptions {
  readonly headers?: Record<string, string>
  /** An object is sent as JSON, text and bytes as they are. */
  readonly body?: unknown
  readonly type?: string
  readonly signal?: AbortSignal
}

export interface Harness {
  readonly url: string
  readonly port: number
  readonly sluice: Sluice
  readonly server: Server
  call(method: string, path: string, options?: CallOptions): Promise<Answer>
}

export async function startServer(t: TestContext, options: ServerOptions = {}, folder = ':memory:'): Promise<Harness> {
  const sluice = await open(folder)
  const server = createServer(sluice, { port: 0, ...options })
  t.after(async () => {
    await server.close()
    await sluice.close()
  })
  const url = await server.listen()
  await answerChecks(url)
  return {
    url,
    port: Number(new URL(url).port),
    sluice,
    server,
    call: (method, path, given) => call(url, method, path, given),
  }
}

export async function call(
  url: string,
  method: string,
  path: string,
  { headers = {}, body, type, signal }: CallOptions = {},
): Promise<Answer> {
  const isRaw = typeof body === 'string' || body instanceof Uint8Array
  const contentType = type ?? (body === undefined ? undefined : 'application/json')
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { ...headers, ...(contentType === undefined ? {} : { 'content-type': contentType }) },
    ...(body === undefined ? {} : { body: isRaw ? (body as string) : JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  })
  const text = await answer.text()
  const checks = await answerChecks(url)
  checks.check({ method, path, status: answer.status, type: answer.headers.get('content-type'), text })
  return {
    status: answer.status,
    headers: answer.headers,
    text,
    get json() {
      return JSON.parse(text)
    },
  }
}

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-server-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Writes bytes to the port and gives what comes back until the other side closes. `end`: also closes this side. */
export async function sendRaw(port: number, bytes: string | Buffer, end = false): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let received = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    received += chunk
  })
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(bytes)
  if (end) socket.end()
  await once(socket, 'close')
  return received
}

export interface StreamEvent {
  readonly id: string | undefined
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look at events of many shapes
  readonly data: any
}

/** The events of a stream as they come; a comment is an event of the name 'comment'. Leaving the loop closes the connection. */
export async function* readEvents(url: string, headers: Record<string, string> = {}): AsyncGenerator<StreamEvent> {
  const abort = new AbortController()
  const answer = await fetch(url, { headers: { accept: 'text/event-stream', ...headers }, signal: abort.signal })
  if (answer.status !== 200) throw new Error(`the stream answers ${answer.status}: ${await answer.text()}`)
  try {
    let rest = ''
    for await (const chunk of (answer.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop() ?? ''
      for (const block of blocks) yield readEvent(block)
    }
  } finally {
    abort.abort()
  }
}

function readEvent(block: string): StreamEvent {
  const fields = block.split('\n').map((line) => /^([^:]*): ?(.*)$/.exec(line) ?? ['', '', ''])
  const data = fields.filter(([, name]) => name === 'data').map(([, , value]) => value)
  const fieldOf = (wanted: string): string | undefined => fields.find(([, name]) => name === wanted)?.[2]
  return {
    id: fieldOf('id'),
    name: fieldOf('event') ?? (data.length === 0 ? 'comment' : 'message'),
    data: data.length === 0 ? null : JSON.parse(data.join('\n')),
  }
}
