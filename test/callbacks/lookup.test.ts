import { deepEqual, equal, rejects } from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { test } from 'node:test'
import { createLookup } from '../../src/callbacks/lookup.ts'

const never = new AbortController().signal
const TYPE_A = 1
const HEAD_BYTES = 12
const NO_SUCH_NAME = 3

/** A DNS server that knows `good.example`, says nothing of names that begin with `silent`, and denies all others. */
async function openDns(t: { after(end: () => void): void }) {
  const socket = createSocket('udp4')
  t.after(() => socket.close())
  let unanswered = 0
  const waiting: { count: number; resolve: () => void }[] = []
  socket.on('message', (query, { port, address }) => {
    const end = query.indexOf(0, HEAD_BYTES)
    const name = readName(query.subarray(HEAD_BYTES, end))
    if (name.startsWith('silent')) {
      unanswered++
      for (const { count, resolve } of waiting) if (unanswered >= count) resolve()
      return
    }
    const isKnown = name === 'good.example'
    const isA = query.readUInt16BE(end + 1) === TYPE_A
    const answer = Buffer.from(query.subarray(0, end + 5))
    answer.writeUInt16BE(0x8180 | (isKnown ? 0 : NO_SUCH_NAME), 2)
    answer.writeUInt16BE(isKnown && isA ? 1 : 0, 6)
    answer.fill(0, 8, 12)
    // The name of the question, A, IN, 60 s, 4 bytes: 192.0.2.7.
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7])
    socket.send(isKnown && isA ? Buffer.concat([answer, record]) : answer, port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return {
    servers: [`127.0.0.1:${socket.address().port}`],
    unanswered: (count: number) => new Promise<void>((resolve) => waiting.push({ count, resolve })),
  }
}

function readName(labels: Buffer): string {
  const parts: string[] = []
  for (let at = 0; at < labels.byteLength; at += 1 + (labels[at] as number))
    parts.push(labels.toString('latin1', at + 1, at + 1 + (labels[at] as number)))
  return parts.join('.').toLowerCase()
}

const noSystem = async (name: string): Promise<never> => {
  throw new Error(`the system was asked for ${name}`)
}

test('a name is found while those of many others have silent servers, and those fail', async (t) => {
  const dns = await openDns(t)
  const lookup = createLookup({ servers: dns.servers, system: noSystem })
  const asked = dns.unanswered(200)
  const silent = Array.from({ length: 100 }, (_, i) => lookup(`silent-${i}.example`, never))
  const ended = Promise.allSettled(silent)
  await asked
  deepEqual(await lookup('good.example', never), [{ address: '192.0.2.7', family: 4 }])
  const codes = (await ended).map((one) => (one.status === 'rejected' ? one.reason.code : 'found'))
  deepEqual([...new Set(codes)], ['ETIMEOUT'])
})

test('what DNS does not know the system is asked for, and localhost at once', async (t) => {
  const dns = await openDns(t)
  const asked: string[] = []
  const lookup = createLookup({
    servers: dns.servers,
    system: async (name) => {
      asked.push(name)
      return [{ address: '::1', family: 6 }]
    },
  })
  for (const name of ['of-the-hosts-file', 'localhost', 'silent.localhost'])
    deepEqual(await lookup(name, never), [{ address: '::1', family: 6 }])
  deepEqual(asked, ['of-the-hosts-file', 'localhost', 'silent.localhost'])
})

test('the system is asked for two names at a time, and who gives up leaves the line', async () => {
  const begun: string[] = []
  const ends: (() => void)[] = []
  const last = Promise.withResolvers<void>()
  const lookup = createLookup({
    system: (name) => {
      begun.push(name)
      if (name === 'd.localhost') last.resolve()
      return new Promise((resolve) => ends.push(() => resolve([])))
    },
  })
  const [first, second] = ['a.localhost', 'b.localhost'].map((name) => lookup(name, never))
  const impatient = new AbortController()
  const third = lookup('c.localhost', impatient.signal)
  const fourth = lookup('d.localhost', never)
  impatient.abort(new Error('enough'))
  await rejects(third, /enough/)
  equal(begun.length, 2)
  ends[0]?.()
  await Promise.all([first, last.promise])
  deepEqual(begun, ['a.localhost', 'b.localhost', 'd.localhost'])
  for (const end of ends) end()
  await Promise.all([second, fourth])
})
