/** The turn to own, on a connection that ends at a bad moment. Without a broker. */
import { equal } from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import type { ChannelModel, ConsumeMessage } from 'amqplib'
import { Election } from '../../src/journals/rabbitmq/election.ts'

test('renewing a turn while the connection is gone, and not made again yet, throws nothing', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  let ring: (message: ConsumeMessage) => void = () => {}
  let acks = 0
  const channel = Object.assign(new EventEmitter(), {
    prefetch: async () => {},
    consume: async (_queue: string, heard: typeof ring) => {
      ring = heard
    },
    // As amqplib does on a channel that has ended.
    ack: () => {
      acks++
      throw new Error('Channel closed')
    },
    close: async () => {},
  })
  const election = new Election(
    'namespace',
    () => {},
    () => {},
  )
  election.stand(() => {})
  await election.attach({ createConfirmChannel: async () => channel } as unknown as ChannelModel)
  ring({} as ConsumeMessage)
  channel.emit('close')
  t.mock.timers.tick(300_000)
  equal(acks, 1)
  election.leave()
})
