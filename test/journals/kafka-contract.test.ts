/** The journal contract on a real Kafka. What is special about it: kafka.test.ts. */
import { after } from 'node:test'
import { Admin } from '@platformatic/kafka'
import { findKafka, type Kafka, startKafka } from '../../scripts/brokers/kafka.ts'
import { openKafkaJournal } from '../../src/journals/kafka.ts'
import { type JournalSubject, journalSuite } from './journal-suite.ts'

let kafka: Kafka | null = null
after(async () => kafka?.[Symbol.asyncDispose]())

async function start(): Promise<JournalSubject> {
  kafka = await startKafka()
  const { url: text, isOurs } = kafka
  // A proxy of the suite stands at another port than the one that Kafka gives of itself.
  const url = new URL(text)
  url.searchParams.set('advertised', 'ignore')
  return {
    url,
    broker: isOurs ? kafka : null,
    open: ({ namespace, url: through, connectMs }) => openKafkaJournal({ url: through ?? url, namespace, connectMs }),
    async occupy(namespace) {
      const admin = new Admin({ clientId: 'other', bootstrapBrokers: [url.host] })
      await admin.createTopics({ topics: [`${namespace}.journal`], partitions: 3, replicas: 1 })
      await admin.close()
    },
  }
}

journalSuite('Kafka', start, (await findKafka()) === null ? 'Kafka is missing' : false)
