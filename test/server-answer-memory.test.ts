import { deepEqual, equal, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { isSluiceError } from '../src/index.ts'
import { AnswerMemory } from '../src/server/answer-memory.ts'

const first = (id: string) => ({ id, sentTo: null })

test('a call that comes again is answered as before, or joins the one that is under way', async () => {
  const memory = new AnswerMemory(() => 0)
  let times = 0
  const { promise: gate, resolve: goOn } = Promise.withResolvers<void>()
  const carryOut = async () => {
    times++
    await gate
    return Buffer.from(`${times}`)
  }
  const one = memory.take(first('a'), carryOut)
  const two = memory.take({ id: 'a', sentTo: memory.processId }, carryOut)
  goOn()
  deepEqual([`${await one}`, `${await two}`], ['1', '1'])
  equal(`${await memory.take({ id: 'a', sentTo: memory.processId }, carryOut)}`, '1')
  equal(`${await memory.take(first('b'), carryOut)}`, '2')
})

test('a call that never arrived is carried out, one that was sent to another process is UNKNOWN', async () => {
  const memory = new AnswerMemory(() => 0)
  const answer = async () => Buffer.from('x')
  equal(`${await memory.take({ id: 'a', sentTo: memory.processId }, answer)}`, 'x')
  await rejects(memory.take({ id: 'b', sentTo: 'another' }, answer), (error) => isSluiceError(error, 'UNKNOWN'))
  await rejects(memory.take(first('no number'), answer), (error) => isSluiceError(error, 'BAD_REQUEST'))
})

test('a call that failed is carried out when it comes again', async () => {
  const memory = new AnswerMemory(() => 0)
  await rejects(
    memory.take(first('a'), async () => {
      throw new Error('planned')
    }),
  )
  equal(`${await memory.take(first('a'), async () => Buffer.from('x'))}`, 'x')
})

test('what is forgotten for want of room before its time leaves repeats UNKNOWN, and what is forgotten in time does not', async () => {
  let now = 0
  const memory = new AnswerMemory(() => now)
  const large = async () => Buffer.alloc(16_777_216)
  const again = (id: string) => memory.take({ id, sentTo: memory.processId }, async () => Buffer.from('again'))
  for (const id of ['a', 'b', 'c']) await memory.take(first(id), large)
  await rejects(again('a'), (error) => isSluiceError(error, 'UNKNOWN'))
  equal((await again('c')).byteLength, 16_777_216)
  now += 60_000
  equal(`${await again('a')}`, 'again', 'the time is over within which somebody could ask after what was forgotten')
})
