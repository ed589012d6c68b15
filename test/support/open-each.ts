import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'node:test'
import { type OpenOptions, open, type Sluice } from '../../src/index.ts'
import { createServer } from '../../src/server/server.ts'

/** Opens a Sluice that closes, and whose data goes, with `await using`. */
export type OpenSluice = (options?: OpenOptions) => Promise<Sluice & AsyncDisposable>

/** Declares the same tests over memory, over a folder and over a server. */
export function onEachEngine(title: string, declareTests: (openSluice: OpenSluice) => void): void {
  describe(`${title}, in memory`, () => declareTests((options) => open(':memory:', options)))
  describe(`${title}, in a folder`, () =>
    declareTests(async (options) => {
      const folder = await mkdtemp(join(tmpdir(), 'sluice-test-'))
      const sluice = await open(join(folder, 'data'), options)
      const close = sluice.close.bind(sluice)
      sluice.close = async (closeOptions) => {
        await close(closeOptions)
        await rm(folder, { recursive: true, force: true })
      }
      return sluice
    }))
  describe(`${title}, over HTTP`, () =>
    declareTests(async (options) => {
      const served = await open(':memory:')
      const server = createServer(served, { port: 0, maxMessageBytes: 4_194_304 })
      const sluice = await open(await server.listen(), options)
      const close = sluice.close.bind(sluice)
      sluice.close = async (closeOptions) => {
        await close(closeOptions)
        await server.close()
        await served.close()
      }
      return sluice
    }))
}

/** A promise that is settled from outside. */
export function createSignal<T = void>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  const { promise, resolve } = Promise.withResolvers<T>()
  return { promise, resolve }
}
