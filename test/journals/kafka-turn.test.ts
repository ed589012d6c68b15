/** The turn to own, where what says whose it is cannot be read. Without a broker. */
import { deepEqual, ok } from 'node:assert/strict'
import { test } from 'node:test'
import { SluiceError } from '../../src/errors.ts'
import { encodeKey } from '../../src/journals/kafka/records.ts'
import { Turns } from '../../src/journals/kafka/turn.ts'

test('a damaged record among the turns ends the turn, and not the process', async () => {
  let isTaken = false
  const line = {
    /** The take stands at 0; the beat at 2, and between them what is damaged. */
    async call(send: unknown) {
      if (String(send).includes('produce('))
        return { ok: true, value: { baseOffset: isTaken ? 2n : 0n, timestampMs: 1 } }
      if (!String(send).includes('fetchRecords(')) return { ok: true, value: 0n }
      if (isTaken) throw new SluiceError('CORRUPT', 'The checksum does not match.')
      isTaken = true
      const take = { offset: 0n, timestampMs: 1, key: encodeKey('take', 0), value: Buffer.from('me') }
      return { ok: true, value: { records: [take], next: 1n } }
    },
    close() {},
  }
  const turns = new Turns({ library: {}, openLine: () => line } as never, 'topic', 'me')
  const { promise: ended, resolve } = Promise.withResolvers<string>()
  const turn = await turns.take(new AbortController().signal, resolve)
  ok((await ended).includes('checksum'))
  deepEqual(await turn?.end(false), undefined)
})
