import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import {
  type AddedJob,
  createSluice,
  isSluiceError,
  open,
  type Queue,
  type Receipt,
  type SluiceError,
  type Topic,
} from '../src/index.ts'
import { FakeEngine } from './support/fake-engine.ts'
import { FakeHost, settled } from './support/fake-host.ts'
import { createSignal, onEachEngine } from './support/open-each.ts'

describe('open', () => {
  for (const url of ['file:///tmp', 'ftp://h', 'FTP://h', 'mysql://h']) {
    test(`refuses ${url} with UNSUPPORTED and what to do`, async () => {
      await rejects(
        open(url),
        (error) => isSluiceError(error, 'UNSUPPORTED') && error.message.includes("open('./data')"),
      )
    })
  }

  test('refuses a file, with INVALID_OPTION and what to give instead', async () => {
    const file = fileURLToPath(import.meta.url)
    await rejects(open(file), (error) => isSluiceError(error, 'INVALID_OPTION') && error.message.includes('is a file'))
  })

  test('does not show the password of a URL', async () => {
    await rejects(open('redis://user:secret@h'), (error) => !String(error).includes('secret'))
  })

  test('refuses what is no folder, and options out of range', async () => {
    const wrong: readonly Parameters<typeof open>[] = [
      ['' as never],
      [undefined as never],
      [5 as never],
      ['a\0b'],
      [':memory:', { durability: 'everything' as never }],
      [':memory:', { maxPayloadBytes: 0 }],
      [':memory:', { maxPayloadBytes: Number.POSITIVE_INFINITY }],
      [':memory:', { onError: 'log' as never }],
      [':memory:', { durabilty: 'os' } as never],
    ]
    for (const args of wrong) await rejects(open(...args), (error) => isSluiceError(error, 'INVALID_OPTION'))
  })

  test('refuses a durability that the engine cannot reach (P1)', async () => {
    await rejects(open(':memory:', { durability: 'disk' }), (error) => isSluiceError(error, 'UNSUPPORTED'))
  })

  test('lets the process end where nothing is waited for, and not while something is', () => {
    const index = fileURLToPath(new URL('../src/index.ts', import.meta.url))
    const script = `
      import { open } from ${JSON.stringify(index)}
      const sluice = await open(':memory:')
      const queue = sluice.queue('q', { pace: { messages: 1, perMs: 150 } })
      await Promise.all([queue.add(1), queue.add(2), queue.add(3)])
      console.log('stored')`
    const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      timeout: 60_000,
    })
    deepEqual([stdout.trim(), status], ['stored', 0])
  })
})

onEachEngine('a Sluice', (openSluice) => {
  test('closes in order: handlers finish, what is being stored is stored, and later use answers CLOSED (P12)', async () => {
    const sluice = await openSluice()
    const queue = sluice.queue<number, string>('q')
    const started = createSignal()
    const gate = createSignal()
    queue.work(async () => {
      started.resolve()
      await gate.promise
      return 'done'
    })
    const job = await queue.add(1)
    const result = job.result()
    await started.promise
    const late = queue.add(2)
    const closing = sluice.close()
    gate.resolve()
    equal(await result, 'done')
    equal((await late).receipt.offset, 1)
    await closing
    await sluice.close()
    for (const use of [
      () => queue.add(1),
      () => job.status(),
      () => job.result(),
      () => queue.pause(),
      () => sluice.stats(),
      () => sluice.topic('t').publish(1),
    ]) {
      await rejects(use(), (error) => isSluiceError(error, 'CLOSED'))
    }
    throws(
      () => queue.work(() => 'x'),
      (error) => isSluiceError(error, 'CLOSED'),
    )
  })

  test('has one queue for each name', async () => {
    await using sluice = await openSluice()
    equal(sluice.queue('q'), sluice.queue('q'))
    equal(sluice.topic('t'), sluice.topic('t'))
    for (const name of ['', 'a b', '../x', '__proto__', 'x'.repeat(129)]) {
      throws(
        () => sluice.queue(name),
        (error) => isSluiceError(error, 'INVALID_NAME'),
      )
      throws(
        () => sluice.topic(name),
        (error) => isSluiceError(error, 'INVALID_NAME'),
      )
    }
    ok(sluice.queue('constructor') !== undefined)
  })

  test('says what is in it', async () => {
    await using sluice = await openSluice()
    await sluice.queue('q', { limit: { messages: 9 } }).add(1)
    const { topics, log } = await sluice.stats()
    deepEqual(
      topics.map(({ kind, name, depth, limit }) => [kind, name, depth.messages, limit.messages]),
      [['queue', 'q', 1, 9]],
    )
    equal(log.status, 'ok')
  })
})

test('a pending result of a folder survives nothing, but ends with CLOSED when Sluice closes', async () => {
  const sluice = await open(':memory:')
  const job = await sluice.queue('q').add(1)
  const waiting = rejects(job.result(), (error) => isSluiceError(error, 'CLOSED'))
  await sluice.close()
  await waiting
})

test('what nobody waits for goes to onError, and to a warning where that throws or is missing', async () => {
  const warnings: Error[] = []
  const listen = (warning: Error): void => void warnings.push(warning)
  process.on('warning', listen)
  for (const onError of [
    undefined,
    () => {
      throw new Error('in onError')
    },
  ]) {
    const engine = new FakeEngine()
    engine.onDeclare = () => ({ status: 'conflict', message: 'no' })
    const sluice = createSluice(engine, onError === undefined ? {} : { onError }, { host: new FakeHost() })
    await sluice.queue('q').work(() => {}).closed
    await settled()
  }
  process.off('warning', listen)
  deepEqual(
    warnings.map(({ name, message }) => [name, message]),
    [
      ['SluiceWarning', 'no. Use the existing setting, or another name.'],
      ['SluiceWarning', 'in onError'],
    ],
  )
})

test('what is used at once by many is declared once', async () => {
  const engine = new FakeEngine()
  const sluice = createSluice(engine)
  const queue = sluice.queue('q', { attempts: 3 })
  await Promise.all([queue.pause(), queue.add(1), queue.add(2), queue.work(() => {}).ready, queue.resume()])
  deepEqual(engine.declared, [{ kind: 'queue', name: 'q', settings: { attempts: 3 } }])
  await sluice.close()
})

test('types follow the schema, or what was stated', () => {
  const sluice = createSluice(new FakeEngine())
  const inferred: Queue<{ to: string; n: number }, unknown, { to: string; n?: number | undefined }> = sluice.queue(
    'a',
    {
      schema: z.object({ to: z.string(), n: z.number().default(1) }),
    },
  )
  const stated: Queue<{ to: string }, { sent: boolean }> = sluice.queue<{ to: string }, { sent: boolean }>('b', {
    attempts: 3,
  })
  const both: Queue<string, number> = sluice.queue<string, number>('c', { schema: z.string(), rate: { messages: 5 } })
  const topic: Topic<string> = sluice.topic('d', { schema: z.string() })
  const add = (): Promise<AddedJob<{ sent: boolean }>> =>
    stated.add({ to: 'x' }, { onSettled: ({ result }) => void result?.sent })
  const publish = (): Promise<(Receipt | SluiceError)[]> => topic.publishMany([{ payload: 'x' }])
  // @ts-expect-error: the payload is not of the type of the queue
  const wrongPayload = (): unknown => both.add(5)
  // @ts-expect-error: a handler must return the result type
  const wrongResult = (): unknown => stated.work(() => 5)
  // @ts-expect-error: there is no such option
  const wrongOption = (): unknown => stated.add({ to: 'x' }, { delay: 5 })
  for (const one of [inferred, stated, both, topic, add, publish, wrongPayload, wrongResult, wrongOption]) ok(one)
})
