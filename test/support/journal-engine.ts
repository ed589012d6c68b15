/** The shared engine over a memory journal, for the suite: everything between the nouns and a broker, without a broker. */
import { openJournalEngine } from '../../src/broker/local-engine.ts'
import type { EngineUnderTest } from '../../src/conformance/registry.ts'
import { SluiceError } from '../../src/errors.ts'
import { MemoryBroker, type MemoryJournal, openMemoryJournal } from '../../src/journals/memory.ts'
import { createSluice, type Sluice } from '../../src/sluice.ts'

export const journalEngine: EngineUnderTest = {
  name: 'shared, over a memory journal',
  async prepare() {
    const broker = new MemoryBroker('os')
    let opened: { readonly sluice: Sluice; readonly journal: MemoryJournal }[] = []
    const end = async () => {
      await Promise.all(opened.map(({ sluice }) => sluice.close({ drainMs: 0 })))
      opened = []
    }
    return {
      isShared: true,
      async open() {
        const journal = openMemoryJournal(broker)
        const sluice = createSluice(await openJournalEngine(journal), {}, { holder: 'token' })
        opened.push({ sluice, journal })
        return sluice
      },
      async stop(how) {
        if (how === 'close') return end()
        // Who shares a broker lives on when its owner is gone: one of them owns the data next.
        for (const { journal } of opened) journal.breakOff(new SluiceError('UNREACHABLE', 'The broker was killed.'))
      },
      dispose: end,
    }
  },
}
