import { deepEqual, equal } from 'node:assert/strict'
import { test } from 'node:test'
import { open } from '../../src/index.ts'
import { Directory } from '../../src/server/directory.ts'

test('a flood of questions for names that do not exist asks the engine once, and what was declared before one is found', async () => {
  await using sluice = await open(':memory:')
  let asked = 0
  const { stats } = sluice.engine
  sluice.engine.stats = () => {
    asked++
    return stats.call(sluice.engine)
  }
  const directory = new Directory(sluice, 100)
  const flood = Array.from({ length: 1_000 }, (_, i) => directory.find('queue', `no-such-${i}`))
  const codes = (await Promise.allSettled(flood)).map((one) => one.status === 'rejected' && one.reason.code)
  deepEqual([...new Set(codes)], ['QUEUE_NOT_FOUND'])
  equal(asked, 1)

  const before = directory.find('queue', 'late').catch(() => null)
  await sluice.queue('late').declare()
  const [, found] = await Promise.all([before, directory.find('queue', 'late')])
  equal(found.name, 'late')
})
