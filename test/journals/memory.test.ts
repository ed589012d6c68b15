/** The journal contract on the journal in memory, which is its specification. */
import { MemoryBroker, openMemoryJournal } from '../../src/journals/memory.ts'
import { journalSuite } from './journal-suite.ts'

async function start() {
  const brokers = new Map<string, MemoryBroker>()
  return {
    url: null,
    broker: null,
    async open({ namespace }: { namespace: string }) {
      const broker = brokers.get(namespace) ?? new MemoryBroker()
      brokers.set(namespace, broker)
      return openMemoryJournal(broker)
    },
  }
}

journalSuite('memory', start)
