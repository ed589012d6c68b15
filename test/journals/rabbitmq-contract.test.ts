/** The journal contract on a real RabbitMQ. What is special about RabbitMQ: rabbitmq.test.ts. */
import { after } from 'node:test'
import { connect } from 'amqplib'
import { findRabbitmq, type Rabbitmq, startRabbitmq } from '../../scripts/brokers/rabbitmq.ts'
import { openRabbitmqJournal } from '../../src/journals/rabbitmq.ts'
import { type JournalSubject, journalSuite } from './journal-suite.ts'

let rabbitmq: Rabbitmq | null = null
after(() => rabbitmq?.stop())

async function start(): Promise<JournalSubject> {
  const started = await startRabbitmq()
  rabbitmq = started
  const url = new URL(started.fullUrl)
  return {
    url,
    broker: started.isOurs ? started : null,
    open: ({ namespace, url: through, connectMs }) =>
      openRabbitmqJournal({ url: through ?? url, namespace, connectMs }),
    async occupy(namespace) {
      const model = await connect(started.url)
      const channel = await model.createChannel()
      await channel.assertQueue(`${namespace}.catalog`, { durable: true })
      await model.close()
    },
  }
}

journalSuite('RabbitMQ', start, findRabbitmq() === null ? 'RabbitMQ is missing' : false)
