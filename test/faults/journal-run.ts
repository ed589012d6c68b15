/**
 * A life of processes that share a memory journal: owners that die in an append (which is then lost, kept or kept in part),
 * that hold on to what another has, letters that are lost, a broker that is full.
 */
import { openJournalEngine } from '../../src/broker/local-engine.ts'
import { SluiceError } from '../../src/errors.ts'
import { type BreakKind, MemoryBroker, type MemoryJournal, openMemoryJournal } from '../../src/journals/memory.ts'
import { type Life, type LifeOptions, live } from './life.ts'

const BREAKS: readonly BreakKind[] = ['lost', 'half', 'kept']
/** Small, so that commits are several entries, and the journal is swept in a run of seconds. */
const ENTRY_BYTES = 2_048
const SWEEP_BYTES = 65_536

export async function runJournal(options: LifeOptions): Promise<Life> {
  const broker = new MemoryBroker('os', ENTRY_BYTES)
  const journals: MemoryJournal[] = []
  let loss = 0
  let chance: () => number = () => 1
  broker.losesLetter = () => chance() < loss
  return live(
    {
      async connect() {
        const journal = openMemoryJournal(broker)
        journals.push(journal)
        return openJournalEngine(journal, { sweepBytes: SWEEP_BYTES })
      },
      pauseMs: [50, 600],
      mayBeFull: true,
      cause(random) {
        chance = random
        const dice = random()
        if (dice < 0.3) broker.breakNext = BREAKS[Math.floor(random() * BREAKS.length)] as BreakKind
        else if (dice < 0.45) broker.holder?.breakOff(new SluiceError('UNREACHABLE', 'The connection broke.'))
        // It still believes that it owns the journal, until it appends.
        else if (dice < 0.6) broker.holder?.breakOff(null)
        else if (dice < 0.8) loss = random() * 0.2
        else if (dice < 0.9) broker.fullReason = 'the memory of the broker is used up'
        else broker.fullReason = null
      },
      mend() {
        loss = 0
        broker.fullReason = null
        broker.breakNext = null
      },
    },
    options,
  )
}
