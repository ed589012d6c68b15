/** Engines to be tested, and how each is opened, crashed and cleared away. */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open, type Sluice } from '../index.ts'
import { createServer, type Server } from '../server/server.ts'

/** One engine, however it stores. A broker has one of these for each of its servers. */
export interface EngineUnderTest {
  readonly name: string
  /** A new, empty store. */
  prepare(): Promise<StoreUnderTest>
}

export interface StoreUnderTest {
  /** The store as a process sees it. Called again for another process, or after `stop`. */
  open(): Promise<Sluice>
  /** Whether several can be open at once. */
  readonly isShared: boolean
  /** Ends what `open` gave, in good order or as a kill would, and whatever serves it. */
  stop(how: 'close' | 'crash'): Promise<void>
  /** Removes everything. */
  dispose(): Promise<void>
}

export const memoryEngine: EngineUnderTest = {
  name: ':memory:',
  async prepare() {
    const opened = new Set<Sluice>()
    return {
      isShared: false,
      open: async () => remember(opened, await open(':memory:')),
      stop: () => closeAll(opened),
      dispose: () => closeAll(opened),
    }
  },
}

export const embeddedEngine: EngineUnderTest = {
  name: 'embedded',
  async prepare() {
    const store = await prepareFolder()
    const opened = new Set<Sluice>()
    return {
      isShared: false,
      open: async () => remember(opened, await open(store.folder)),
      async stop(how) {
        if (how === 'crash') await store.leave()
        await closeAll(opened)
      },
      async dispose() {
        await closeAll(opened)
        await store.remove()
      },
    }
  },
}

export const httpEngine: EngineUnderTest = {
  name: 'embedded, over HTTP',
  async prepare() {
    const store = await prepareFolder()
    const opened = new Set<Sluice>()
    let served: { readonly sluice: Sluice; readonly server: Server } | null = null
    let port = 0
    const serve = async () => {
      if (served !== null) return
      const sluice = await open(store.folder)
      const server = createServer(sluice, { port, drainMs: 1_000, maxMessageBytes: 4_194_304 })
      await server.listen()
      port = Number(new URL(server.url).port)
      served = { sluice, server }
    }
    const end = async () => {
      await served?.server.close()
      await served?.sluice.close({ drainMs: 0 })
      served = null
    }
    return {
      isShared: true,
      async open() {
        await serve()
        return remember(opened, await open(`http://127.0.0.1:${port}`))
      },
      async stop(how) {
        if (how === 'crash') {
          await store.leave()
          await end()
          // Who works over the network lives on, and finds the server again.
          await serve()
        } else {
          await closeAll(opened)
          await end()
        }
      },
      async dispose() {
        await closeAll(opened)
        await end()
        await store.remove()
      },
    }
  },
}

export const ENGINES: readonly EngineUnderTest[] = [memoryEngine, embeddedEngine, httpEngine]

/**
 * A folder that can be left as a kill leaves it: its files are copied as they are while the engine has them open, and the
 * copy is what the next process opens. What the old one still does goes to files that nobody looks at again.
 */
async function prepareFolder() {
  const root = await mkdtemp(join(tmpdir(), 'sluice-conformance-'))
  let lives = 0
  return {
    get folder() {
      return join(root, `life-${lives}`)
    },
    async leave() {
      const before = join(root, `life-${lives}`)
      await cp(before, join(root, `life-${lives + 1}`), { recursive: true })
      lives++
    },
    remove: () => rm(root, { recursive: true, force: true }),
  }
}

function remember(opened: Set<Sluice>, sluice: Sluice): Sluice {
  opened.add(sluice)
  return sluice
}

async function closeAll(opened: Set<Sluice>): Promise<void> {
  await Promise.all([...opened].map((sluice) => sluice.close({ drainMs: 0 })))
  opened.clear()
}
